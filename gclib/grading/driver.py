"""``gclib grade NN --course DIR``: grade a class without trusting its code.

Two stages. Checkers, several at a time, judge each submission in a sandbox and keep the verdicts in
``DIR/verdicts/``. One writer then lets nbgrader repair each notebook, puts the verdicts where the
kernel's output would stand, and saves points, comments and the graded notebook. A run that was
stopped goes on where it was; nothing that a student handed in is ever changed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from gclib import __version__
from gclib.chapters import Chapter, find_chapter, repository
from gclib.checks.cells import UnreadableWork
from gclib.course import RELEASE
from gclib.grading.classroom import CourseError, Course, replace_file
from gclib.grading.generate import Messages, load_config
from gclib.grading.sandbox.jail import NoSandbox, Sandbox, check_bubblewrap
from gclib.grading.sandbox.visible import write_visible


@dataclass
class Result:
    """What became of one submission.

    Attributes:
        student: who handed it in.
        points: by ``grade_id``; empty if it was not graded.
        problem: why it was not graded and what to do, or "".
        notes: what was mended or is odd.
    """

    student: str
    points: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    notes: list[str] = field(default_factory=list)


def grade(
    course: Course,
    chapter: Chapter,
    *,
    workers: int = 2,
    again: bool = False,
    unsafe: bool = False,
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> list[Result]:
    """Grade every submission of a chapter.

    Args:
        course: the class.
        chapter: the chapter.
        workers: submissions that are judged at a time.
        again: judge anew what was judged before; the verdicts are the same unless gclib changed.
        unsafe: run the code as yourself, without a sandbox.
        progress: called with a line about each submission.

    Returns:
        A result for each student, graded or with the reason why not.

    Raises:
        CourseError: before anything was graded.
    """
    if not unsafe:
        try:
            check_bubblewrap()
        except NoSandbox as error:
            raise CourseError(str(error)) from None
    course.prepare()
    students = course.students(chapter)
    if not students:
        raise CourseError(f"submitted/*/{chapter.folder} is empty: nobody has handed in")
    course.back_up()
    begin, results = time.monotonic(), []
    total = len(students)
    for result in _judged(course, chapter, students, workers, again, unsafe):
        if not result.problem:
            result = _write(course, chapter, result)
        results.append(result)
        left = (time.monotonic() - begin) / len(results) * (total - len(results))
        said = result.problem or f"{sum(result.points.values()):g} points"
        progress(f"{len(results)}/{total} {result.student}: {said} ({left:.0f} s left)")
    return sorted(results, key=lambda result: result.student)


def _judged(
    course: Course,
    chapter: Chapter,
    students: list[str],
    workers: int,
    again: bool,
    unsafe: bool,
) -> Iterator[Result]:
    """A result without points for each student, as their verdicts come in."""
    todo = []
    for student in students:
        path = course.notebook(student, chapter)
        if not path.is_file():
            others = ", ".join(p.name for p in sorted(path.parent.glob("*.ipynb"))) or "no notebook"
            problem = f"{path.name} was not handed in ({others}): rename it and grade again"
            yield Result(student, problem=problem)
        elif not again and _is_judged(course, chapter, student):
            yield Result(student)
        else:
            todo.append(student)
    if not todo:
        return
    secret = course.secret()
    with tempfile.TemporaryDirectory(prefix="gclib-visible-") as visible:
        os.chmod(visible, 0o755)
        write_visible(chapter, Path(visible))
        with ProcessPoolExecutor(
            min(workers, len(todo)),
            mp_context=get_context("spawn"),
            initializer=_start_checker,
            initargs=(chapter.number, visible, unsafe),
        ) as pool:
            waiting = {
                pool.submit(
                    _check,
                    str(course.notebook(student, chapter)),
                    secret,
                    str(course.verdicts(student, chapter)),
                ): student
                for student in todo
            }
            for done in as_completed(waiting):
                student = waiting[done]
                try:
                    problem = done.result()
                except BrokenProcessPool as error:
                    raise CourseError(f"a checker ended: {error}; grade again to go on") from None
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
                yield Result(student, problem=problem)


def _is_judged(course: Course, chapter: Chapter, student: str) -> bool:
    from gclib.grading.judge import digest

    try:
        kept = json.loads(course.verdicts(student, chapter).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    now = digest(course.notebook(student, chapter).read_bytes())
    return (kept["submission"], kept["release"], kept["gclib"]) == (now, RELEASE, __version__)


_checker: tuple | None = None  # chapter and sandbox of a checker's process


def _start_checker(number: str, visible: str, unsafe: bool) -> None:
    global _checker
    import atexit

    import torch

    torch.set_num_threads(1)
    sandbox = Sandbox(Path(visible), unsafe=unsafe)
    atexit.register(sandbox.close)
    _checker = find_chapter(number), sandbox


def _check(path: str, secret: bytes, target: str) -> str:
    """Judge one notebook and keep the verdicts; "" or why it cannot be read."""
    from gclib.checks.work import code_cells
    from gclib.grading.judge import digest, judge

    chapter, sandbox = _checker
    content = Path(path).read_bytes()
    try:
        cells = list(code_cells(Path(path)))
    except UnreadableWork as error:
        return str(error)
    submission = digest(content)
    verdicts = judge(sandbox, chapter, cells, secret=secret, submission=submission)
    kept = {
        "submission": submission,
        "release": RELEASE,
        "gclib": __version__,
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    replace_file(Path(target), json.dumps(kept, indent=1))
    return ""


def _write(course: Course, chapter: Chapter, result: Result) -> Result:
    """Let nbgrader save the verdicts: points, comments, and the notebook to look at."""
    from nbgrader.api import Gradebook
    from nbgrader.converters import Autograde
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import Execute
    from traitlets.config import Config

    from gclib.grading.preprocessors import InsertVerdicts

    root = repository()
    config = Config()
    config.merge(load_config(root))
    config.CourseDirectory.root = str(course.folder)
    config.CourseDirectory.source_directory = str(root / "solutions")
    config.CourseDirectory.db_url = course.gradebook
    config.CourseDirectory.assignment_id = chapter.folder
    config.CourseDirectory.student_id = result.student
    config.Autograde.force = True
    config.InsertVerdicts.path = str(course.verdicts(result.student, chapter))
    steps = config.Autograde.autograde_preprocessors
    config.Autograde.autograde_preprocessors = [
        InsertVerdicts if step is Execute else step for step in steps
    ]
    converter = Autograde(coursedir=CourseDirectory(config=config), config=config)
    messages = Messages()
    converter.log = messages.logger
    try:
        converter.start()
        with Gradebook(course.gradebook) as book:
            submission = book.find_submission(chapter.folder, result.student)
            for notebook in submission.notebooks:
                for saved in notebook.grades:
                    if not saved.needs_manual_grade:
                        result.points[saved.name] = saved.score
    except NbGraderException:
        result.problem = f"nbgrader cannot read it: {messages.reason()}"
    except Exception as error:  # one notebook must not stop the class
        result.problem = f"it cannot be saved: {type(error).__name__}: {error}"
    return result
