"""Verdicts on one submission: every check of a chapter on work that lives in a sandbox."""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from gclib.chapters import Chapter
from gclib.checks.cells import source_of
from gclib.checks.exercise import Exercise, exercises_of
from gclib.checks.handle import StudentError
from gclib.checks.work import Outcome, Work, check_one
from gclib.course import RELEASE
from gclib.grading.classroom import CourseError
from gclib.grading.repair import Mended
from gclib.grading.sandbox.jail import Sandbox, SandboxDied
from gclib.grading.verdicts import Verdict

Cells = list[tuple[str, bool, str]]


def checks_of(chapter: Chapter, private: Path | None = None) -> tuple[Exercise, ...]:
    """The visible and hidden checks of a chapter that are worth points, or show something.

    Args:
        chapter: the chapter.
        private: a folder with an instructor's own ``cNN.py`` of hidden checks, which no repository
            holds. The points of a hidden check are then for both: ours and the private one.

    Raises:
        CourseError: the private file cannot be run, or checks an exercise that is not there.
    """
    hidden = import_module(f"gclib.checks.hidden.c{chapter.number}")
    found = exercises_of(chapter.checks()) + exercises_of(hidden)
    path = private / f"c{chapter.number}.py" if private else None
    if path is None or not path.is_file():
        return found
    own = exercises_of(_module_of(path))
    known = {exercise.id for exercise in found}
    for exercise in own:
        if not exercise.hidden or exercise.id not in known:
            raise CourseError(
                f"{path}: {exercise.id} is no hidden check of chapter {chapter.number}; decorate "
                "it with hidden_check(...)"
            )
    return found + own


def _module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"private_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CourseError(f"{path} cannot be run: {type(error).__name__}: {error}") from None
    return module


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
    sandbox: Sandbox,
    chapter: Chapter,
    cells: Cells,
    *,
    secret: bytes,
    submission: str,
    private: Path | None = None,
) -> list[Verdict]:
    """Run all checks of a chapter on one student's cells.

    Args:
        sandbox: for this chapter, see :func:`gclib.grading.sandbox.visible.write_visible`.
        chapter: the chapter.
        cells: label, whether it is an answer, and source of each code cell.
        secret: of the course, for the seeds.
        submission: hash of the notebook, for the seeds.
        private: folder of an instructor's own hidden checks.

    Returns:
        A verdict for each check, whatever the code does.
    """
    verdicts: dict[str, Verdict] = {}
    with sandbox.student(cells, "the notebook") as student:
        for exercise in checks_of(chapter, private):
            seed = seed_of(secret, exercise, submission)
            begin = time.monotonic()
            try:
                work = student.begin()
            except (StudentError, SandboxDied) as error:
                work = Work("the notebook", problems={exercise.id: str(error)})
            outcome = check_one(work, exercise, seed)
            name = f"{exercise.id}-{'hidden' if exercise.hidden else 'visible'}"
            before = verdicts.get(name)
            if before is not None and before.verdict != "passed":
                continue  # ours failed; a private check of the same cell says no more
            verdicts[name] = Verdict(
                cell=name,
                verdict=outcome.verdict,
                message=outcome.message.split("\n")[0],
                cause=outcome.cause,
                outputs=_outputs(outcome),
                seed=seed,
                seconds=round(time.monotonic() - begin, 3),
            )
    return list(verdicts.values())


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


def pages(sandbox: Sandbox, mended: Mended) -> dict[str, list[dict[str, Any]]]:
    """What the student's own cells print, for the page that the student gets; worth nothing.

    Check cells and experiments are not run.
    """
    cells = [
        cell
        for cell in mended.notebook["cells"]
        if cell["cell_type"] == "code"
        and not {"experiment", "check"} & set(cell["metadata"].get("tags", ()))
        and "course.submit_check(" not in source_of(cell)
    ]
    # The first cell imports the checks too, which are not there.
    sources = [
        "\n".join(line for line in source_of(cell).split("\n") if "gclib.checks" not in line)
        if "setup" in cell["metadata"].get("tags", ())
        else source_of(cell)
        for cell in cells
    ]
    with sandbox.student([], "the notebook") as student:
        try:
            outputs = student.page(sources)
        except (StudentError, SandboxDied):
            return {}
    return {
        cell["id"]: found
        for cell, found in zip(cells, outputs, strict=False)
        if found and "setup" not in cell["metadata"].get("tags", ())
    }
