"""Chapters 00 to 06 worked through in a real browser, as a student would.

The tests of a chapter are one sitting: a blank notebook run to its end, a wrong and a right answer,
hints, all answers, a look at everything, nbgrader's Validate, and the notebook saved.
"""

import re

import pytest
from mutants.answers import ROOT, apply, mutants, references
from seat import WIDTHS, Seat, copy_course, lab

from gclib.chapters import CHAPTERS
from gclib.checks.exercise import exercises_of

pytestmark = pytest.mark.full
BUILT = CHAPTERS[:7]
# The first cell's table needs no names of columns; JupyterLab's themes underline no link.
LEFT_OUT = {name: {"enabled": False} for name in ("empty-table-header", "link-in-text-block")}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    course = copy_course(tmp_path_factory.mktemp("course"))
    with lab(course, tmp_path_factory.mktemp("log") / "lab.txt") as address:
        yield address


@pytest.fixture(scope="module", params=BUILT, ids=[chapter.folder for chapter in BUILT])
def seat(request, browser, address):
    seat = Seat(browser, address, request.param)
    seat.exercises = exercises_of(request.param.checks())
    yield seat
    seat.page.close()


def test_a_blank_notebook_runs_to_its_end(seat):
    seat.run_all()
    seat.look()
    prompts = seat.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    assert len(prompts) > 15
    assert all(prompt.strip("[]: \n").isdigit() for prompt in prompts)
    assert "ready to hand in: every cell is there" in seat.cells().last.inner_text()
    count = len(seat.exercises)
    assert seat.page.locator("strong:text-is('not attempted')").count() == count
    # No traceback and no warning: nothing in red but one line for each stub.
    assert [error.split(":")[0] for error in seat.errors()] == ["NotAttempted"] * count
    assert all(error.count("\n") == 0 for error in seat.errors())
    assert f"0 of {count} exercises passed" in seat.progress()


def test_expected_figures_are_folded_until_there_is_an_answer(seat):
    figures = seat.page.locator("details", has_text="Expected figure")
    notebook = (ROOT / "chapters" / seat.chapter.notebook).read_text(encoding="utf-8")
    # Some wait for the answer altogether: they need more of it than a picture.
    assert bool(figures.count()) is ("expected.beside(" in notebook)
    assert figures.count() <= notebook.count("expected.beside(")
    for index in range(figures.count()):
        assert not figures.nth(index).locator("img").is_visible()


def test_a_wrong_answer_gets_a_red_card_that_names_the_cause(seat):
    exercise = seat.exercises[0]
    wrong = next(m for m in mutants(seat.chapter.number)[exercise.id] if not m.hidden)
    answer = apply(wrong.edits, references(seat.chapter.number)[exercise.id])
    check = seat.answer(exercise, answer)
    check.locator("strong:text-is('not yet')").wait_for()
    card = check.locator(".jp-RenderedHTMLCommon").first.inner_text()
    for part in ("expected", "got", "likely cause", wrong.says, "look at"):
        assert part in card
    (error,) = check.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
    assert error.startswith(f"CheckFailed: {exercise.id}")
    assert "Traceback" not in error
    assert f"0 of {len(seat.exercises)} exercises passed, 1 not yet" in seat.progress()


def test_a_right_answer_gets_a_green_card_and_the_chapter_counts_it(seat):
    exercise = seat.exercises[0]
    check = seat.answer(exercise, references(seat.chapter.number)[exercise.id])
    check.locator("strong:text-is('passed')").wait_for()
    assert "visible checks passed" in check.inner_text()
    assert check.locator("text=CheckFailed").count() == 0
    line = f"1 of {len(seat.exercises)} exercises passed"
    assert f"Chapter {seat.chapter.number}" in check.inner_text()
    assert line in check.inner_text()
    assert line in seat.progress()


