"""A submission full of attacks, opened in a real browser by whoever grades it: nothing happens.

The same notebook as it was handed in does act there, which shows that the test can see it.
"""

import contextlib
import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import payloads
import pytest
from classroom import Classroom
from lab_server import served
from mutants.answers import ROOT, references

from gclib.chapters import find_chapter
from gclib.checks.cells import read_cells, source_of
from gclib.grading.class_report import write_report
from gclib.grading.classroom import Course
from gclib.grading.driver import grade
from gclib.grading.feedback import write_pages

pytestmark = pytest.mark.full
CHAPTER = find_chapter("00")
RELEASED = read_cells(ROOT / "chapters" / CHAPTER.notebook)
OWN = re.findall(r"\]\((https?://[^)\s]+)\)", "".join(map(source_of, RELEASED)))
HOSTILE = "<img src=x onerror=\"hacked('card')\"> $\\href{javascript:hacked('c')}{x}$"


class Watched:
    """A page of which everything that an attack could do is noted."""

    def __init__(self, browser, **options):
        self.page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.fired: set[str] = set()
        self.far: set[str] = set()
        self.dialogs: list[str] = []
        self.page.expose_binding("hacked", lambda source, name="": self.fired.add(str(name)))
        self.page.on("dialog", self._dialog)
        self.page.on("popup", lambda other: self.fired.add(f"popup {other.url}"))
        self.page.route(lambda url: urlsplit(url).hostname not in ("127.0.0.1", None), self._away)

    def _dialog(self, dialog):
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _away(self, route):
        if "evil.example" in route.request.url:
            self.far.add(urlsplit(route.request.url).path.strip("/").removesuffix(".png"))
        route.abort()

    def open(self, address):
        """Open it, and wait for what runs by itself."""
        status = self.page.goto(address)
        self.page.wait_for_timeout(1500)
        return status.status if status else None

    def click_everything(self, below="body", only=""):
        """Click each link, button and summary, as a curious person would; their addresses.

        Links of the chapter's own text lead away, as they should: they are not clicked.
        """
        found = self.page.evaluate(
            """async ([below, only, own]) => {
                const all = [...document.querySelector(below).querySelectorAll(
                    'a, summary, input[type=submit], area')];
                const targets = [];
                for (const one of all) {
                    const href = String(one.href?.baseVal ?? one.href ?? '');
                    if (own.includes(href) || !href.startsWith(only)) continue;
                    targets.push(href || one.tagName);
                    one.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
                    await new Promise(done => setTimeout(done, 20));
                }
                return targets;
            }""",
            [below, only, OWN],
        )
        self.page.wait_for_timeout(500)
        return [target.split("#")[0] for target in found]

    @property
    def quiet(self):
        return (self.fired, self.far, self.dialogs) == (set(), set(), [])


@contextlib.contextmanager
def watched(browser, **options):
    one = Watched(browser, **options)
    yield one
    one.page.close()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = Classroom(tmp_path_factory.mktemp("course"), CHAPTER)
    first, *_ = references("00")
    wrong = f"def to_positions(x):\n    raise ValueError({HOSTILE!r})"
    path = room.submit("mallory", references("00") | {first: wrong, "c00-reflection": ATTACK})
    notebook = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(payloads.submission(notebook, leaving=True)), encoding="utf-8")
    (path.parent / "<img src=x onerror=hacked('file')>.txt").write_text("a")
    room.raw = payloads.submission(notebook)
    room.course = Course(room.folder)
    (result,) = grade(room.course, CHAPTER, unsafe=True, workers=1, progress=lambda line: None)
    assert result.problem == ""
    assert result.points[f"{first}-visible"] == 0
    room.graded = room.course.graded("mallory", CHAPTER)
    room.harmless = room.graded.read_bytes()
    return room


ATTACK = payloads.MARKDOWN["image"].replace("image", "answer") + " It is a weighted mean: $a<b$."


