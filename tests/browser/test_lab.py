"""``gclib lab`` in a real browser: the first screen, the student's own copy, the way on.

Chapters are worked through in ``test_chapters.py``.
"""

import pytest
from mutants.answers import references
from seat import Seat, copy_course, lab

from gclib.chapters import CHAPTERS
from gclib.checks.exercise import exercises_of

pytestmark = pytest.mark.full
ANSWER = "x.flatten(2).transpose(1, 2)"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_course(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def address(checkout, tmp_path_factory):
    with lab(checkout, tmp_path_factory.mktemp("log") / "lab.txt") as address:
        yield address


@pytest.fixture(scope="module")
def seat(browser, address):
    return Seat(browser, address)


def test_it_opens_at_chapter_00(seat, address):
    assert "/lab/tree/work/00_start/start.ipynb" in address
    title = seat.page.locator(".jp-Notebook h1").first.inner_text()
    assert title.startswith("Chapter 00 · Start here")


def test_no_questions_and_no_news_on_the_first_screen(seat):
    assert seat.page.locator(".jp-toast-button").count() == 0
    assert seat.page.locator(".jp-Dialog").count() == 0


def test_long_lines_of_code_are_wrapped(seat):
    seat.page.set_viewport_size({"width": 500, "height": 900})
    seat.page.wait_for_timeout(1000)
    widths = seat.page.locator(".cm-scroller").evaluate_all(
        "all => all.map(one => one.scrollWidth - one.clientWidth)"
    )
    assert len(widths) > 10
    assert max(widths) <= 1
    seat.sit()


def test_the_menu_runs_a_blank_notebook_to_its_end(seat):
    seat.menu("Run", "Run All Cells")
    seat.look()
    seat.page.wait_for_selector("text=ready to hand in: every cell is there", timeout=120_000)


def test_check_cells_cannot_be_edited(seat):
    check = seat.cell("c00.e2(weighted_sum)")
    check.scroll_into_view_if_needed()
    check.locator(".cm-content").click()
    seat.page.keyboard.insert_text("pass #")
    assert check.locator(".cm-content").inner_text() == "c00.e2(weighted_sum)"


def test_saving_keeps_the_answer_in_work(seat, checkout):
    exercise = exercises_of(CHAPTERS[0].checks())[0]
    source = references("00")[exercise.id]
    assert ANSWER in source
    seat.answer(exercise, source)
    seat.save()
    for place, kept in (("work", True), ("chapters", False)):
        text = (checkout / place / CHAPTERS[0].notebook).read_text(encoding="utf-8")
        assert (ANSWER in text) is kept


def test_a_new_kernel_knows_how_far_the_student_is(seat):
    seat.menu("Kernel", "Restart Kernel…")
    seat.page.click(".jp-Dialog button:has-text('Restart')")
    seat.page.wait_for_selector(".jp-Dialog", state="detached")
    seat.wait_until_idle()
    seat.run(seat.cells().first)
    said = seat.progress()
    assert "1 of 4 exercises passed, about" in said
    assert "minutes of exercises left, as last saved" in said
    assert "1 of 57 exercises passed, other chapters as last saved" in said


def test_the_course_line_leads_to_the_next_chapter(seat):
    seat.cells().first.locator("a:text-is('01')").click()
    seat.page.wait_for_selector(".jp-Notebook h1:has-text('Chapter 01')", timeout=30_000)
    assert seat.page.url.split("?")[0].endswith("/work/01_non_local/non_local.ipynb")
