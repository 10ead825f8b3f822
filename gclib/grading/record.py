"""Write one judgement into nbgrader's gradebook, with the notebook that its formgrader shows."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gclib.chapters import Chapter, repository
from gclib.checks.cells import source_of
from gclib.grading.classroom import Course
from gclib.grading.generate import Messages, load_config
from gclib.grading.notebooks import grade_metadata
from gclib.grading.repair import Mended
from gclib.grading.verdicts import Judgement


class NotSaved(Exception):
    """The gradebook keeps what it had; ``str()`` says why."""


def stamp_of(judgement: Judgement) -> str:
    """What a graded notebook is marked with, so that it is written again only when it must be."""
    timeless = replace(
        judgement, seconds=0.0, verdicts=[replace(v, seconds=0.0) for v in judgement.verdicts]
    )
    return hashlib.sha256(timeless.text().encode()).hexdigest()


def _answers(mended: Mended) -> dict[str, str]:
    """Hash of each answer that a person reads."""
    return {
        grade_metadata(cell)["grade_id"]: hashlib.sha256(source_of(cell).encode()).hexdigest()
        for cell in mended.notebook["cells"]
        if grade_metadata(cell).get("grade") and grade_metadata(cell).get("solution")
    }


def _mark(course: Course, chapter: Chapter, student: str) -> dict[str, Any]:
    """What the graded notebook that is there was made from."""
    try:
        text = course.graded(student, chapter).read_text(encoding="utf-8")
        return dict(json.loads(text)["metadata"]["gclib"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def saved_points(course: Course, chapter: Chapter, student: str) -> dict[str, float] | None:
    """Points in the gradebook by ``grade_id``, without cells that wait for a person; None: none."""
    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(course.gradebook) as book:
        try:
            submission = book.find_submission(chapter.folder, student)
        except MissingEntry:
            return None
        return {
            grade.name: grade.score
            for notebook in submission.notebooks
            for grade in notebook.grades
            if not grade.needs_manual_grade
        }


def is_saved(course: Course, chapter: Chapter, student: str, judgement: Judgement) -> bool:
    """Whether gradebook and graded notebook both show this judgement."""
    from nbgrader.api import Gradebook, MissingEntry

    if _mark(course, chapter, student).get("judgement") != stamp_of(judgement):
        return False
    with Gradebook(course.gradebook) as book:
        try:
            notebook = book.find_submission_notebook(chapter.name, chapter.folder, student)
        except MissingEntry:
            return False
        saved = {grade.name: (grade.auto_score, grade.max_score) for grade in notebook.grades}
    worth = {name: most for name, (_, most) in saved.items()}
    return all(saved[name][0] == points for name, points in judgement.points(worth).items())


def record(
    course: Course, chapter: Chapter, student: str, judgement: Judgement, mended: Mended
) -> dict[str, float]:
    """Let nbgrader save points, comments and the graded notebook; points given by hand stay.

    Args:
        course: the class.
        chapter: the chapter.
        student: who handed it in.
        judgement: on the submission.
        mended: the submission, fit for nbgrader.

    Returns:
        Points by ``grade_id``, without cells that wait for a person.

    Raises:
        NotSaved: nbgrader refused; nothing was written.
    """
    before, now = _mark(course, chapter, student).get("answers", {}), _answers(mended)
    done = _graded_by_hand(course, chapter, student)
    done = [name for name in done if name in now and before.get(name) == now[name]]
    with tempfile.TemporaryDirectory(prefix="gclib-record-") as folder:
        stage = Path(folder)
        notebook = stage / "submitted" / student / chapter.notebook
        notebook.parent.mkdir(parents=True)
        notebook.write_text(json.dumps(mended.notebook), encoding="utf-8")
        if moment := _timestamp(course.submission(student, chapter) / "timestamp.txt"):
            (notebook.parent / "timestamp.txt").write_text(moment, encoding="utf-8")
        kept = stage / "judgement.json"
        kept.write_text(judgement.text(), encoding="utf-8")
        _convert(course, chapter, student, stage, judgement, now)
        _graded_by_hand(course, chapter, student, done)
        graded = stage / "autograded" / student / chapter.notebook
        course.replace_file(course.graded(student, chapter), graded.read_bytes())
    return saved_points(course, chapter, student) or {}


def _timestamp(path: Path) -> str:
    """When it was handed in, for nbgrader's late penalties; "" where no file says so."""
    from nbgrader.utils import parse_utc

    try:
        if path.is_symlink():
            return ""
        with open(path, encoding="utf-8") as file:
            moment = file.read(100).strip()
        return moment if moment and parse_utc(moment) else ""
    except Exception:  # unreadable, or no date
        return ""


def _graded_by_hand(
    course: Course, chapter: Chapter, student: str, done: Sequence[str] = ()
) -> list[str]:
    """Cells that a person has graded, or, of ``done``, those that need not be graded again.

    nbgrader asks for a person anew whenever it saves a submission, an unchanged one too.
    """
    from nbgrader.api import Gradebook, MissingEntry

    with Gradebook(course.gradebook) as book:
        try:
            notebook = book.find_submission_notebook(chapter.name, chapter.folder, student)
        except MissingEntry:
            return []
        graded = [grade for grade in notebook.grades if grade.manual_score is not None]
        for grade in graded:
            if grade.name in done:
                grade.needs_manual_grade = False
        book.db.commit()
        return [grade.name for grade in graded if not grade.needs_manual_grade]


def _convert(
    course: Course,
    chapter: Chapter,
    student: str,
    stage: Path,
    judgement: Judgement,
    answers: dict[str, str],
) -> None:
    from nbgrader.converters import Autograde
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import Execute
    from traitlets.config import Config

    from gclib.grading.preprocessors import InsertVerdicts

    root = repository()
    config = Config()
    config.merge(load_config(root))
    config.CourseDirectory.root = str(stage)
    config.CourseDirectory.source_directory = str(root / "solutions")
    config.CourseDirectory.db_url = course.gradebook
    config.CourseDirectory.assignment_id = chapter.folder
    config.CourseDirectory.student_id = student
    config.Autograde.force = True
    config.InsertVerdicts.path = str(stage / "judgement.json")
    config.Harmless.mark = {
        "judgement": stamp_of(judgement),
        "answers": answers,
    }
    steps = config.Autograde.autograde_preprocessors
    config.Autograde.autograde_preprocessors = [
        InsertVerdicts if step is Execute else step for step in steps
    ]
    converter = Autograde(coursedir=CourseDirectory(config=config), config=config)
    messages = Messages()
    converter.log = messages.logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SQLAlchemy's about nbgrader's own queries
            converter.start()
    except NbGraderException:
        raise NotSaved(f"nbgrader cannot save it: {messages.reason()}") from None
