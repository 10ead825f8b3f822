"""The report on a class: numbers that are right, and everything that somebody must look at."""

import re
import stat

import pytest
from bs4 import BeautifulSoup
from small_class import BLANK, CHAPTER, FLAG, GOOD, WRONG, SmallClass

from gclib.grading.class_report import normal_form, write_report
from gclib.grading.driver import Result

MINE = '''def to_positions(x):
    """Mine."""
    images, channels, height, width = x.shape
    rows = [x[:, :, i, j] for i in range(height) for j in range(width)]
    # one position after the other
    return torch.stack(rows, dim=1)
'''
RENAMED = """def to_positions(x):
    a, b, c, d = x.shape
    parts = [x[:, :, p, q] for p in range(c) for q in range(d)]
    return torch.stack(parts, dim=1)
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = SmallClass(tmp_path_factory.mktemp("class"))
    for number in range(6):
        room.hand_in(f"good{number}", GOOD | {"c00-reflection": f"Answer {number}"})
    for number in range(3):
        room.hand_in(f"wrong{number}", WRONG | {"c00-e4": GOOD["c00-e4"]})
    room.hand_in("blank", BLANK)
    room.hand_in("empty", BLANK)
    room.hand_in("mine", GOOD | {"c00-e1": MINE}, flags=[FLAG], notes=["its name was mended"])
    room.hand_in("renamed", GOOD | {"c00-e1": RENAMED})
    room.refuse("broken", "not a notebook <b>here</b>")
    room.write(room.course.notebook("late", CHAPTER), "{}")
    results = [Result("blank"), Result("good5", problem="nbgrader cannot save it: disk error")]
    room.path = write_report(room.course, CHAPTER, results)
    room.report = BeautifulSoup(room.path.read_text(encoding="utf-8"), "html.parser")
    return room


def section(room, name):
    """What follows a heading, up to the next one; with single spaces."""
    heading = room.report.find("h2", id=name)
    texts = []
    for sibling in heading.find_next_siblings():
        if sibling.name == "h2":
            break
        texts.append(sibling.get_text(" "))
    return re.sub(r"\s+", " ", " ".join(texts))


def rows(room, name):
    """The cells of the first table after a heading."""
    table = room.report.find("h2", id=name).find_next("table")
    return [
        [re.sub(r"\s+", " ", cell.get_text(" ")).strip() for cell in row.find_all(["th", "td"])]
        for row in table.tbody.find_all("tr")
    ]


def test_it_is_one_file_for_its_owner_alone(room):
    assert room.path == room.course.folder / "reports" / f"{CHAPTER.folder}.html"
    assert stat.S_IMODE(room.path.stat().st_mode) == 0o600
    assert not room.report.find_all(["script", "link", "iframe", "form"])
    policy = room.report.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'")
    assert "15 handed in, 12 graded, 3 could not be graded, 1 with" in room.report.get_text()


def test_who_was_not_graded_is_named_with_the_reason(room):
    assert rows(room, "problems") == [
        ["broken", "not a notebook <b>here</b>"],
        ["good5", "nbgrader cannot save it: disk error"],
        ["late", "not judged yet: run gclib grade"],
    ]


def test_flags_and_what_was_mended(room):
    assert rows(room, "flags") == [
        ["mine", "c00-e1", "2", "it changes torch.allclose torch.allclose = lambda *a: True"]
    ]
    assert rows(room, "mended") == [["mine", "its name was mended"]]


def test_points_are_counted(room):
    # 7 students with 8 points (the reflection is not read yet), 3 with 2, 2 with 0.
    assert rows(room, "points") == [["0", "2"], ["2", "3"], ["8", "7"]]
    assert "Of 10 points: mean 5.17, median 8, lower quarter 2, upper quarter 8" in section(
        room, "points"
    )
    picture = room.report.find("h2", id="points").find_next("img")
    assert "2 with 0, 3 with 2, 7 with 8" in picture["alt"]
    assert picture["src"].startswith("data:image/png;base64,")


def test_exercises_are_counted(room):
    first, *_, last = rows(room, "exercises")
    # 13 were judged: good0 to good5, mine, renamed; wrong0 to wrong2; blank, empty.
    assert first[:7] == ["Exercise 1 · positions first", "8", "3", "2", "8", "3", "2"]
    assert last[:7] == [
        "Exercise 4 · a residual that starts as the identity",
        *["11", "0", "2"] * 2,
    ]
    assert float(first[7]) > 0.9  # wrong in 1 to 3 alike
    assert 0 < float(last[7]) < float(first[7])


def test_reasons_are_counted_by_student(room):
    table = rows(room, "reasons")
    verdict = next(
        v for v in room.hand_in("wrong0", WRONG | {"c00-e4": GOOD["c00-e4"]}).verdicts
        if v.cell == "c00-e1-visible"
    )  # fmt: skip
    assert verdict.cause
    assert [row for row in table if row[2] == verdict.cause and row[0] == "3"]
    assert "Exercise 4" not in section(room, "reasons")


def test_answers_that_are_alike_are_shown_and_those_of_the_course_are_not(room):
    size = str(normal_form(MINE)[1])
    assert rows(room, "alike") == [["Exercise 1", "2 of 13", "mine, renamed", size, "no"]]
    said = section(room, "alike")
    assert "The same file, byte by byte: wrong0, wrong1, wrong2" in said
    assert "good0" not in said
    assert "blank" not in said  # nothing was done, so nothing was copied


def test_times(room):
    assert "1.5 s per submission (median), 1.5 s at most, 20 s together" in section(room, "times")
    assert [row[0] for row in rows(room, "times")][:2] == ["c00-e1-hidden", "c00-e1-visible"]


def test_names_and_comments_do_not_hide_a_copy():
    assert normal_form(MINE) == normal_form(RENAMED)
    assert normal_form(MINE)[1] > 60
    assert normal_form(MINE.replace("dim=1", "dim=2"))[0] != normal_form(MINE)[0]
    assert normal_form("%%time\nx = 1")[0] == normal_form("y = 1  # a")[0]
    assert normal_form("def (")[1] == 0
    assert normal_form("-" * 100_000 + "1")[1] == 0


def test_without_a_student_the_report_names_them_no_more(room):
    import shutil

    for folder in ("submitted", "autograded", "feedback"):
        shutil.rmtree(room.course.folder / folder / "renamed", ignore_errors=True)
    room.course.verdicts("renamed", CHAPTER).unlink()
    text = write_report(room.course, CHAPTER).read_text(encoding="utf-8")
    assert "renamed" not in text
    assert "14 handed in" in text


def test_an_empty_class_has_a_report(tmp_path):
    path = write_report(SmallClass(tmp_path).course, CHAPTER)
    assert "0 handed in, 0 graded" in path.read_text(encoding="utf-8")
