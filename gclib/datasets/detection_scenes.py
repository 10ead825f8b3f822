"""A generated detection set in COCO's layout whose labels need context from far away.

An image of 96×96 pixels holds two to four grey objects (disc, triangle or plus, 12 to 20 pixels
wide) and a coloured strip along one of its sides, the cue, which is no object. The class of an
object is its own shape × the colour of the cue: 3 × 3 = 9 classes. The box of no object comes
nearer to the cue than :data:`GAP` pixels, so a detector that sees an object and a little around it
finds and outlines every object and cannot name its class.

What guessing gives: with the shape known and the colour not, a third of the detections of a class
are right, whatever their order, so the average precision is about a third of what the same boxes
and masks would have with the right classes. The ceiling is 100: shapes and colours are plain, and
no object covers another.

Random numbers are those of :mod:`gclib.datasets.scenes` and shapes come from integer arithmetic
alone: the same seed gives the same pixels and annotations on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gclib.datasets.files import BrokenData
from gclib.datasets.scenes import _Draws

SIDE = 96
GAP = 28  # pixels between the cue's box and that of every object
OBJECTS = (2, 4)  # fewest and most of an image
SIZES = (12, 20)  # smallest and largest width of an object
CUE = 18  # width of the cue, a strip along one side of the image
SHAPES = ("disc", "triangle", "plus")
COLOURS = ("red", "green", "blue")
CLASSES = tuple(f"{shape}-{colour}" for shape in SHAPES for colour in COLOURS)
IMAGES = {"train2017": 800, "val2017": 200}

_RGB = np.array([(220, 60, 60), (60, 200, 60), (70, 90, 230)], dtype=np.int16)
_BACKGROUND, _DARK, _LIGHT = 48, 120, 220  # grey values of background and objects
_GRAIN, _NOISE = 8, 12  # side of a grain in pixels, and the largest change of its grey value
_TRIES = 40
_STRIPS = (  # x, y, width, height
    (0, 0, CUE, SIDE),
    (SIDE - CUE, 0, CUE, SIDE),
    (0, 0, SIDE, CUE),
    (0, SIDE - CUE, SIDE, CUE),
)


@dataclass(frozen=True)
class DetectionScene:
    """One image and its objects.

    Attributes:
        image: uint8 ``(96, 96, 3)``.
        boxes: int64 ``(n, 4)``: x, y, width, height in pixels.
        shapes: int64 ``(n,)``, index into :data:`SHAPES`.
        colour: of the cue, index into :data:`COLOURS`.
        cue: int64 ``(4,)``, the box of the cue.
    """

    image: np.ndarray
    boxes: np.ndarray
    shapes: np.ndarray
    colour: int
    cue: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Index into :data:`CLASSES` of each object, int64 ``(n,)``."""
        return self.shapes * len(COLOURS) + self.colour


def shape_mask(shape: int, size: int) -> np.ndarray:
    """The pixels of a shape: bool ``(size, size)``; every edge of its box is touched.

    Args:
        shape: index into :data:`SHAPES`.
        size: width and height in pixels.
    """
    middle = np.abs(2 * np.arange(size) + 1 - size)  # twice the distance from the middle
    rows, columns = middle[:, None], middle[None, :]
    if shape == 0:
        return rows**2 + columns**2 <= size**2
    if shape == 1:
        return np.broadcast_to(columns <= np.arange(1, size + 1)[:, None], (size, size))
    return (3 * rows <= size) | (3 * columns <= size)


def outline(mask: np.ndarray) -> list[int]:
    """The polygon along the edges of the pixels of a mask whose rows are runs: x, y, x, y, ...

    COCO's rasteriser turns it back into the same pixels.
    """
    right: list[tuple[int, int]] = []
    left: list[tuple[int, int]] = []
    for y, row in enumerate(mask):
        inside = row.nonzero()[0]
        first, last = int(inside[0]), int(inside[-1]) + 1
        for side, x in ((right, last), (left, first)):
            if len(side) > 1 and side[-1][0] == x:
                side[-1] = (x, y + 1)
            else:
                side += [(x, y), (x, y + 1)]
    return [number for point in (*right, *reversed(left)) for number in point]


