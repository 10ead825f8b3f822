"""The chapters of the course: numbers, folders, checks, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType


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
    Chapter("02", "attention_maps", "Attention maps"),
    Chapter("03", "simplification", "Simplification"),
    Chapter("04", "three_steps", "Three steps"),
    Chapter("05", "global_context", "The global context block"),
    Chapter("06", "gcnet", "GCNet"),
    Chapter("07", "imagenet", "ImageNet"),
    Chapter("08", "coco", "COCO"),
    Chapter("09", "kinetics", "Kinetics"),
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
