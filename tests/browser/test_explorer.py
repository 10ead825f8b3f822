"""The attention explorer in a real browser: from a folder, and in JupyterLab."""

import json
import shutil
import sys

import nbformat
import pytest
import torch
from lab_server import served
from mutants.answers import ROOT

from gclib import explorer
from gclib.analysis.distances import average_cosine_distance, average_jsd

pytestmark = pytest.mark.full
ROOT_OF_IT = ".gclib-explorer"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    path.write_text(explorer.offline_page(scenes=2), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.wait_for_selector(ROOT_OF_IT)
    yield page
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()


def said(page):
    return page.inner_text(".said")


def rows(page):
    """(block, "all" or "chosen") → measure → text of its cell."""
    names = page.locator("thead th").all_inner_texts()[2:6]
    found = {}
    for number, line in enumerate(page.locator("tbody tr").all()):
        if number % 2 == 0:
            block = line.locator("th").first.inner_text().replace(" ", "_").lower()
        cells = line.locator("td").all_inner_texts()[:4]
        found[block, ("all", "chosen")[number % 2]] = dict(zip(names, cells, strict=True))
    return found


def press_on(page, row, column, **how):
    box = page.locator("canvas").first.bounding_box()
    cell = box["width"] / 8
    position = {"x": (column + 0.5) * cell, "y": (row + 0.5) * cell}
    page.locator("canvas").first.click(position=position, **how)


def start(page, task):
    page.select_option("select >> nth=0", task)
    page.wait_for_function("document.querySelector('.gclib-explorer').dataset.query")
    return explorer.recorded(task, 0)


def test_a_click_shows_the_maps_of_that_position(page, capsys):
    seen = start(page, "pairing")
    for row, column in ((0, 0), (3, 5), (7, 7)):
        press_on(page, row, column)
        assert f"Query at row {row}, column {column} after 1600 updates" in said(page)
        for number in range(len(seen.blocks)):
            map_ = seen.attention[number, -1, 8 * row + column]
            most = int(map_.argmax())
            label = page.locator(".maps canvas").nth(number).get_attribute("aria-label")
            assert f"most at row {most // 8}, column {most % 8}: " in label
            assert float(label.rsplit(" ", 1)[1]) == pytest.approx(map_.max().item(), rel=0.06)
        cost = page.locator(ROOT_OF_IT).get_attribute("data-milliseconds")
        with capsys.disabled():
            print(f" {cost} ms", end="")


@pytest.mark.parametrize("task", explorer.TASKS)
def test_distances_are_those_of_the_library(page, task):
    seen = start(page, task)
    chosen = sorted({8 * row + column for row, column in seen.objects})
    shown = rows(page)
    for number, block in enumerate(seen.blocks):
        for places, picked in (("all", slice(None)), ("chosen", chosen)):
            cells = shown[block, places]
            for kind in ("input", "output", "attention"):
                vectors = getattr(seen, kind)[number, -1][picked].double()
                ours = average_cosine_distance(vectors).item()
                assert float(cells[f"cosine, {kind}"]) == pytest.approx(ours, abs=6e-4, rel=0.06)
            attention = seen.attention[number, -1][picked].double()
            if block in ("gaussian", "embedded_gaussian"):
                ours = average_jsd(attention / attention.sum(-1, keepdim=True)).item()
                assert float(cells["JSD, attention"]) == pytest.approx(ours, abs=6e-4, rel=0.06)
            else:
                assert cells["JSD, attention"] == "–"


def test_the_slider_goes_back_to_the_untrained_network(page):
    start(page, "pairing")
    trained = rows(page)
    page.locator("input[type=range]").focus()
    for _ in range(7):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("output") == "0 (untrained)"
    untrained = rows(page)
    for place, cells in untrained.items():
        assert cells["cosine, output"] == "–"
        assert cells["cosine, attention"] != trained[place]["cosine, attention"]
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("Number(document.querySelector('.gclib-explorer').dataset.step) >= 2")
    page.get_by_role("button", name="Stop").click()


def test_keys_alone_are_enough(page):
    start(page, "pairing")
    page.locator("canvas").first.focus()
    for _ in range(8):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
    assert "Query at row 0, column 0" in said(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert "Query at row 1, column 1" in said(page)
    before = page.inner_text("tbody")
    page.keyboard.press("Enter")
    assert page.inner_text("tbody") != before
    page.keyboard.press("Enter")
    assert page.inner_text("tbody") == before
    press_on(page, 1, 1, modifiers=["Shift"])
    assert page.inner_text("tbody") != before
    page.get_by_role("button", name="Choose the objects").click()
    assert page.inner_text("tbody") == before


def test_another_scene_is_another_scene(page):
    start(page, "context")
    label = page.locator("canvas").first.get_attribute("aria-label")
    page.select_option("select >> nth=1", "1")
    assert label.startswith("Scene 0")
    assert page.locator("canvas").first.get_attribute("aria-label").startswith("Scene 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 400])
def test_nothing_is_cut_off_and_text_can_be_read(browser, address, scheme, width, tmp_path):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector(ROOT_OF_IT)
    page.screenshot(path=tmp_path / "explorer.png", full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    ink, ground = page.evaluate(
        """() => ['.said', 'body'].map((s, k) => getComputedStyle(
            document.querySelector(s))[['color', 'backgroundColor'][k]])"""
    )
    assert contrast(ink, ground) >= 7
    page.close()


def contrast(first, second):
    """Of two colours as a browser writes them, by WCAG's formula."""

    def light(text):
        parts = [float(p) / 255 for p in text[text.index("(") + 1 : -1].split(",")[:3]]
        r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(first), light(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_can_fail():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(120, 120, 120)", "rgb(255, 255, 255)") < 7


def test_in_jupyterlab(browser, tmp_path):
    for name in ("gclib", "chapters", "data/scenes/snapshots"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("nbgrader_config.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    cell = nbformat.v4.new_code_cell("from gclib import explorer\nexplorer.show('pairing')")
    (tmp_path / "work").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[cell])
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook.metadata["kernelspec"] = kernel  # else JupyterLab asks for one
    nbformat.write(notebook, tmp_path / "work" / "look.ipynb")
    (tmp_path / "log").mkdir()
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"]
    with served(command, tmp_path, tmp_path / "log" / "lab.txt") as address:
        base, token = address.split("?")[0], address.split("token=")[1]
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{base.rsplit('/lab', 1)[0]}/lab/tree/work/look.ipynb?token={token}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=60_000)
        page.click("#jp-MainMenu >> text=Run")
        page.click(".lm-Menu-itemLabel >> text='Run All Cells'")
        page.wait_for_selector(ROOT_OF_IT, timeout=60_000)
        press_on(page, 2, 3)
        assert "Query at row 2, column 3" in said(page)
        page.select_option(f"{ROOT_OF_IT} select >> nth=0", "context")  # the kernel is asked
        page.wait_for_function(
            "document.querySelector('.gclib-explorer canvas').getAttribute('aria-label')"
            ".startsWith('Scene 0')"
        )
        page.wait_for_function(
            "document.querySelectorAll('.gclib-explorer select')[0].value == 'context'"
        )
        page.screenshot(path=tmp_path / "explorer-in-lab.png")
        page.click("#jp-MainMenu >> text=File")
        page.click(".lm-Menu-itemLabel >> text='Save Notebook'")
        page.wait_for_timeout(1500)
        page.close()
    saved = json.loads((tmp_path / "work" / "look.ipynb").read_text(encoding="utf-8"))
    (output,) = (o for o in saved["cells"][0]["outputs"] if "data" in o)
    assert "<img alt=" in "".join(output["data"]["text/html"])  # where widgets are off
    assert len(json.dumps(saved)) < 1_000_000


def test_maps_of_untrained_networks_are_nearly_one_map():
    seen = explorer.recorded("context", 0)
    number = seen.blocks.index("embedded_gaussian")
    first, last = (average_cosine_distance(seen.attention[number, k].double()) for k in (0, -1))
    assert first < 0.01
    assert torch.isfinite(last)