def make_detection_scene(part: str, index: int, *, seed: int = 0) -> DetectionScene:
    """Make one image of a part; it does not depend on how many there are.

    Args:
        part: name of the part, for example ``"train2017"``; parts are independent.
        index: number of the image in it.
        seed: the same seed gives the same pixels.
    """
    draws = _Draws(seed, f"detection/{part}/{index}")
    cue = np.array(_STRIPS[int(draws.integers(len(_STRIPS), 1)[0])])
    while True:
        count = OBJECTS[0] + int(draws.integers(OBJECTS[1] - OBJECTS[0] + 1, 1)[0])
        boxes = _place(draws, cue, count)
        if boxes is not None:
            break
    shapes = draws.integers(len(SHAPES), count)
    colour = int(draws.integers(len(COLOURS), 1)[0])
    tones = _DARK + draws.integers(_LIGHT - _DARK + 1, count)
    image = np.full((SIDE, SIDE, 3), _BACKGROUND, dtype=np.int16)
    for (x, y, size, _), shape, tone in zip(boxes, shapes, tones, strict=True):
        image[y : y + size, x : x + size][shape_mask(int(shape), int(size))] = tone
    x, y, width, height = cue
    image[y : y + height, x : x + width] = _RGB[colour]
    grains = draws.noise(_NOISE, SIDE // _GRAIN, SIDE // _GRAIN)
    image += grains.repeat(_GRAIN, axis=0).repeat(_GRAIN, axis=1)[:, :, None]
    return DetectionScene(image.clip(0, 255).astype(np.uint8), boxes, shapes, colour, cue)


def _place(draws: _Draws, cue: np.ndarray, count: int) -> np.ndarray | None:
    """Boxes ``(count, 4)`` far from the cue and apart from each other; None if stuck."""
    boxes: list[np.ndarray] = []
    for _ in range(_TRIES):
        size = SIZES[0] + int(draws.integers(SIZES[1] - SIZES[0] + 1, 1)[0])
        box = np.array([*draws.integers(SIDE - size + 1, 2), size, size])
        if _gap(box, cue) >= GAP and all(_gap(box, other) >= 2 for other in boxes):
            boxes.append(box)
            if len(boxes) == count:
                return np.stack(boxes)
    return None


def _gap(first: np.ndarray, second: np.ndarray) -> int:
    """Pixels between two boxes, on the axis where they are further apart."""
    starts = np.maximum(first[:2], second[:2])
    ends = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    return int((starts - ends).max())


def write_detection_scenes(
    folder: str | os.PathLike[str],
    *,
    images: dict[str, int] | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Write the set as COCO is laid out: ``train2017/*.png``, ``annotations/instances_*.json``.

    Args:
        folder: must not be there yet, or be empty; it is there whole or not at all.
        images: part → number of its images; default: :data:`IMAGES` (2 MB).
        seed: of everything random.

    Returns:
        Part → SHA-256 of its pixels and annotations, the proof that two machines made the same set.

    Raises:
        BrokenData: the folder holds something already.
        ValueError: a part has fewer than one image.
    """
    images = IMAGES if images is None else images
    for part, count in images.items():
        if count < 1:
            raise ValueError(f"{part}: {count} images: expected at least 1")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BrokenData(f"{folder} holds something already: name a folder that is not there yet")
    folder.parent.mkdir(parents=True, exist_ok=True)
    digests = {}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        inner = Path(temporary, "set")
        (inner / "annotations").mkdir(parents=True)
        for part, count in images.items():
            digests[part] = _write_part(inner, part, count, seed)
        if folder.exists():
            folder.rmdir()
        shutil.move(inner, folder)
    return digests


def _write_part(folder: Path, part: str, count: int, seed: int) -> str:
    from PIL import Image

    (folder / part).mkdir()
    digest = hashlib.sha256()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = make_detection_scene(part, index, seed=seed)
        name = f"{index + 1:012d}.png"
        Image.fromarray(scene.image).save(folder / part / name)
        digest.update(scene.image.tobytes())
        images.append({"id": index + 1, "file_name": name, "width": SIDE, "height": SIDE})
        for box, shape, label in zip(scene.boxes, scene.shapes, scene.labels, strict=True):
            x, y, size, _ = box.tolist()
            mask = shape_mask(int(shape), size)
            corner = [x, y] * (len(polygon := outline(mask)) // 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(label) + 1,
                    "bbox": [x, y, size, size],
                    "area": int(mask.sum()),
                    "segmentation": [[a + b for a, b in zip(polygon, corner, strict=True)]],
                    "iscrowd": 0,
                }
            )
    digest.update(json.dumps(annotations, sort_keys=True).encode())
    found = {
        "info": {"description": "generated scenes, gclib", "seed": seed, "part": part},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": k, "name": name, "supercategory": name.split("-")[0]}
            for k, name in enumerate(CLASSES, start=1)
        ],
    }
    path = folder / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")
    return digest.hexdigest()