@pytest.fixture(scope="module")
def lab(room, tmp_path_factory):
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    log = tmp_path_factory.mktemp("log") / "lab.txt"
    with served(command, room.folder, log) as address:
        yield address.split("/lab")[0], address.split("token=")[1]


@pytest.fixture(scope="module")
def formgrader(room, lab):
    from nbgrader.api import Gradebook

    with Gradebook(room.course.gradebook) as book:
        name = book.find_submission_notebook(CHAPTER.name, CHAPTER.folder, "mallory").id
    base, token = lab
    return f"{base}/formgrader/submissions/{name}/?index=0&token={token}"


@contextlib.contextmanager
def as_handed_in(room, cells=None):
    """The formgrader's notebook as it would be if nobody made it harmless."""
    raw = json.loads(json.dumps(room.raw))
    # nbconvert gives up on an attachment that is not there; a test of its own.
    names = ("p-missing-attachment", "attached")
    raw["cells"] = [c for c in cells or raw["cells"] if c.get("id") not in names]
    room.graded.write_text(json.dumps(raw), encoding="utf-8")
    try:
        yield
    finally:
        room.graded.write_bytes(room.harmless)


def test_without_help_the_attacks_work(room, formgrader, browser):
    with as_handed_in(room), watched(browser) as seen:
        assert seen.open(formgrader) == 200
        before = set(seen.fired)
        seen.click_everything("#notebook-container", only="javascript:")
    by_themselves = {
        "script", "script-case", "image", "vector",
        "vector-script", "vector-animate", "frame", "frame-src", "toggle", "video", "audio",
        "animation", "table", "quote", "title", "comment", "breakout",
        "html", "javascript", "markdown",
    }  # fmt: skip
    assert before >= by_themselves
    assert seen.fired >= {*payloads.CLICKED} - {"autolink"}
    far = {"script-src", "frame-far", "object", "embed", "style", "style-attribute", "sheet"}
    assert seen.far >= far | {"alone-image", "reference-image", "attribute-image"}


@pytest.mark.parametrize("name", payloads.LEAVING)
def test_without_help_a_page_is_led_away(room, formgrader, browser, name):
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": payloads.LEAVING[name]}
    link = cell | {"id": "b", "source": "<a href=there>click</a>"}
    with as_handed_in(room, [cell, link]), watched(browser) as seen:
        seen.open(formgrader)
        if name == "base":  # the click takes the page away: nothing waits for it there
            far = seen.page.locator("#notebook-container a", has_text="click")
            with seen.page.expect_request(f"{payloads.EVIL}/**"):
                far.evaluate("link => { setTimeout(() => link.click(), 0) }")
            seen.page.wait_for_timeout(500)
    assert any(path.startswith(name) for path in seen.far)


def test_without_help_a_picture_that_is_missing_stops_the_formgrader(room, formgrader, browser):
    source = payloads.MARKDOWN["missing-attachment"]
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": source}
    with as_handed_in(room, [cell]), watched(browser) as seen:
        assert seen.open(formgrader) == 500


