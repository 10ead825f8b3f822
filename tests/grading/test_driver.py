"""``gclib grade``: a class from submitted notebooks to points, without running them as oneself."""

import json
import shutil
import stat
from dataclasses import replace

import pytest
from classroom import Classroom
from mutants.answers import references
from test_sandbox import needs_bubblewrap

from gclib.chapters import find_chapter, repository
from gclib.cli import main
from gclib.grading.classroom import Course, CourseError
from gclib.grading.driver import grade
from gclib.grading.verdicts import read_judgement

CHAPTER = find_chapter("00")
pytestmark = [needs_bubblewrap, pytest.mark.full]


class Class(Classroom):
    """Reads the gradebook of the course folder."""

    def __init__(self, folder):
        super().__init__(folder, CHAPTER)
        self.course = Course(folder)


@pytest.fixture
def room(tmp_path):
    return Class(tmp_path)


def test_a_class_of_all_kinds(room):
    good = references("00")
    first = next(iter(good))
    room.submit("ada", good)
    room.submit("blank")
    room.submit("loop", good | {first: "import os\nif True:\n    os._exit(0)"})
    room.submit("twice", good, edit=lambda cells: cells.insert(3, json.loads(json.dumps(cells[3]))))
    broken = room.submit("broken", good)
    broken.write_text("{not json")
    path = room.submit("named", good)
    path.rename(path.with_name("mine.ipynb"))
    room.submit("a+b", good)
    before = {
        path: path.read_bytes() for path in (room.folder / "submitted").rglob("*") if path.is_file()
    }
    lines = []
    results = {r.student: r for r in grade(room.course, CHAPTER, progress=lines.append)}
    assert sum("left)" in line for line in lines) == 7
    assert not any("ada" in line for line in lines)  # logs name nobody
    full = sum(results["ada"].points.values())
    assert full > 0
    assert sum(results["twice"].points.values()) == full
    assert sum(results["named"].points.values()) == full
    assert "the file was called mine.ipynb" in " ".join(results["named"].judgement.notes)
    assert sum(results["blank"].points.values()) == 0
    assert "not a notebook" in results["broken"].problem
    assert "rename it" in results["a+b"].problem
    for student in ("ada", "blank", "loop", "twice", "named"):
        assert room.grades(student) == results[student].points
        assert room.course.graded(student, CHAPTER).is_file()
    assert "not a notebook" in read_judgement(room.course.verdicts("broken", CHAPTER)).problem
    assert before == {
        path: path.read_bytes() for path in (room.folder / "submitted").rglob("*") if path.is_file()
    }
    assert stat.S_IMODE(room.folder.stat().st_mode) == 0o700
    # Again: nothing is judged or written anew, and the points stay.
    kept, graded = room.course.verdicts("ada", CHAPTER), room.course.graded("ada", CHAPTER)
    times = kept.stat().st_mtime_ns, graded.stat().st_mtime_ns
    again = {r.student: r for r in grade(room.course, CHAPTER, progress=lines.append)}
    assert times == (kept.stat().st_mtime_ns, graded.stat().st_mtime_ns)
    assert {k: r.points for k, r in again.items()} == {k: r.points for k, r in results.items()}
    old = read_judgement(kept)
    grade(room.course, CHAPTER, again=True, progress=lines.append)
    new = read_judgement(kept)
    for one in (old, new):
        one.seconds, one.verdicts = 0, [replace(v, seconds=0) for v in one.verdicts]
        one.pages = {}  # what own cells print may differ each time
    assert old == new
    assert len(list((room.folder / "backups").iterdir())) >= 1


def test_points_given_by_hand_stay(room):
    from nbgrader.api import Gradebook

    room.submit("ada", references("00") | {"c00-reflection": "Because the map depends on it."})
    grade(room.course, CHAPTER, progress=lambda line: None)
    (waiting,) = room.waiting("ada")
    with Gradebook(room.course.gradebook) as book:
        found = book.find_grade(waiting, CHAPTER.name, CHAPTER.folder, "ada")
        found.manual_score, found.needs_manual_grade = 1.5, False
        book.db.commit()
    kept = room.course.verdicts("ada", CHAPTER)
    judged = read_judgement(kept)
    for message in ("another message", "and another"):  # written again, as after a change of gclib
        judged.verdicts[0] = replace(judged.verdicts[0], message=message)
        kept.write_text(judged.text())
        grade(room.course, CHAPTER, progress=lambda line: None)
        with Gradebook(room.course.gradebook) as book:
            found = book.find_grade(waiting, CHAPTER.name, CHAPTER.folder, "ada")
            assert (found.manual_score, found.needs_manual_grade) == (1.5, False)
    # Another answer is for a person to read again; the points stay until then.
    path = room.course.notebook("ada", CHAPTER)
    path.write_text(path.read_text().replace("Because the map", "Because a map"))
    grade(room.course, CHAPTER, progress=lambda line: None)
    with Gradebook(room.course.gradebook) as book:
        found = book.find_grade(waiting, CHAPTER.name, CHAPTER.folder, "ada")
        assert (found.manual_score, found.needs_manual_grade) == (1.5, True)


