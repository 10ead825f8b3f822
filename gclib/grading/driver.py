"""``gclib grade NN --course DIR``: grade a class without trusting its code.

Checkers, several at a time, mend each submission, judge it in a sandbox and keep the judgement in
``DIR/verdicts/``. One writer hands them to nbgrader: points, comments and the graded notebook. A
run that was stopped goes on where it was, and nothing that a student handed in is ever changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gclib import __version__
from gclib.chapters import Chapter, find_chapter, repository
from gclib.checks.cells import UnreadableWork
from gclib.course import RELEASE
from gclib.grading.classroom import STUDENT_ID, Course, CourseError
from gclib.grading.repair import Mended, find_notebook, mend, read_notebook
from gclib.grading.verdicts import Judgement, read_judgement
from gclib.grading.workers import CannotStart, run_all

if TYPE_CHECKING:
    from gclib.grading.sandbox.jail import Limits

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Fence:
    """What shuts students' code in.

    Attributes:
        kind: ``"bubblewrap"``, ``"docker"``, ``"podman"``, or ``"none"`` for code that you trust.
        image: of docker and podman.
        limits: what one student's code may use; default: those of the sandbox.
    """

    kind: str = "bubblewrap"
    image: str = ""
    limits: Limits | None = None


@dataclass
class Result:
    """What became of one submission.

    Attributes:
        student: who handed it in.
        points: by ``grade_id``; empty if it was not graded.
        problem: why it was not graded and what to do, or "".
        judgement: notes, flags and verdicts, where there are any.
    """

    student: str
    points: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    judgement: Judgement | None = None


def grade(
    course: Course,
    chapter: Chapter,
    *,
    students: Sequence[str] = (),
    workers: int = 2,
    again: bool = False,
    unsafe: bool = False,
    fence: Fence | None = None,
    progress: Progress = lambda line: print(line, file=sys.stderr, flush=True),
) -> list[Result]:
    """Grade every submission of a chapter.

    Args:
        course: the class.
        chapter: the chapter.
        students: these alone; default: all who handed in.
        workers: submissions that are judged at a time.
        again: judge anew what was judged before; the verdicts are the same unless gclib changed.
        unsafe: run the code as yourself, without a sandbox; short for a fence of kind "none".
        fence: what shuts the code in; default: bubblewrap.
        progress: called with a line about each submission, which names no student.

    Returns:
        A result for each student, graded or with the reason why not.

    Raises:
        CourseError: before anything was graded.
    """
    fence = fence or Fence()
    if unsafe:
        fence = replace(fence, kind="none")
    _check_fence(fence)
    course.require()
    with course.alone():
        todo = course.chosen(chapter, students)
        if (course.folder / "private").is_dir():
            from gclib.grading.judge import checks_of

            checks_of(chapter, course.folder / "private")  # before anybody is judged by them
        course.prepare()
        course.back_up()
        begin, results = time.monotonic(), []
        for result, mended in _judged(course, chapter, todo, workers, again, fence, progress):
            if mended is not None:
                _save(course, chapter, result, mended)
            results.append(result)
            left = (time.monotonic() - begin) / len(results) * (len(todo) - len(results))
            said = f"{sum(result.points.values()):g} points"
            said = "not graded" if result.problem else said
            name = course.alias(result.student)
            progress(f"{len(results)}/{len(todo)} {name}: {said} ({left:.0f} s left)")
    return sorted(results, key=lambda result: result.student)


def _check_fence(fence: Fence) -> None:
    from gclib.grading.sandbox.jail import NoSandbox, check_sandbox

    if fence.kind == "none":
        return
    try:
        check_sandbox(fence.kind, fence.image)
    except NoSandbox as error:
        raise CourseError(str(error)) from None


def _judged(
    course: Course,
    chapter: Chapter,
    students: list[str],
    workers: int,
    again: bool,
    fence: Fence,
    progress: Progress,
) -> Iterator[tuple[Result, Mended | None]]:
    """A result without points for each student as they come in, and what is to be saved."""
    from gclib.grading.sandbox.visible import write_visible

    released = _released(chapter)
    checks = _hash_of_checks(course, chapter)
    collected = _collected(course, chapter)
    todo = []
    for student in students:
        if not STUDENT_ID.fullmatch(student) or len(os.fsencode(student)) > 200:
            problem = "the name of the folder is no id that nbgrader takes; rename it (letters, "
            yield Result(student, problem=problem + "digits, . _ - @) and grade again"), None
            continue
        judgement = None if again else read_judgement(course.verdicts(student, chapter))
        digest, mended, problem, notes = _read(course, chapter, student, released)
        known = judgement and (judgement.submission, judgement.checks) == (digest, checks)
        if problem:
            if not known:
                judgement = Judgement(digest, RELEASE, __version__, problem, checks=checks)
                course.replace_file(course.verdicts(student, chapter), judgement.text())
            yield Result(student, problem=problem, judgement=judgement), None
        elif known:
            yield Result(student, judgement=judgement), mended
        else:
            notes = [*collected.get(student, ()), *notes, *mended.notes]
            todo.append((student, (student, digest, list(mended.code_cells()), mended, notes)))
    if not todo:
        return
    count = min(workers, len(todo))
    progress(f"{len(todo)} to judge, {count} at a time; starting the sandboxes")
    with tempfile.TemporaryDirectory(prefix="gclib-visible-") as visible:
        os.chmod(visible, 0o755)
        write_visible(chapter, Path(visible))
        given = (chapter.number, visible, fence, str(course.folder), course.secret(), checks)
        inputs = dict(todo)
        found = run_all(todo, _start_checker, given, workers=count, seconds=600)
        try:
            for student, text, problem in found:
                if text is None:
                    yield Result(student, problem=f"{problem}; grade again, or look at it"), None
                    continue
                course.replace_file(course.verdicts(student, chapter), text)
                judgement = read_judgement(course.verdicts(student, chapter))
                yield Result(student, judgement=judgement), inputs[student][3]
        except CannotStart as error:
            raise CourseError(f"students' code cannot be run: {error}") from None
        finally:
            found.close()


def _read(
    course: Course, chapter: Chapter, student: str, released: dict
) -> tuple[str, Mended | None, str, list[str]]:
    """Hash of what was handed in, the mended notebook or why there is none, and notes."""
    from gclib.grading.judge import digest

    content = b""
    try:
        path, notes = find_notebook(course.submission(student, chapter), chapter)
        content = read_notebook(path)
        return digest(content), mend(content, released, chapter), "", notes
    except UnreadableWork as error:
        return digest(content), None, str(error), []
    except OSError as error:
        name = Path(error.filename or "").name
        problem = f"{name}: {error.strerror}; make it readable and grade again"
        return digest(content), None, problem, []
    except Exception as error:  # whatever it is, it costs nobody else
        problem = (
            f"it cannot be read ({type(error).__name__}); hand in a fresh copy of the notebook"
        )
        return digest(content), None, problem, []


def _released(chapter: Chapter) -> dict:
    path = repository() / "chapters" / chapter.notebook
    return json.loads(path.read_text(encoding="utf-8"))


def _hash_of_checks(course: Course, chapter: Chapter) -> str:
    """Of the files that decide a verdict: it is given anew when one of them changes."""
    package = Path(__file__).parents[1]
    names = [f"checks/c{chapter.number}.py", f"checks/hidden/c{chapter.number}.py"]
    shared = ("exercise", "handle", "properties", "report", "roles", "work")
    names += [f"checks/{name}.py" for name in shared]
    paths = [package / name for name in names]
    paths += [repository() / "chapters" / chapter.notebook]
    paths += [course.folder / "private" / f"c{chapter.number}.py"]
    found = hashlib.sha256(f"{RELEASE} {__version__}".encode())
    for path in paths:
        found.update(path.read_bytes() if path.is_file() else b"-")
    return found.hexdigest()


def _collected(course: Course, chapter: Chapter) -> dict[str, list[str]]:
    """What ``gclib collect`` noted about each student."""
    path = course.folder / "collected" / f"{chapter.folder}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {student: list(entry.get("notes", ())) for student, entry in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _start_checker(
    number: str, visible: str, fence: Fence, folder: str, secret: bytes, checks: str
) -> Callable[..., str]:
    """In a process of its own: start a sandbox; return what judges one submission in it."""
    import atexit

    import torch

    from gclib.grading.sandbox.jail import Sandbox

    torch.set_num_threads(1)
    chapter = find_chapter(number)
    released = list(Mended(_released(chapter)).code_cells())
    sandbox = Sandbox(
        Path(visible),
        fence.limits,
        unsafe=fence.kind == "none",
        kind=fence.kind if fence.kind != "none" else "bubblewrap",
        image=fence.image,
        hidden=(Path(folder),),
    )
    atexit.register(sandbox.close)
    private = Path(folder) / "private"

    def check(student: str, submission: str, cells: list, mended: Mended, notes: list[str]) -> str:
        from gclib.grading.integrity import flags, verdict_flags
        from gclib.grading.judge import judge, pages

        begin = time.monotonic()
        verdicts = judge(
            sandbox, chapter, cells, secret=secret, submission=submission, private=private
        )
        found = Judgement(
            submission=submission,
            release=RELEASE,
            gclib=__version__,
            notes=notes,
            flags=flags(cells, released, mended.altered) + verdict_flags(verdicts),
            verdicts=verdicts,
            pages=pages(sandbox, mended),
            checks=checks,
        )
        found.seconds = round(time.monotonic() - begin, 3)
        return found.text()

    return check


def _save(course: Course, chapter: Chapter, result: Result, mended: Mended) -> None:
    """Let nbgrader save a judgement, unless it has it already."""
    from sqlalchemy.exc import OperationalError

    from gclib.grading.record import NotSaved, is_saved, record, saved_points

    try:
        if is_saved(course, chapter, result.student, result.judgement):
            result.points = saved_points(course, chapter, result.student) or {}
        else:
            result.points = record(course, chapter, result.student, result.judgement, mended)
    except NotSaved as error:
        result.problem = str(error)
    except OperationalError as error:
        said = " ".join(str(error.orig).split())[:200]
        result.problem = (
            f"the gradebook does not answer ({said}); the verdicts are kept: run the same command "
            "again"
        )
    except OSError:
        raise  # a full disk is everybody's
    except Exception as error:  # one notebook must not stop the class
        result.problem = f"it cannot be saved: {type(error).__name__}: {error}"


def run(options: argparse.Namespace) -> int:
    """The command ``gclib grade``."""
    workers = os.cpu_count() or 1 if options.workers is None else options.workers
    if workers < 1:
        raise ValueError(f"--workers {workers}: expected at least 1")
    chapter = find_chapter(options.chapter)
    course = Course(options.course, options.gradebook)
    results = grade(
        course,
        chapter,
        students=options.student or (),
        workers=workers,
        again=options.again,
        unsafe=options.unsafe,
        fence=Fence(options.sandbox, options.image),
    )
    from gclib.grading.class_report import write_report

    report = write_report(course, chapter, results)
    _tell(course, chapter, results, report)
    return 1 if any(result.problem for result in results) else 0


def _shown(student: str) -> str:
    return student.encode("utf-8", "replace").decode()


def _tell(course: Course, chapter: Chapter, results: list[Result], report: Path) -> None:
    failed = [result for result in results if result.problem]
    print(f"{len(results) - len(failed)} of {len(results)} submissions are graded.")
    for result in failed:
        print(f"  {_shown(result.student)}: {result.problem}")
    flagged = [r for r in results if r.judgement and r.judgement.flags and not r.problem]
    if flagged:
        print(f"{len(flagged)} to look at before the grade stands (see the report):")
        for result in flagged:
            first, *more = result.judgement.flags
            others = f" and {len(more)} more" if more else ""
            print(f"  {result.student}: {first.cell}: {first.what}{others}")
    print(f"Report: {report}")
    print(f"By hand: cd {course.folder} && jupyter lab   (menu Nbgrader > Formgrader)")
    print(f"Then: gclib feedback {chapter.number} --course {course.folder}")