def test_the_formgrader_shows_it_and_nothing_happens(room, formgrader, browser, tmp_path):
    assert room.graded.read_bytes() == room.harmless
    with watched(browser) as seen:
        assert seen.open(formgrader) == 200
        text = seen.page.inner_text("#notebook-container")
        clicked = seen.click_everything("#notebook-container")
        seen.page.screenshot(path=tmp_path / "formgrader.png")
        assert seen.quiet, (seen.fired, seen.far, seen.dialogs)
        assert seen.page.url.split("#")[0] == formgrader
        fields = seen.page.locator("input.score").count()
        answer = seen.page.locator(".nbgrader_cell", has=seen.page.locator("#c00-reflection"))
        assert answer.count() == 1
    assert {*clicked} <= {formgrader, "SUMMARY"}
    assert "It is a weighted mean" in text
    assert "For the person who grades" in text
    assert "< img src=x onerror=" in text
    worth = [c for c in room.released["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]
    assert fields == len(worth)


def test_jupyterlab_shows_it_and_nothing_happens(room, lab, browser):
    base, token = lab
    path = room.graded.relative_to(room.folder)
    with watched(browser) as seen:
        seen.open(f"{base}/lab/tree/{path}?token={token}")
        seen.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        seen.page.evaluate(  # JupyterLab draws only what is in view
            """() => document.querySelectorAll('.jp-WindowedPanel-outer').forEach(
                e => { e.style.height = '40000px' })"""
        )
        seen.page.set_viewport_size({"width": 1280, "height": 20_000})
        seen.page.wait_for_function(
            "() => document.querySelectorAll('.jp-Notebook .jp-Cell').length > 30", timeout=60_000
        )
        seen.page.wait_for_timeout(3000)
        clicked = seen.click_everything(".jp-Notebook")
        assert seen.page.locator(".jp-Notebook .jp-Cell").count() > 30
        assert seen.quiet, (seen.fired, seen.far, seen.dialogs)
    assert not [
        target for target in clicked if target not in ("A", "SUMMARY") and base not in target
    ]


def test_plain_feedback_of_nbgrader_does_nothing(room, browser):
    done = room.nbgrader("generate_feedback", CHAPTER.folder, "--force")
    assert done.returncode == 0, done.stderr
    with watched(browser) as seen:
        seen.open(room.course.feedback("mallory", CHAPTER).as_uri())
        assert "It is a weighted mean" in seen.page.inner_text("body")
        seen.click_everything()
        assert seen.quiet, (seen.fired, seen.far, seen.dialogs)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (800, "dark")])
def test_the_page_for_the_student_does_nothing(room, browser, tmp_path, width, scheme):
    assert dict(write_pages(room.course, CHAPTER, again=True, progress=lambda line: None))
    path = room.course.feedback("mallory", CHAPTER)
    size = {"width": width, "height": 900}
    with watched(browser, viewport=size, color_scheme=scheme) as seen:
        asked = []
        seen.page.on("request", lambda request: asked.append(request.url))
        seen.open(path.as_uri())
        clicked = seen.click_everything()
        assert seen.page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
        assert seen.quiet, (seen.fired, seen.far, seen.dialogs)
        assert asked == [path.as_uri()]
        assert seen.page.url.split("#")[0] == path.as_uri()
        text = seen.page.inner_text("body")
        assert 'ValueError: <img src=x onerror="hacked(' in text
        assert "It is a weighted mean" in text
        assert seen.page.locator("math").count() >= 1
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        seen.page.screenshot(path=tmp_path / f"feedback-{width}-{scheme}.png", full_page=True)
    assert {*clicked} <= {path.as_uri(), "SUMMARY"} | {*OWN}


def test_even_if_html_slipped_through_the_page_would_not_run_it(room, browser, tmp_path):
    """Its Content-Security-Policy is the second wall; here with a hole in the first one."""
    whole = room.course.feedback("mallory", CHAPTER).read_text(encoding="utf-8")
    attacks = "\n".join(
        payloads.MARKDOWN[name] for name in payloads.MARKDOWN if "<" in payloads.MARKDOWN[name]
    )
    for name, page in (("with", whole), ("without", whole.replace("Content-Security-Policy", "x"))):
        path = tmp_path / f"{name}.html"
        path.write_text(page.replace("<main>", f"<main>{attacks}"), encoding="utf-8")
        with watched(browser) as seen:
            seen.open(path.as_uri())
            assert (seen.fired == set()) == (name == "with")
            assert (seen.far == set()) == (name == "with")


def test_the_report_does_nothing(room, browser, tmp_path):
    path = write_report(room.course, CHAPTER)
    page = path.read_text(encoding="utf-8")
    with watched(browser) as seen:
        seen.open(Path(path).as_uri())
        seen.click_everything()
        assert seen.quiet, (seen.fired, seen.far, seen.dialogs)
        assert "mallory" in seen.page.inner_text("body") or "1 handed in" in page
        seen.page.screenshot(path=tmp_path / "report.png", full_page=True)
