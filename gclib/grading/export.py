"""``gclib export --course DIR``: points from the gradebook as a table.

- ``plain``: one row for each student. It begins with a byte order mark, without which Excel reads
  names in UTF-8 wrongly.
- ``canvas``: what Canvas's Gradebook imports. With ``--roster``, its own export with our columns
  filled in.
- ``moodle``: a grading worksheet of one assignment; Moodle numbers students anew in each. With
  ``--roster``, the worksheet that was downloaded, with its column *Grade* filled in.

For an LMS there is a mark only where the roster had one. A student without a graded submission has
an empty cell, never 0, and a cell of the roster stays as it is where there is nothing to say.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, find_chapter
from gclib.grading.classroom import Course, CourseError
from gclib.grading.gradebook import registered
from gclib.grading.people import read_people, same_name
from gclib.grading.tables import Table, number, read_table, write_table
from gclib.grading.unpack import shown
from gclib.grading.verdicts import read_judgement


@dataclass(frozen=True)
class Mark:
    """What one student has for one chapter.

    Attributes:
        points: with the penalty taken off; None where nothing was graded.
        penalty: for handing in late.
        waits: whether a person has still to grade something.
        problem: why it was not graded, or what is odd, or "".
    """

    points: float | None
    penalty: float = 0.0
    waits: bool = False
    problem: str = ""


@dataclass
class Marks:
    """The points of a class.

    Attributes:
        chapters: with what each is worth.
        students: ids, in order.
        of: by student and chapter's folder.
    """

    chapters: dict[Chapter, float] = field(default_factory=dict)
    students: list[str] = field(default_factory=list)
    of: dict[tuple[str, str], Mark] = field(default_factory=dict)

    def points(self, student: str, chapter: Chapter) -> str:
        """The cell of a table."""
        mark = self.of.get((student, chapter.folder), Mark(None))
        return "" if mark.points is None else number(mark.points)


def run(options: argparse.Namespace) -> int:
    """The command."""
    course = Course(options.course)
    chapters = [find_chapter(each) for each in options.chapter or []]
    for line in export(
        course,
        options.target,
        chapters=chapters,
        roster=options.roster,
        column=options.column,
        out=options.out,
    ):
        print(line)
    return 0


def export(
    course: Course,
    target: str = "plain",
    *,
    chapters: list[Chapter] | None = None,
    roster: Path | None = None,
    column: str = "",
    out: Path | None = None,
) -> list[str]:
    """Write the points of a class.

    Args:
        course: the class.
        target: ``"plain"``, ``"canvas"`` or ``"moodle"``.
        chapters: default: all that were graded.
        roster: the LMS's own export, whose rows and columns stay as they are.
        column: of the roster that takes the points; default: told by its name.
        out: the file; default: in ``exports/``.

    Returns:
        What to tell the instructor, in lines.

    Raises:
        CourseError: nothing was written.
    """
    root = course.require()
    if roster is None and column:
        raise CourseError("--column names a column of the --roster; give that, too")
    if roster is not None and target == "plain":
        raise CourseError("--roster goes with --for canvas or --for moodle")
    if out is not None:
        _check_out(out, root, roster)
    table = read_table(roster) if roster is not None else None
    with course.alone():
        marks = read_marks(course, chapters or [])
        said = _about(marks)
        if target == "moodle":
            if (out or roster) and len(marks.chapters) > 1:
                raise CourseError("in Moodle each chapter has its own table; name one --chapter")
            for chapter in marks.chapters:
                place = out or course.folder / "exports" / f"moodle-{chapter.folder}.csv"
                said += _moodle(course, marks, chapter, table, column, place)
            return said
        # Named after the chapters that were asked for: one export does not replace another.
        name = "-".join([_NAMES[target], *(chapter.number for chapter in chapters or ())])
        place = out or course.folder / "exports" / f"{name}.csv"
        if target == "canvas":
            return said + _canvas(course, marks, table, column, place, bool(chapters))
        return said + _plain(course, marks, place)


_NAMES = {"plain": "grades", "canvas": "canvas"}


def _check_out(out: Path, root: Path, roster: Path | None) -> None:
    place = out.resolve()
    if root in place.parents:
        raise CourseError(f"{out} lies in the repository, where it could be committed")
    if roster is not None and place == roster.resolve():
        raise CourseError("--out is the --roster; give the result another name")
    if not place.parent.is_dir() or place.is_dir():
        raise CourseError(f"{out}: name a file in a folder that is there")


def read_marks(course: Course, chapters: list[Chapter]) -> Marks:
    """The points of a class out of its gradebook, which is not changed.

    Args:
        course: the class.
        chapters: none for all that were graded.

    Raises:
        CourseError: there is no gradebook, it cannot be opened, or nothing was graded.
    """
    known = registered(course.gradebook)
    wanted = [chapter for chapter in chapters or CHAPTERS if chapter.folder in known]
    missing = [chapter.number for chapter in chapters if chapter.folder not in known]
    if missing or not wanted:
        raise CourseError(
            f"nothing was graded yet{' for ' + ', '.join(missing) if missing else ''}; run gclib "
            f"grade NN --course {course.folder} first"
        )
    from nbgrader.api import Gradebook

    marks = Marks()
    with Gradebook(course.gradebook) as book:
        students = {student.id for student in book.students}
        for chapter in wanted:
            found = {s.student.id: s for s in book.assignment_submissions(chapter.folder)}
            if not found and not chapters:
                continue
            marks.chapters[chapter] = book.find_assignment(chapter.folder).max_score
            for student in {*found, *course.students(chapter)}:
                mark = _mark(course, chapter, student, found.get(student))
                marks.of[student, chapter.folder] = mark
    if not marks.chapters:
        raise CourseError(f"nothing was graded yet; run gclib grade NN --course {course.folder}")
    marks.students = sorted(students | set(read_people(course)) | set(course.students()))
    return marks


def _mark(course: Course, chapter: Chapter, student: str, submission) -> Mark:
    judgement = read_judgement(course.verdicts(student, chapter))
    if judgement and judgement.problem:
        return Mark(None, problem=judgement.problem)
    grades = [g for n in submission.notebooks for g in n.grades] if submission else []
    if all(grade.auto_score is None and grade.manual_score is None for grade in grades):
        return Mark(None, problem="handed in, not graded yet")
    path, problem = course.notebook(student, chapter), ""
    if judgement and path.is_file() and _digest(path) != judgement.submission:
        problem = "another version was collected since; grade again"
    penalty = submission.late_submission_penalty or 0.0
    points = max(0.0, submission.score - penalty)
    return Mark(points, penalty, bool(submission.needs_manual_grade), problem)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _about(marks: Marks) -> list[str]:
    """Who is not finished."""
    said = []
    for chapter, most in marks.chapters.items():
        mine = {s: m for (s, folder), m in marks.of.items() if folder == chapter.folder}
        graded = sum(mark.points is not None for mark in mine.values())
        said.append(f"chapter {chapter.number}: {graded} graded, of {number(most)} points")
        waiting = sorted(student for student, mark in mine.items() if mark.waits)
        if waiting:
            said.append(
                f"  waiting for points by hand, with what they have so far: {', '.join(waiting)}"
            )
        said += [f"  {s}: {m.problem}" for s, m in sorted(mine.items()) if m.problem]
    return said


def _plain(course: Course, marks: Marks, place: Path) -> list[str]:
    people = read_people(course)
    header = ["student", "name"]
    for chapter in marks.chapters:
        name = chapter.folder
        header += [name, f"{name} of", f"{name} late penalty", f"{name} by hand"]
    rows = [header]
    for student in marks.students:
        row = [student, people.get(student, {}).get("name", "")]
        for chapter, most in marks.chapters.items():
            mark = marks.of.get((student, chapter.folder), Mark(None))
            penalty = number(mark.penalty) if mark.penalty else ""
            waits = "waits" if mark.waits else ""
            row += [marks.points(student, chapter), number(most), penalty, waits]
        rows.append(row)
    return _write(place, Table(rows, mark=True))


def _write(place: Path, table: Table) -> list[str]:
    cells = write_table(place, table)
    said = [f"wrote {place}"]
    if cells:
        columns = Counter(table.rows[0][j] if j < len(table.rows[0]) else "?" for _, j in cells)
        where = ", ".join(f"{shown(name)!r} ({count})" for name, count in columns.items())
        said.append(f"  an apostrophe was put before cells that a spreadsheet would run: {where}")
    return said


def _canvas(
    course: Course, marks: Marks, table: Table | None, column: str, place: Path, named: bool
) -> list[str]:
    people = read_people(course)
    if table is None:
        rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]]
        rows[0] += [chapter.folder for chapter in marks.chapters]
        rows.append(["    Points Possible", "", "", "", ""])
        rows[1] += [number(most) for most in marks.chapters.values()]
        for student in marks.students:
            about = people.get(student, {})
            login = "" if about.get("canvas") else student
            rows.append([about.get("name") or student, about.get("canvas", ""), "", login, ""])
            rows[-1] += [marks.points(student, chapter) for chapter in marks.chapters]
        return _write(place, Table(rows))
    rows = table.rows
    header = [cell.strip() for cell in rows[0]]
    if "ID" not in header or "Section" not in header:
        raise CourseError("the roster is no export of Canvas's Gradebook: no columns ID, Section")
    identity = range(header.index("Section"))
    body = [i for i, row in enumerate(rows) if i and _is_student(row, header.index("ID"))]
    about = {}
    for i in body:
        last_first = ("LastName" in header) and f"{rows[i][1]} {rows[i][0]}"
        name = last_first or " ".join(reversed(rows[i][0].split(", ", 1)))
        about[i] = _Row(rows[i][header.index("ID")], {rows[i][j] for j in identity}, name)
    matched, said = _match(marks, people, about, lambda known: known.get("canvas", ""))
    filled = 0
    for chapter, most in marks.chapters.items():
        try:
            j = _canvas_column(chapter, rows[0], column if len(marks.chapters) == 1 else "")
        except CourseError as error:
            if named or len(marks.chapters) == 1:
                raise
            said.append(f"left out: {error}")
            continue
        filled += 1
        said.append(f"chapter {chapter.number} goes into column {shown(rows[0][j])!r}")
        for row in rows[1:]:
            row += [""] * (j + 1 - len(row))
            if "Points Possible" in row[0] and _differs(row[j], most):
                said.append(
                    f"  Canvas has {row[j] or 'no'} points possible, the chapter {number(most)}; "
                    "set that in Canvas, or its percentages are wrong"
                )
        said += _fill(marks, chapter, rows, j, matched, keep=("EX", "N/A"))
    if not filled:
        raise CourseError("the roster has no column for any of the chapters; use --column")
    return said + _write(place, table)


def _is_student(row: list[str], j: int) -> bool:
    return len(row) > j and row[j].strip().isdigit() and row[0].strip() != "Student, Test"


def _canvas_column(chapter: Chapter, header: list[str], column: str) -> int:
    """The column of a chapter; Canvas writes ``name of the assignment (number)``."""
    titles = {}
    for j, cell in enumerate(header):
        found = re.fullmatch(r"(.*) \((\d+)\)", cell.strip(), re.DOTALL)
        if found:
            titles[j] = found[1]
    if column:
        exact = [j for j, cell in enumerate(header) if column in (cell.strip(), titles.get(j))]
        return _only(exact, header, f"--column {column!r}")
    for wanted in (chapter.folder, chapter.title, f"chapter 0?{int(chapter.number)}", chapter.name):
        pattern = rf"\b{wanted if '?' in wanted else re.escape(_words(wanted))}\b"
        found = [j for j, title in titles.items() if re.search(pattern, _words(title))]
        if found:
            return _only(found, header, f"chapter {chapter.number}")
    raise CourseError(
        f"the roster has no column for chapter {chapter.number}; make the assignment "
        f"{chapter.folder} in Canvas and export again, or name it with --column"
    )


def _words(text: str) -> str:
    return " ".join(re.split(r"[\W_]+", text.casefold())).strip()


def _only(found: list[int], header: list[str], what: str) -> int:
    if len(found) != 1:
        names = ", ".join(repr(shown(header[j])) for j in found) or "none"
        raise CourseError(f"columns of the roster for {what}: {names}; name one with --column")
    return found[0]


@dataclass(frozen=True)
class _Row:
    """What a row of a roster says about its student."""

    number: str
    ids: set[str]
    name: str


def _match(marks: Marks, people: dict[str, dict], rows: dict[int, _Row], number_of) -> tuple:
    """Which row is whose: by the LMS's number, then by id, then by a name that is one person's."""
    matched: dict[int, str] = {}
    numbers = {
        number_of(people.get(s, {})): s for s in marks.students if number_of(people.get(s, {}))
    }
    ids = {student.casefold(): student for student in marks.students}
    names, called = {}, Counter(same_name(row.name) for row in rows.values())
    known = Counter(same_name(people.get(s, {}).get("name", "")) for s in marks.students)
    for student in marks.students:
        name = same_name(people.get(student, {}).get("name", ""))
        if name and known[name] == called[name] == 1:
            names[name] = student
    for i, row in rows.items():
        hit = {ids[cell.casefold()] for cell in row.ids if cell.casefold() in ids}
        student = numbers.get(row.number) or (hit.pop() if len(hit) == 1 else None)
        student = student or names.get(same_name(row.name))
        if student and student not in matched.values():
            matched[i] = student
    if not matched:
        raise CourseError("no row of the roster is a student of this class; is it the right one?")
    said = []
    absent = [s for s in marks.students if s not in matched.values()]
    if absent:
        said.append(f"in the class, but not in the roster: {', '.join(absent)}")
    strangers = [shown(row.name) for i, row in rows.items() if i not in matched]
    if strangers:
        said.append(f"in the roster, but nothing from them here: {', '.join(strangers)}")
    return matched, said


def _fill(
    marks: Marks,
    chapter: Chapter,
    rows: list[list[str]],
    j: int,
    matched: dict[int, str],
    keep: tuple[str, ...] = (),
) -> list[str]:
    """Write the points into a column; what was there before is told."""
    said = []
    for i, student in matched.items():
        points, before = marks.points(student, chapter), rows[i][j].strip()
        if not points:
            continue
        if before in keep:
            said.append(f"  {student} has {before} there, which stays; {points} points here")
            continue
        if before and _differs(before, float(points)):
            said.append(f"  {student} had {shown(before)} there, now {points}")
        rows[i][j] = points
    return said


def _differs(cell: str, value: float) -> bool:
    try:
        return abs(float(cell.replace(",", ".")) - value) > 0.005
    except ValueError:
        return True


def _moodle(
    course: Course, marks: Marks, chapter: Chapter, table: Table | None, column: str, place: Path
) -> list[str]:
    people = read_people(course)
    numbers = {
        s: people.get(s, {}).get("moodle", {}).get(chapter.folder, "") for s in marks.students
    }
    if table is None:
        # Moodle asks for the last column, and takes a row where it is not older than its own.
        rows = [["Identifier", "Full name", "Email address", "Grade", "Last modified (grade)"]]
        for student in marks.students:
            if numbers[student].isdigit():
                name, points = people[student].get("name", ""), marks.points(student, chapter)
                rows.append([f"Participant {numbers[student]}", name, "", points, "-"])
        graded = [s for s in marks.students if marks.points(s, chapter)]
        absent = [s for s in graded if not numbers[s].isdigit()]
        said = []
        if absent:
            said.append(
                "left out, for Moodle's number of them is not known (use --roster): "
                f"{', '.join(absent)}"
            )
        if len(rows) == 1:
            raise CourseError(
                "nobody was collected from Moodle for this chapter; download the grading worksheet "
                "of the assignment and name it with --roster"
            )
        return said + _write(place, Table(rows))
    rows = table.rows
    j, most = _moodle_columns(rows, column)
    about = {}
    for i, row in enumerate(rows[1:], start=1):
        found = re.search(r"(\d+)\s*$", row[0]) if row else None
        if found:
            row += [""] * (len(rows[0]) - len(row))
            cells = {cell for k, cell in enumerate(row) if k != j}
            about[i] = _Row(found[1], cells, row[1])
    matched, said = _match(
        marks, people, about, lambda a: a.get("moodle", {}).get(chapter.folder, "")
    )
    said.append(f"chapter {chapter.number} goes into column {shown(rows[0][j])!r}")
    worth = marks.chapters[chapter]
    others = [rows[i][most] for i in matched if most is not None and _differs(rows[i][most], worth)]
    if others:
        said.append(
            f"  Moodle's maximum grade is {shown(others[0]) or 'not set'}, the chapter is worth "
            f"{number(worth)}; set that in the assignment, or its percentages are wrong and points "
            "above the maximum are skipped"
        )
    said += _fill(marks, chapter, rows, j, matched)
    return said + _write(place, table)


def _moodle_columns(rows: list[list[str]], column: str) -> tuple[int, int | None]:
    """The columns of the grade and of its maximum."""
    header = [cell.strip() for cell in rows[0]]
    identifiers = [row[0] for row in rows[1:] if row]
    if not identifiers or not all(re.search(r"\d\s*$", cell) for cell in identifiers):
        raise CourseError(
            "the roster is no grading worksheet of Moodle, whose first column is Identifier; "
            "download it in the assignment (Grading action > Download grading worksheet)"
        )
    wanted = column or "Grade"
    j = _only([k for k, cell in enumerate(header) if cell == wanted], rows[0], repr(wanted))
    most = [k for k, cell in enumerate(header) if cell.casefold() == "maximum grade"]
    return j, most[0] if most else None
