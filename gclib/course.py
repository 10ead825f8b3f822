"""The chapters of the course, and what their notebooks ask for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import gclib

RELEASE = 1  # raised when a chapter changes in a way that its checks notice


@dataclass(frozen=True)
class Chapter:
    """One chapter of the course."""

    number: str
    name: str
    title: str

    @property
    def folder(self) -> str:
        """Name of its folder, which is also the name of nbgrader's assignment."""
        return f"{self.number}_{self.name}"

    @property
    def notebook(self) -> str:
        """Path of its notebook below ``chapters/``, ``solutions/`` or ``work/``."""
        return f"{self.folder}/{self.name}.ipynb"

    def checks(self) -> ModuleType:
        """The module of its visible checks."""
        return import_module(f"gclib.checks.c{self.number}")


CHAPTERS = (
    Chapter("00", "start", "Start here"),
    Chapter("01", "non_local", "The non-local block"),
)


def find_chapter(number: object) -> Chapter:
    """Return the chapter by number or folder name (``1``, ``"01"``, ``"01_non_local"``).

    Raises:
        ValueError: there is none; the message lists the chapters.
    """
    text = str(number).split("_")[0].zfill(2)
    for chapter in CHAPTERS:
        if chapter.number == text:
            return chapter
    known = ", ".join(chapter.number for chapter in CHAPTERS)
    raise ValueError(f"there is no chapter {number!r}; the chapters are {known}")


def repository() -> Path | None:
    """The checkout that holds ``chapters/``, or None where gclib was installed without it."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "chapters").is_dir() else None


def start(number: str, *, release: int) -> None:
    """Say what the notebook runs on and set the seed; first cell of every chapter.

    Args:
        number: the chapter, for example ``"01"``.
        release: the release of the notebook; a note is printed if gclib is of another one.
    """
    import torch

    chapter = find_chapter(number)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(
        f"Chapter {chapter.number}, {chapter.title} · gclib {gclib.__version__} · "
        f"torch {torch.__version__} ({device}) · seed 0"
    )
    if release != RELEASE:
        newer = "older" if release < RELEASE else "newer"
        fix = f"gclib start {number} --again" if release < RELEASE else "make install"
        print(
            f"This notebook (release {release}) is {newer} than gclib (release {RELEASE}): some "
            f"checks may not fit. Run '{fix}' in a terminal; your answers are kept."
        )


@contextlib.contextmanager
def after(exercise: str) -> Iterator[None]:
    """Run an experiment that needs an exercise; say so where the exercise is still a stub."""
    from gclib.checks.outcome import STUB_MESSAGE

    try:
        yield
    except NotImplementedError as error:
        if str(error) not in ("", STUB_MESSAGE):
            raise
        print(f"Finish exercise {exercise} first, then run this cell again.")


def submit_check(number: str) -> None:
    """Say whether the saved notebook can be handed in; last cell of every chapter.

    Args:
        number: the chapter, for example ``"01"``.
    """
    from gclib.grading.submission import report

    if os.environ.get("NBGRADER_EXECUTION"):  # being graded: too late for advice
        return
    chapter = find_chapter(number)
    root = repository()
    places = [Path(f"{chapter.name}.ipynb"), *([root / "work" / chapter.notebook] if root else [])]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        print(
            f"{chapter.name}.ipynb is not here: save the notebook, or use gclib submit-check PATH"
        )
        return
    print(report(path)[1])
