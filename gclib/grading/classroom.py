"""The folder of a class: submissions, gradebook, verdicts, feedback, and the course's secret."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, repository
from gclib.grading.generate import GenerationFailed, generate


class CannotGrade(Exception):
    """Nothing was graded; ``str()`` says why and what to do."""


@dataclass
class Course:
    """A folder that holds what belongs to a class and to nobody else (mode 0700).

    Attributes:
        folder: with ``submitted/STUDENT/CHAPTER/NAME.ipynb``.
        gradebook: URL; default: ``gradebook.db`` in the folder.
    """

    folder: Path
    gradebook: str = ""

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.gradebook = self.gradebook or f"sqlite:///{self.folder / 'gradebook.db'}"

    def prepare(self) -> None:
        """Close the folder to others, and register the chapters in a new gradebook.

        Raises:
            CannotGrade: there is no such folder, or the gradebook cannot be made.
        """
        if not self.folder.is_dir():
            raise CannotGrade(f"{self.folder}: no such folder; make it, with submitted/ inside")
        self.folder.chmod(0o700)
        root = repository()
        if root is None:
            raise CannotGrade("the chapters are not here: run this in a clone of the course")
        if self._is_registered():
            return
        with tempfile.TemporaryDirectory() as stage:
            shutil.copytree(root / "solutions", Path(stage, "solutions"))
            shutil.copy(root / "nbgrader_config.py", stage)
            try:
                generate(Path(stage), gradebook=self.gradebook)
            except GenerationFailed as error:
                raise CannotGrade(f"the gradebook cannot be made: {error}") from None

    def _is_registered(self) -> bool:
        from nbgrader.api import Gradebook

        if self.gradebook.startswith("sqlite:///"):
            path = Path(self.gradebook.removeprefix("sqlite:///"))
            if not path.is_file():
                return False
        with Gradebook(self.gradebook) as book:
            known = {assignment.name for assignment in book.assignments}
        return known >= {chapter.folder for chapter in CHAPTERS}

    def secret(self) -> bytes:
        """The secret of the course, made once; seeds of hidden checks follow from it."""
        path = self.folder / "secret"
        if not path.is_file():
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(number, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
        return bytes.fromhex(path.read_text(encoding="ascii"))

    def students(self, chapter: Chapter) -> list[str]:
        """Students who handed in a folder for the chapter, in order."""
        submitted = self.folder / "submitted"
        return sorted(path.parent.name for path in submitted.glob(f"*/{chapter.folder}"))

    def notebook(self, student: str, chapter: Chapter) -> Path:
        """Where a student's notebook should be."""
        return self.folder / "submitted" / student / chapter.notebook

    def verdicts(self, student: str, chapter: Chapter) -> Path:
        """Where the verdicts on it are kept."""
        return self.folder / "verdicts" / chapter.folder / f"{student}.json"

    def back_up(self) -> Path | None:
        """Copy the gradebook, if it is a file; where to."""
        path = Path(self.gradebook.removeprefix("sqlite:///"))
        if not self.gradebook.startswith("sqlite:///") or not path.is_file():
            return None
        copy = self.folder / "backups" / time.strftime("gradebook-%Y-%m-%d-%H%M%S.db")
        copy.parent.mkdir(exist_ok=True)
        with sqlite3.connect(path) as book, sqlite3.connect(copy) as target:
            book.backup(target)  # whole, even while somebody writes
        return copy


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
