"""``gclib feedback NN --course DIR``: a page for each student, which needs nothing but a browser.

A page is made from the judgement, the graded notebook and the gradebook (points, comments, late
penalty), and says so in a hash: a second run writes those alone for which something changed. It
holds no script, loads nothing, and its Content-Security-Policy lets nothing in. What it shows of
the student went through :mod:`gclib.grading.harmless`; of a hidden check it shows the verdict.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gclib import __version__
from gclib.chapters import Chapter, find_chapter, repository
from gclib.checks.cells import UnreadableWork, read_cells, source_of
from gclib.grading.classroom import Course, CourseError
from gclib.grading.notebooks import grade_metadata
from gclib.grading.verdicts import Judgement, Verdict, read_judgement

Progress = Callable[[str], None]


# The chapter


@dataclass
class Part:
    """An exercise, or a question that a person grades.

    Attributes:
        id: ``grade_id`` of the answer's cell, for example ``"c01-e1"``.
        title: as the chapter says.
        checks: ``grade_id`` of its checks, the visible one first.
        question: text of the question in front of a written answer.
    """

    id: str
    title: str
    checks: list[str] = field(default_factory=list)
    question: str = ""


class Layout:
    """What a chapter consists of, from the notebook that students receive.

    Attributes:
        parts: exercises and questions, in order.
        worth: points of each graded cell.
        sections: title and prose of each numbered section.
    """

    def __init__(self, chapter: Chapter) -> None:
        root = repository()
        path = root / "chapters" / chapter.notebook if root else Path()
        try:
            self.released = read_cells(path)
        except UnreadableWork as error:
            raise CourseError(f"{error}; run make chapters") from None
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.worth: dict[str, float] = {}
        self.sections: dict[str, tuple[str, list[str]]] = {}
        self.parts: list[Part] = []
        found: dict[str, Part] = {}
        title, prose, question = "", [], ""
        for cell in self.released:
            about, source = grade_metadata(cell), source_of(cell)
            if cell["cell_type"] == "markdown" and not about.get("solution"):
                for piece in re.split(r"^(?=## )", source, flags=re.MULTILINE):
                    heading = re.match(r"## (?:(\d+)\. )?(.+)", piece)
                    if heading:
                        prose = []
                        number = heading[1] or heading[2]
                        self.sections[number] = heading[0].removeprefix("## ").strip(), prose
                        piece = piece[heading.end() :]
                    box = re.search(r"^> ### (Exercise \d+ · .+)$", piece, re.MULTILINE)
                    title = box[1].strip() if box else title
                    if box or piece.lstrip().startswith("<details"):
                        prose = []  # the section's text ends at its first exercise
                    prose.append(piece)
                question = source
            name = about.get("grade_id", "")
            if about.get("grade"):
                self.worth[name] = float(about.get("points", 0))
            if about.get("solution"):
                written = bool(about.get("grade"))
                part = Part(name, "Reflection" if written else title or name)
                part.question = question if written else ""
                found[name] = part
                self.parts.append(part)
            elif name.rpartition("-")[0] in found and cell["cell_type"] == "code":
                found[name.rpartition("-")[0]].checks.append(name)

    def section(self, look: str) -> tuple[str, str] | None:
        """Title and prose of the section that a check names in "section 4, the table"."""
        number = re.match(r"section (\d+)", look)
        found = self.sections.get(number[1]) if number else None
        return (found[0], "\n\n".join(found[1])) if found else None


# The gradebook


@dataclass
class Grades:
    """What the gradebook knows about one submission.

    Attributes:
        points: by ``grade_id``, with extra credit.
        most: what a cell is worth.
        waiting: cells that wait for a person.
        by_hand: cells whose points a person gave.
        comments: by the ``grade_id`` of the answer.
        penalty: for handing in late.
    """

    points: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)
    penalty: float = 0.0


def read_grades(course: Course, chapter: Chapter) -> dict[str, Grades]:
    """What the gradebook says about all submissions of a chapter, in three queries.

    Raises:
        CourseError: it cannot be read.
    """
    from nbgrader.api import (
        Assignment,
        BaseCell,
        Comment,
        Grade,
        Gradebook,
        GradeCell,
        Student,
        SubmittedAssignment,
        SubmittedNotebook,
    )
    from sqlalchemy.exc import SQLAlchemyError

    from gclib.grading.gradebook import registered

    found: dict[str, Grades] = {}
    if chapter.folder not in registered(course.gradebook):
        return found  # Gradebook would make an empty one
    try:
        with Gradebook(course.gradebook) as book:

            def rows(*columns: Any) -> Any:
                chain = book.db.query(Student.id, SubmittedNotebook.id, *columns)
                chain = chain.select_from(SubmittedNotebook).join(SubmittedAssignment)
                chain = chain.join(Student, SubmittedAssignment.student_id == Student.id)
                chain = chain.join(Assignment, SubmittedAssignment.assignment_id == Assignment.id)
                return chain.filter(Assignment.name == chapter.folder)

            for student, _, penalty in rows(SubmittedNotebook.late_submission_penalty):
                grades = found.setdefault(student, Grades())
                grades.penalty += penalty or 0.0
            scores = rows(
                GradeCell.name, Grade.score, GradeCell.max_score,
                Grade.needs_manual_grade, Grade.manual_score,
            )  # fmt: skip
            scores = scores.join(Grade, Grade.notebook_id == SubmittedNotebook.id)
            for student, _, name, score, most, waits, by_hand in scores.join(
                GradeCell, Grade.cell_id == GradeCell.id
            ):
                grades = found[student]
                grades.points[name], grades.most[name] = score or 0.0, most or 0.0
                if waits:
                    grades.waiting.append(name)
                if by_hand is not None:
                    grades.by_hand.append(name)
            said = rows(BaseCell.name, Comment.manual_comment, Comment.auto_comment)
            said = said.join(Comment, Comment.notebook_id == SubmittedNotebook.id)
            for student, _, name, manual, auto in said.join(
                BaseCell, Comment.cell_id == BaseCell.id
            ):
                if (manual or auto or "").strip():
                    found[student].comments[name] = (manual or auto).strip()
    except SQLAlchemyError as error:
        raise CourseError(
            f"the gradebook cannot be read: {' '.join(str(error).split())[:300]}"
        ) from None
    for grades in found.values():
        grades.waiting.sort()
        grades.by_hand.sort()
    return found


# One page


class _Card(HTMLParser):
    """A check's card: its headline, and name and text of each row."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.headline, self.rows, self._at = "", [], ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._at = tag
        if tag == "th":
            self.rows.append(["", ""])

    def handle_endtag(self, tag: str) -> None:
        self._at = "after" if tag == "strong" else ""

    def handle_data(self, data: str) -> None:
        if self._at == "after":
            self.headline += data
        elif self._at in ("th", "td") and self.rows:
            self.rows[-1][self._at == "td"] += data


