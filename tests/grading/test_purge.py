"""gclib purge: nothing of a student is left, and nothing of the others is touched."""

import json
import os
import pty
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import zipfile

import pytest
from gradebooks import give
from postgresql import server  # noqa: F401 (a fixture)

from gclib.chapters import find_chapter
from gclib.cli import main
from gclib.grading.classroom import Course, CourseError
from gclib.grading.export import export
from gclib.grading.feedback import write_zip
from gclib.grading.purge import purge_students, purge_term

ONE, TWO = find_chapter("01"), find_chapter("02")
WHO, OTHER = "lovelaceada_4711", "turingalan_4712"
UNIQUE = "xq7-only-in-her-notebook"


def fill(course):
    """Everything that gclib and nbgrader keep of two students."""
    for student in (WHO, OTHER):
        text = json.dumps({"cells": [], "of": UNIQUE if student == WHO else "his"})
        for chapter in (ONE, TWO):
            for path in (
                course.notebook(student, chapter),
                course.graded(student, chapter),
                course.feedback(student, chapter),
                course.verdicts(student, chapter),
                course.folder / "replaced" / student / chapter.folder / "2026" / "x.ipynb",
            ):
                course.replace_file(path, text)
            give(course, student, chapter, comment=UNIQUE if student == WHO else "good")
    course.replace_file(course.verdicts(WHO, ONE).with_name(f".{WHO}.json.123.partial"), UNIQUE)
    collected = {student: {"notes": [], "file": student} for student in (WHO, OTHER)}
    for chapter in (ONE, TWO):
        path = course.folder / "collected" / f"{chapter.folder}.json"
        course.replace_file(path, json.dumps(collected))
    people = {
        WHO: {"name": "Ada O'Lovelace", "canvas": "4711", "moodle": {"01_non_local": "501"}},
        OTHER: {"name": "Alan Turing", "canvas": "4712", "moodle": {"01_non_local": "502"}},
    }
    course.replace_file(course.folder / "students.json", json.dumps(people))
    course.replace_file(course.folder / ".nbgrader.log", f"graded {WHO}\n")
    reports = course.folder / "reports"
    course.replace_file(reports / "01_non_local.html", f"<td>{course.alias(WHO)}</td>")
    course.replace_file(reports / "02_attention_maps.html", "<td>Ada O&#x27;Lovelace</td>")
    course.replace_file(reports / "summary.html", "<p>12 students, 4711 words</p>")


@pytest.fixture
def course(graded_course):
    return graded_course


def add_copies(course):
    """Of the gradebook, as gclib and nbgrader make them."""
    course.back_up()
    course.back_up()
    shutil.copy(course.folder / "gradebook.db", course.folder / "gradebook.db.2026-03-01-100000.5")
    export(course)
    export(course, "canvas")
    export(course, "moodle", chapters=[ONE])
    write_zip(course, ONE, [WHO, OTHER], course.folder / "feedback" / "moodle.zip")


