"""The book, made end to end and read in a browser, from files on disk and without a network."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab_server import browser  # noqa: F401 (a fixture)

from gclib.book import build as building
from gclib.book import command
from gclib.book.build import MARK, BookFailed, build
from gclib.book.check import problems
from gclib.book.outputs import ExecutionFailed, Outputs
from gclib.chapters import CHAPTERS, Chapter, find_chapter, repository

ROOT = repository()
SMALL = find_chapter("00")

# What stops a build, without Sphinx


def tiny(root, source, number="00"):
    """A checkout with one chapter of one cell, and hardly any gclib."""
    chapter = Chapter(number, "tiny", "Tiny")
    for folder in ("solutions", "chapters"):
        path = root / folder / chapter.notebook
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [
            {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Tiny\n\nWords."},
            {
                "cell_type": "code",
                "id": "first-cell",
                "metadata": {"tags": ["raises-exception"]},
                "source": source,
                "outputs": [],
                "execution_count": None,
            },
        ]
        about = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
        content = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
        path.write_text(json.dumps(content))
    (root / "docs" / "figures").mkdir(parents=True, exist_ok=True)
    (root / "README.md").write_text("# Tiny course\n\nText.\n")
    (root / "gclib").mkdir(exist_ok=True)
    (root / "gclib" / "__init__.py").write_text('"""Tiny."""\n')
    return chapter


def make(root, chapters, out, outputs="current", lines=None):
    return build(
        root,
        out,
        chapters,
        cache=root / "cache",
        jobs=2,
        outputs=outputs,
        progress=(lines if lines is not None else []).append,
    )


@pytest.fixture
def old_book(tmp_path):
    out = tmp_path / "out" / "book"
    out.mkdir(parents=True)
    (out / MARK).write_text("{}")
    (out / "index.html").write_text("old")
    return out


def unharmed(out):
    """Whether the old book is there, and nothing beside it."""
    names = {path.name for path in out.parent.iterdir()}
    return (out / "index.html").read_text() == "old" and names == {"book"}


def test_a_missing_package_is_named(tmp_path, old_book, monkeypatch):
    monkeypatch.setattr(building, "NEEDED", {"no_such_module": "no-such-package"})
    with pytest.raises(BookFailed, match="not installed: no-such-package"):
        make(tmp_path, [SMALL], old_book)
    assert unharmed(old_book)


@pytest.mark.full
def test_a_folder_that_is_no_book_is_never_replaced(tmp_path):
    pytest.importorskip("sphinx")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BookFailed, match="is no book: name another folder"):
        make(ROOT, [SMALL], tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.full
def test_a_chapter_that_was_not_generated_is_named(tmp_path, old_book):
    pytest.importorskip("sphinx")
    chapter = tiny(tmp_path, "1")
    (tmp_path / "chapters" / chapter.notebook).unlink()
    with pytest.raises(BookFailed, match=r"chapters/00_tiny/tiny\.ipynb is missing; run make chap"):
        make(tmp_path, [chapter], old_book)
    assert unharmed(old_book)


@pytest.mark.full
def test_kept_outputs_that_are_not_there_are_named(tmp_path, old_book):
    pytest.importorskip("sphinx")
    with pytest.raises(BookFailed, match="chapters 00 have no outputs yet"):
        make(tmp_path, [tiny(tmp_path, "1")], old_book, outputs="kept")


def test_a_wrong_chapter_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--chapters", "42"])
    assert stop.value.code == 2
    assert "there is no chapter '42'" in capsys.readouterr().err


@pytest.mark.full
def test_a_failing_cell_ends_the_build_with_a_sentence_and_keeps_the_old_book(tmp_path, old_book):
    chapter = tiny(tmp_path, "1 / 0")
    with pytest.raises(BookFailed) as failed:
        make(tmp_path, [chapter], old_book)
    assert str(failed.value) == (
        "chapter 00_tiny: cell first-cell fails: ZeroDivisionError: division by zero"
    )
    assert unharmed(old_book)
    assert Outputs(tmp_path, tmp_path / "cache").kept(chapter) is None


@pytest.mark.full
def test_a_kernel_that_dies_is_named(tmp_path):
    chapter = tiny(tmp_path, "import os; os._exit(3)")
    with pytest.raises(ExecutionFailed, match="the kernel ended by itself"):
        Outputs(tmp_path, tmp_path / "cache").make([chapter], 1, lambda line: None)


@pytest.mark.full
def test_outputs_are_made_again_only_when_something_changed(tmp_path):
    chapter = tiny(tmp_path, "print(6 * 7)")
    made = Outputs(tmp_path, tmp_path / "cache")
    lines = []
    first = made.make([chapter], 2, lines.append)["00"]
    assert "42" in first.read_text()
    assert lines[0] == "Executing 1 chapters, 1 at a time"
    assert re.fullmatch(r"  00_tiny: \d+ s \(1 of 1\)", lines[1])
    lines.clear()
    assert Outputs(tmp_path, tmp_path / "cache").make([chapter], 2, lines.append)["00"] == first
    assert lines == ["1 chapters are as they were"]
    (tmp_path / "gclib" / "__init__.py").write_text('"""Changed."""\n')
    second = Outputs(tmp_path, tmp_path / "cache").make([chapter], 2, lines.append)["00"]
    assert second != first
    assert not first.exists()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"seconds.json", second.name}


@pytest.mark.full
def test_sphinx_warnings_and_broken_links_end_the_build(tmp_path, old_book):
    chapter = tiny(tmp_path, "1")
    readme = tmp_path / "README.md"
    readme.write_text("# Tiny course\n\nThe block is `gclib.blocks.NoSuchBlock`.\n")
    with pytest.raises(BookFailed, match=r"gclib has no gclib\.blocks\.NoSuchBlock"):
        make(tmp_path, [chapter], old_book, outputs="none")
    readme.write_text("# Tiny course\n\nSee [there](#no-such-section).\n")
    with pytest.raises(BookFailed, match="no-such-section"):
        make(tmp_path, [chapter], old_book, outputs="none")
    readme.write_text('# Tiny course\n\n<a href="gone.html">there</a>\n')
    with pytest.raises(BookFailed, match=r"links to gone\.html: there is no such file"):
        make(tmp_path, [chapter], old_book, outputs="none")
    assert unharmed(old_book)
    readme.write_text("# Tiny course\n\nFine.\n")
    assert make(tmp_path, [chapter], old_book, outputs="none")
    assert "Fine." in (old_book / "index.html").read_text()
    assert not make(tmp_path, [chapter], old_book, outputs="none")  # nothing changed
    assert {path.name for path in old_book.parent.iterdir()} == {"book"}


@pytest.mark.full
def test_ctrl_c_ends_it_with_a_sentence_and_leaves_no_kernel(tmp_path, old_book):
    marker, run = tmp_path / "running", tmp_path / "run"
    run.mkdir()
    tiny(tmp_path, f"open({str(marker)!r}, 'w').close()\nimport time; time.sleep(300)")
    script = (
        "import sys, gclib.book.command as command\n"
        "from pathlib import Path\n"
        "from gclib.chapters import Chapter\n"
        f"command.CHAPTERS = (Chapter('00', 'tiny', 'Tiny'),)\n"
        f"command.repository = lambda: Path({str(tmp_path)!r})\n"
        f"sys.exit(command.main(['--out', {str(old_book)!r}]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # So that the command of a kernel names the folder, too.
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(run)},
    )
    try:
        for _ in range(1200):
            if marker.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert marker.exists()
        assert _running(run)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130
    assert stderr.strip() == "Stopped: no new book. What was executed is kept."
    assert unharmed(old_book)
    for _ in range(600):  # a kernel ends by itself a moment later
        if not _running(tmp_path):
            break
        time.sleep(0.1)
    assert not _running(tmp_path)


def _running(folder):
    """How many processes name a folder in their command."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            count += str(folder) in path.read_text(errors="replace")
    return count


