"""The commands of an instructor: grade, and what stands around it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def register(commands: argparse._SubParsersAction) -> None:
    """Add the commands to those of ``gclib``."""
    command = commands.add_parser("grade", help="grade a class; students' code runs in a sandbox")
    command.add_argument("chapter", metavar="NN")
    command.add_argument(
        "--course",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds submitted/STUDENT/CHAPTER/NAME.ipynb; grades go there",
    )
    command.add_argument(
        "--gradebook", default="", metavar="URL", help="default: gradebook.db in DIR (SQLite)"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="submissions at a time; default: one for each core"
    )
    command.add_argument("--again", action="store_true", help="judge anew what was judged before")
    command.add_argument(
        "--unsafe", action="store_true", help="no sandbox: for code that you trust"
    )
    command.set_defaults(run=_grade)


def _fail(reason: object) -> int:
    print(f"gclib: {reason}", file=sys.stderr)
    return 2


def _grade(options: argparse.Namespace) -> int:
    from gclib.chapters import find_chapter
    from gclib.grading.classroom import CannotGrade, Course
    from gclib.grading.driver import grade

    workers = options.workers or os.cpu_count() or 1
    if workers < 1:
        return _fail(f"--workers {workers}: expected at least 1")
    try:
        chapter = find_chapter(options.chapter)
        course = Course(options.course, options.gradebook)
        results = grade(
            course, chapter, workers=workers, again=options.again, unsafe=options.unsafe
        )
    except (ValueError, CannotGrade, OSError) as error:
        return _fail(error)
    failed = [result for result in results if result.problem]
    print(f"{len(results) - len(failed)} of {len(results)} submissions are graded.")
    for result in failed:
        print(f"  {result.student}: {result.problem}")
    print(f"Points: {course.gradebook}; graded notebooks: {course.folder / 'autograded'}")
    return 1 if failed else 0