def bytes_below(folder):
    """Contents of all files; those in zips unpacked, too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink() or path.is_dir():
            found[name] = b""
            continue
        found[name] = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for inner in archive.namelist():
                    found[f"{name}!{inner}"] = archive.read(inner)
    return found


def mentions(folder, *words):
    return sorted(
        name
        for name, content in bytes_below(folder).items()
        if any(word in name or word.encode() in content for word in words)
    )


def rows(path, student):
    """All rows of a gradebook that belong to a student."""
    with sqlite3.connect(path) as book:
        return [
            sorted(book.execute(question, (student,)), key=repr)
            for question in (
                "SELECT * FROM student WHERE id = ?",
                "SELECT * FROM submitted_assignment WHERE student_id = ?",
                "SELECT n.* FROM submitted_notebook n JOIN submitted_assignment a"
                " ON n.assignment_id = a.id WHERE a.student_id = ?",
                "SELECT g.* FROM grade g JOIN submitted_notebook n ON g.notebook_id = n.id"
                " JOIN submitted_assignment a ON n.assignment_id = a.id WHERE a.student_id = ?",
                "SELECT c.* FROM comment c JOIN submitted_notebook n ON c.notebook_id = n.id"
                " JOIN submitted_assignment a ON n.assignment_id = a.id WHERE a.student_id = ?",
            )
        ]


def counts(path):
    with sqlite3.connect(path) as book:
        tables = [
            name for (name,) in book.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        return {
            name: book.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables
        }


def test_nothing_of_a_student_is_left(course):
    fill(course)
    add_copies(course)
    alias = course.alias(WHO)
    words = (WHO, "Lovelace", UNIQUE, alias)
    assert len(mentions(course.folder, *words)) > 20  # the test looks where something is
    database = course.folder / "gradebook.db"
    before, his = counts(database), rows(database, OTHER)
    assert all(his)
    kept = {
        name: content
        for name, content in bytes_below(course.folder).items()
        if OTHER in name and "!" not in name
    }
    assert kept
    said = "\n".join(purge_students(course, [WHO]))
    assert mentions(course.folder, *words) == []
    assert not list(course.folder.rglob("*-journal"))
    # Nothing of anybody else.
    after = bytes_below(course.folder)
    assert {name: after[name] for name in kept} == kept
    copies = [database, *course.folder.glob("gradebook.db.*"), *course.folder.glob("backups/*.db")]
    assert len(copies) == 4
    for path in copies:
        assert rows(path, OTHER) == his
        assert rows(path, WHO) == [[], [], [], [], []]
    now = counts(database)
    assert now["student"] == before["student"] - 1
    assert now["grade"] * 2 == before["grade"]
    assert now["comment"] * 2 == before["comment"]
    assert now["base_cell"] == before["base_cell"]
    assert set(json.loads((course.folder / "students.json").read_text())) == {OTHER}
    assert set(json.loads((course.folder / "collected/01_non_local.json").read_text())) == {OTHER}
    assert (course.folder / "reports" / "summary.html").is_file()
    for part in (
        "rows in 3 copies of the gradebook",
        "exports/grades.csv; write it again with gclib export",
        "reports/01_non_local.html; write it again with gclib grade",
        "feedback/moodle.zip; write it again with gclib feedback",
        f"submitted/{WHO}",
    ):
        assert part in said
    export(course)  # the gradebook works on
    with pytest.raises(CourseError, match="nothing is known here of"):
        purge_students(course, [WHO])


def test_a_gradebook_with_a_write_ahead_log(course):
    fill(course)
    with sqlite3.connect(course.folder / "gradebook.db") as book:
        book.execute("PRAGMA journal_mode=WAL")
    give(course, WHO, ONE, comment=UNIQUE)
    purge_students(course, [WHO])
    assert mentions(course.folder, WHO, UNIQUE) == []


def test_several_students_and_names_like_others(course):
    fill(course)
    for student in (f"{WHO}2", f"x{WHO}", f"{WHO}.b", "lovelaceada"):
        course.replace_file(course.notebook(student, ONE), "{}")
        course.replace_file(course.verdicts(student, ONE), "{}")
    purge_students(course, [WHO, OTHER, WHO])
    assert course.students() == sorted([f"{WHO}2", f"x{WHO}", f"{WHO}.b", "lovelaceada"])
    assert len(list((course.folder / "verdicts" / ONE.folder).iterdir())) == 4


def test_what_a_killed_run_left_is_removed(course):
    """Whatever a run that was killed had done, the next one finishes it."""
    fill(course)
    export(course)
    command = [sys.executable, "-m", "gclib.cli", "purge", "--course", course.folder]
    for gone in (course.folder / "exports" / "grades.csv", course.folder / "autograded" / WHO):
        assert gone.exists()
        process = subprocess.Popen([*command, "--student", WHO, "--yes"])
        while process.poll() is None and gone.exists():
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    purge_students(course, [WHO])
    assert mentions(course.folder, WHO, UNIQUE) == []
    assert all(rows(course.folder / "gradebook.db", OTHER))


@pytest.mark.parametrize(
    "student", ["nobody", "", ".", "..", "../class", f"{WHO}/01_non_local", "a\0b"]
)
def test_unknown_students(course, student):
    fill(course)
    before = bytes_below(course.folder)
    with pytest.raises(CourseError, match="nothing is known here of"):
        purge_students(course, [WHO, student])
    after = bytes_below(course.folder)
    assert {**after, ".lock": b""} == {**before, ".lock": b""}


def test_damaged_copies_are_named_before_anything_goes(course):
    fill(course)
    course.back_up()
    (copy,) = course.folder.glob("backups/*.db")
    copy.write_bytes(copy.read_bytes()[:5000] + bytes(3000))
    with pytest.raises(CourseError, match="cannot be read"):
        purge_students(course, [WHO])
    assert rows(course.folder / "gradebook.db", WHO)[0]
    assert course.notebook(WHO, ONE).is_file()


def test_damaged_records_are_named_before_anything_goes(course):
    fill(course)
    (course.folder / "collected" / "01_non_local.json").write_text("{")
    with pytest.raises(CourseError, match="damaged"):
        purge_students(course, [WHO])
    assert rows(course.folder / "gradebook.db", WHO)[0]


def test_other_files_that_mention_the_student_are_named(course):
    fill(course)
    (course.folder / "my notes.txt").write_text(f"called {WHO} back")
    (course.folder / "private").mkdir()
    (course.folder / "private" / "c01.py").write_text("# Ada O'Lovelace asked")
    (course.folder / "unrelated.txt").write_text("4711 things")
    said = "\n".join(purge_students(course, [WHO]))
    assert "still there, and it mentions them: my notes.txt" in said
    assert "still there, and it mentions them: private/c01.py" in said
    assert "unrelated" not in said


def test_without_a_gradebook(tmp_path):
    """Right after collecting."""
    course = Course(tmp_path)
    (tmp_path / "course.json").write_text("{}")
    course.replace_file(course.notebook(WHO, ONE), UNIQUE)
    purge_students(course, [WHO])
    assert mentions(tmp_path, WHO, UNIQUE) == []
    assert not (tmp_path / "gradebook.db").exists()


# --- links


def outside(tmp_path):
    place = tmp_path / "outside"
    (place / WHO).mkdir(parents=True)
    (place / "keep.txt").write_text("keep")
    (place / WHO / "keep.txt").write_text("keep")
    return place


def test_links_are_not_followed(tmp_path):
    place = outside(tmp_path)
    folder = tmp_path / "class"
    course = Course(folder)
    course.replace_file(folder / "course.json", "{}")
    course.replace_file(course.notebook(WHO, ONE), UNIQUE)
    (course.submission(WHO, ONE) / "link").symlink_to(place)
    (folder / "autograded").mkdir()
    (folder / "autograded" / WHO).symlink_to(place / WHO)
    (folder / "reports").mkdir()
    (folder / "reports" / "old").symlink_to(place)
    (place / "report.html").write_text(WHO)
    said = "\n".join(purge_students(course, [WHO]))
    assert "what it leads to is still there" in said
    assert not (folder / "autograded" / WHO).is_symlink()
    (folder / "exports").mkdir()
    (folder / "exports" / "link.csv").symlink_to(place / "keep.txt")
    purge_term(course)
    assert not list(folder.iterdir())
    assert len([path for path in place.rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize("what", [["--term"], ["--student", WHO]])
def test_a_part_of_the_class_that_leads_elsewhere(tmp_path, what, capsys):
    place = outside(tmp_path)
    folder = tmp_path / "class"
    folder.mkdir()
    (folder / "course.json").write_text("{}")
    (folder / "submitted").symlink_to(place)
    assert main(["purge", "--course", str(folder), *what, "--yes"]) == 2
    assert "submitted" in capsys.readouterr().err
    assert (place / WHO / "keep.txt").is_file()


@pytest.mark.parametrize("settings", [None, "{", "[]", "link"])
def test_folders_that_are_no_class(tmp_path, settings, capsys):
    folder = tmp_path / "home"
    (folder / "backups").mkdir(parents=True)
    if settings == "link":
        (tmp_path / "real.json").write_text("{}")
        (folder / "course.json").symlink_to(tmp_path / "real.json")
    elif settings is not None:
        (folder / "course.json").write_text(settings)
    assert main(["purge", "--course", str(folder), "--term", "--yes"]) == 2
    assert "course.json" in capsys.readouterr().err
    assert (folder / "backups").is_dir()
    assert main(["purge", "--course", str(tmp_path / "none"), "--term", "--yes"]) == 2


# --- a term


def test_term(course):
    fill(course)
    add_copies(course)
    (course.folder / "syllabus.pdf").write_text("mine")
    (course.folder / "private").mkdir()
    (course.folder / "private" / "c01.py").write_text("mine")
    (course.folder / ".collect-x").mkdir()
    (course.folder / ".students.json.12.partial").write_text("x")
    asked = []
    said = purge_term(course, asked.append)
    assert sorted(bytes_below(course.folder)) == ["private", "private/c01.py", "syllabus.pdf"]
    assert "not gclib's, so still there: private" in said
    assert "not gclib's, so still there: syllabus.pdf" in said
    assert "the work of 2 students" in asked[0]


def test_a_gradebook_elsewhere_stays(tmp_path):
    folder = tmp_path / "class"
    folder.mkdir()
    database = tmp_path / "grades.db"
    database.write_bytes(b"SQLite format 3\0")
    (folder / "course.json").write_text(json.dumps({"gradebook": f"sqlite:///{database}"}))
    said = purge_term(Course(folder))
    assert any(f"still there: {database}" in line for line in said)
    assert database.is_file()
    assert not list(folder.iterdir())


def test_a_configuration_of_ones_own_stays(tmp_path):
    (tmp_path / "course.json").write_text("{}")
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()")
    purge_term(Course(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["nbgrader_config.py"]


# --- asking


def small_class(tmp_path):
    course = Course(tmp_path / "class-of-2026")
    course.replace_file(course.folder / "course.json", "{}")
    for student in (WHO, OTHER):
        course.replace_file(course.notebook(student, ONE), "{}")
    return course


@pytest.mark.parametrize("what", [["--term"], ["--student", WHO]])
def test_without_a_terminal(tmp_path, what):
    course = small_class(tmp_path)
    command = [sys.executable, "-m", "gclib.cli", "purge", "--course", course.folder, *what]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nothing was removed; --yes" in done.stderr
    assert course.students() == [WHO, OTHER]
    done = subprocess.run(
        [*command, "--yes"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert WHO not in course.students()


@pytest.mark.parametrize(
    ("what", "answer", "left"),
    [
        (["--term"], "y", [WHO, OTHER]),
        (["--term"], "class-of-2026", []),
        (["--student", WHO], "", [WHO, OTHER]),
        (["--student", WHO], "1", [OTHER]),
        (["--student", WHO, OTHER], "1", [WHO, OTHER]),
        (["--student", WHO, OTHER], "2", []),
        (["--term"], "\x04", [WHO, OTHER]),
    ],
)
def test_at_a_terminal(tmp_path, what, answer, left):
    course = small_class(tmp_path)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gclib.cli", "purge", "--course", course.folder, *what],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(leader, answer.encode() + (b"" if answer == "\x04" else b"\n"))
    printed, errors = process.communicate(timeout=60)
    os.close(leader)
    os.close(follower)
    assert "There is no way back" in printed
    assert course.students() == left
    assert process.returncode == (2 if len(left) == 2 else 0)
    assert ("nothing was removed" in errors) == (len(left) == 2)


def test_student_or_term(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["purge", "--course", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["purge", "--course", str(tmp_path), "--term", "--student", "x"])
    assert "--term" in capsys.readouterr().err


def test_while_another_command_runs(tmp_path):
    course = small_class(tmp_path)
    with course.alone(), pytest.raises(CourseError, match="another gclib command"):
        purge_term(course)
    assert course.students() == [WHO, OTHER]


# --- PostgreSQL


@pytest.mark.full
def test_on_a_server(server, tmp_path):  # noqa: F811
    server.sql("postgres", "CREATE DATABASE purged")
    (tmp_path / "class").mkdir()
    course = Course(tmp_path / "class", server.address("purged"))
    course.prepare()
    fill(course)
    course.back_up()
    assert WHO in repr(server.rows("purged"))
    assert UNIQUE in repr(server.rows("purged"))
    (course.folder / "backups" / "by hand.dump").write_bytes(b"PGDMP")
    his = {name: [r for r in t if OTHER in r] for name, t in server.rows("purged").items()}
    assert any(his.values())
    said = "\n".join(purge_students(course, [WHO]))
    assert "2 old copies of the database" in said
    now = server.rows("purged")
    assert WHO not in repr(now)
    assert UNIQUE not in repr(now)
    assert {name: [r for r in t if OTHER in r] for name, t in now.items()} == his
    assert mentions(course.folder, WHO, UNIQUE) == []
    (copy,) = (course.folder / "backups").iterdir()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    server.restore(copy, "again")
    assert WHO not in repr(server.rows("again"))
    assert OTHER in repr(server.rows("again"))
    server.sql("purged", "CREATE TABLE of_somebody_else (x int)")
    said = "\n".join(purge_term(course))
    assert "the tables of the gradebook in postgresql://teacher:***@" in said
    assert list(server.rows("purged")) == ["of_somebody_else"]
    assert not list(course.folder.iterdir())
    assert server.connections("purged") == 0


@pytest.mark.full
def test_a_server_that_does_not_answer(server, tmp_path, capsys):  # noqa: F811
    folder = tmp_path / "class"
    folder.mkdir()
    address = server.address("nowhere")
    (folder / "course.json").write_text(json.dumps({"gradebook": address}))
    course = Course(folder)
    course.replace_file(course.notebook(WHO, ONE), "{}")
    for what in (["--term"], ["--student", WHO]):
        assert main(["purge", "--course", str(folder), *what, "--yes"]) == 2
        assert "cannot be opened" in capsys.readouterr().err
    assert course.students() == [WHO]
