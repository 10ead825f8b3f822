"""A class of chapter 00 that was judged in this process: for what is made from judgements."""

import contextlib
import copy
import json
import re
from pathlib import Path

from mutants.answers import ROOT, apply, mutants, references

from gclib import __version__
from gclib.chapters import find_chapter
from gclib.checks.cells import read_cells, source_of
from gclib.checks.work import load_cells
from gclib.course import RELEASE
from gclib.grading.classroom import Course
from gclib.grading.harmless import make_harmless
from gclib.grading.judge import digest, judge
from gclib.grading.notebooks import grade_metadata
from gclib.grading.verdicts import Flag, Judgement

CHAPTER = find_chapter("00")
RELEASED = read_cells(ROOT / "chapters" / CHAPTER.notebook)
GOOD = references("00")
WRONG = {name: apply(found[0].edits, GOOD[name]) for name, found in mutants("00").items()}
BLANK = {
    grade_metadata(cell)["grade_id"]: source_of(cell)
    for cell in RELEASED
    if grade_metadata(cell).get("solution") and cell["cell_type"] == "code"
}


class Here:
    """In the place of a sandbox: code of the tests that needs none."""

    @contextlib.contextmanager
    def student(self, cells, origin):
        self.cells, self.origin = cells, origin
        yield self

    def begin(self):
        return load_cells(self.cells, self.origin)


class SmallClass:
    """A folder of a class with judgements and graded notebooks."""

    def __init__(self, folder: Path) -> None:
        self.course = Course(folder)

    def hand_in(self, student: str, answers: dict[str, str], **about) -> Judgement:
        """Hand in, judge, and keep what ``gclib grade`` keeps."""
        notebook = {
            "cells": copy.deepcopy(RELEASED), "metadata": {}, "nbformat": 4, "nbformat_minor": 5
        }  # fmt: skip
        for cell in notebook["cells"]:
            name = grade_metadata(cell).get("grade_id")
            cell["source"] = answers.get(name, source_of(cell))
        text = json.dumps(notebook)
        self.write(self.course.notebook(student, CHAPTER), text)
        cells = [
            (grade_metadata(c).get("grade_id", f"cell {i}"), bool(grade_metadata(c)), source_of(c))
            for i, c in enumerate(notebook["cells"])
            if c["cell_type"] == "code"
        ]
        verdicts = judge(Here(), CHAPTER, cells, secret=b"secret", submission=digest(text.encode()))
        judgement = Judgement(
            submission=digest(text.encode()),
            release=RELEASE,
            gclib=__version__,
            verdicts=verdicts,
            seconds=1.5,
            **about,
        )
        self.keep(student, judgement)
        outputs = {verdict.cell: verdict.outputs for verdict in verdicts}
        for cell in notebook["cells"]:
            if grade_metadata(cell).get("grade_id") in outputs:
                cell["outputs"] = outputs[grade_metadata(cell)["grade_id"]]
        make_harmless(notebook, RELEASED)
        self.write(self.course.graded(student, CHAPTER), json.dumps(notebook))
        return judgement

    def refuse(self, student: str, problem: str) -> None:
        """Hand in something that cannot be graded."""
        self.write(self.course.notebook(student, CHAPTER), "{")
        judgement = Judgement(digest(b"{"), RELEASE, __version__, problem=problem)
        self.keep(student, judgement)

    def keep(self, student: str, judgement: Judgement) -> None:
        """Keep a judgement."""
        self.write(self.course.verdicts(student, CHAPTER), judgement.text())

    def page(self, student: str) -> str:
        """The page of a student."""
        return self.course.feedback(student, CHAPTER).read_text(encoding="utf-8")

    def text(self, student: str) -> str:
        """What can be read on it, with single spaces."""
        from bs4 import BeautifulSoup

        found = BeautifulSoup(self.page(student), "html.parser")
        return re.sub(r"\s+", " ", found.body.get_text(" "))

    @staticmethod
    def write(path: Path, text: str) -> None:
        """Write a file and its folders."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


FLAG = Flag("c00-e1", 2, "it changes torch.allclose", "torch.allclose = lambda *a: True")