def test_a_damaged_settings_file_never_makes_a_second_gradebook(tmp_path):
    (tmp_path / "course.json").write_text("{")
    with pytest.raises(CourseError, match=r"course\.json is damaged"):
        Course(tmp_path)
    (tmp_path / "course.json").write_text("{}")  # of gclib collect, which needs no gradebook
    assert Course(tmp_path, "postgresql://x@y/z").gradebook == "postgresql://x@y/z"
    (tmp_path / "course.json").write_text('{"gradebook": ""}')
    with pytest.raises(CourseError, match="leave --gradebook out"):
        Course(tmp_path, "postgresql://x@y/z")


def test_what_cannot_be_graded_is_refused(tmp_path):
    with pytest.raises(CourseError, match="no such folder"):
        grade(Course(tmp_path / "none"), CHAPTER)
    with pytest.raises(CourseError, match="nobody has handed in"):
        grade(Course(tmp_path), CHAPTER)
    with pytest.raises(CourseError, match="lies in the repository"):
        grade(Course(repository() / "data"), CHAPTER)
    assert not (repository() / "data" / "course.json").exists()
    (tmp_path / "submitted" / "ada" / CHAPTER.folder).mkdir(parents=True)
    with pytest.raises(CourseError, match="submitted/bob/00_start: there is no such folder"):
        grade(Course(tmp_path), CHAPTER, students=["bob"])
    with Course(tmp_path).alone(), pytest.raises(CourseError, match="another gclib command"):
        grade(Course(tmp_path), CHAPTER)


def test_a_resubmission_is_judged_and_others_are_not(room):
    first = room.submit("ada")
    room.submit("bob", references("00"))
    grade(room.course, CHAPTER, progress=lambda line: None)
    assert sum(without_reflection(room.grades("ada")).values()) == 0
    time = room.course.verdicts("bob", CHAPTER).stat().st_mtime_ns
    shutil.copy(room.course.notebook("bob", CHAPTER), first)
    grade(room.course, CHAPTER, progress=lambda line: None)
    assert without_reflection(room.grades("ada")) == without_reflection(room.grades("bob"))
    assert room.course.verdicts("bob", CHAPTER).stat().st_mtime_ns == time


def without_reflection(points):
    return {name: value for name, value in points.items() if "reflection" not in name}


PRIVATE = """
import torch
from gclib.checks import c00
from gclib.checks.exercise import hidden_check

@hidden_check(c00.e1)
def mine(impl, report):
    x = report.randn(7, 3, 2, 2)
    report.close("a batch of seven", impl.call(x), x.flatten(2).transpose(1, 2))
"""


def test_private_hidden_checks_count_with_the_hidden_ones(room):
    good = references("00")
    not_seven = "    assert len(x) != 7, 'seven'\n    return x.flatten(2)"
    wrong = good["c00-e1"].replace("    return x.flatten(2)", not_seven)
    room.submit("ada", good)
    room.submit("bob", good | {"c00-e1": wrong})
    grade(room.course, CHAPTER, progress=lambda line: None)
    assert room.grades("bob")["c00-e1-hidden"] == room.grades("ada")["c00-e1-hidden"] > 0
    private = room.folder / "private"
    private.mkdir()
    (private / "c00.py").write_text(PRIVATE)
    grade(room.course, CHAPTER, progress=lambda line: None)
    assert room.grades("ada")["c00-e1-hidden"] > room.grades("bob")["c00-e1-hidden"] == 0
    (private / "c00.py").write_text("import nowhere")
    with pytest.raises(CourseError, match=r"private/c00.py cannot be run: ModuleNotFoundError"):
        grade(room.course, CHAPTER, progress=lambda line: None)
    (private / "c00.py").write_text(PRIVATE.replace("@hidden_check(c00.e1)", "@c00_e9"))
    with pytest.raises(CourseError, match="cannot be run: NameError"):
        grade(room.course, CHAPTER, progress=lambda line: None)


def test_the_command_makes_a_gradebook_and_names_who_is_not_graded(tmp_path, capsys):
    made = tmp_path / "submitted" / "ada" / CHAPTER.notebook
    made.parent.mkdir(parents=True)
    shutil.copy(repository() / "solutions" / CHAPTER.notebook, made)
    command = ["grade", "00", "--course", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert f"1/1 {Course(tmp_path).alias('ada')}: " in said.err
    assert "1 of 1 submissions are graded." in said.out
    assert (tmp_path / "gradebook.db").is_file()
    assert (tmp_path / "reports" / f"{CHAPTER.folder}.html").is_file()
    assert not (tmp_path / "chapters").exists()
    first = read_judgement(Course(tmp_path).verdicts("ada", CHAPTER)).verdicts
    assert {verdict.verdict for verdict in first} == {"passed"}
    made.write_text("{}")
    assert main([*command, "--unsafe", "--workers", "1"]) == 1
    assert "  ada: not a notebook" in capsys.readouterr().out


def test_without_a_sandbox_nothing_is_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["grade", "00", "--course", str(tmp_path)]) == 2
    assert "bubblewrap is not installed" in capsys.readouterr().err
    assert main(["grade", "77", "--course", str(tmp_path)]) == 2
    assert "there is no chapter" in capsys.readouterr().err
