"""``gclib purge --course DIR``: remove a student, or all of a term, everywhere.

Copies of the gradebook are cleaned as well. Those of a PostgreSQL server cannot be edited: a new
one is made without the student, and the old ones go. What nobody made with gclib stays, and is
named where it mentions the student. Links are never followed. Nothing outside of DIR is removed;
rows of a gradebook that lies elsewhere are.

A run that was stopped goes on when it is started again: what says that the student, or the class,
was here is removed last.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import re
import shutil
import sqlite3
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gclib.grading.classroom import Course, CourseError
from gclib.grading.gradebook import registered, sqlite_file, without_password
from gclib.grading.people import known_words, read_people, write_people

# Folders of a class; private/, the instructor's own checks, is none of them.
_FOLDERS = (
    *("exports", "reports", "backups", "autograded", "verdicts"),
    *("feedback", "replaced", "collected", "submitted"),
)
_FILES = re.compile(
    r"gradebook\.db([-.].*)?|students\.json|secret|\.secret\.\d+|\.nbgrader\.log"
    r"|\.[\w.]+\.\d+\.partial"
)
_LAST = ("nbgrader_config.py", "course.json", ".lock")


def run(options: argparse.Namespace) -> int:
    """The command."""
    course = _class(options.course)
    said = (
        purge_term(course, lambda question: _confirm(question, course.folder.name, options.yes))
        if options.term
        else purge_students(
            course,
            options.student,
            lambda question: _confirm(question, str(len(set(options.student))), options.yes),
        )
    )
    for line in said:
        print(line)
    print("Downloads of the LMS, backups of the computer and of a server are yours to remove.")
    return 0


def _class(folder: Path) -> Course:
    """The class, once it is sure that it is one.

    Raises:
        CourseError: the folder is no class, or a part of it is a symbolic link.
    """
    path = folder / "course.json"
    if not folder.is_dir() or path.is_symlink() or not path.is_file():
        raise CourseError(f"{folder} is no folder of a class: there is no course.json in it")
    with contextlib.suppress(ValueError, OSError):
        if isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
            course = Course(folder)
            links = [name for name in _FOLDERS if (course.folder / name).is_symlink()]
            if links:
                raise CourseError(
                    f"{', '.join(links)} in {folder} lead elsewhere (symbolic links), and nothing "
                    "outside of the folder is removed; put real folders there"
                )
            return course
    raise CourseError(f"{path} is damaged; mend it, so that it is sure what belongs to the class")


def _confirm(question: str, answer: str, yes: bool) -> None:
    print(question)
    if yes:
        return
    if not sys.stdin.isatty():
        raise CourseError("nothing was removed; --yes does it where nobody can be asked")
    try:
        typed = input(f"There is no way back. Type {answer} to remove it: ")
    except EOFError:
        typed = ""
    if typed.strip() != answer:
        raise CourseError("nothing was removed")


# One student


def purge_students(
    course: Course, students: Sequence[str], confirm: Callable[[str], None] = lambda question: None
) -> list[str]:
    """Remove everything about students.

    Args:
        course: the class.
        students: ids.
        confirm: called with what will go before anything does; raises to stop.

    Returns:
        What to tell the instructor, in lines.

    Raises:
        CourseError: nothing was removed.
    """
    students = sorted(set(students))
    with course.alone():
        people, saved = read_people(course), registered(course.gradebook)
        list(_records(course))  # raises where one is damaged, while all is still there
        books = [path for path in _databases(course) if path != sqlite_file(course.gradebook)]
        for path in books:
            _check_database(path)
        unknown = [s for s in students if not _is_known(course, s, people, bool(saved))]
        if unknown:
            raise CourseError(
                f"nothing is known here of {', '.join(map(repr, unknown))}; ids are the names of "
                "the folders in submitted/"
            )
        dumps = sorted((course.folder / "backups").glob("*.dump"))
        if dumps and shutil.which("pg_dump") is None:
            raise CourseError(
                "pg_dump is missing, so no copy of the gradebook can be made without the students "
                "before the old ones go; install PostgreSQL's client"
            )
        confirm(f"{course.folder}: everything about {', '.join(students)} will be removed.")
        said = []
        words = {word for student in students for word in _words(course, student, people)}
        numbers = {word for student in students for word in known_words(student, people)} - words
        said += _forget_tables(course, words, numbers)
        if saved:
            _forget(course.gradebook, students)
            said.append(f"rows in the gradebook {without_password(course.gradebook)}")
        for path in books:
            _forget(f"sqlite:///{path}", students)
        if books:
            said.append(f"rows in {len(books)} copies of the gradebook")
        if dumps:
            if saved:
                course.back_up()
            for path in dumps:
                path.unlink()
            said.append(
                f"{len(dumps)} old copies of the database, which cannot be edited; one new copy"
            )
        for student in students:
            said += _forget_files(course, student)
        gone = [student for student in students if people.pop(student, None) is not None]
        if gone:
            write_people(course, people)
            said.append(f"{', '.join(gone)} in students.json")
        for student in students:
            said += _remove(course, course.folder / "submitted" / student)
        left = _left(course, words)
    lines = [f"removed: {line}" for line in said]
    lines += [f"not gclib's, so still there, and it mentions them: {path}" for path in left]
    return lines


def _is_known(course: Course, student: str, people: dict, saved: bool) -> bool:
    if "/" in student or "\0" in student or student in ("", ".", ".."):
        return False
    if student in people or any(True for _ in _places(course, student)):
        return True
    if any(student in found for _, found in _records(course)):
        return True
    return saved and student in _in_gradebook(course.gradebook)


def _in_gradebook(address: str) -> set[str]:
    from nbgrader.api import Gradebook

    with Gradebook(address) as book:
        return {student.id for student in book.students}


def _places(course: Course, student: str) -> Iterator[Path]:
    """Files and folders that bear a student's id as their name."""
    for name in ("autograded", "feedback", "replaced", "submitted"):
        path = course.folder / name / student
        if path.exists() or path.is_symlink():
            yield path
    for name in ("verdicts", "feedback"):
        for folder in _subfolders(course.folder / name):
            for path in sorted(folder.iterdir()):
                half = re.fullmatch(r"\.(.+)\.\d+\.partial", path.name)  # of a command that died
                called = half[1] if half else path.name
                if not path.is_dir() and called.rpartition(".")[0] == student:
                    yield path


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    return [folder, *sorted(found)]


