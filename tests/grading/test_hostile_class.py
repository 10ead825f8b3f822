"""A class that tries everything, graded by the real thing: each gets what the work deserves.

And nobody gets anything from anybody else: no file outside of what ``gclib grade`` writes changes,
and the rows of other students stay as they were.
"""

import contextlib
import copy
import hashlib
import json
import os
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from classroom import Classroom
from hostile import ALL, CLASS
from test_sandbox import needs_bubblewrap

from gclib.chapters import find_chapter, repository
from gclib.grading.classroom import Course
from gclib.grading.driver import Fence, grade
from gclib.grading.notebooks import grade_metadata
from gclib.grading.sandbox.jail import Limits

CHAPTER = find_chapter("00")
LIMITS = Limits(memory=2**30, call_seconds=8, seconds=60)
pytestmark = [needs_bubblewrap, pytest.mark.full]


def test_the_class_is_large_enough():
    assert len(CLASS) >= 40


def contents(folder, skip=()):
    """Hash of every file below a folder."""
    found = {}
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in skip]
        for name in names:
            path = Path(top, name)
            if path.is_symlink():
                found[path] = os.readlink(path)
            else:
                found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def rows(folder, student):
    """Every row of the gradebook that belongs to a student."""
    with sqlite3.connect(folder / "gradebook.db") as book:
        query = """
            select base_cell.name, grade.auto_score, grade.manual_score, grade.extra_credit,
                   grade.needs_manual_grade
            from grade join submitted_notebook on grade.notebook_id = submitted_notebook.id
            join submitted_assignment on submitted_notebook.assignment_id = submitted_assignment.id
            join base_cell on grade.cell_id = base_cell.id
            where submitted_assignment.student_id = ? order by base_cell.name
        """
        return book.execute(query, (student,)).fetchall()


class Graded:
    """The class after grading, with what there was before."""

    def __init__(self, folder):
        self.room = Classroom(folder, CHAPTER)
        hand_in(self.room)
        self.course = Course(folder)
        quiet = {"fence": Fence(limits=LIMITS), "progress": lambda line: None}
        (alone,) = grade(self.course, CHAPTER, students=["reference"], **quiet)
        assert not alone.problem
        self.give_points_by_hand("reference", 1.5)
        self.reference = rows(folder, "reference")
        root = repository()
        skip = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "docs"}
        before = contents(root, skip), contents(folder / "submitted")
        begin = time.monotonic()
        self.lines = []
        found = grade(self.course, CHAPTER, fence=Fence(limits=LIMITS), progress=self.lines.append)
        self.seconds = time.monotonic() - begin
        after = contents(root, skip), contents(folder / "submitted")
        self.changed = [
            str(path)
            for old, new in zip(before, after, strict=True)
            for path in {*old, *new}
            if old.get(path) != new.get(path)
        ]
        self.results = {result.student: result for result in found}

    def give_points_by_hand(self, student, points):
        from nbgrader.api import Gradebook

        with Gradebook(self.course.gradebook) as book:
            found = book.find_grade("c00-reflection", CHAPTER.name, CHAPTER.folder, student)
            found.manual_score, found.needs_manual_grade = points, False
            book.db.commit()


def hand_in(room):
    for name, hostile in CLASS.items():
        path = room.submit(name, hostile.answers, hostile.edit)
        if hostile.content is not None:
            path.write_bytes(hostile.content)
    for name, hostile in CLASS.items():
        if hostile.place:
            hostile.place(room.folder / "submitted" / name / CHAPTER.notebook)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("hostile_temp"))
    yield Graded(tmp_path_factory.mktemp("hostile"))
    tempfile.tempdir = before


@pytest.mark.parametrize("name", CLASS)
def test_each_gets_what_the_work_deserves(graded, name):
    hostile, result = CLASS[name], graded.results[name]
    assert hostile.problem in result.problem
    assert bool(hostile.problem) == bool(result.problem), result.problem
    if hostile.problem:
        assert result.points == {}
        return
    found = result.judgement
    said = [f"{flag.cell}: {flag.what}" for flag in found.flags]
    assert hostile.flag in " ".join(said)
    assert hostile.note in " ".join(found.notes)
    assert result.points == graded.room.grades(name)  # the gradebook says the same
    got = {c: v for c, v in result.points.items() if c != "c00-reflection"}
    if not hostile.points:  # whatever it left of itself
        assert name == "switches_the_flags_off" or got[f"{min(ALL)}-hidden"] == 0
        return
    worth = graded.room.points()
    expected = {
        cell: worth[cell]
        if cell.rpartition("-")[0] in hostile.passes or cell == f"{hostile.visible_only}-visible"
        else 0
        for cell in worth
        if cell != "c00-reflection"
    }
    reasons = {v.cell: v.message for v in found.verdicts}
    assert got == expected, reasons


def test_the_class_is_complete(graded):
    assert set(graded.results) == set(CLASS)
    assert sum("/" in line and "left" in line for line in graded.lines) == len(CLASS)


def test_logs_name_no_student(graded):
    text = "\n".join(graded.lines)
    assert not any(name in text for name in CLASS)
    assert graded.course.alias("reference") in text


def test_no_file_is_changed(graded):
    assert graded.changed == []


def test_rows_of_others_are_untouched(graded):
    assert rows(graded.room.folder, "reference") == graded.reference
    assert ("c00-reflection", None, 1.5, None, 0) in [
        (name, None, manual, extra, needs) for name, _, manual, extra, needs in graded.reference
    ]


def test_the_time_is_bounded(graded):
    """Each may use what the limits allow, whatever it does; most use next to nothing."""
    assert graded.seconds < len(CLASS) * LIMITS.seconds / 2


def test_nothing_of_anybody_runs_on(graded):
    """Every sandbox names the folder that it shows, which is below the temporary one."""
    time.sleep(1)
    running = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                running.append((entry / "cmdline").read_bytes())
    assert not any(tempfile.tempdir.encode() in command for command in running)
    assert not list(Path(tempfile.tempdir).glob("gclib-visible-*"))


def test_pages_are_harmless(graded):
    path = graded.course.graded("scripts_in_a_written_answer", CHAPTER)
    notebook = json.loads(path.read_text())
    cell = next(
        c for c in notebook["cells"] if grade_metadata(c).get("grade_id") == "c00-reflection"
    )
    assert "<script" not in "".join(cell["source"])
    assert "<img" not in "".join(cell["source"])
    assert "My answer." in "".join(cell["source"])


def test_grading_again_repeats_every_verdict(graded):
    names = ["reference", "knows_the_visible_numbers", "leaves_when_called", "loses_all_marks"]
    before = {name: copy.deepcopy(graded.results[name].points) for name in names}
    found = grade(
        graded.course,
        CHAPTER,
        students=names,
        again=True,
        fence=Fence(limits=LIMITS),
        progress=lambda line: None,
    )
    assert {result.student: result.points for result in found} == before
    for result in found:
        old = graded.results[result.student].judgement
        assert [(v.cell, v.verdict, v.message, v.seed) for v in old.verdicts] == [
            (v.cell, v.verdict, v.message, v.seed) for v in result.judgement.verdicts
        ]
