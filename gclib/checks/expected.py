"""Expected figures: what an exercise's result looks like on the chapter's toy tensor.

The numbers are stored, not computed, so that a class can receive them without the reference. A
test recomputes them from the solutions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files

import torch
from torch import Tensor

from gclib.checks.outcome import STUB_MESSAGE


def load_expected(exercise: str) -> dict:
    """The stored figure of an exercise: ``title``, ``rows``, ``columns``, ``matrix``, ``alt``.

    Some have ``row_names``, too: a name beside each row.
    """
    chapter, name = exercise.split("-")
    text = files("gclib.checks").joinpath(f"expected_figures/{chapter}.json").read_text("utf-8")
    return json.loads(text)[name]


def beside(exercise: str, yours: Callable[[], Tensor]) -> None:
    """Show the expected figure of an exercise, with yours beside it once it is written.

    Until then it is folded away, for those who want to draw it in their head first.

    Args:
        exercise: for example ``"c01-e1"``.
        yours: returns your matrix; a stub inside of it is no error, and errors take one line.
    """
    from gclib.analysis.figures import Fold, matrices

    stored = load_expected(exercise)
    expected = torch.tensor(stored["matrix"], dtype=torch.float64)
    panels = {f"expected {stored['title']}": expected}
    try:
        result = yours()
        fits = isinstance(result, Tensor) and result.dim() == 2
        if fits:
            panels["yours"] = result
        else:
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            print(f"Yours cannot be drawn beside it: {shape}, expected {tuple(expected.shape)}.")
    except Exception as error:
        if not isinstance(error, NotImplementedError) or str(error) not in ("", STUB_MESSAGE):
            said = f"{type(error).__name__}: {error}".split("\n")[0]
            print(f"Yours cannot be drawn beside it ({said}). What does its check say?")
    title = "Expected figure, yours beside it" if "yours" in panels else "Expected figure"
    matrices(
        panels,
        rows=stored["rows"],
        columns=stored["columns"],
        row_names=stored.get("row_names"),
        alt=stored["alt"],
        fold=Fold(title, opened="yours" in panels),
    )
