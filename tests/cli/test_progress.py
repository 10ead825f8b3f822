"""How far a student is: from saved notebooks, and from checks as they run."""

import json

import pytest

from gclib import course, progress
from gclib.chapters import CHAPTERS, find_chapter
from gclib.checks import c00, cards
from gclib.checks.exercise import exercises_of

ONE = find_chapter("01")
EXERCISES = exercises_of(c00)


def check_cell(name, *texts):
    """A check's cell as JupyterLab saves it, with what it displayed."""
    outputs = [{"output_type": "stream", "name": "stdout", "text": ["ok  a property\n"]}]
    outputs += [
        {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}}
        for text in texts
    ]
    return {
        "cell_type": "code",
        "metadata": {"nbgrader": {"grade_id": f"{name}-visible", "grade": True}},
        "source": f"{name}",
        "outputs": outputs,
    }


def write(folder, chapter, *cells):
    path = folder / chapter.notebook
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "cells": list(cells)}), encoding="utf-8")
    return path


@pytest.fixture
def work(tmp_path):
    """Three chapters: one begun, one blank, one broken."""
    write(
        tmp_path,
        CHAPTERS[0],
        {"cell_type": "markdown", "metadata": {}, "source": "text"},
        check_cell("c00-e1", "passed: c00-e1 x: all 6 visible checks passed", "Chapter 00: 1 of 4"),
        check_cell("c00-e2", ["not yet: c00-e2: ", "x\n  expected: 1"]),
        check_cell("c00-e3", "not attempted: c00-e3"),
        check_cell("c00-e4"),
    )
    write(tmp_path, ONE, check_cell("c01-e1"), check_cell("c01-e2"))
    write(tmp_path, CHAPTERS[2]).write_text("no notebook", encoding="utf-8")
    return tmp_path


def test_a_saved_notebook_says_what_its_checks_said(work):
    standing = progress.saved(CHAPTERS[0], work / CHAPTERS[0].notebook)
    assert dict(standing.verdicts) == {
        "c00-e1": "passed",
        "c00-e2": "not yet",
        "c00-e3": "not attempted",
        "c00-e4": "not attempted",
    }
    assert str(standing) == "1 of 4 exercises passed, 1 not yet"


@pytest.mark.parametrize(
    "content",
    [
        "no notebook",
        "{}",
        '{"cells": []}',
        '{"cells": [{"cell_type": "code", "metadata": {"nbgrader": 3}, "outputs": 3}]}',
    ],
)
def test_what_cannot_be_read_has_no_standing(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content, encoding="utf-8")
    assert progress.saved(ONE, path) is None
    assert progress.saved(ONE, tmp_path / "nothing.ipynb") is None


def test_odd_outputs_count_as_nothing(tmp_path):
    odd = check_cell("c01-e1")
    odd["outputs"] = [None, {"data": None}, {"data": {"text/plain": None}}, {"data": [1]}]
    path = write(tmp_path, ONE, odd)
    assert dict(progress.saved(ONE, path).verdicts) == {"c01-e1": "not attempted"}


def test_the_course_is_what_stands_beside_the_chapter(work):
    found = progress.of_course(work / CHAPTERS[2].folder)
    assert [one.chapter.number for one in found] == ["00", "01"]


