"""``gclib bench grading``: a class graded by plain nbgrader and by ``gclib grade``, in one run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gclib.chapters import find_chapter, repository

TARGET = 3.0  # times the submissions a minute of plain nbgrader, on 2 cores
PLAIN, OURS = "nbgrader autograde", "gclib grade"
# Each half of the class is graded by one, then by the other, in the opposite order: a machine that
# becomes slower or faster meanwhile favours neither.
TURNS = ((0, PLAIN), (0, OURS), (1, OURS), (1, PLAIN))


def run(count: int = 40, *, number: str = "01", root: Path | None = None) -> list[dict[str, Any]]:
    """Grade ``count`` submissions both ways and compare the points.

    Submissions hold between none and all of the right answers. Plain nbgrader runs students' code
    as the user beside the gradebook; ``gclib grade`` runs it in sandboxes, with as many workers as
    there are cores, and also makes the class report.

    Args:
        count: submissions, an even number.
        number: the chapter.
        root: the checkout.

    Returns:
        One record for each way with ``submissions``, ``seconds`` and ``per_minute``.

    Raises:
        RuntimeError: gclib was installed without the course, a command failed, or the points
            differ.
    """
    root = root or repository()
    if root is None or not (root / "solutions").is_dir():
        raise RuntimeError("the course is not here: clone it and run this command in its folder")
    if count < 2 or count % 2:
        raise RuntimeError(f"{count} submissions: expected an even number")
    seconds = dict.fromkeys((PLAIN, OURS), 0.0)
    with tempfile.TemporaryDirectory(prefix="gclib-bench-") as folder:
        for half in (0, 1):
            for way in (PLAIN, OURS):
                _class(Path(folder, f"{way}-{half}"), root, number, half, count // 2)
        for half, way in TURNS:
            print(f"{way}: {count // 2} submissions", file=sys.stderr, flush=True)
            seconds[way] += _grade(Path(folder, f"{way}-{half}"), root, number, way)
        for half in (0, 1):
            points = [_points(Path(folder, f"{way}-{half}")) for way in (PLAIN, OURS)]
            if points[0] != points[1]:
                raise RuntimeError(f"the points differ: {points}")
    return [
        {
            "way": way,
            "chapter": number,
            "submissions": count,
            "seconds": taken,
            "per_minute": 60 * count / taken,
            "cores": os.cpu_count(),
        }
        for way, taken in seconds.items()
    ]


def _class(folder: Path, root: Path, number: str, half: int, count: int) -> None:
    """Half of a class: a gradebook, and submissions of different strength."""
    from gclib.grading.classroom import Course
    from gclib.grading.notebooks import grade_metadata

    chapter = find_chapter(number)
    folder.mkdir()
    Course(folder).prepare()
    released = (root / "chapters" / chapter.notebook).read_text(encoding="utf-8")
    solved = json.loads((root / "solutions" / chapter.notebook).read_text(encoding="utf-8"))
    right = {
        grade_metadata(cell)["grade_id"]: cell["source"]
        for cell in solved["cells"]
        if cell["cell_type"] == "code" and grade_metadata(cell).get("solution")
    }
    for index in range(count):
        notebook = json.loads(released)
        known = list(right)[: (half + 2 * index) % (len(right) + 1)]
        for cell in notebook["cells"]:
            name = grade_metadata(cell).get("grade_id")
            if name in known:
                cell["source"] = right[name]
        path = folder / "submitted" / f"student{half}{index:03d}" / chapter.notebook
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")


def _grade(folder: Path, root: Path, number: str, way: str) -> float:
    chapter = find_chapter(number)
    program = [sys.executable, "-m"]
    if way == PLAIN:
        command, where = [*program, "nbgrader", "autograde", chapter.folder], folder
    else:
        command, where = [*program, "gclib.cli", "grade", number, "--course", str(folder)], root
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"PATH": programs, "PYTHONPATH": str(root)}
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().split("\n")[-5:])
        raise RuntimeError(f"{way} failed:\n{last}")
    return seconds


def _points(folder: Path) -> dict[str, float]:
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        found = {
            f"{submission.student.id} {grade.name}": grade.auto_score
            for assignment in book.assignments
            for submission in assignment.submissions
            for notebook in submission.notebooks
            for grade in notebook.grades
        }
    shutil.rmtree(folder / "autograded")
    return found
