"""Verdicts on one submission: every check of a chapter on work that lives in a sandbox."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gclib.chapters import Chapter
from gclib.checks.exercise import Exercise, exercises_of
from gclib.checks.handle import StudentError
from gclib.checks.work import Outcome, Work, check_one
from gclib.course import RELEASE
from gclib.grading.sandbox.jail import Sandbox, SandboxDied

Cells = list[tuple[str, bool, str]]


@dataclass(frozen=True)
class Verdict:
    """What one check said.

    Attributes:
        cell: ``grade_id`` of the check's cell, for example ``"c01-e2-hidden"``.
        verdict: ``"passed"``, ``"failed"`` or ``"not attempted"``.
        message: one line for a table.
        outputs: what the cell would show, in nbformat's form.
        seed: the seed of the check.
        seconds: wall-clock seconds it took.
    """

    cell: str
    verdict: str
    message: str
    outputs: list[dict[str, Any]]
    seed: int
    seconds: float


def checks_of(chapter: Chapter) -> tuple[Exercise, ...]:
    """The visible and hidden checks of a chapter that are worth points, or show something."""
    hidden = import_module(f"gclib.checks.hidden.c{chapter.number}")
    return exercises_of(chapter.checks()) + exercises_of(hidden)


def seed_of(secret: bytes, exercise: Exercise, submission: str) -> int:
    """The seed of a check: 0 for visible ones, which the student has run with it.

    A hidden check's follows from the course's secret, the release, the exercise and the submission:
    other numbers for everyone, the same for ever.

    Args:
        secret: of the course.
        exercise: the check.
        submission: hash of the notebook that was handed in.
    """
    if not exercise.hidden:
        return 0
    text = f"{RELEASE}:{exercise.id}:{submission}".encode()
    return int.from_bytes(hmac.digest(secret, text, "sha256")[:4], "big")


def digest(notebook: bytes) -> str:
    """Hash of a notebook that was handed in."""
    return hashlib.sha256(notebook).hexdigest()


def judge(
    sandbox: Sandbox, chapter: Chapter, cells: Cells, *, secret: bytes, submission: str
) -> list[Verdict]:
    """Run all checks of a chapter on one student's cells.

    Args:
        sandbox: for this chapter, see :func:`gclib.grading.sandbox.visible.write_visible`.
        chapter: the chapter.
        cells: label, whether it is an answer, and source of each code cell.
        secret: of the course, for the seeds.
        submission: hash of the notebook, for the seeds.

    Returns:
        A verdict for each check, whatever the code does.
    """
    verdicts = []
    with sandbox.student(cells, "the notebook") as student:
        for exercise in checks_of(chapter):
            seed = seed_of(secret, exercise, submission)
            begin = time.monotonic()
            try:
                work = student.begin()
            except (StudentError, SandboxDied) as error:
                work = Work("the notebook", problems={exercise.id: str(error)})
            outcome = check_one(work, exercise, seed)
            seconds = time.monotonic() - begin
            name = f"{exercise.id}-{'hidden' if exercise.hidden else 'visible'}"
            message = outcome.message.split("\n")[0]
            verdicts.append(
                Verdict(name, outcome.verdict, message, _outputs(outcome), seed, seconds)
            )
    return verdicts


def _outputs(outcome: Outcome) -> list[dict[str, Any]]:
    """What the check's cell would show: ``ok`` lines, the card, and an error unless it passed."""
    outputs: list[dict[str, Any]] = []
    if outcome.printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": outcome.printed})
    if outcome.card:
        outputs.append({"output_type": "display_data", "data": outcome.card, "metadata": {}})
    if outcome.verdict != "passed":
        name = "CheckFailed" if outcome.verdict == "failed" else "NotAttempted"
        first = outcome.message.split("\n")[0]
        outputs.append(
            {
                "output_type": "error",
                "ename": name,
                "evalue": first,
                "traceback": [f"{name}: {first}"],
            }
        )
    return outputs
