"""Generated videos whose class needs what was shown long before.

A video has 16 pictures of 40×40 pixels, 15 a second:

=========  ======================================================================
pictures   what is shown
=========  ======================================================================
0 to 3     the cue: a large disc in one of two colours
4 to 7     nothing
8 to 15    two squares, one of each colour, that move two pixels a picture, in
           two different directions
=========  ======================================================================

The class is the direction in which the square with the colour of the cue moves: left, right, up or
down. The recipe reads every second picture (4/30 s), so 8 in all: 2 with the cue, 2 empty, 4 with
squares.

**What guessing gives.** A network whose features see few pictures, and that adds them up over all
positions (global average pooling, then a linear layer), has scores of the form
``a(cue) + b(squares)`` for each class. It knows the two directions and cannot know which counts:

- its loss is at least ln 2, and then its accuracy is 50 %. For the loss is convex in the scores,
  and the set stays the same if colours change places, or directions do; so the least loss has
  scores that do not depend on the cue, and that are the same for both directions.
- whatever the loss, no such network has more than 75 % over all cases. Take the two cues and the
  two layouts (red left and green up, or the other way round): the difference of the scores of left
  and up is ``a'(cue) + b'(layout)``, and XOR is not the sign of a sum. One of the four is wrong.

Both are of all cases that can be drawn; what a loss in training is below ln 2 without a block was
learned by heart. The ceiling is 100 %. Without the order of the pictures, left looks like right and
up like down.

Files are H.264 without loss: what is decoded is what was drawn, whichever version of the encoder
wrote it. Random numbers are those of :mod:`gclib.datasets.scenes` and everything is drawn by
integer arithmetic: the same seed gives the same pictures on every machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gclib.datasets.files import BrokenData
from gclib.datasets.scenes import _Draws

SIDE = 40
FPS = 15
FRAMES = 16
CUE_UNTIL = 4  # first picture without the cue
START = 8  # first picture with squares
CLASSES = ("down", "left", "right", "up")
COLOURS = ("red", "green")
VIDEOS = {"train": 1200, "val": 240}

CUE = 36  # width of the disc
SPEED = 2  # pixels that a square moves from picture to picture
SIZES = (7, 9)  # smallest and largest width of a square
APART = 4  # pixels between the tracks of the squares
_STEPS = np.array([(0, 1), (-1, 0), (1, 0), (0, -1)])  # x, y of CLASSES
_TRAVEL = SPEED * (FRAMES - START - 1)  # pixels from the first to the last picture of a square
_RGB = np.array([(220, 60, 60), (60, 200, 60)], dtype=np.int16)
_BACKGROUND = (44, 56)  # grey values
_GRAIN, _NOISE = 8, 10  # side of a grain in pixels, and the largest change of its grey value
_TRIES = 40


@dataclass(frozen=True)
class ClipScene:
    """One video.

    Attributes:
        frames: uint8 ``(16, 40, 40, 3)``.
        colour: of the cue, index into :data:`COLOURS`.
        cue: int64 ``(3,)``: x, y and width of the cue.
        squares: int64 ``(2, 3)``: x, y and width of each square in picture :data:`START`; the
            first is red.
        directions: int64 ``(2,)``: of each square, index into :data:`CLASSES`.
    """

    frames: np.ndarray
    colour: int
    cue: np.ndarray
    squares: np.ndarray
    directions: np.ndarray

    @property
    def label(self) -> int:
        """Index into :data:`CLASSES`."""
        return int(self.directions[self.colour])


def make_clip_scene(part: str, index: int, *, seed: int = 0) -> ClipScene:
    """Make one video of a part; it does not depend on how many there are.

    Args:
        part: ``"train"`` or ``"val"``, or another name; parts are independent.
        index: number of the video in it.
        seed: the same seed gives the same pictures.
    """
    draws = _Draws(seed, f"clips/{part}/{index}")
    colour = int(draws.integers(len(COLOURS), 1)[0])
    label = index % len(CLASSES)  # as many videos of each class
    other = (label + 1 + int(draws.integers(len(CLASSES) - 1, 1)[0])) % len(CLASSES)
    directions = np.array([other, label] if colour else [label, other])
    cue = np.array([*draws.integers(SIDE - CUE + 1, 2), CUE])
    squares = None
    while squares is None:
        squares = _place(draws, directions)
    low, high = _BACKGROUND
    still = np.full((SIDE, SIDE, 3), low + int(draws.integers(high - low + 1, 1)[0]), np.int16)
    grains = draws.noise(_NOISE, SIDE // _GRAIN, SIDE // _GRAIN)
    still += grains.repeat(_GRAIN, axis=0).repeat(_GRAIN, axis=1)[:, :, None]
    frames = np.repeat(still[None].astype(np.uint8), FRAMES, axis=0)
    x, y, width = cue
    frames[:CUE_UNTIL, y : y + width, x : x + width][:, _disc(width)] = _RGB[colour]
    for number, (square, direction) in enumerate(zip(squares, directions, strict=True)):
        width = square[2]
        for time in range(START, FRAMES):
            x, y = square[:2] + SPEED * (time - START) * _STEPS[direction]
            frames[time, y : y + width, x : x + width] = _RGB[number]
    return ClipScene(frames, colour, cue, squares, directions)


def _disc(width: int) -> np.ndarray:
    middle = np.abs(2 * np.arange(width) + 1 - width)  # twice the distance from the middle
    return middle[:, None] ** 2 + middle[None, :] ** 2 <= width**2


def _place(draws: _Draws, directions: np.ndarray) -> np.ndarray | None:
    """Where squares start ``(n, 3)``, so that their tracks lie apart; None if stuck."""
    squares: list[np.ndarray] = []
    tracks: list[tuple[np.ndarray, np.ndarray]] = []
    for direction in directions:
        step = _STEPS[direction]
        size = SIZES[0] + int(draws.integers(SIZES[1] - SIZES[0] + 1, 1)[0])
        extent = size + _TRAVEL * np.abs(step)
        for _ in range(_TRIES):
            corner = np.array([int(draws.integers(SIDE - side + 1, 1)[0]) for side in extent])
            if all(_gap(corner, extent, *other) >= APART for other in tracks):
                break
        else:
            return None
        tracks.append((corner, extent))
        # The corner of a track is where a square starts, or where it ends.
        squares.append(np.array([*(corner + _TRAVEL * (step < 0)), size]))
    return np.stack(squares)


def _gap(corner: np.ndarray, extent: np.ndarray, other: np.ndarray, others: np.ndarray) -> int:
    """Pixels between two boxes, on the axis where they are further apart."""
    return int((np.maximum(corner, other) - np.minimum(corner + extent, other + others)).max())


def planes(frames: np.ndarray) -> np.ndarray:
    """Pictures as a video file holds them: brightness, and colour for 2×2 pixels (BT.601).

    Args:
        frames: uint8 ``(T, H, W, 3)`` with even sides.

    Returns:
        uint8 ``(T, H + H / 2, W)``, the layout ``yuv420p`` of FFmpeg.
    """
    count, height, width, _ = frames.shape
    wide = frames.astype(np.int32)
    red, green, blue = wide[..., 0], wide[..., 1], wide[..., 2]
    bright = ((66 * red + 129 * green + 25 * blue + 128) >> 8) + 16
    four = wide.reshape(count, height // 2, 2, width // 2, 2, 3).sum((2, 4))
    red, green, blue = four[..., 0], four[..., 1], four[..., 2]
    colours = (
        ((-38 * red - 74 * green + 112 * blue + 512) >> 10) + 128,
        ((112 * red - 94 * green - 18 * blue + 512) >> 10) + 128,
    )
    rows = [plane.reshape(count, -1, width) for plane in (bright, *colours)]
    return np.concatenate(rows, axis=1).astype(np.uint8)


def write_clip(path: str | os.PathLike[str], pictures: np.ndarray) -> None:
    """Write an MP4 file, 15 pictures a second, without loss.

    Args:
        path: of the file.
        pictures: of :func:`planes`.

    Raises:
        MissingLibrary: PyAV is not installed, or without x264.
    """
    from gclib.datasets.coco_masks import MissingLibrary
    from gclib.datasets.videos import _pyav

    av = _pyav()
    if "libx264" not in av.codecs_available:
        raise MissingLibrary(
            "writing videos needs a PyAV with x264, which its wheels have: pip install "
            "--force-reinstall --only-binary av av"
        )
    # Without a limit of its own, x264 would use a thread for each core; threads change the file.
    options = {"qp": "0", "preset": "veryfast", "threads": "1", "g": str(FRAMES), "bf": "0"}
    with av.open(os.fspath(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = pictures.shape[1] * 2 // 3, pictures.shape[2]
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def write_clip_scenes(
    folder: str | os.PathLike[str],
    *,
    videos: dict[str, int] | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Write the set as Kinetics is laid out: ``train/<class>/*.mp4``, ``val/<class>/*.mp4``.

    Args:
        folder: must not be there yet, or be empty; it is there whole or not at all.
        videos: part → number of its videos; default: :data:`VIDEOS`.
        seed: of everything random.

    Returns:
        Part → SHA-256 of its pictures and labels, the proof that two machines made the same set.

    Raises:
        BrokenData: the folder holds something already.
        MissingLibrary: PyAV is not installed.
        ValueError: a part has fewer videos than there are classes.
    """
    videos = VIDEOS if videos is None else videos
    for part, count in videos.items():
        if count < len(CLASSES):
            raise ValueError(f"{part}: {count} videos: expected at least one of each class")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BrokenData(f"{folder} holds something already: name a folder that is not there yet")
    folder.parent.mkdir(parents=True, exist_ok=True)
    digests = {}
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        inner = Path(temporary, "set")
        for part, count in videos.items():
            digests[part] = _write_part(inner / part, part, count, seed)
        if folder.exists():
            folder.rmdir()
        shutil.move(inner, folder)
    return digests


def _write_part(folder: Path, part: str, count: int, seed: int) -> str:
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    digest = hashlib.sha256()
    for index in range(count):
        scene = make_clip_scene(part, index, seed=seed)
        pictures = planes(scene.frames)
        name = CLASSES[scene.label]
        write_clip(folder / name / f"{index:06d}.mp4", pictures)
        digest.update(pictures.tobytes())
        digest.update(name.encode())
    return digest.hexdigest()
