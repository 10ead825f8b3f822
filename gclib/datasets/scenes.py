"""Generated scenes of 32×32 pixels whose labels need context.

A scene holds objects: a shape in a colour, on a grid of 4×4 cells, in noise. The label of an object
cannot be read off the object alone:

==========  ==========================================  =========================================
task        label of an object                          what a network needs for it
==========  ==========================================  =========================================
context     its shape × the colour of the one cue       the same fact everywhere
pairing     the shape of the other object of its        another fact for every object
            colour
majority    its shape × the most frequent colour        a count over the scene: harder, the task
                                                        with headroom to compare designs on
==========  ==========================================  =========================================

In *context* and *pairing* the object that decides is never in a neighbouring cell, so a network
with a small receptive field cannot see it.

The random numbers are raw 64-bit words of NumPy's Philox, turned into choices with integer
arithmetic alone: the same seed gives the same bytes on every machine and version.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 32
CELLS = 4  # cells on each axis
CELL = SIDE // CELLS
OBJECT = 6  # side of an object
BACKGROUND = 48

SHAPES = ("square", "frame", "plus", "cross")
CUE = len(SHAPES)  # the shape of the cue, a disc; never a label
COLOURS = ("red", "green", "blue", "yellow")
NEUTRAL = len(COLOURS)  # light grey

_MASKS = np.array(
    [
        ["######", "######", "######", "######", "######", "######"],
        ["######", "#....#", "#....#", "#....#", "#....#", "######"],
        ["..##..", "..##..", "######", "######", "..##..", "..##.."],
        ["#....#", ".#..#.", "..##..", "..##..", ".#..#.", "#....#"],
        ["..##..", ".####.", "######", "######", ".####.", "..##.."],
    ]
)
MASKS = np.array([[[c == "#" for c in row] for row in shape] for shape in _MASKS])  # (5, 6, 6)
_RGB = np.array(
    [(220, 60, 60), (60, 200, 60), (70, 90, 230), (220, 210, 50), (190, 190, 190)], dtype=np.int16
)


@dataclass(frozen=True)
class Scenes:
    """A set of scenes.

    Attributes:
        images: uint8 ``(N, 3, 32, 32)``.
        boxes: int16 ``(N, K, 4)``: x0, y0, x1, y1 of each object in pixels, the ends exclusive.
        shapes: int8 ``(N, K)``, index into :data:`SHAPES`; :data:`CUE` for the cue.
        colours: int8 ``(N, K)``, index into :data:`COLOURS`; :data:`NEUTRAL` for grey.
        labels: int8 ``(N, K)``, the class of each object; -1 for the cue, which has none.
        classes: number of classes.
        task: one of :data:`TASKS`.
    """

    images: np.ndarray
    boxes: np.ndarray
    shapes: np.ndarray
    colours: np.ndarray
    labels: np.ndarray
    classes: int
    task: str

    def __len__(self) -> int:
        return len(self.images)

    def centres(self, stride: int) -> np.ndarray:
        """Row and column of each object's centre on a map of the given stride: ``(N, K, 2)``."""
        x0, y0, x1, y1 = np.moveaxis(self.boxes, 2, 0)
        return np.stack(((y0 + y1) // (2 * stride), (x0 + x1) // (2 * stride)), axis=2)

    def label_maps(self, stride: int) -> np.ndarray:
        """Labels at the objects' centres, -1 elsewhere: int64 ``(N, 32/stride, 32/stride)``."""
        maps = np.full((len(self), SIDE // stride, SIDE // stride), -1, dtype=np.int64)
        rows, columns = np.moveaxis(self.centres(stride), 2, 0)
        maps[np.arange(len(self))[:, None], rows, columns] = self.labels
        return maps

    def digest(self) -> str:
        """SHA-256 over all arrays, the proof that two machines made the same scenes."""
        digest = hashlib.sha256()
        for array in (self.images, self.boxes, self.shapes, self.colours, self.labels):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


class _Draws:
    """Integers and permutations from raw words, by integer arithmetic alone."""

    def __init__(self, seed: int, task: str) -> None:
        key = int.from_bytes(hashlib.sha256(f"{task}/{seed}".encode()).digest()[:16], "little")
        self._bits = np.random.Philox(key=key)

    def words(self, *shape: int) -> np.ndarray:
        return self._bits.random_raw(math.prod(shape)).reshape(shape)

    def integers(self, high: int, *shape: int) -> np.ndarray:
        """Integers from 0 to ``high - 1``."""
        return ((self.words(*shape) >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(
            np.int64
        )

    def noise(self, largest: int, *shape: int) -> np.ndarray:
        """Integers from ``-largest`` to ``largest``, four from each word."""
        words = self._bits.random_raw(-(-math.prod(shape) // 4)).astype("<u8")
        quarters = words.view("<u2")[: math.prod(shape)].astype(np.uint32)
        return (quarters * np.uint32(2 * largest + 1) >> np.uint32(16)).astype(np.int16).reshape(
            shape
        ) - np.int16(largest)

    def orders(self, count: int, items: int) -> np.ndarray:
        """``count`` random orders of ``items`` things."""
        return self.words(count, items).argsort(axis=1, kind="stable")


def make_scenes(task: str, count: int, *, seed: int = 0, noise: int = 24) -> Scenes:
    """Make scenes.

    Args:
        task: ``"context"``, ``"pairing"`` or ``"majority"``.
        count: number of scenes N, at least 1.
        seed: the same seed gives the same bytes; sets of different seeds are independent.
        noise: largest change of a pixel's value, of 255.

    Returns:
        The scenes.

    Raises:
        ValueError: the task is unknown, or a number makes no sense.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r}: expected one of {', '.join(TASKS)}")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count={count!r}: expected an integer of at least 1")
    if isinstance(noise, bool) or not isinstance(noise, int) or not 0 <= noise <= BACKGROUND:
        raise ValueError(f"noise={noise!r}: expected an integer from 0 to {BACKGROUND}")
    draws = _Draws(seed, task)
    cells, shapes, colours, labels, classes = TASKS[task](draws, count)
    corner = CELL * np.stack((cells % CELLS, cells // CELLS), axis=2)  # x, y
    corner = corner + draws.integers(CELL - OBJECT + 1, *cells.shape, 2)
    images = _paint(draws, corner, shapes, colours, noise)
    boxes = np.concatenate((corner, corner + OBJECT), axis=2).astype(np.int16)
    small = (array.astype(np.int8) for array in (shapes, colours, labels))
    return Scenes(images, boxes, *small, classes, task)


def _paint(
    draws: _Draws, corner: np.ndarray, shapes: np.ndarray, colours: np.ndarray, noise: int
) -> np.ndarray:
    count = len(shapes)
    canvas = np.full((count, SIDE, SIDE, 3), BACKGROUND, dtype=np.int16)
    scene = np.arange(count)[:, None, None, None]
    pixel = np.arange(OBJECT)
    rows = (corner[..., 1, None] + pixel)[:, :, :, None]  # (N, K, 6, 1)
    columns = (corner[..., 0, None] + pixel)[:, :, None, :]  # (N, K, 1, 6)
    ink = MASKS[shapes][..., None]  # (N, K, 6, 6, 1)
    paint = _RGB[colours][:, :, None, None, :]  # (N, K, 1, 1, 3)
    canvas[scene, rows, columns] = np.where(ink, paint, BACKGROUND)
    canvas += draws.noise(noise, *canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2).copy()


def _far(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether two cells are at least two cells apart on one axis."""
    rows = np.abs(first // CELLS - second // CELLS)
    columns = np.abs(first % CELLS - second % CELLS)
    return np.maximum(rows, columns) >= 2


def _until(count: int, propose: Callable[[], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The first ``count`` rows that a proposal accepts."""
    found, rows = [], 0
    while rows < count:
        proposed, accepted = propose()
        found.append(proposed[accepted])
        rows += len(found[-1])
    return np.concatenate(found)[:count]


def _context(draws: _Draws, count: int) -> tuple:
    """One cue and five grey objects, none of them in a cell beside the cue."""
    objects = 5

    def propose():
        cells = draws.orders(count, CELLS * CELLS)[:, : objects + 1]
        return cells, _far(cells[:, :1], cells[:, 1:]).all(axis=1)

    cells = _until(count, propose)
    shapes = draws.integers(len(SHAPES), count, objects + 1)
    shapes[:, 0] = CUE
    colours = np.full_like(shapes, NEUTRAL)
    colours[:, 0] = draws.integers(len(COLOURS), count)
    labels = shapes * len(COLOURS) + colours[:, :1]
    labels[:, 0] = -1
    return cells, shapes, colours, labels, len(SHAPES) * len(COLOURS)


def _pairing(draws: _Draws, count: int) -> tuple:
    """Two objects of each colour, partners never in cells beside each other."""
    colours = np.repeat(np.arange(len(COLOURS)), 2)

    def propose():
        cells = draws.orders(count, CELLS * CELLS)[:, : len(colours)]
        return cells, _far(cells[:, 0::2], cells[:, 1::2]).all(axis=1)

    cells = _until(count, propose)
    shapes = draws.integers(len(SHAPES), count, len(colours))
    labels = shapes.reshape(count, -1, 2)[:, :, ::-1].reshape(shapes.shape)
    colours = np.broadcast_to(colours, shapes.shape)
    return cells, shapes, colours, labels, len(SHAPES)


MAJORITY = (4, 3, 3)  # objects of the most frequent colour, and of two others


def _majority(draws: _Draws, count: int) -> tuple:
    """Ten objects in three of the colours, four of them in the same."""
    rank = np.repeat(np.arange(len(MAJORITY)), MAJORITY)
    cells = draws.orders(count, CELLS * CELLS)[:, : len(rank)]
    shapes = draws.integers(len(SHAPES), count, len(rank))
    palette = draws.orders(count, len(COLOURS))
    colours = palette[:, rank]
    labels = shapes * len(COLOURS) + palette[:, :1]
    return cells, shapes, colours, labels, len(SHAPES) * len(COLOURS)


TASKS: dict[str, Callable[[_Draws, int], tuple]] = {
    "context": _context,
    "pairing": _pairing,
    "majority": _majority,
}
