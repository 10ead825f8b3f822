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

from gclib.checks import cards
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
    said = None
    try:
        result = yours()
        said = _misfit(result, expected)
        if not said:
            panels["yours"] = result
    except Exception as error:
        if not isinstance(error, NotImplementedError) or str(error) not in ("", STUB_MESSAGE):
            said = _one_line(error)
    if said:
        passed = cards.last_verdicts.get(exercise) == cards.PASSED
        ask = "" if passed else " What does its check say?"
        print(f"Yours cannot be drawn beside it: {said}.{ask}")
    title = "Expected figure, yours beside it" if "yours" in panels else "Expected figure"
    matrices(
        panels,
        rows=stored["rows"],
        columns=stored["columns"],
        row_names=stored.get("row_names"),
        alt=stored["alt"],
        fold=Fold(title, opened="yours" in panels),
    )


def _misfit(result: object, expected: Tensor) -> str:
    """Why a result cannot be drawn beside the expected one, or an empty string."""
    if not isinstance(result, Tensor):
        return f"a {type(result).__name__}, expected a tensor"
    if result.shape != expected.shape:
        return f"shape {tuple(result.shape)}, expected {tuple(expected.shape)}"
    if result.layout != torch.strided or result.is_meta or result.is_complex():
        return "no plain tensor of real numbers"
    return "" if result.isfinite().all() else "it holds numbers that are not finite"


def _one_line(error: Exception) -> str:
    """An error in a line, for its cell: what the student's code did is what its check says."""
    try:
        text = str(error).split("\n")[0][:200]
    except Exception:
        text = ""
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{text}; run the cells above, in order" if isinstance(error, NameError) else text
