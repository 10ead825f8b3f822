"""``gclib feedback``: a page for each student, and no word about anybody or anything else."""

import json
import stat
import zipfile
from itertools import pairwise

import pytest
from bs4 import BeautifulSoup
from mutants.answers import ROOT
from small_class import BLANK, CHAPTER, FLAG, GOOD, WRONG, SmallClass

from gclib.chapters import CHAPTERS
from gclib.checks.cells import read_cells, source_of
from gclib.cli import main
from gclib.grading.classroom import CourseError
from gclib.grading.feedback import Layout, write_pages, write_zip
from gclib.grading.notebooks import grade_metadata, hidden_lines, solution_lines

ANSWER = "It is $\\frac{a}{b}$ if $a<b$. <img src=x onerror=alert(1)> [x](javascript:alert(1))"
NOTE = "2 copies of c00-e3 were found; the last one with an answer counts"
PROBLEM = "start.ipynb: not a notebook (line 1 is not JSON); restore a backup"


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = SmallClass(tmp_path_factory.mktemp("class"))
    room.hand_in("ada", GOOD | {"c00-reflection": ANSWER}, flags=[FLAG], notes=[NOTE])
    room.hand_in("bob.b", BLANK | {"c00-e1": WRONG["c00-e1"], "c00-e2": GOOD["c00-e2"]})
    room.hand_in("cleo", {})
    room.refuse("dan", f"{room.course.folder}/submitted/dan/{PROBLEM}")
    room.written = dict(write_pages(room.course, CHAPTER, progress=lambda line: None))
    return room


def pages(room, **more):
    return dict(write_pages(room.course, CHAPTER, progress=lambda line: None, **more))


def test_everybody_gets_a_page_and_it_is_closed_to_others(room):
    assert room.written == dict.fromkeys(("ada", "bob.b", "cleo", "dan"), "written")
    path = room.course.feedback("bob.b", CHAPTER)
    assert path.name == "start.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("student", ["ada", "bob.b", "cleo", "dan"])
