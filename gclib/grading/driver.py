"""``gclib grade NN --course DIR``: grade a class without trusting its code.

Two stages. Checkers, several at a time, judge each submission in a sandbox and keep the verdicts in
``DIR/verdicts/``. One writer then lets nbgrader repair each notebook, puts the verdicts where the
kernel's output would stand, and saves points, comments and the graded notebook. A run that was
stopped goes on where it was; nothing that a student handed in is ever changed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
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
from gclib.chapters import CHAPTERS, Chapter, find_chapter, repository
from gclib.checks.cells import UnreadableWork
from gclib.course import RELEASE
from gclib.grading.generate import GenerationFailed, Messages, generate, load_config
from gclib.grading.sandbox.jail import NoSandbox, Sandbox, check_bubblewrap
from gclib.grading.sandbox.visible import write_visible


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
        import sqlite3

        with sqlite3.connect(path) as book, sqlite3.connect(copy) as target:
            book.backup(target)  # whole, even while somebody writes
        return copy


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
        CannotGrade: before anything was graded.
    """
    if not unsafe:
        try:
            check_bubblewrap()
        except NoSandbox as error:
            raise CannotGrade(str(error)) from None
    course.prepare()
    students = course.students(chapter)
    if not students:
        raise CannotGrade(f"submitted/*/{chapter.folder} is empty: nobody has handed in")
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
                    raise CannotGrade(f"a checker ended: {error}; grade again to go on") from None
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
    _replace(Path(target), json.dumps(kept, indent=1))
    return ""


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


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
