"""``gclib lab`` in a real browser, as a student meets it."""

import os
import shutil
import sys

import pytest
from lab_server import served
from mutants.answers import ROOT, apply, mutants, references

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the course, so that the real work/ is left alone."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("gclib", "chapters"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return folder


@pytest.fixture(scope="module")
def address(checkout, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "lab.txt"
    with served([sys.executable, "-m", "gclib.cli", "lab"], checkout, log) as address:
        yield address


@pytest.fixture(scope="module")
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
    page.wait_for_selector("text=Python 3 (ipykernel)", timeout=60_000)
    page.wait_for_timeout(2000)
    return page


def menu(page, name, item):
    page.click(f"#jp-MainMenu >> text={name}")
    page.click(f".lm-Menu-itemLabel >> text='{item}'")


def cell_with(page, text):
    """The cell whose source holds a text, scrolled into view."""
    return page.locator(".jp-Notebook .jp-Cell", has_text=text).first


def run_cell(page, cell):
    cell.scroll_into_view_if_needed()
    cell.click(position={"x": 5, "y": 5})
    page.keyboard.press("Control+Enter")


def everything(page):
    """Show all cells at once: JupyterLab draws only those in view."""
    page.evaluate(
        """() => document.querySelectorAll('.jp-WindowedPanel-outer').forEach(
            e => { e.style.height = '40000px' })"""
    )
    page.set_viewport_size({"width": 1280, "height": 20000})
    page.wait_for_timeout(3000)


def test_it_opens_at_chapter_00(page, address):
    assert "/lab/tree/work/00_start/start.ipynb" in address
    assert page.locator(".jp-Notebook h1").first.inner_text().startswith("Chapter 00 · Start here")


def test_no_questions_and_no_news_on_the_first_screen(page):
    assert page.locator(".jp-toast-button").count() == 0
    assert page.locator(".jp-Dialog").count() == 0


def test_a_blank_notebook_runs_to_its_end(page, tmp_path):
    menu(page, "Run", "Run All Cells")
    everything(page)
    page.wait_for_selector("text=ready to hand in: every cell is there", timeout=120_000)
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
    assert len(prompts) > 15
    assert all(p.strip("[]: \n").isdigit() for p in prompts)
    assert page.locator("strong:text-is('not attempted')").count() == 4
    # JupyterLab draws errors and stderr alike: there is nothing but the four stubs.
    red = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")
    texts = red.all_inner_texts()
    assert len(texts) == 4
    assert all(text.startswith("NotAttempted: c00-e") for text in texts)
    page.screenshot(path=tmp_path / "blank.png", full_page=True)
    assert os.path.getsize(tmp_path / "blank.png") > 100_000


def test_figures_are_drawn_with_an_alt_text(page):
    images = page.locator(".jp-OutputArea img")
    assert images.count() >= 5
    for index in range(images.count()):
        assert len(images.nth(index).get_attribute("alt")) > 30
        assert images.nth(index).evaluate("e => e.naturalWidth") > 200


def write_answer(page, name, source):
    cell = page.locator(".jp-Notebook .jp-CodeCell", has_text=f"def {name}(").first
    cell.scroll_into_view_if_needed()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")
    check = page.locator(".jp-Notebook .jp-CodeCell", has_text=f"({name})").first
    run_cell(page, check)
    return check


def test_a_wrong_answer_gets_a_red_card_that_names_the_cause(page, tmp_path):
    wrong = apply(mutants("00")["c00-e1"][0].edits, references("00")["c00-e1"])
    check = write_answer(page, "to_positions", wrong)
    check.locator("strong:text-is('not yet')").wait_for(timeout=30_000)
    card = check.locator(".jp-RenderedHTMLCommon").inner_text()
    for part in ("expected", "got", "likely cause", "reshape cuts the memory", "look at"):
        assert part in card
    check.screenshot(path=tmp_path / "wrong.png")


def test_a_right_answer_gets_a_green_card(page, tmp_path):
    check = write_answer(page, "to_positions", references("00")["c00-e1"])
    check.locator("strong:text-is('passed')").wait_for(timeout=30_000)
    assert "all 6 visible checks passed" in check.inner_text()
    assert check.locator("text=CheckFailed").count() == 0
    check.screenshot(path=tmp_path / "right.png")


def test_hints_open_one_by_one(page):
    hint = page.locator("details", has_text="Hint 2: the tools").first
    hint.scroll_into_view_if_needed()
    body = hint.locator("text=joins all axes")
    assert not body.is_visible()
    hint.locator("summary").click()
    assert body.is_visible()


def test_check_cells_cannot_be_edited(page):
    check = page.locator(".jp-Notebook .jp-CodeCell", has_text="c00.e2(weighted_sum)").first
    check.scroll_into_view_if_needed()
    check.locator(".cm-content").click()
    page.keyboard.insert_text("pass #")
    assert check.locator(".cm-content").inner_text() == "c00.e2(weighted_sum)"


def test_saving_keeps_the_answer_in_work(page, checkout):
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    text = (checkout / "work/00_start/start.ipynb").read_text(encoding="utf-8")
    assert "x.flatten(2).transpose(1, 2)" in text
    assert "x.flatten(2).transpose(1, 2)" not in (
        checkout / "chapters/00_start/start.ipynb"
    ).read_text(encoding="utf-8")
