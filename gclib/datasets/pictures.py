"""Generated photographs in files: for tests, benchmarks and ``--smoke``, where no data set is."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from gclib.datasets.files import BrokenData

SHAPES = ("disc", "square", "triangle", "ring", "cross")
COLOURS = {
    "red": (210, 40, 40),
    "green": (50, 170, 60),
    "blue": (50, 80, 210),
    "yellow": (225, 205, 50),
    "purple": (150, 60, 180),
    "orange": (235, 130, 30),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
}
CLASSES = tuple(f"{colour}-{shape}" for shape, colour in itertools.product(SHAPES, COLOURS))


def make_images(
    folder: str | os.PathLike[str],
    *,
    classes: int,
    per_class: int,
    size: tuple[int, int] = (500, 375),
    seed: int = 0,
) -> None:
    """Write a small data set of JPEGs, ``train/<class>/*.jpg`` and ``val/<class>/*.jpg``.

    A class is a shape of one colour, anywhere on a background of smooth and fine texture. The same
    seed gives the same pixels before JPEG.

    Args:
        folder: must not be there yet, or be empty; it is there whole or not at all.
        classes: number of classes, at most ``len(CLASSES)``.
        per_class: training images of a class; ``val`` gets a quarter of it, at least 2.
        size: width and height in pixels.
        seed: of everything random.

    Raises:
        BrokenData: the folder holds something already.
        ValueError: a number makes no sense.
    """
    if not 1 <= classes <= len(CLASSES):
        raise ValueError(f"classes={classes}: expected 1 to {len(CLASSES)}")
    if per_class < 1 or min(size) < 16:
        raise ValueError(f"per_class={per_class}, size={size}: expected at least 1, and 16×16")
    from PIL import Image

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BrokenData(f"{folder} holds something already: name a folder that is not there yet")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for part, count in enumerate((per_class, max(2, per_class // 4))):
            for label in range(classes):
                home = temporary / ("train", "val")[part] / CLASSES[label]
                home.mkdir(parents=True)
                for number in range(count):
                    rng = np.random.default_rng([seed, part, label, number])
                    image = Image.fromarray(_picture(rng, label, *size))
                    image.save(home / f"{number:06d}.jpg", quality=90)
        temporary.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _picture(rng: np.random.Generator, label: int, width: int, height: int) -> np.ndarray:
    """Pixels of one image, uint8 ``(height, width, 3)``."""
    shape, colour = divmod(label, len(COLOURS))
    pixels = _cloud(rng, width, height, 32).astype(np.float32)
    ink = _mask(rng, SHAPES[shape], width, height)[..., None]
    paint = np.array(list(COLOURS.values())[colour], np.float32)
    pixels = np.where(ink, 0.8 * paint + 0.2 * pixels, 0.5 * pixels + 64)
    pixels += 0.25 * (_cloud(rng, width, height, 4).astype(np.float32) - 128)
    pixels += rng.normal(0, 8, (height, width, 1)).astype(np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _cloud(rng: np.random.Generator, width: int, height: int, grain: int) -> np.ndarray:
    """Random colours, about ``grain`` pixels from one to the next."""
    from PIL import Image

    coarse = rng.integers(0, 256, (height // grain + 2, width // grain + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _mask(rng: np.random.Generator, shape: str, width: int, height: int) -> np.ndarray:
    """Where the shape is, bool ``(height, width)``."""
    radius = rng.uniform(0.18, 0.3) * min(width, height)
    centre_x = rng.uniform(radius, width - radius)
    centre_y = rng.uniform(radius, height - radius)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x - centre_x) / radius, (y - centre_y) / radius  # the shape lies in -1 to 1
    distance = np.hypot(x, y)
    inside = np.maximum(abs(x), abs(y)) < 0.9
    return {
        "disc": distance < 1,
        "square": inside,
        "triangle": (abs(x) < (y + 0.9) / 2) & inside,
        "ring": (distance < 1) & (distance > 0.55),
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & inside,
    }[shape]
