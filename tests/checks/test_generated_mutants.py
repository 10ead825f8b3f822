"""Mutants made by rule: at least 90 % are killed, and each survivor has an explanation."""

import contextlib
import io
import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from mutants.answers import define, references
from mutants.generate import generated

from gclib.chapters import CHAPTERS
from gclib.checks import CheckFailed, NotAttempted
from gclib.checks.exercise import exercises_of

EXPLAINED = json.loads((Path(__file__).parents[1] / "mutants/survivors.json").read_text())


@cache
def survivors() -> tuple[dict[str, list[str]], int]:
    """The changes that both checks let pass, by exercise, and the number of mutants."""
    found, total = {}, 0
    for chapter in CHAPTERS:
        answers = references(chapter.number)
        hidden_module = import_module(f"gclib.checks.hidden.c{chapter.number}")
        pairs = zip(exercises_of(chapter.checks()), exercises_of(hidden_module), strict=True)
        for visible, hidden in pairs:
            found[visible.id] = []
            for change, source in generated(answers[visible.id]):
                total += 1
                if not killed(chapter.number, visible, hidden, source):
                    found[visible.id].append(change)
    return found, total


def killed(chapter, visible, hidden, source) -> bool:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            implementation = define(chapter, visible.id, source)[visible.needs]
        except Exception:  # a cell that raises defines nothing: 0 points
            return True
        for check in (visible, hidden):
            try:
                check(implementation)
            except (CheckFailed, NotAttempted):
                return True
    return False


@pytest.mark.full
def test_at_least_nine_of_ten_are_killed():
    found, total = survivors()
    alive = sum(len(changes) for changes in found.values())
    print(f"{total} generated mutants, {total - alive} killed: {100 * (1 - alive / total):.1f} %")
    assert total > 1000
    assert alive <= total / 10


@pytest.mark.full
def test_every_survivor_is_explained():
    unexplained = [
        f"{exercise}: {change}"
        for exercise, changes in survivors()[0].items()
        for change in changes
        if not any(re.search(entry["change"], change) for entry in EXPLAINED)
    ]
    assert not unexplained


@pytest.mark.full
def test_every_explanation_is_needed():
    changes = [change for found in survivors()[0].values() for change in found]
    for entry in EXPLAINED:
        assert any(re.search(entry["change"], change) for change in changes), entry["change"]


def test_the_generator_makes_the_changes_it_names():
    source = (
        'def f(x, y):\n    """Doc."""\n    if x == 2:\n        y = y.abs()\n'
        "    return x @ y - g(y, dim=1)\n"
    )
    made = [text for _, text in generated(source)]
    body = [text.split("\n    ", 1)[1] for text in made]
    for expected in (
        "if x != 2:\n        y = y.abs()\n    return x @ y - g(y, dim=1)",
        "if True:\n        y = y.abs()\n    return x @ y - g(y, dim=1)",
        "if x == 3:\n        y = y.abs()\n    return x @ y - g(y, dim=1)",
        "if x == 2:\n        y = y\n    return x @ y - g(y, dim=1)",
        "if x == 2:\n        pass\n    return x @ y - g(y, dim=1)",
        "if x == 2:\n        y = y.abs()\n    return y @ x - g(y, dim=1)",
        "if x == 2:\n        y = y.abs()\n    return x @ y + g(y, dim=1)",
        "if x == 2:\n        y = y.abs()\n    return x @ y - g(y)",
        "if x == 2:\n        y = y.abs()\n    return x @ x - g(y, dim=1)",
        "if x == 2:\n        y = y.abs()\n    return",
    ):
        assert expected in body
    assert len(set(made)) == len(made) > 20
    assert all("Doc" not in text for text in made)
