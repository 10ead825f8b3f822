"""``pytest tests/`` reads the student's notebook, and not the reference, for its report."""

import json
import shutil
import subprocess
import sys

import pytest
from mutants.answers import ROOT, apply, mutants, references

from gclib.chapters import CHAPTERS, find_chapter
from gclib.checks.exercise import exercises_of
from gclib.grading.notebooks import grade_metadata

EXERCISES = {chapter.number: len(exercises_of(chapter.checks())) for chapter in CHAPTERS}
ALL = sum(EXERCISES.values())


def report(*options):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/notebooks/test_student.py", "-q", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("student: ")]
    return (lines[-1] if lines else ""), done


@pytest.fixture
def work(tmp_path):
    for chapter in CHAPTERS:
        target = tmp_path / chapter.notebook
        target.parent.mkdir()
        shutil.copy(ROOT / "chapters" / chapter.notebook, target)
    return tmp_path


def write_answers(work, chapter, answers):
    path = work / find_chapter(chapter).notebook
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        name = grade_metadata(cell).get("grade_id")
        if name in answers:
            cell["source"] = answers[name]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def test_with_blank_chapters_nothing_passes(work):
    line, done = report(f"--work={work}")
    assert line == f"student: 0 passed, 0 failed, {ALL} not attempted"
    assert done.returncode == 0


def test_processes_count_together(work):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: make test installs it")
    write_answers(work, "01", {"c01-e1": references("01")["c01-e1"]})
    line, done = report(f"--work={work}", "-n", "2")
    assert line == f"student: 1 passed, 0 failed, {ALL - 1} not attempted"
    assert done.returncode == 0


def test_right_wrong_and_blank_are_told_apart(work):
    answers = references("01")
    wrong = apply(mutants("01")["c01-e2"][0].edits, answers["c01-e2"])
    write_answers(work, "01", {"c01-e1": answers["c01-e1"], "c01-e2": wrong})
    line, done = report(f"--work={work}")
    assert line == f"student: 1 passed, 1 failed, {ALL - 2} not attempted"
    assert done.returncode == 1
    assert "softmax over the queries" in done.stdout  # the message of the notebook
    assert "Traceback" not in done.stdout


def test_a_module_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    source = "import torch\nfrom torch import nn\n" + "\n\n".join(references("01").values())
    path.write_text(source, encoding="utf-8")
    line, done = report(f"--impl={path}")
    assert line == (
        f"student: {EXERCISES['01']} passed, 0 failed, {ALL - EXERCISES['01']} not attempted"
    )
    assert done.returncode == 0


def test_without_work_there_is_no_line(tmp_path):
    line, done = report(f"--work={tmp_path / 'nothing'}")
    assert line == ""
    assert done.returncode in (0, 5)  # nothing collected