# One chapter, end to end


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The book with its smallest chapter, executed."""
    folder = tmp_path_factory.mktemp("books")
    arguments = ["--chapters", SMALL.number, "--out", str(folder / "book")]
    done = subprocess.run(
        [sys.executable, "-m", "gclib.book", *arguments, "--cache", str(folder / "cache")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"Open {folder / 'book' / 'index.html'}"
    return folder / "book"


@pytest.fixture
def page(site, request):
    """A page of a browser without a network, and what it asks for."""
    chromium = request.getfixturevalue("browser")
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    opened = context.new_page()
    opened.asked, opened.failed = [], []
    opened.on("request", lambda one: opened.asked.append(one.url))
    opened.on("pageerror", lambda error: opened.failed.append(str(error)))
    opened.on(
        "console",
        lambda one: opened.failed.append(one.text) if one.type in ("error", "warning") else None,
    )
    yield opened
    context.close()


CHAPTER = f"chapters/{SMALL.folder}.html"


@pytest.mark.full
def test_every_link_anchor_and_picture_of_the_book_is_there(site):
    assert list(problems(site)) == []


@pytest.mark.full
def test_the_search_index_holds_words_and_names(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("softmax", "einsum", "GCBlock", "insert_blocks"):
        assert word in index
    assert "hidden_checks" not in index


@pytest.mark.full
def test_the_book_holds_no_hidden_check_and_no_path_of_this_machine(site):
    for path in [*site.rglob("*.html"), *site.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        if path.parent.name == "chapters":
            assert "hidden_checks" not in text
            assert "HIDDEN TESTS" not in text
        assert str(ROOT) not in text, path
        assert str(site.parent) not in text, path
    assert not list(site.rglob("*hidden*"))
    assert not list(site.rglob("*.ipynb"))


@pytest.mark.full
def test_figures_have_alt_texts_and_lie_in_files(site):
    text = (site / CHAPTER).read_text(encoding="utf-8")
    figures = re.findall(r'<img alt="([^"]+)"[^>]*src="\.\./(_static/figures/[^"]+)"', text)
    assert figures
    for alt, file in figures:
        assert len(alt) > 20
        assert (site / file).read_bytes().startswith(b"\x89PNG")
    assert "data:image/png" not in text


@pytest.mark.full
def test_nothing_is_asked_of_any_host(site, page):
    for name in ("index.html", CHAPTER, "docs/LEDGER.html", "code/gclib.blocks.html"):
        page.goto((site / name).as_uri())
        page.wait_for_timeout(300)
    page.goto(f"{(site / 'search.html').as_uri()}?q=softmax")
    page.wait_for_selector("#search-results li")
    assert {url.split(":")[0] for url in page.asked} <= {"file", "data"}
    assert page.failed == []


@pytest.mark.full
def test_the_search_finds_a_chapter_and_a_class(site, page):
    page.goto((site / "index.html").as_uri())
    page.fill("input.sidebar-search", "einsum")
    page.press("input.sidebar-search", "Enter")
    page.wait_for_selector("#search-results li")
    assert f"Chapter {SMALL.number}" in page.inner_text("#search-results")
    assert page.input_value("#search-words") == "einsum"
    page.fill("#search-words", "GCBlock")
    page.press("#search-words", "Enter")
    page.wait_for_selector("#search-results li")
    page.click("#search-results a:has-text('gclib.blocks.global_context.GCBlock')")
    page.wait_for_url("**/code/gclib.blocks.global_context.html#GCBlock")
    page.wait_for_selector("#GCBlock")


@pytest.mark.full
def test_the_explorer_is_alive_in_the_book(site, page):
    page.goto((site / "index.html").as_uri())
    page.click("text=Try the attention explorer")
    page.wait_for_selector("canvas")
    before = page.inner_text("main table")
    page.select_option("select >> nth=0", "pairing")
    assert page.inner_text("main table") != before
    assert page.failed == []


@pytest.mark.full
def test_solutions_are_hidden_until_the_switch_and_the_book_remembers_it(site, page):
    page.goto((site / CHAPTER).as_uri())
    folded = page.locator("details.solution")
    answer = folded.first.locator("pre")
    switch = page.get_by_role("switch", name="Show solutions")
    assert folded.count() > 3
    assert not answer.is_visible()
    assert page.locator("text=raise NotImplementedError").first.is_visible()
    folded.first.locator("summary").focus()
    page.keyboard.press("Enter")  # one, by the keyboard
    assert answer.is_visible()
    assert not folded.last.locator("p").first.is_visible()
    switch.focus()
    page.keyboard.press("Space")
    assert switch.get_attribute("aria-checked") == "true"
    assert folded.last.locator("p").first.is_visible()
    page.reload()
    assert answer.is_visible()
    switch.click()
    assert not answer.is_visible()
    page.reload()
    assert not answer.is_visible()


@pytest.mark.full
def test_without_scripts_solutions_open_one_by_one(site, request):
    context = request.getfixturevalue("browser").new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto((site / CHAPTER).as_uri())
    answer = opened.locator("details.solution").first.locator("pre")
    assert not answer.is_visible()
    opened.locator("details.solution summary").first.click()
    assert answer.is_visible()
    context.close()


@pytest.mark.full
def test_formulas_are_mathml_and_drawn(site, page):
    page.goto((site / CHAPTER).as_uri())
    formulas = page.locator("math")
    assert formulas.count() > 5
    box = formulas.first.bounding_box()
    assert box["width"] > 5
    assert box["height"] > 5
    assert "mathjax" not in page.content().lower()
    text = page.inner_text("article")
    assert "$$" not in text
    assert "\\frac" not in text


@pytest.mark.full
def test_names_in_cells_and_text_lead_to_the_code_and_back(site, page):
    page.goto((site / CHAPTER).as_uri())
    page.locator("a.code-link", has_text=re.compile("^start$")).first.click()
    assert page.url.endswith("code/gclib.course.html#start")
    page.locator("details.uses summary").click()
    page.locator("details.uses a").first.click()
    assert f"{CHAPTER}#" in page.url


@pytest.mark.full
def test_code_can_be_copied_without_line_numbers(site, page):
    page.goto((site / "code/gclib.chapters.html").as_uri())
    page.evaluate("addEventListener('copy', (event) => { window.copied = event.target.value; })")
    button = page.locator("button.copybtn").first
    button.focus()
    page.keyboard.press("Enter")
    copied = page.evaluate("window.copied")
    source = (ROOT / "gclib" / "chapters.py").read_text(encoding="utf-8")
    assert copied.strip() == source.strip()


# Every piece of text that is seen: its colour against what is behind it.
CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => {
      const s = c / 255;
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = (top, below) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a));
  };
  const behind = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) layers.push(colour);
      if (colour.length === 3 || colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style, noscript, .skip-to-content, .back-to-top, svg")) continue;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const a = light(over(parse(style.color), ground));
    const b = light(ground);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      const where = `${element.tagName}.${element.className}`;
      const name = `${where} ${style.color} on ${ground.map(Math.round)}`;
      found[name] = `${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 30)}`;
    }
  }
  return found;
}"""


