"""A gradebook on a real PostgreSQL server."""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
import urllib.request

import pytest
from classroom import Classroom
from lab_server import served
from mutants.answers import ROOT, references
from postgresql import PASSWORD, server  # noqa: F401 (a fixture)

from gclib.chapters import CHAPTERS, find_chapter
from gclib.cli import main
from gclib.grading.classroom import Course, CourseError
from gclib.grading.driver import grade
from gclib.grading.gradebook import registered

pytestmark = pytest.mark.full

CHAPTER = find_chapter("00")
REFLECTION = "c00-reflection"
ANSWERS = {REFLECTION: "It starts as the identity, so training goes on as before."}
NAMES = {chapter.folder for chapter in CHAPTERS}


class Class(Classroom):
    """A class whose grades are on the server."""

    def __init__(self, folder, address):
        self.folder, self.chapter, self.url = folder, CHAPTER, address
        self.released = json.loads((ROOT / "chapters" / CHAPTER.notebook).read_text())
        self.course = Course(folder, address)

    def grade(self, **options):
        """Result of each student."""
        said = []
        options |= {"unsafe": True, "workers": 1}
        results = grade(self.course, CHAPTER, progress=said.append, **options)
        assert PASSWORD not in "\n".join(said)
        return {result.student: result for result in results}


@pytest.fixture(scope="module")
def term(server, tmp_path_factory):  # noqa: F811
    """A database in which the chapters are registered, to be copied."""
    server.sql("postgres", "CREATE DATABASE term")
    Course(tmp_path_factory.mktemp("term"), server.address("term")).prepare()
    assert server.connections("term") == 0
    return "term"


@pytest.fixture(scope="module")
def database(server, term):  # noqa: F811
    """Makes databases."""

    def make(name):
        server.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {term}")
        return server.address(name)

    return make


@pytest.fixture(scope="module")
def graded(database, tmp_path_factory):
    """A class of two that was graded once."""
    room = Class(tmp_path_factory.mktemp("graded"), database("graded"))
    room.submit("ada", references("00") | ANSWERS)
    room.submit("bo")
    room.first, room.by_hand = room.grade(), 0
    return room


def test_the_chapters_are_registered_whole(server, term):  # noqa: F811
    assert registered(server.address(term)) == NAMES


def test_points_are_in_the_database_and_nowhere_else(graded, server):  # noqa: F811
    points = graded.points()
    machine = sum(points.values()) - points[REFLECTION]
    assert sum(graded.first["ada"].points.values()) == machine
    assert sum(graded.first["bo"].points.values()) == 0
    for student in ("ada", "bo"):
        assert graded.grades(student) == graded.first[student].points
    assert not list(graded.folder.rglob("*.db"))
    assert stat.S_IMODE((graded.folder / "course.json").stat().st_mode) == 0o600
    assert server.connections("graded") == 0


def test_graded_again_points_stay_and_the_copy_before_it_can_be_restored(
    graded,
    server,  # noqa: F811
):
    from nbgrader.api import Gradebook

    assert graded.waiting("ada") == {REFLECTION}
    with Gradebook(graded.url) as book:
        found = book.find_grade(REFLECTION, CHAPTER.name, CHAPTER.folder, "ada")
        found.manual_score, found.needs_manual_grade = 1.5, False
        book.find_comment(REFLECTION, CHAPTER.name, CHAPTER.folder, "ada").manual_comment = "Ça va!"
        book.db.commit()
    graded.by_hand = 1.5
    before = server.rows("graded")
    known = set((graded.folder / "backups").iterdir())
    again = graded.grade(again=True)
    for student in ("ada", "bo"):
        for name, points in graded.first[student].points.items():
            assert again[student].points[name] == points
    with Gradebook(graded.url) as book:
        found = book.find_grade(REFLECTION, CHAPTER.name, CHAPTER.folder, "ada")
        assert (found.manual_score, found.score) == (1.5, 1.5)
        comment = book.find_comment(REFLECTION, CHAPTER.name, CHAPTER.folder, "ada")
        assert comment.manual_comment == "Ça va!"
    (copy,) = set((graded.folder / "backups").iterdir()) - known
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    server.restore(copy, "restored")
    assert server.rows("restored") == before
    assert len(before["grade"]) == 2 * len(graded.points())