@dataclass
class Check:
    """A check as the page shows it."""

    kind: str
    verdict: str
    points: float = 0.0
    worth: float = 0.0
    by_hand: bool = False
    headline: str = ""
    rows: list[tuple[str, str]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    same: bool = False

    @property
    def state(self) -> str:
        """Class in the style sheet."""
        return {"passed": "passed", "failed": "failed"}.get(self.verdict, "blank")


@dataclass
class Shown:
    """A part of the chapter as the page shows it."""

    id: str
    title: str
    points: float
    worth: float
    checks: list[Check]
    waits: bool
    by_hand: bool
    code: str
    question: str
    answer: str
    comment: str
    readings: list[tuple[str, str]]

    @cached_property
    def passed(self) -> bool:
        """Nothing here needs the student's attention."""
        return bool(self.checks) and all(check.verdict == "passed" for check in self.checks)

    @cached_property
    def blank(self) -> bool:
        """The stub was handed in."""
        return bool(self.checks) and all(c.verdict == "not attempted" for c in self.checks)


def show_page(
    chapter: Chapter,
    layout: Layout,
    name: str,
    judgement: Judgement,
    grades: Grades | None,
    cells: list[dict],
    made_from: str,
) -> str:
    """The page of one student.

    Args:
        chapter: the chapter.
        layout: what it consists of.
        name: of the student.
        judgement: on the submission.
        grades: from the gradebook; None where it has none.
        cells: of the graded notebook, made harmless.
        made_from: hash of everything that the page shows.
    """
    from gclib.grading.pages import markup

    if grades is None:
        grades = Grades(judgement.points(layout.worth), dict(layout.worth))
    answers = {
        grade_metadata(cell)["grade_id"]: cell
        for cell in cells
        if grade_metadata(cell).get("solution")
    }
    parts = [_shown(part, layout, judgement, grades, answers) for part in layout.parts]
    most = sum(grades.most.values())
    waiting = sum(grades.most[cell] for cell in grades.waiting)
    return markup.template("feedback.html.j2").render(
        chapter=chapter,
        name=name,
        judgement=judgement,
        problem=_sentence(judgement.problem),
        notes=[_sentence(note) for note in judgement.notes],
        parts=parts,
        score=max(0.0, sum(grades.points.values()) - grades.penalty),
        most=most,
        waiting=waiting,
        penalty=grades.penalty,
        version=__version__,
        made_from=made_from,
    )


def _sentence(text: str) -> str:
    """A reason or a note as a student reads it: without where the course lies on this machine."""
    from gclib.grading.harmless import visible

    text = visible(re.sub(r"(?<![\w.])/(?:[^\s/:]+/)+(?=[^\s/:]+)", "", text)).strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!')) else '.'}" if text else ""


def _shown(
    part: Part, layout: Layout, judgement: Judgement, grades: Grades, answers: dict[str, dict]
) -> Shown:
    from gclib.grading.pages import markup

    verdicts = {verdict.cell: verdict for verdict in judgement.verdicts}
    checks: list[Check] = []
    for cell in part.checks:
        verdict = verdicts.get(cell)
        if verdict is None:
            continue
        points, worth = grades.points.get(cell, 0.0), grades.most.get(cell, 0.0)
        check = read_check(verdict)
        check.points, check.worth, check.by_hand = points, worth, cell in grades.by_hand
        check.same = bool(checks) and check.rows == checks[0].rows and check.verdict != "passed"
        checks.append(check)
    cells = [*part.checks, part.id]
    answer = answers.get(part.id, {})
    source = source_of(answer)
    looks = dict.fromkeys(
        t for c in checks if c.state == "failed" for n, t in c.rows if n == "look at"
    )
    found = dict.fromkeys(filter(None, map(layout.section, looks)))
    written = bool(answer) and answer["cell_type"] == "markdown"
    return Shown(
        id=part.id,
        title=part.title,
        points=sum(grades.points.get(cell, 0.0) for cell in cells),
        worth=sum(grades.most.get(cell, 0.0) for cell in cells),
        checks=checks,
        waits=any(cell in grades.waiting for cell in cells),
        by_hand=any(cell in grades.by_hand for cell in cells),
        code="" if written or not answer else markup.highlight(source),
        question=markup.markdown(part.question, trusted=True),
        answer=markup.markdown(source, pictures=answer.get("attachments")) if written else "",
        comment=markup.markdown(grades.comments.get(part.id, "")),
        readings=[(title, markup.markdown(prose, trusted=True)) for title, prose in found],
    )


def read_check(verdict: Verdict) -> Check:
    """What a verdict shows, read from its card; its strings may be the student's."""
    from gclib.grading.harmless import terminal, visible

    kind = "hidden" if verdict.cell.endswith("-hidden") else "visible"
    check = Check(kind, verdict.verdict, headline=visible(verdict.message))
    for output in verdict.outputs:
        page = output.get("data", {}).get("text/html", "")
        if page:
            card = _Card()
            card.feed(page)
            headline = card.headline.strip().removeprefix(f"{verdict.cell.rpartition('-')[0]}: ")
            check.headline = visible(headline) or check.headline
            check.rows = [(visible(name), terminal(text)) for name, text in card.rows]
        elif output.get("output_type") == "stream":
            lines = terminal(output.get("text", "")).splitlines()
            check.held = [line[4:] for line in lines if line.startswith("ok  ")]
    return check


# All pages


def write_pages(
    course: Course,
    chapter: Chapter,
    *,
    students: Sequence[str] = (),
    again: bool = False,
    progress: Progress = lambda line: print(line, file=sys.stderr, flush=True),
) -> Iterator[tuple[str, str]]:
    """Write the pages of a chapter that are not up to date.

    Args:
        course: the class.
        chapter: the chapter.
        students: these alone; default: all who handed in.
        again: write the others, too.
        progress: called with a line about each page, which names no student.

    Yields:
        A student, and what happened: ``"written"``, ``"up to date"`` or ``"not graded"``.

    Raises:
        CourseError: nothing was written.
    """
    from gclib.grading.people import read_people

    course.require()
    todo = course.chosen(chapter, students)
    layout, people = Layout(chapter), read_people(course)
    grades = read_grades(course, chapter)
    look = _digest_of_pages()
    begin = time.monotonic()
    for number, student in enumerate(todo, 1):
        name = str(people.get(student, {}).get("name") or student)
        done = _write_page(course, chapter, layout, student, name, grades.get(student), look, again)
        left = (time.monotonic() - begin) / number * (len(todo) - number)
        progress(f"{number}/{len(todo)} {course.alias(student)}: {done} ({left:.0f} s left)")
        yield student, done


def _digest_of_pages() -> str:
    """Of whatever decides how a page looks."""
    folder = Path(__file__).parent
    found = hashlib.sha256(__version__.encode())
    for path in [*sorted((folder / "pages").iterdir()), Path(__file__), folder / "harmless.py"]:
        if path.suffix in (".py", ".j2", ".css"):
            found.update(path.read_bytes())
    return found.hexdigest()


def _write_page(
    course: Course,
    chapter: Chapter,
    layout: Layout,
    student: str,
    name: str,
    grades: Grades | None,
    look: str,
    again: bool,
) -> str:
    from gclib.grading.harmless import make_harmless

    judgement = read_judgement(course.verdicts(student, chapter))
    if judgement is None:
        return "not graded"
    graded = course.graded(student, chapter)
    content = graded.read_bytes() if graded.is_file() and not judgement.problem else b""
    parts = [look, layout.digest, name, judgement.text(), json.dumps(grades and asdict(grades))]
    text = "\0".join([*parts, hashlib.sha256(content).hexdigest()])
    made_from = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    path = course.feedback(student, chapter)
    if not again and _made_from(path) == made_from:
        return "up to date"
    notebook: dict = {}
    if content:
        try:
            notebook = json.loads(content)
            make_harmless(notebook, layout.released)
        except (ValueError, AttributeError):
            notebook = {}  # points and verdicts stand elsewhere
    cells = notebook.get("cells", [])
    page = show_page(chapter, layout, name, judgement, grades, cells, made_from)
    course.replace_file(path, page.encode("utf-8", errors="replace"))
    return "written"


def _made_from(path: Path) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            found = re.search(r'<meta name="gclib-made-from" content="(\w+)">', file.read(2000))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


# The command


def write_zip(course: Course, chapter: Chapter, students: Sequence[str], target: Path) -> list[str]:
    """Pack pages as Moodle takes them back (*Upload multiple feedback files in a zip*).

    Moodle finds a student by the folder: ``NAME_NUMBER_assignsubmission_file_``, with the number
    that this assignment's download had. ``gclib collect`` remembers it.

    Args:
        course: the class.
        chapter: the chapter.
        students: whose pages.
        target: the zip; it appears whole or not at all.

    Returns:
        Students without a number; their folders are named by their ids.
    """
    from gclib.grading.people import read_people

    people, unknown = read_people(course), []
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(number, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
            for student in students:
                about = people.get(student, {})
                key = str(about.get("moodle", {}).get(chapter.folder, ""))
                folder = student
                if key.isdecimal():
                    name = re.sub(r"[/\\_\x00-\x1f]+", " ", str(about.get("name") or student))
                    folder = f"{name.strip(' .~')}_{key}_assignsubmission_file_"
                else:
                    unknown.append(student)
                page = course.feedback(student, chapter)
                pack.write(page, f"{folder}/{page.name}")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return unknown


def run(options: argparse.Namespace) -> int:
    """The command ``gclib feedback``."""
    chapter, course = find_chapter(options.chapter), Course(options.course)
    course.require()
    with course.alone():
        pages = write_pages(course, chapter, students=options.student or (), again=options.again)
        done = dict(pages)
        ready = [student for student, what in done.items() if what != "not graded"]
        unknown = write_zip(course, chapter, ready, options.zip) if options.zip else []
    counts = {what: list(done.values()).count(what) for what in ("written", "up to date")}
    pages = "page" if counts["written"] == 1 else "pages"
    print(
        f"{counts['written']} {pages} written, {counts['up to date']} up to date: "
        f"{course.folder}/feedback/STUDENT/{chapter.folder}/{chapter.name}.html"
    )
    missing = sorted(set(done) - set(ready))
    if missing:
        print(f"Not graded, so without a page: {', '.join(missing)}")
        print(f"First: gclib grade {chapter.number} --course {course.folder}")
    if options.zip:
        print(f"{len(ready)} pages are in {options.zip}")
    if unknown:
        print(f"Not from Moodle, so in folders named by their ids: {', '.join(unknown)}")
    if find_spec("math_core") is None:
        print("Formulas are shown as LaTeX; for real ones: pip install 'gclib[grade]'")
    return 1 if missing else 0