@pytest.mark.full
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "name",
    ["index.html", CHAPTER, "docs/LEDGER.html", "code/gclib.chapters.html", "search.html?q=map"],
)
def test_text_is_readable_in_both_modes(site, page, theme, name):
    page.emulate_media(color_scheme=theme)
    page.goto(f"{site.as_uri()}/{name}")
    for details in page.locator("article details").all():
        details.evaluate("one => { one.open = true; }")
    page.wait_for_timeout(300)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
    assert page.evaluate(CONTRASTS) == {}


def test_the_measure_of_contrast_can_fail(request):
    opened = request.getfixturevalue("browser").new_page()
    opened.set_content('<p style="color:#999">pale</p><p style="color:#555">fine</p>')
    (name,) = opened.evaluate(CONTRASTS)
    assert "rgb(153, 153, 153)" in name
    opened.close()


@pytest.mark.full
@pytest.mark.parametrize("width", [1280, 800, 400])
def test_no_page_is_wider_than_the_window(site, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("index.html", CHAPTER, "docs/PERFORMANCE.html", "code/gclib.blocks.html"):
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name


@pytest.mark.full
def test_the_focus_is_seen_and_the_menu_opens_by_the_keyboard(site, page):
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto((site / CHAPTER).as_uri())
    menu = page.get_by_role("button", name="Contents of the book")
    menu.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(400)
    assert page.locator(".sidebar-drawer a", has_text="Ledger").is_visible()
    page.get_by_role("switch").focus()
    page.keyboard.press("Tab")  # so that the focus came by a key
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "3px"


# All chapters, as pages


@pytest.mark.full
def test_all_chapters_become_pages_without_a_warning_or_a_broken_link(tmp_path):
    there = [one for one in CHAPTERS if (ROOT / "chapters" / one.notebook).is_file()]
    out = tmp_path / "book"
    assert build(
        ROOT,
        out,
        there,
        cache=tmp_path / "cache",
        jobs=2,
        outputs="none",
        progress=lambda line: None,
    )
    start = (out / "index.html").read_text(encoding="utf-8")
    for chapter in there:
        assert f'href="chapters/{chapter.folder}.html"' in start
    shutil.rmtree(out)