def test_the_programs_of_nbgrader_in_the_folder_use_the_database(graded):
    students = graded.nbgrader("db", "student", "list")
    assert "There are 2 students" in students.stdout + students.stderr
    done = graded.nbgrader("export", "--to=points.csv")
    assert done.returncode == 0, done.stderr
    with open(graded.folder / "points.csv", newline="") as file:
        rows = {(r["student_id"], r["assignment"]): float(r["score"]) for r in csv.DictReader(file)}
    machine = sum(graded.first["ada"].points.values())
    assert rows["ada", CHAPTER.folder] == machine + graded.by_hand
    assert rows["bo", CHAPTER.folder] == 0
    assert not list(graded.folder.rglob("*.db"))


def test_the_formgrader_uses_the_database_and_does_not_show_the_password(graded, tmp_path):
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    with served(command, graded.folder, tmp_path / "lab.txt") as address:
        base, token = address.split("/lab")[0], address.split("token=")[1]

        def get(path):
            request = urllib.request.Request(
                f"{base}/formgrader/{path}", headers={"Authorization": f"token {token}"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()

        (submission,) = [
            one for one in json.loads(get("api/assignments")) if one["name"] == CHAPTER.folder
        ]
        assert submission["num_submissions"] == 2
        students = json.loads(get("api/students"))
        assert {one["id"] for one in students} == {"ada", "bo"}
        page = get("manage_assignments")
        assert CHAPTER.folder not in page  # it comes through the API
        assert "Manage Assignments" in page
        kept = json.loads((graded.folder / "course.json").read_text())["gradebook"]
        for secret in (PASSWORD, kept.split("teacher:")[1].split("@")[0]):
            assert secret not in page


def test_a_server_that_goes_down_in_a_class_costs_nothing(database, server, tmp_path):  # noqa: F811
    room = Class(tmp_path, database("down"))
    for student in ("ada", "bo"):
        room.submit(student, ANSWERS)
    lines = []

    def stop(line):
        lines.append(line)
        if line.startswith("1/2"):
            server.stop()

    try:
        found = grade(room.course, CHAPTER, unsafe=True, workers=1, progress=stop)
        problems = [result.problem for result in found if result.problem]
        assert len(problems) == 1, problems
        assert "the gradebook does not answer" in problems[0]
        assert problems[0].endswith("run the same command again")
        assert all(PASSWORD not in line for line in [*problems, *lines])
        with pytest.raises(CourseError, match="see that the server runs"):
            room.grade()
    finally:
        server.start()
    again = room.grade()
    assert not any(result.problem for result in again.values())
    assert {len(result.points) for result in again.values()} == {len(room.points()) - 1}


def test_two_graders_at_once_lose_no_row(database, server, tmp_path):  # noqa: F811
    address = database("two")
    rooms = [Class(tmp_path / name, address) for name in ("one", "other")]
    for number, room in enumerate(rooms):
        for student in range(2):
            room.submit(f"student{number}{student}", references("00") | ANSWERS)
    command = [sys.executable, "-m", "gclib.cli", "grade", "00", "--unsafe", "--workers", "1"]
    running = [
        subprocess.Popen(
            [*command, "--course", str(room.folder), "--gradebook", address],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for room in rooms
    ]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert PASSWORD not in "".join(said)
    points = rooms[0].points()
    machine = {name: most for name, most in points.items() if name != REFLECTION}
    for number, room in enumerate(rooms):
        for student in range(2):
            assert room.grades(f"student{number}{student}") == machine
    assert server.sql("two", "SELECT count(*) FROM grade") == [(4 * len(points),)]


WRITER = """
import sys
from nbgrader.api import Gradebook
address, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(first, last):
    with Gradebook(address, "gcnet") as book:
        student = f"student{number:03}"
        book.update_or_create_student(student)
        book.update_or_create_submission("00_start", student)
        for grade in book.find_submission_notebook("start", "00_start", student).grades:
            grade.manual_score, grade.needs_manual_grade = number / 100, False
        book.db.commit()
"""


def test_more_submissions_than_connections(database, server, tmp_path):  # noqa: F811
    address, many = database("many"), 110  # the server has room for 12
    halves = ((0, many // 2), (many // 2, many))
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, address, str(first), str(last)])
        for first, last in halves
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert server.connections("many") == 0
    cells = len(Class(tmp_path, address).points())
    found = server.sql(
        "many",
        "SELECT student_id, min(manual_score), max(manual_score), count(*) FROM grade g "
        "JOIN submitted_notebook n ON g.notebook_id = n.id "
        "JOIN submitted_assignment a ON n.assignment_id = a.id GROUP BY student_id ORDER BY 1",
    )
    assert found == [(f"student{n:03}", n / 100, n / 100, cells) for n in range(many)]


def test_a_registration_that_was_cut_off_is_completed(database, server, tmp_path):  # noqa: F811
    address, last = database("cut"), CHAPTERS[-1].folder
    of_last = "SELECT n.id FROM notebook n JOIN assignment a ON assignment_id = a.id"
    of_last += f" WHERE a.name = '{last}'"
    server.sql("cut", f"DELETE FROM source_cell WHERE notebook_id IN ({of_last})")
    assert registered(address) == NAMES - {last}
    Course(tmp_path, address).prepare()
    assert registered(address) == NAMES


# What does not work


def refused(capsys, folder, address, *options):
    """The one line that the command says about a class of one."""
    work = folder / "submitted" / "ada" / CHAPTER.notebook
    work.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "chapters" / CHAPTER.notebook, work)
    command = ["grade", "00", "--course", str(folder), "--gradebook", address, "--unsafe"]
    assert main([*command, *options]) == 2
    said = capsys.readouterr()
    (line,) = said.err.strip().split("\n")
    assert said.out == ""
    assert PASSWORD not in line
    assert address.split("teacher:")[-1].split("@")[0] not in line
    return line


def test_an_address_that_does_not_work_is_one_line_and_is_not_kept(
    server,  # noqa: F811
    term,
    tmp_path,
    capsys,
):
    good = server.address(term)
    wrong = {
        server.address(term, "geheim"): "password authentication failed",
        server.address("nothing"): 'database "nothing" does not exist',
        good.replace(str(server.folder), str(tmp_path)): "No such file or directory",
    }
    for address, said in wrong.items():
        line = refused(capsys, tmp_path, address)
        assert said in line
        assert "see that the server runs and that name, password and database are right" in line
        assert not (tmp_path / "course.json").exists()
    for address in ("mysql://teacher:geheim@h/d", "postgresql://teacher:geheim@h:port/d"):
        assert "this is no address of a gradebook; write " in refused(capsys, tmp_path, address)
        assert not (tmp_path / "course.json").exists()


def test_without_the_driver_the_command_says_how_to_install_it(
    server,  # noqa: F811
    term,
    tmp_path,
    capsys,
    monkeypatch,
):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # importing it fails
    line = refused(capsys, tmp_path, server.address(term))
    assert "driver for PostgreSQL is missing" in line
    assert "-m pip install -e '.[grade]'" in line


def test_without_pg_dump_nothing_is_graded(database, tmp_path, capsys, monkeypatch):
    address = database("nodump")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt install postgresql-client" in refused(capsys, tmp_path, address)
    assert not (tmp_path / "verdicts").exists()
    assert not list((tmp_path / "backups").iterdir())


def test_pg_dump_shows_the_password_to_nobody(database, tmp_path, monkeypatch):
    """Commands can be read by everybody on a machine."""
    address = database("shown")
    programs = tmp_path / "programs"
    programs.mkdir()
    real, seen = shutil.which("pg_dump"), tmp_path / "seen"
    recorder = programs / "pg_dump"
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{seen}"\nexec "{real}" "$@"\n')
    recorder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "class"
    folder.mkdir()
    copy = Course(folder, address).back_up()
    assert copy.stat().st_size > 1000
    assert "--format=custom" in seen.read_text()
    assert PASSWORD not in seen.read_text()
    assert address.split("teacher:")[1].split("@")[0] not in seen.read_text()


def test_a_password_may_change_and_a_gradebook_may_not(server, term, tmp_path):  # noqa: F811
    Course(tmp_path, server.address(term)).prepare()
    with pytest.raises(CourseError, match="leave --gradebook out"):
        Course(tmp_path, server.address("another"))
    server.sql("postgres", "ALTER ROLE teacher PASSWORD 'newer'")
    try:
        with pytest.raises(CourseError, match="password authentication failed"):
            Course(tmp_path).prepare()
        Course(tmp_path, server.address(term, "newer")).prepare()
        Course(tmp_path).prepare()  # it is kept
    finally:
        import psycopg

        address = {"host": str(server.folder), "user": "teacher", "password": "newer"}
        with psycopg.connect(dbname="postgres", autocommit=True, **address) as connection:
            connection.execute(f"ALTER ROLE teacher PASSWORD '{PASSWORD}'")
