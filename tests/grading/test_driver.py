"""``gclib grade``: a class from submitted notebooks to points, without running them as oneself."""

import json
import shutil
import stat

import pytest
from classroom import Classroom
from mutants.answers import references
from test_sandbox import needs_bubblewrap

from gclib.chapters import find_chapter, repository
from gclib.cli import main
from gclib.grading.classroom import CourseError, Course
from gclib.grading.driver import grade
from gclib.grading.sandbox import jail

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
    room.submit("name", good).rename(room.course.notebook("name", CHAPTER).with_name("mine.ipynb"))
    before = {
        path: path.read_bytes() for path in (room.folder / "submitted").rglob("*") if path.is_file()
    }
    lines = []
    results = {r.student: r for r in grade(room.course, CHAPTER, progress=lines.append)}
    assert len(lines) == 6
    assert all("left" in line for line in lines)
    full = sum(results["ada"].points.values())
    assert full > 0
    assert sum(results["twice"].points.values()) == full
    assert sum(results["blank"].points.values()) == 0
    assert sum(results["loop"].points.values()) == 0
    assert "not a notebook" in results["broken"].problem
    assert "mine.ipynb" in results["name"].problem
    for student in ("ada", "blank", "loop", "twice"):
        assert room.grades(student) == results[student].points
    assert before == {
        path: path.read_bytes() for path in (room.folder / "submitted").rglob("*") if path.is_file()
    }
    assert stat.S_IMODE(room.folder.stat().st_mode) == 0o700
    # Again: nothing is judged anew, and the points stay.
    kept = room.course.verdicts("ada", CHAPTER)
    time = kept.stat().st_mtime_ns
    again = {r.student: r for r in grade(room.course, CHAPTER, progress=lines.append)}
    assert kept.stat().st_mtime_ns == time
    assert {k: r.points for k, r in again.items()} == {k: r.points for k, r in results.items()}
    text = kept.read_text()
    grade(room.course, CHAPTER, again=True, progress=lines.append)
    old, new = json.loads(text), json.loads(kept.read_text())
    for one in (old, new):
        for verdict in one["verdicts"]:
            verdict.pop("seconds")
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
    grade(room.course, CHAPTER, again=True, progress=lambda line: None)
    with Gradebook(room.course.gradebook) as book:
        assert book.find_grade(waiting, CHAPTER.name, CHAPTER.folder, "ada").manual_score == 1.5


def test_what_cannot_be_graded_is_refused(tmp_path):
    with pytest.raises(CourseError, match="no such folder"):
        grade(Course(tmp_path / "none"), CHAPTER)
    with pytest.raises(CourseError, match="nobody has handed in"):
        grade(Course(tmp_path), CHAPTER)


def test_the_command_makes_a_gradebook_and_names_who_is_not_graded(tmp_path, capsys):
    made = tmp_path / "submitted" / "ada" / CHAPTER.notebook
    made.parent.mkdir(parents=True)
    shutil.copy(repository() / "solutions" / CHAPTER.notebook, made)
    command = ["grade", "00", "--course", str(tmp_path)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "1/1 ada: " in said.err
    assert "1 of 1 submissions are graded." in said.out
    assert (tmp_path / "gradebook.db").is_file()
    assert not (tmp_path / "chapters").exists()
    first = json.loads(Course(tmp_path).verdicts("ada", CHAPTER).read_text())["verdicts"]
    assert {verdict["verdict"] for verdict in first} == {"passed"}
    made.write_text("{}")
    assert main([*command, "--unsafe", "--workers", "1"]) == 1
    assert "  ada: start.ipynb: not a notebook" in capsys.readouterr().out


def test_without_a_sandbox_nothing_is_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jail, "bubblewrap", lambda visible: ["false"])
    assert main(["grade", "00", "--course", str(tmp_path)]) == 2
    assert "bubblewrap cannot make a sandbox here" in capsys.readouterr().err
    assert main(["grade", "77", "--course", str(tmp_path)]) == 2
    assert "there is no chapter" in capsys.readouterr().err
