"""A small class that hands in through real nbgrader."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from mutants.answers import ROOT

from gclib.chapters import Chapter
from gclib.checks.cells import source_of
from gclib.grading.generate import generate
from gclib.grading.notebooks import grade_metadata

Edit = Callable[[list[dict]], None]


@cache
def generated() -> tempfile.TemporaryDirectory:
    """A course folder that ``make chapters`` was run in; made once, for it takes seconds."""
    made = tempfile.TemporaryDirectory(prefix="gclib-classroom-")
    folder = Path(made.name)
    shutil.copytree(ROOT / "solutions", folder / "solutions")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    generate(folder, gradebook=f"sqlite:///{folder / 'gradebook.db'}")
    return made


class Classroom:
    """A course folder of its own: solutions, chapters, a gradebook, submissions."""

    def __init__(self, folder: Path, chapter: Chapter) -> None:
        self.folder, self.chapter = folder, chapter
        shutil.copytree(generated().name, folder, dirs_exist_ok=True)
        self.url = f"sqlite:///{folder / 'gradebook.db'}"
        released = folder / "chapters" / chapter.notebook
        self.released = json.loads(released.read_text(encoding="utf-8"))

    def submit(
        self, student: str, answers: Mapping[str, str] | None = None, edit: Edit | None = None
    ) -> Path:
        """Hand in the released notebook with some answer cells replaced, then edited."""
        notebook = copy.deepcopy(self.released)
        for cell in notebook["cells"]:
            name = grade_metadata(cell).get("grade_id")
            if answers and name in answers:
                cell["source"] = answers[name].splitlines(True)
        if edit:
            edit(notebook["cells"])
        path = self.folder / "submitted" / student / self.chapter.notebook
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return path

    def nbgrader(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run an nbgrader command in the course folder, as an instructor would."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=self.folder,
            # Two classes are graded at a time: with more threads than cores they would wait.
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def grades(self, student: str) -> dict[str, float]:
        """Points by grade_id; cells that wait for a person are left out."""
        from nbgrader.api import Gradebook

        with Gradebook(self.url) as gradebook:
            submission = gradebook.find_submission(self.chapter.folder, student)
            return {
                grade.name: grade.score
                for notebook in submission.notebooks
                for grade in notebook.grades
                if not grade.needs_manual_grade
            }

    def waiting(self, student: str) -> set[str]:
        """Cells that wait for a person."""
        from nbgrader.api import Gradebook

        with Gradebook(self.url) as gradebook:
            submission = gradebook.find_submission(self.chapter.folder, student)
            grades = [g for notebook in submission.notebooks for g in notebook.grades]
            return {grade.name for grade in grades if grade.needs_manual_grade}

    def points(self) -> dict[str, float]:
        """What each graded cell is worth."""
        cells = (grade_metadata(cell) for cell in self.released["cells"])
        return {c["grade_id"]: c["points"] for c in cells if c.get("grade")}

    def feedback(self, student: str) -> str:
        """The feedback page."""
        path = self.folder / "feedback" / student / self.chapter.notebook
        return path.with_suffix(".html").read_text(encoding="utf-8")


def index_of(cells: list[dict], name: str) -> int:
    """Index of a cell by its grade_id."""
    return next(i for i, c in enumerate(cells) if grade_metadata(c).get("grade_id") == name)


def replace(cells: list[dict], name: str, source: str) -> None:
    """Change the text of a cell."""
    cells[index_of(cells, name)]["source"] = source


def text_of(cells: list[dict], name: str) -> str:
    """The text of a cell."""
    return source_of(cells[index_of(cells, name)])
