"""What became of one submission, as a file: ``DIR/verdicts/CHAPTER/STUDENT.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What one check said.

    Attributes:
        cell: ``grade_id`` of the check's cell, for example ``"c01-e2-hidden"``.
        verdict: ``"passed"``, ``"failed"`` or ``"not attempted"``.
        message: one line for a table.
        cause: the likely cause of a failure, in the words of the check, or "".
        outputs: what the cell would show, in nbformat's form.
        seed: the seed of the check.
        seconds: wall-clock seconds it took.
    """

    cell: str
    verdict: str
    message: str
    cause: str
    outputs: list[dict[str, Any]]
    seed: int
    seconds: float


@dataclass(frozen=True)
class Flag:
    """Something in a submission that a person should look at; it takes no points by itself.

    Attributes:
        cell: ``grade_id`` or ``"cell 7"``.
        line: in the cell, from 1.
        what: what was found, in a sentence.
        source: the line.
    """

    cell: str
    line: int
    what: str
    source: str


@dataclass
class Judgement:
    """What became of one submission.

    Attributes:
        submission: hash of what was handed in.
        release: of the chapters.
        gclib: version that judged.
        problem: why it was not graded and what to do, or "".
        notes: what was mended, in sentences for the student and the instructor.
        flags: what an instructor should look at.
        verdicts: one for each check.
        pages: what the student's own code cells print when they are run in the sandbox, in
            nbformat's form, by the id of the cell in the mended notebook. Worth nothing.
        checks: hash of the checks that judged.
        seconds: wall-clock seconds of all of it.
    """

    submission: str
    release: int
    gclib: str
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    pages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    checks: str = ""
    seconds: float = 0.0

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1)  # in ASCII: half of a surrogate pair is no UTF-8

    def points(self, worth: Mapping[str, float]) -> dict[str, float]:
        """Points by ``grade_id``, given what each cell is worth."""
        passed = {verdict.cell for verdict in self.verdicts if verdict.verdict == "passed"}
        cells = {verdict.cell for verdict in self.verdicts} & set(worth)
        return {cell: worth[cell] if cell in passed else 0.0 for cell in sorted(cells)}


def read_judgement(path: Path) -> Judgement | None:
    """The judgement in a file; None where there is none, or one of another form."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["flags"] = [Flag(**flag) for flag in found["flags"]]
        found["verdicts"] = [Verdict(**verdict) for verdict in found["verdicts"]]
        return Judgement(**found)
    except (OSError, ValueError, TypeError, KeyError):
        return None
