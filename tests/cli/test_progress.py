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
        '{"cells": ' + "[" * 100_000,
        '{"cells": [], "x": ' + "1" * 5_000 + "}",
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
    texts = (None, 5, True, float("nan"), {"a": 1}, ["passed: c01-e1", 3])
    odd["outputs"] = [None, {"data": None}, {"data": [1]}]
    odd["outputs"] += [{"data": {"text/plain": text}} for text in texts]
    path = write(tmp_path, ONE, odd)
    assert dict(progress.saved(ONE, path).verdicts) == {"c01-e1": "not attempted"}


def test_the_course_is_what_stands_beside_the_chapter(work):
    found = progress.of_course(work / CHAPTERS[2].folder, besides=CHAPTERS[2])
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
    return seen


def test_it_starts_from_what_was_saved_and_follows_the_checks(work, shown, monkeypatch):
    monkeypatch.chdir(work / CHAPTERS[0].folder)
    course.start("00", release=course.RELEASE)
    left = sum(one.minutes for one in EXERCISES[1:])
    text = f"Chapter 00: 1 of 4 exercises passed, 1 not yet, about {left} minutes of exercises left"
    both = f"{text}, as last saved\nCourse: 1 of 6 exercises passed, other chapters as last saved"
    assert shown == [("gclib-progress-00", False, both)]
    shown.clear()
    # A right answer: the first cell changes, and a line stands below the check.
    c00.e2(lambda weights, values: weights @ values)
    left -= EXERCISES[1].minutes
    text = f"Chapter 00: 2 of 4 exercises passed, about {left} minutes of exercises left"
    both = f"{text}\nCourse: 2 of 6 exercises passed, other chapters as last saved"
    assert shown == [("gclib-progress-00", True, both), (None, False, text)]
    shown.clear()
    # A wrong one: the first cell changes alone.
    with pytest.raises(Exception, match="c00-e1"):
        c00.e1(lambda x: x)
    ((name, update, text),) = shown
    assert (name, update) == ("gclib-progress-00", True)
    assert text.startswith("Chapter 00: 1 of 4 exercises passed, 1 not yet, about")


def test_the_last_exercise_ends_it(work, shown):
    cards.on_verdict = progress.Follower(CHAPTERS[0], work / CHAPTERS[0].folder)
    for exercise in EXERCISES:
        cards._tell(exercise.id, cards.PASSED, hidden=False)
    assert shown[-1] == (None, False, "Chapter 00: all 4 exercises passed")
    shown.clear()
    cards._tell("c01-e1", cards.PASSED, hidden=False)  # of another chapter
    assert shown == []


def test_the_first_cell_again_forgets_nothing(work, shown, monkeypatch):
    monkeypatch.chdir(work / CHAPTERS[0].folder)
    course.start("00", release=course.RELEASE)
    c00.e2(lambda weights, values: weights @ values)  # not saved
    shown.clear()
    course.start("00", release=course.RELEASE)
    ((_, _, text),) = shown
    assert text.startswith("Chapter 00: 2 of 4 exercises passed, about")


def test_what_was_saved_meanwhile_counts(work, shown):
    cards.on_verdict = progress.Follower(CHAPTERS[0], work / CHAPTERS[0].folder)
    write(work, ONE, check_cell("c01-e1", "passed: c01-e1 x"), check_cell("c01-e2"))
    cards._tell("c00-e3", cards.PASSED, hidden=False)
    assert "Course: 3 of 6 exercises passed" in shown[0][2]


def test_a_renamed_notebook_and_a_copy_have_their_own_standing(work, monkeypatch):
    folder = work / CHAPTERS[0].folder
    follower = progress.Follower(CHAPTERS[0], folder)
    copy = folder / "start-Copy1.ipynb"
    copy.write_text(json.dumps({"cells": [check_cell("c00-e4", "passed: x")]}), encoding="utf-8")
    monkeypatch.setenv("JPY_SESSION_NAME", "/work/00_start/start-Copy1.ipynb")
    assert follower._standing().verdicts["c00-e4"] == "passed"
    assert follower._standing().passed == 1
    monkeypatch.setenv("JPY_SESSION_NAME", "a-console")
    assert follower._standing().verdicts["c00-e1"] == "passed"


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_starts_without_the_verdicts_of_others(monkeypatch, turn):
    assert cards.last_verdicts == {}
    monkeypatch.setattr(cards, "in_notebook", lambda: True)
    cards._tell("c00-e1", cards.NOT_ATTEMPTED, hidden=False)
    assert cards.last_verdicts == {"c00-e1": cards.NOT_ATTEMPTED}


def test_checks_of_other_chapters_and_empty_copies_of_cells_change_nothing(tmp_path):
    passed = check_cell("c00-e1", "passed: c00-e1 x")
    cells = (passed, check_cell("c00-e1"), check_cell("c05-e1", "passed: c05-e1 x"))
    path = write(tmp_path, CHAPTERS[0], *cells, check_cell("c\u0660\u0660-e1", "passed: x"))
    assert dict(progress.saved(CHAPTERS[0], path).verdicts) == {"c00-e1": "passed"}


def test_hidden_checks_tell_nobody(shown, monkeypatch):
    from gclib.checks.hidden import c00 as hidden

    told = []
    monkeypatch.setattr(cards, "on_verdict", lambda *what: told.append(what))
    with pytest.raises(Exception, match="c00-e1"):
        hidden.e1(lambda x: x)
    hidden.e2(lambda weights, values: weights @ values)
    assert told == []


def test_a_folder_that_is_gone_stops_no_chapter(shown, monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    course.start("00", release=course.RELEASE)
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
    said = "The check of c00-e1 said 'not yet' when it last ran: this may mislead."
    assert capsys.readouterr().out.splitlines() == [said, "experiment", "another"]


def test_the_page_links_the_other_chapters_and_tells_boxes_apart_by_more_than_colour(work, shown):
    follower = progress.Follower(CHAPTERS[0], work / CHAPTERS[0].folder)
    page, _ = follower._whole(follower._standing())
    assert page.count("<a href=") == 1
    assert 'href="../01_non_local/non_local.ipynb"' in page
    name = "Chapter 01, The non-local block: 0 of 2 exercises passed"
    assert f'aria-label="{name}"' in page
    assert 'title="exercise 2: not yet"' in page
    fills = [progress._FILL[kind] for kind in (cards.PASSED, cards.NOT_YET, cards.NOT_ATTEMPTED)]
    assert "background:#2e8b57" in fills[0]  # full
    assert "45%" in fills[1]  # half
    assert "background" not in fills[2]  # empty