def _records(course: Course) -> Iterator[tuple[Path, dict]]:
    """What ``gclib collect`` noted, by chapter."""
    for path in sorted((course.folder / "collected").glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CourseError(f"{path} is damaged; mend or remove it first")
        yield path, found


def _words(course: Course, student: str, people: dict) -> set[str]:
    """What names a student and nobody else: id, name, and the word for them in logs."""
    words = {student, people.get(student, {}).get("name", "")} - {""}
    if (course.folder / "secret").is_file():
        words.add(course.alias(student))
    return words


def _mentions(path: Path, words: set[str]) -> bool:
    """Whether a file names somebody; in a zip, also packed."""
    forms = {form for word in words for form in (word, html.escape(word), json.dumps(word)[1:-1])}
    either = b"|".join(re.escape(form.encode()) for form in sorted(forms))
    pattern = re.compile(rb"(?<![0-9A-Za-z])(" + either + rb")(?![0-9A-Za-z])")
    if pattern.search(path.read_bytes()):
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(pattern.search(archive.read(info)) for info in archive.infolist())


def _forget_tables(course: Course, words: set[str], numbers: set[str]) -> list[str]:
    """Remove reports, tables and packed pages that name somebody; they can be made again."""
    said = []
    for name, again, wanted in (
        ("exports", "gclib export", words | numbers),
        ("reports", "gclib grade", words),
        ("feedback", "gclib feedback", words | numbers),
    ):
        for place, folders, files in os.walk(course.folder / name):
            if name == "feedback":
                folders.clear()  # pages of single students; here it is about zips of them
            for path in sorted(Path(place, file) for file in files):
                if _is_file(path) and _may_mention(path, wanted):
                    path.unlink()
                    said.append(f"{path.relative_to(course.folder)}; write it again with {again}")
    log = course.folder / ".nbgrader.log"
    if _is_file(log) and _mentions(log, words):
        log.unlink()
        said.append(log.name)
    return said


def _may_mention(path: Path, words: set[str]) -> bool:
    try:
        return _mentions(path, words)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
        return True  # nobody can tell, and it can be made again


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _forget_files(course: Course, student: str) -> list[str]:
    said = []
    for path in _places(course, student):
        if path.parent.name != "submitted":
            said += _remove(course, path)
    for path, found in _records(course):
        if found.pop(student, None) is not None:
            course.replace_file(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            said.append(f"{student} in {path.relative_to(course.folder)}")
    return said


def _remove(course: Course, path: Path) -> list[str]:
    """Remove a file or a folder of the class; of a link, the link."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return []
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)  # which does not follow links
    else:
        path.unlink()
    link = " (a symbolic link; what it leads to is still there)" if stat.S_ISLNK(mode) else ""
    return [f"{path.relative_to(course.folder)}{link}"]


def _left(course: Course, words: set[str]) -> list[str]:
    """Files that gclib did not make and that name somebody."""
    found = []
    for folder, names, files in os.walk(course.folder):
        if Path(folder) == course.folder:
            names[:] = [name for name in names if name not in _FOLDERS]
            files = [name for name in files if not (_FILES.fullmatch(name) or name in _LAST)]
        for name in files:
            path = Path(folder, name)
            with contextlib.suppress(
                OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError
            ):
                if _is_file(path) and _mentions(path, words):
                    found.append(str(path.relative_to(course.folder)))
    return sorted(found)


# The gradebook and its copies


def _databases(course: Course) -> list[Path]:
    """Gradebooks in SQLite in the folder: the one in use, and copies by gclib or nbgrader."""
    found = []
    for folder in (course.folder, course.folder / "backups"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if _is_file(path):
                with open(path, "rb") as file:
                    if file.read(16) == b"SQLite format 3\0":
                        found.append(path)
    return found


def _check_database(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path)) as book:
            book.execute("SELECT count(*) FROM sqlite_master").fetchone()
            book.execute("SELECT count(*) FROM student").fetchone()
    except sqlite3.Error as error:
        raise CourseError(
            f"{path} cannot be read ({error}), so that nobody can be removed from it; mend it or "
            "remove it yourself, then run this again"
        ) from None


def _forget(address: str, students: list[str]) -> None:
    """Remove students from a gradebook, so that nothing of them stays in its files."""
    from nbgrader.api import Base, Gradebook, MissingEntry
    from sqlalchemy import text

    with Gradebook(address) as book:
        for student in students:
            with contextlib.suppress(MissingEntry):
                book.remove_student(student)
        book.db.remove()  # ends what it began, else the tables are locked
        path = sqlite_file(address)
        if path is None:
            engine = book.engine.execution_options(isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                for table in Base.metadata.tables:
                    connection.execute(text(f'VACUUM FULL "{table}"'))
    if path is not None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as book:
            book.execute("PRAGMA secure_delete=ON")
            book.execute("VACUUM")  # else deleted rows stay in free pages
            book.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# A term


def purge_term(course: Course, confirm: Callable[[str], None] = lambda question: None) -> list[str]:
    """Remove everything of a class from its folder, and its tables from a database server.

    Args:
        course: the class.
        confirm: called with what will go before anything does; raises to stop.

    Returns:
        What to tell the instructor, in lines.

    Raises:
        CourseError: nothing was removed.
    """
    said = []
    with course.alone():
        path = sqlite_file(course.gradebook)
        if path is None:
            registered(course.gradebook)  # raises where the server does not answer
        shown = without_password(course.gradebook)
        count = len({*course.students(), *read_people(course)})
        ours = [course.folder / name for name in _FOLDERS if (course.folder / name).exists()]
        parts = [f"{each.name}/" for each in ours]
        parts += [f"the tables in {shown}"] if path is None else []
        confirm(
            f"{course.folder}: the class will be removed, with the work of {count} students"
            + (f": {', '.join(parts)}." if parts else ".")
        )
        if path is None and _drop(course.gradebook):
            said.append(f"removed: the tables of the gradebook in {shown}")
        ours += [p for p in sorted(course.folder.iterdir()) if _is_ours(p)]
        for each in ours:
            said += [f"removed: {line}" for line in _remove(course, each)]
        config = course.folder / "nbgrader_config.py"
        if _is_file(config) and config.read_bytes().startswith(b'"""Written by gclib'):
            said += [f"removed: {line}" for line in _remove(course, config)]
        said += [f"removed: {line}" for line in _remove(course, course.folder / "course.json")]
        _remove(course, course.folder / ".lock")
    if path is not None and path.exists():
        said.append(f"not in the folder, so still there: {path}; remove it yourself")
    kept = sorted(entry.name for entry in course.folder.iterdir())
    said += [f"not gclib's, so still there: {name}" for name in kept]
    if not kept:
        said.append(f"{course.folder} is empty now")
    return said


def _is_ours(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return path.name.startswith(".collect-")
    return bool(_FILES.fullmatch(path.name))


def _drop(address: str) -> bool:
    from nbgrader.api import Base
    from sqlalchemy import create_engine, inspect, pool, text

    engine = create_engine(address, poolclass=pool.NullPool)
    if not inspect(engine).has_table("assignment"):
        return False
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    return True
