"""What stands in a class's copy of the course where a part of it comes later.

``gclib bundle NN`` leaves out what the chapters from NN on build. The names are still there, so
that everything else can be imported; whoever uses one is told when it comes. Where an experiment
needs a function that the reader writes in the same chapter, theirs is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gclib.chapters import repository

MANIFEST = "bundle.json"


class NotReleased(Exception):
    """A part of the course that this copy does not hold; ``str()`` says what to do."""

    def _render_traceback_(self) -> list[str]:
        return [f"NotReleased: {self}"]


def bundled() -> bool:
    """Whether this is a class's copy of the course, made by ``gclib bundle``."""
    root = repository()
    return root is not None and Path(root, MANIFEST).is_file()


def later(name: str, chapter: str = "") -> type:
    """What stands for a function or class that is not in this copy.

    Args:
        name: of it.
        chapter: number of the first chapter it comes with; "" for none.
    """
    comes = f"it comes with chapter {chapter}" if chapter else "it is what the last chapter builds"

    def use(cls: type, *args: Any, **options: Any) -> Any:
        if name in _YOURS:
            yours, exercise, adapt = _YOURS[name]
            return adapt(_written(yours, exercise, cls), *args)
        raise NotReleased(
            f"{name} is not in your copy of the course: {comes}. Go on with the rest."
        )

    return type(name, (), {"__new__": use, "__doc__": f"Not in this copy: {comes}."})


def _written(name: str, exercise: str, stand_in: type) -> Callable:
    """The reader's own function, from the notebook that is running."""
    function = vars(sys.modules["__main__"]).get(name)
    first = NotReleased(f"Finish exercise {exercise} first, then run this cell again.")
    if function is None or function is stand_in:
        raise first

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except NotImplementedError:
            raise first from None

    return call


def _map(yours: Callable, attention, positions, query):
    return yours(attention, tuple(positions), tuple(query))


def _average(yours: Callable, vectors):
    """Theirs takes (N, L, d) and makes all pairs: one example at a time keeps memory small."""
    import torch

    vectors = vectors.detach().double()
    examples = vectors.reshape(-1, 1, *vectors.shape[-2:])
    return torch.cat([yours(example) for example in examples]).reshape(vectors.shape[:-2])


_YOURS: dict[str, tuple[str, str, Callable]] = {
    "map_of": ("map_of_query", "c02-e1", _map),
    "average_cosine_distance": ("cosine_distance_fast", "c02-e3", _average),
    "average_jsd": ("average_jsd", "c02-e5", _average),
}