def test_hints_are_folded_and_open_with_the_keyboard(seat):
    seat.look()
    hints = seat.page.locator(".jp-RenderedMarkdown details")
    assert hints.count() >= 3 * len(seat.exercises)
    assert hints.evaluate_all("all => all.every(one => !one.open && one.innerText.length > 5)")
    for index in range(3):
        hint = hints.nth(index)
        hint.locator("summary").focus()
        for key, opened in (("Enter", True), ("Space", False)):
            seat.page.keyboard.press(key)
            assert hint.evaluate("one => one.open") is opened
    # Each holds more than its title, and all of it is seen.
    assert hints.evaluate_all(
        """all => all.every(one => {
            const folded = one.offsetHeight;
            one.open = true;
            return one.offsetHeight > folded + 10;
        })"""
    )


def test_all_answers_pass_and_every_experiment_does_its_work(seat):
    answers = references(seat.chapter.number)
    for exercise in seat.exercises[1:]:
        seat.write(exercise.needs, answers[exercise.id])
    seat.run_all()
    seat.look()
    assert seat.errors() == []
    assert seat.page.locator("strong:text-is('passed')").count() == len(seat.exercises)
    assert f"all {len(seat.exercises)} exercises passed" in seat.progress()
    assert seat.page.locator(".jp-OutputArea :text('Finish exercise')").count() == 0


def test_figures_are_drawn_with_an_alt_text(seat):
    figures = seat.figures()
    assert figures.count() >= 2
    for index in range(figures.count()):
        assert len(figures.nth(index).get_attribute("alt")) > 30
        assert figures.nth(index).evaluate("one => one.naturalWidth") > 200
        assert figures.nth(index).is_visible()


def test_nothing_is_cut_off_and_all_can_be_read(seat):
    from axe_playwright_python.sync_playwright import Axe

    ours = {"include": [[".jp-RenderedHTMLCommon"], [".jp-RenderedText"]]}
    assert seat.figures().count() >= 2, "run the tests of a chapter together"
    options = {"rules": LEFT_OUT, "resultTypes": ["violations", "passes", "incomplete"]}
    for width, theme in seat.looks():
        assert seat.cut_off() == [], (width, theme)
        if width != WIDTHS[0]:  # colours and names are the same
            continue
        found = Axe().run(seat.page, ours, options).response
        problems = [
            f"{problem['id']}: {node['html'][:200]}"
            for problem in found["violations"]
            for node in problem["nodes"]
        ]
        assert problems == [], theme
        unsure = [one for one in found["incomplete"] if one["id"] == "color-contrast"]
        assert [node["html"] for one in unsure for node in one["nodes"]] == [], theme
        # axe did look: it measured contrasts of text on this page
        assert any(rule["id"] == "color-contrast" for rule in found["passes"]), theme


def test_what_is_cut_off_or_unreadable_would_be_found(seat):
    from axe_playwright_python.sync_playwright import Axe

    bad = (
        '<div id="bad"><p style="color:#999;background:#fff">too pale</p>'
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'
        '<p style="width:5000px">too wide</p></div>'
    )
    seat.look()  # while JupyterLab still draws, axe cannot tell what lies over what
    seat.page.evaluate(
        "bad => document.querySelector('.jp-Notebook .jp-RenderedMarkdown')"
        ".insertAdjacentHTML('beforeend', bad)",
        bad,
    )
    assert any("px: " in text for text in seat.cut_off())
    found = Axe().run(seat.page, {"include": [["#bad"]]})
    assert {"color-contrast", "image-alt"} <= {one["id"] for one in found.response["violations"]}
    seat.page.evaluate("document.querySelector('#bad').remove()")


def test_validate_finds_nothing_but_unanswered_questions(seat):
    seat.sit()
    seat.save()
    seat.page.click("text=Validate")
    seat.page.wait_for_selector(".jp-Dialog:has-text('Validation Results')", timeout=240_000)
    said = seat.page.locator(".jp-Dialog-content").inner_text()
    seat.page.click(".jp-Dialog button:has-text('Ok')")
    # A person reads these, and nothing is written there yet.
    empty = r"\*Write your answer here\.\*\s*You did not provide a response\.\s*"
    left, count = re.subn(empty, "", said)
    assert count >= 1
    assert re.fullmatch(r"Validation Results\s*The following (cell|\d cells) failed:\s*Ok", left), (
        said
    )


def test_the_saved_notebook_can_be_handed_in(seat):
    seat.save()
    last = seat.cells().last
    seat.run(last)
    assert "ready to hand in: every cell is there" in last.inner_text()