def test_a_page_is_one_file_without_scripts(room, student):
    soup = BeautifulSoup(room.page(student), "html.parser")
    policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not soup.find_all(["script", "link", "iframe", "img", "form", "object", "svg"])
    assert all(link["href"].startswith("#") for link in soup.find_all("a"))
    for link in soup.find_all("a"):
        assert soup.find(id=link["href"][1:])
    assert soup.html["lang"] == "en"
    levels = [int(tag.name[1]) for tag in soup.find_all(["h1", "h2", "h3", "h4"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


@pytest.mark.parametrize("student", ["ada", "bob.b", "cleo", "dan"])
def test_no_page_tells_what_it_must_not(room, student):
    page = room.page(student)
    for other in {"ada", "bob.b", "cleo", "dan"} - {student}:
        assert f">{other}<" not in page
        assert f"/{other}/" not in page
    for text in (str(room.course.folder), str(ROOT), str(room.course.folder.parent), "seed"):
        assert text not in page
    assert FLAG.what not in page
    solution = read_cells(ROOT / "solutions" / CHAPTER.notebook)
    for cell in solution:
        source = source_of(cell)
        assert not any(line in page for line in hidden_lines(source))
        if cell["cell_type"] == "markdown" or student in ("cleo", "dan"):
            assert not any(line in page for line in solution_lines(source))


def test_points_and_verdicts_stand_at_the_top(room):
    text = room.text("bob.b")
    assert "Feedback for bob.b" in text
    assert "2 of 10 points" in text
    assert "Exercise 1 · positions first ✗ not yet 0 of 1 ✗ not yet 0 of 1 0 of 2" in text
    assert "Exercise 2 · weighted sum with einsum ✓ passed 1 of 1 ✓ passed 1 of 1 2 of 2" in text
    assert "Exercise 3 · softmax over an axis ○ not attempted" in text


def test_a_failed_check_says_what_why_and_where_to_read(room):
    soup = BeautifulSoup(room.page("bob.b"), "html.parser")
    card = soup.find("dl", class_="card")
    names = [tag.get_text() for tag in card.find_all("dt")]
    assert names == ["expected", "got", "likely cause", "read again"]
    reading = soup.find(class_="reading")
    assert "Read again: 2. Shapes" in reading.parent.summary.get_text()
    assert "list of positions" in reading.get_text()
    assert "Hint" not in reading.get_text()
    code = soup.find("pre", class_="code").get_text()
    assert code.strip() == WRONG["c00-e1"].strip()


def test_the_answer_is_shown_with_its_formulas_and_without_its_attack(room):
    soup = BeautifulSoup(room.page("ada"), "html.parser")
    answer = soup.find(class_="answer")
    assert [tag.name for tag in answer.find_all(["mfrac", "mo"])] == ["mfrac", "mo"]
    assert "< img src=x onerror=alert(1)> [x] (javascript:alert(1))" in answer.get_text()
    assert "Mended before grading" in room.text("ada")
    assert f"{NOTE}." in room.text("ada")


def test_who_cannot_be_graded_learns_why_without_the_instructors_paths(room):
    text = room.text("dan")
    assert "could not be graded" in text
    assert "Start.ipynb: not a notebook (line 1 is not JSON); restore a backup." in text
    assert "of 10 points" not in text
    assert "gclib submit-check" in text


def test_pages_are_written_again_only_when_something_changed(room):
    before = {s: room.course.feedback(s, CHAPTER).stat().st_mtime_ns for s in room.written}
    assert pages(room) == dict.fromkeys(before, "up to date")
    assert {s: room.course.feedback(s, CHAPTER).stat().st_mtime_ns for s in before} == before
    judgement = room.course.verdicts("cleo", CHAPTER)
    text = judgement.read_text()
    judgement.write_text(text.replace('"notes": []', '"notes": ["its name was mended"]'))
    assert pages(room) == dict.fromkeys(before, "up to date") | {"cleo": "written"}
    assert "Its name was mended." in room.text("cleo")
    judgement.write_text(text)
    graded = room.course.graded("bob.b", CHAPTER)
    graded.write_text(graded.read_text().replace("to_positions", "to_position"))
    assert pages(room)["bob.b"] == "written"
    assert set(pages(room, again=True).values()) == {"written"}
    room.course.feedback("ada", CHAPTER).write_text("<html>")  # as plain nbgrader would
    assert pages(room, students=["ada"]) == {"ada": "written"}


def test_who_was_not_judged_has_no_page(room):
    path = room.course.notebook("eve", CHAPTER)
    room.write(path, "{}")
    try:
        assert pages(room)["eve"] == "not graded"
        assert not room.course.feedback("eve", CHAPTER).exists()
    finally:
        path.unlink()
        path.parent.rmdir()


def test_unknown_students_and_empty_classes_are_named(room, tmp_path):
    with pytest.raises(CourseError, match="submitted/nobody/00_start: there is no such folder"):
        pages(room, students=["nobody"])
    with pytest.raises(CourseError, match="nobody has handed in"):
        pages(SmallClass(tmp_path))


def test_the_command_counts_names_nobody_in_its_progress_and_fails_for_who_is_missing(room, capsys):
    command = ["feedback", "00", "--course", str(room.course.folder)]
    assert main([*command, "--again"]) == 0
    said = capsys.readouterr()
    assert "4 pages written, 0 up to date" in said.out
    assert f"1/4 {room.course.alias('ada')}: written (" in said.err
    assert "ada" not in said.err
    assert main([*command, "--student", "ada"]) == 0
    assert "0 pages written, 1 up to date" in capsys.readouterr().out
    path = room.course.notebook("eve", CHAPTER)
    room.write(path, "{}")
    try:
        assert main(command) == 1
        assert "without a page: eve" in capsys.readouterr().out
    finally:
        path.unlink()
        path.parent.rmdir()


def test_a_zip_for_moodle(room, tmp_path, capsys):
    people = {
        "ada": {"name": "Ada Lovelace_King", "moodle": {CHAPTER.folder: "4711"}},
        "bob.b": {"name": "Bob", "canvas": "12"},
    }
    room.write(room.course.folder / "students.json", json.dumps(people))
    target = tmp_path / "out.zip"
    try:
        pages(room)
        assert "Feedback for Ada Lovelace_King" in room.text("ada")
        unknown = write_zip(room.course, CHAPTER, ["ada", "bob.b"], target)
        command = ["feedback", "00", "--course", str(room.course.folder), "--zip"]
        assert main([*command, str(tmp_path / "two.zip"), "--student", "ada", "bob.b"]) == 0
        assert "in folders named by their ids: bob.b" in capsys.readouterr().out
    finally:
        (room.course.folder / "students.json").unlink()
        pages(room)
    assert unknown == ["bob.b"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    for path in (target, tmp_path / "two.zip"):
        with zipfile.ZipFile(path) as pack:
            names = pack.namelist()
            assert names == [
                "Ada Lovelace King_4711_assignsubmission_file_/start.html",
                "bob.b/start.html",
            ]
            assert b"Feedback for" in pack.read(names[0])
    # Moodle splits a folder's name at "_" and takes the second part for the number.
    assert names[0].split("/")[0].split("_")[1] == "4711"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.number)
def test_each_chapter_is_understood(chapter):
    layout = Layout(chapter)
    exercises = {e.id: e for e in chapter.checks().__dict__.values() if hasattr(e, "needs")}
    parts = {part.id: part for part in layout.parts}
    assert set(exercises) <= set(parts)
    for name, exercise in exercises.items():
        assert parts[name].title.startswith(f"Exercise {name.split('-e')[1]} · ")
        assert f"{name}-visible" in parts[name].checks
        title, prose = layout.section(exercise.look)
        assert title.startswith(exercise.look.split()[1].strip(",") + ". ")
        assert len(prose) > 50
        assert "### Exercise" not in prose
    assert parts[f"c{chapter.number}-reflection"].question.count(" ") > 20
    cells = [grade_metadata(cell) for cell in read_cells(ROOT / "chapters" / chapter.notebook)]
    assert sum(layout.worth.values()) == sum(c["points"] for c in cells if c.get("grade"))


# With a gradebook


@pytest.mark.full
def test_what_stands_in_the_gradebook_counts(room):
    from nbgrader.api import Gradebook

    course = room.course
    course.prepare()
    assert pages(room)["ada"] == "up to date"  # registered, but nothing is saved yet
    judgement = json.loads(course.verdicts("ada", CHAPTER).read_text())
    passed = {v["cell"] for v in judgement["verdicts"] if v["verdict"] == "passed"}
    with Gradebook(course.gradebook) as book:
        book.update_or_create_student("ada")
        book.update_or_create_submission(CHAPTER.folder, "ada")
        notebook = book.find_submission_notebook(CHAPTER.name, CHAPTER.folder, "ada")
        for grade in notebook.grades:
            if grade.name != "c00-reflection":
                grade.auto_score = grade.max_score if grade.name in passed else 0.0
                grade.needs_manual_grade = False
        book.db.commit()
    assert pages(room) == dict.fromkeys(room.written, "up to date") | {"ada": "written"}
    text = room.text("ada")
    assert "8 of 10 points" in text
    assert "2 more points wait for a person" in text
    assert "Reflection … waits for a person ? of 2" in text
    with Gradebook(course.gradebook) as book:
        notebook = book.find_submission_notebook(CHAPTER.name, CHAPTER.folder, "ada")
        grade = book.find_grade("c00-reflection", CHAPTER.name, CHAPTER.folder, "ada")
        grade.manual_score, grade.needs_manual_grade = 1.5, False
        check = book.find_grade("c00-e1-hidden", CHAPTER.name, CHAPTER.folder, "ada")
        check.manual_score = 0.5
        comment = book.find_comment("c00-reflection", CHAPTER.name, CHAPTER.folder, "ada")
        comment.manual_comment = "See **(b)**: $x^2$ <script>alert(1)</script>"
        notebook.late_submission_penalty = 1.0
        book.db.commit()
    assert pages(room)["ada"] == "written"
    text = room.text("ada")
    assert "8 of 10 points" in text  # 7.5 + 1.5 - 1
    assert "1 point is taken off because it was handed in late" in text
    assert "Reflection read by a person 1.5 of 2" in text
    assert "0.5 of 1 point, given by a person" in text
    soup = BeautifulSoup(room.page("ada"), "html.parser")
    assert soup.find("strong", string="(b)")
    assert not soup.find_all("script")
    assert pages(room)["ada"] == "up to date"