def test_the_chapters_as_released_have_a_check_for_every_exercise():
    from gclib.chapters import repository

    for chapter in CHAPTERS:
        standing = progress.saved(chapter, repository() / "chapters" / chapter.notebook)
        names = [exercise.id for exercise in exercises_of(chapter.checks())]
        assert list(standing.verdicts) == names
        assert standing.passed == 0


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, in order: id, whether it is an update, and the plain text."""
    seen = []

    def display(texts, *, display_id=None, update=False):
        seen.append((display_id, update, texts[1]))

    monkeypatch.setattr(progress, "_display", display)
    monkeypatch.setattr(cards, "in_notebook", lambda: True)
    monkeypatch.setattr(cards, "_show", lambda *_: None)
    monkeypatch.setattr(cards, "on_verdict", None)
    monkeypatch.setattr(cards, "last_verdicts", {})
    return seen


def test_it_starts_from_what_was_saved_and_follows_the_checks(work, shown, monkeypatch):
    monkeypatch.chdir(work / CHAPTERS[0].folder)
    course.start("00", release=course.RELEASE)
    left = sum(one.minutes for one in EXERCISES[1:])
    text = f"Chapter 00: 1 of 4 exercises passed, 1 not yet, about {left} minutes of exercises left"
    both = f"{text}\nCourse: 1 of 6 exercises passed, as last saved"
    assert shown == [("gclib-progress-00", False, both)]
    shown.clear()
    # A right answer: the first cell changes, and a line stands below the check.
    c00.e2(lambda weights, values: weights @ values)
    left -= EXERCISES[1].minutes
    text = f"Chapter 00: 2 of 4 exercises passed, about {left} minutes of exercises left"
    both = f"{text}\nCourse: 2 of 6 exercises passed, as last saved"
    assert shown == [("gclib-progress-00", True, both), (None, False, text)]
    shown.clear()
    # A wrong one: the first cell changes alone.
    with pytest.raises(Exception, match="c00-e1"):
        c00.e1(lambda x: x)
    ((name, update, text),) = shown
    assert (name, update) == ("gclib-progress-00", True)
    assert text.startswith("Chapter 00: 1 of 4 exercises passed, 1 not yet, about")


def test_the_last_exercise_ends_it(work, shown, monkeypatch):
    folder = work / CHAPTERS[0].folder
    follower = progress.Follower(CHAPTERS[0], folder)
    for exercise in EXERCISES:
        follower(exercise.id, cards.PASSED)
    assert shown[-1] == (None, False, "Chapter 00: all 4 exercises passed")
    shown.clear()
    follower("c01-e1", cards.PASSED)  # of another chapter
    assert shown == []


def test_a_notebook_that_is_graded_shows_no_progress(work, shown, monkeypatch):
    monkeypatch.chdir(work / CHAPTERS[0].folder)
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    course.start("00", release=course.RELEASE)
    assert shown == []
    assert cards.on_verdict is None


def test_checks_outside_of_notebooks_tell_nobody(shown, monkeypatch):
    told = []
    monkeypatch.setattr(cards, "on_verdict", lambda *what: told.append(what))
    with cards.collected():
        c00.e2(lambda weights, values: weights @ values)
    monkeypatch.setattr(cards, "in_notebook", lambda: False)
    c00.e2(lambda weights, values: weights @ values)
    assert told == []
    assert cards.last_verdicts == {}


def test_an_experiment_behind_a_failed_check_says_so(shown, capsys):
    with pytest.raises(Exception, match="c00-e1"):
        c00.e1(lambda x: x)
    capsys.readouterr()
    with course.after("c00-e1"):
        print("experiment")
    with course.after("c00-e2"):
        print("another")
    said = "The check of c00-e1 says 'not yet': what follows may mislead."
    assert capsys.readouterr().out.splitlines() == [said, "experiment", "another"]


def test_the_page_links_the_other_chapters_and_tells_boxes_apart_by_more_than_colour(work):
    follower = progress.Follower(CHAPTERS[0], work / CHAPTERS[0].folder)
    page, _ = follower._whole()
    assert page.count("<a href=") == 1
    assert 'href="../01_non_local/non_local.ipynb"' in page
    assert 'title="exercise 2: not yet"' in page
    fills = [progress._FILL[kind] for kind in (cards.PASSED, cards.NOT_YET, cards.NOT_ATTEMPTED)]
    assert "background:#2e8b57" in fills[0]  # full
    assert "45%" in fills[1]  # half
    assert "background" not in fills[2]  # empty
