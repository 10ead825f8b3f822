"""``gclib grade`` is killed again and again: in the end all is as if it had been left alone."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from classroom import Classroom
from mutants.answers import apply, mutants, references
from test_hostile_class import rows
from test_sandbox import needs_bubblewrap

from gclib.chapters import find_chapter
from gclib.grading.classroom import Course
from gclib.grading.verdicts import read_judgement

CHAPTER = find_chapter("00")
KILLS = 10
pytestmark = [needs_bubblewrap, pytest.mark.full]


def hand_in(room):
    good = references("00")
    for index in range(8):
        answers = dict(list(good.items())[: index % 5])
        for name, found in mutants("00").items():
            if index % 3 == 2 and name in answers:
                answers[name] = apply(found[index % len(found)].edits, good[name])
        room.submit(f"student{index}", answers | {"c00-reflection": f"Because {index}."})
    room.submit("damaged", good, edit=lambda cells: cells.reverse())
    room.submit("broken").write_text("{")


def grading(folder):
    command = [sys.executable, "-m", "gclib.cli", "grade", CHAPTER.number, "--course", str(folder)]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def outcome(folder):
    """Everything that a class is left with, without times."""
    course = Course(folder)
    found = {}
    for student in course.students(CHAPTER):
        judgement = read_judgement(course.verdicts(student, CHAPTER))
        verdicts = [(v.cell, v.verdict, v.message, v.outputs, v.seed) for v in judgement.verdicts]
        path = course.graded(student, CHAPTER)
        notebook = json.loads(path.read_text()) if path.is_file() else {"metadata": {}}
        notebook["metadata"].pop("gclib", None)  # a hash of what own cells printed, too
        for cell in notebook.get("cells", ()):
            if "check" not in cell["metadata"].get("tags", ()):
                cell.pop("outputs", None)  # own cells may print something else each time
        found[student] = (
            judgement.problem,
            judgement.notes,
            judgement.flags,
            verdicts,
            rows(folder, student),
            notebook,
        )
    return found


def test_killed_at_random_moments(tmp_path):
    room = Classroom(tmp_path / "left_alone", CHAPTER)
    hand_in(room)
    Course(room.folder).prepare()
    Course(room.folder).secret()
    killed = tmp_path / "killed"
    shutil.copytree(room.folder, killed)
    begin = time.monotonic()
    alone = grading(room.folder)
    said = alone.communicate()[1]
    seconds = time.monotonic() - begin
    assert alone.returncode == 1, said  # one is broken
    dice, ended = random.Random(0), 0
    for kill in range(KILLS):
        # Anywhere in a run; the work becomes less.
        process = grading(killed)
        time.sleep(dice.uniform(0.2, 0.8 * seconds))
        ended += process.poll() is not None
        if kill % 2:
            process.kill()  # the parent alone: what it started must end by itself
        else:
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(0.3)
    assert ended <= KILLS - 3  # else it was not killed while at work
    last = grading(killed)
    said = last.communicate()[1]
    assert last.returncode == 1, said
    left_alone, resumed = outcome(room.folder), outcome(killed)
    assert set(resumed) == set(left_alone)
    for student in left_alone:
        assert resumed[student] == left_alone[student], student
    assert len(list((killed / "backups").glob("*.db"))) >= 1
    assert not list(killed.rglob("*.partial"))


def test_ctrl_c_leaves_in_a_sentence_and_nothing_is_lost(tmp_path):
    room = Classroom(tmp_path, CHAPTER)
    hand_in(room)
    process = grading(room.folder)
    for line in process.stderr:
        if line.startswith("2/"):
            break
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert said.rstrip().endswith("Stopped.")
    assert "Traceback" not in said
    again = grading(room.folder)
    said = again.communicate()[1]
    assert again.returncode == 1
    assert "10/10" in said
