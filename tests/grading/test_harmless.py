"""A student's notebook made harmless: nothing acts, and what matters stays readable."""

import base64
import copy
import html
import io
import json
import random
import re
import subprocess
import sys

import nbformat
import payloads
import pytest
from bs4 import BeautifulSoup
from mutants.answers import ROOT, references
from nbconvert import HTMLExporter
from nbconvert.filters import ansi2html, markdown2html
from PIL import Image

from gclib.chapters import CHAPTERS, find_chapter
from gclib.checks import cards
from gclib.checks.cells import read_cells, source_of
from gclib.checks.outcome import CheckFailed, NotAttempted
from gclib.grading import harmless
from gclib.grading.harmless import make_harmless, markdown, terminal, visible
from gclib.grading.pages import markup

CHAPTER = find_chapter("00")
RELEASED = read_cells(ROOT / "chapters" / CHAPTER.notebook)


def notebook(*cells):
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def made(*cells, released=RELEASED):
    found = notebook(*copy.deepcopy(cells))
    make_harmless(found, released)
    return found["cells"]


def code(*outputs, **more):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "1", "execution_count": 1}
    return cell | {"outputs": list(outputs)} | more


def shown(data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def check_cell(*outputs, name="c00-e1-visible"):
    found = next(c for c in RELEASED if c["metadata"].get("nbgrader", {}).get("grade_id") == name)
    return copy.deepcopy(found) | {"outputs": list(outputs), "execution_count": None}


def card_of(show, *arguments, **more):
    with cards.collected() as found:
        show(*arguments, **more)
    return found[0]


def picture(kind="PNG", size=(3, 2)):
    data = io.BytesIO()
    Image.new("1", size).save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def assert_inert(text):
    """No two characters side by side that make markup, whatever program reads it."""
    assert not re.search(r"<[A-Za-z/!?]", text)
    assert not re.search(r"\](?:\(|\[|:)", text)
    assert not re.search(r"&[A-Za-z#]", text)
    assert not re.search(r"[A-Za-z]://|(?i:www\.\S)", text)
    assert not re.search(r"(?i)(`{3}|~{3})[ \t]*mermaid", text)
    assert not re.search(r"(?m)^[ \t>*+\-:.)\d]*#{1,6}(?!#| ·)", text)
    for command in re.findall(r"\\([A-Za-z]{2,})", text):
        assert command in harmless._COMMANDS | {"begin", "end"}
    for name in re.findall(r"\\(?:begin|end)\{([^}]*)", text):
        assert name in harmless._ENVIRONMENTS


# Markdown


ALL = payloads.MARKDOWN | payloads.LEAVING


@pytest.mark.parametrize("name", ALL)
def test_markdown_has_nothing_left_that_acts(name):
    (cell,) = made({"cell_type": "markdown", "id": "a", "metadata": {}, "source": ALL[name]})
    assert_inert(cell["source"])
    page = BeautifulSoup(markdown2html(cell["source"]), "html.parser")
    for link in page.find_all("a", class_="anchor-link"):  # nbconvert gives titles one
        assert link["href"].startswith("#%C2%B7")
        link.decompose()
    assert not page.find_all(["a", "img", "script", "svg", "iframe", "style", "form", "input"])
    for tag in page.find_all(True):
        assert not {"style", "href", "src"} & {*tag.attrs} or tag["style"].startswith("text-align:")
        assert tag.get("id", "%C2%B7").startswith("%C2%B7")  # no field for points has this id
    assert (cell,) == tuple(made(cell))  # once more changes nothing


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"tex-deep"}))
def test_every_payload_is_one(name):
    with pytest.raises(AssertionError):
        assert_inert(ALL[name])


def test_formulas_nested_too_deep_are_shown_as_text():
    text = markdown(payloads.MARKDOWN["tex-deep"])
    assert "$" not in text
    assert "x" in text
    assert markdown(r"$\frac{\frac{1}{2}}{3}$") == r"$\frac{\frac{1}{2}}{3}$"


MARKS = r"""
    < > a script / ! ? [ ] ( ) : & # ; lt &lt; &#60; \ href \href \def begin { } $ $$ ` ```
    align ~~~ mermaid = - * _ | 1. javascript http // :// www. attachment: &amp; amp; ]( ]:
    </ \begin{
"""
PIECES = [*MARKS.split(), "\n", "\n\n", " ", "  \n", "\t", "\0", "\u202e", "\u200b", "\ud800"]


def test_random_texts_are_inert_and_stay_so():
    chance = random.Random(5)
    for _ in range(2500):
        source = "".join(chance.choices(PIECES, k=chance.randrange(1, 25)))
        text = markdown(visible(source))
        assert_inert(text)
        assert markdown(visible(text)) == text
        text.encode()
        page = BeautifulSoup(markdown2html(text), "html.parser")
        assert not page.find_all(["script", "img", "svg", "iframe", "style"])
        assert all(a["href"].startswith("#") for a in page.find_all("a"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b and c > d", "a < b and c > d"),
        ("if a<b: swap", "if a< b: swap"),
        ("$a<b$, $a < b$ & $\\alpha_{ij}\\leq 1$", "$a< b$, $a < b$ & $\\alpha_{ij}\\leq 1$"),
        ("**bold**, *soft*, `x[0]`, ~~no~~", "**bold**, *soft*, `x[0]`, ~~no~~"),
        ("1. one\n2. two\n   - three", "1. one\n2. two\n   - three"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("```python\ny = x @ w\n```", "```python\ny = x @ w\n```"),
        ("a &lt; b &rarr; c", "a < b → c"),
        (
            "\\begin{aligned}a&=b\\\\c&=d\\end{aligned}",
            "\\begin{aligned}a&=b\\\\c&=d\\end{aligned}",
        ),
        ("C:\\Users", "C:\\ Users"),
        ("Привет, 你好, עברית, 👩\u200d🔬", "Привет, 你好, עברית, 👩\u200d🔬"),
    ],
)
def test_ordinary_text_stays_readable(source, expected):
    assert markdown(visible(source)) == expected


def test_long_texts_are_cut_and_say_so():
    text = markdown("a " * 40_000)
    assert len(text) <= harmless.LONGEST_MARKDOWN
    assert re.search(r"\([\d,]+ characters left out\)", text)


def test_text_in_many_cells_is_cut_too():
    cells = [{"cell_type": "markdown", "source": "a " * 9_000} for _ in range(30)]
    found = [source_of(cell) for cell in made(*cells)]
    assert [len(text) > 100 for text in found] == [True] * 11 + [False] * 19
    assert found[-1] == "(18,000 characters left out)"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.number)
def test_a_chapter_and_its_formulas_stay_as_they_are(chapter):
    cells = read_cells(ROOT / "chapters" / chapter.notebook)
    found = notebook(*copy.deepcopy(cells))
    make_harmless(found, cells)
    assert [source_of(c) for c in found["cells"]] == [source_of(c) for c in cells]
    assert [c["metadata"] for c in found["cells"]] == [c["metadata"] for c in cells]
    solution = read_cells(ROOT / "solutions" / chapter.notebook)
    prose = "\n\n".join(source_of(c) for c in solution if c["cell_type"] == "markdown")
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", prose, re.DOTALL)
    assert len(formulas) > 5
    for formula in map("".join, formulas):
        assert harmless.tex(formula) == formula
        assert markup.formula(formula, False).startswith("<math>")


# What cannot be seen


def test_invisible_marks_are_shown():
    assert visible("a\u202eb\u2066c") == "a⟨U+202E⟩b⟨U+2066⟩c"
    assert visible("a\0b\x1b\x7f\x85") == "a␀b␛␡⟨U+0085⟩"
    assert visible("a\ud800") == "a\ufffd"
    assert visible("a\u200bb\ufeffc\U000e0041") == "a⟨U+200B⟩b⟨U+FEFF⟩c⟨U+E0041⟩"
    assert visible("a\r\nb\rc\u2028d") == "a\nb\nc\nd"
    assert len(visible("x" + "\u0301" * 500)) == 5
    assert visible("naïve façade ½ → \t\n") == "naïve façade ½ → \t\n"


def test_code_shows_them_too():
    (cell,) = made(code(source="if admin:\u202e # \u2066"))
    assert cell["source"] == "if admin:⟨U+202E⟩ # ⟨U+2066⟩"


def test_a_terminal_keeps_colours_and_the_end_of_a_progress_bar():
    assert terminal("\x1b[1;31mred\x1b[0m") == "\x1b[1;31mred\x1b[0m"
    assert terminal("0%\r50%\r100%\ndone\r\n") == "100%\ndone\n"
    assert terminal("a\x1b]8;;http://x\x07b\x1b[2Jc\x1b[10Ad") == "abcd"
    assert terminal("a\x1b[38mb\x1b[38;5mc\x1b[99999999999999d") == "abc"
    assert terminal("a\x08b\x1bc") == "a␈b␛c"
    text = terminal("\n".join(map(str, range(1000))))
    assert "... 701 lines left out ..." in text
    assert text.endswith("999")
    assert text.startswith("0\n1\n")


def test_no_escape_makes_nbconvert_stumble():
    chance = random.Random(3)
    for _ in range(2000):
        parts = chance.choices(
            ["\x1b", "[", "38", "48", ";", "5", "2", "m", "0", "255", "]", "a", "J"], k=12
        )
        page = BeautifulSoup(ansi2html(terminal("".join(parts))), "html.parser")
        assert {tag.name for tag in page.find_all(True)} <= {"span"}


# Outputs


def test_outputs_that_act_are_dropped_and_their_text_stays():
    outputs = [shown(data | {"text/plain": name}) for name, data in payloads.OUTPUTS.items()]
    (cell,) = made(code(*outputs))
    assert [o["data"] for o in cell["outputs"]] == [{"text/plain": n} for n in payloads.OUTPUTS]
    (cell,) = made(code(*map(shown, payloads.OUTPUTS.values())))
    assert cell["outputs"] == []


def test_pictures_stay_if_they_are_pictures():
    png, jpeg = picture(), picture("JPEG")
    (cell,) = made(code(shown({"image/png": png}), shown({"image/jpeg": jpeg})))
    assert [o["data"] for o in cell["outputs"]] == [{"image/png": png}, {"image/jpeg": jpeg}]
    large = picture(size=(60_000, 1_000))  # a few kilobytes in the file, 60 million pixels
    assert len(large) < 20_000
    wrong = [{"image/png": jpeg}, {"image/png": large}, {"image/png": png[:40]}, {"image/gif": png}]
    (cell,) = made(code(*map(shown, wrong)))
    assert cell["outputs"] == []


def test_figures_of_gclib_stay_as_pictures():
    page = f'<img alt="A map" width="300" style="x" src="data:image/png;base64,{picture()}">'
    (cell,) = made(code(shown({"text/html": page, "text/plain": "A map"})))
    assert cell["outputs"][0]["data"] == {"text/plain": "A map", "image/png": picture()}


def test_a_notebook_that_prints_too_much_is_cut_but_its_cards_are_not():
    card = card_of(cards.show_passed, "c00-e1", "t", 3, hidden=False)
    loud = code(*[{"output_type": "stream", "name": "stdout", "text": "x" * 19_000}] * 60)
    first, second = made(loud, check_cell(shown(card)))
    assert len(first["outputs"]) < 30
    assert "left out" in first["outputs"][-1]["text"]
    assert html.unescape(second["outputs"][0]["data"]["text/html"]) == html.unescape(
        card["text/html"]
    )


HOSTILE = "<img src=x onerror=hacked()> & \"' $\\href{javascript:hacked()}{x}$ \u202e"


@pytest.mark.parametrize(
    "card",
    [
        card_of(cards.show_passed, "c00-e1", HOSTILE, 2, hidden=True),
        card_of(cards.show_not_attempted, NotAttempted("c00-e1", HOSTILE)),
        card_of(
            cards.show_failed,
            CheckFailed("c00-e1", HOSTILE, expected=HOSTILE, got=HOSTILE, cause=HOSTILE, look="a"),
        ),
    ],
    ids=["passed", "not attempted", "failed"],
)
def test_cards_stay_and_what_they_quote_is_text(card):
    (cell,) = made(check_cell(shown(card)))
    page = cell["outputs"][0]["data"]["text/html"]
    tags = re.compile("<[^>]*>")
    assert tags.findall(page) == tags.findall(card["text/html"])
    found = BeautifulSoup(page, "html.parser")
    assert not found.find_all("img")
    assert "<img src=x onerror=hacked()> &" in found.get_text()
    assert "\\href" not in found.get_text()
    assert "⟨U+202E⟩" in found.get_text()
    (again,) = made(cell)
    assert again == cell


@pytest.mark.full
def test_a_real_error_with_html_in_it_ends_as_text_on_the_card():
    c00 = CHAPTER.checks()

    def to_positions(x):
        raise ValueError(HOSTILE)

    with cards.collected() as found, pytest.raises(CheckFailed):
        c00.e1(to_positions)
    assert HOSTILE in found[0]["text/plain"]
    (cell,) = made(check_cell(shown(found[0])))
    page = BeautifulSoup(cell["outputs"][0]["data"]["text/html"], "html.parser")
    assert {tag.name for tag in page.find_all(True)} == {"div", "strong", "table", "tr", "th", "td"}
    assert "<img src=x onerror=hacked()>" in page.get_text()


def test_a_card_that_checks_did_not_write_is_dropped():
    card = card_of(cards.show_passed, "c00-e1", "t", 3, hidden=False)["text/html"]
    forged = [card + "<b>", card.replace("#2e8b57", "red"), card + "<", f"<a>{card}</a>", "a>b"]
    (cell,) = made(check_cell(*[shown({"text/html": page}) for page in forged]))
    assert cell["outputs"] == []
    (cell,) = made(code(shown({"text/html": card})))  # true to the letter, in a cell of the student
    assert cell["outputs"] == []


# Metadata, cells, attachments


def test_metadata_is_the_chapters():
    cell = code(id='a"><script>', execution_count="<b>")
    cell["metadata"] = {"tags": ["remove_cell", "rubric"], "jupyter": {"source_hidden": True}}
    cell["metadata"]["nbgrader"] = {"grade_id": '"><script>', "grade": True, "solution": True}
    found = notebook(cell, cell, check_cell(), check_cell())
    found["metadata"] = payloads.METADATA
    found["extra"] = "<script>"
    make_harmless(found, RELEASED)
    text = json.dumps(found)
    assert "script" not in text
    assert "rubric" not in text
    first, second, check, copied = found["cells"]
    assert first["id"] != second["id"]
    assert first["metadata"] == {}
    assert first["execution_count"] is None
    assert check["metadata"]["nbgrader"]["grade_id"] == "c00-e1-visible"
    assert check["metadata"]["tags"] == ["check", "raises-exception"]
    assert "nbgrader" not in copied["metadata"]


def test_points_and_checksums():
    cell = check_cell()
    cell["metadata"]["nbgrader"] |= {"points": 1e9, "checksum": "0" * 32, "cell_type": "code"}
    cell["metadata"]["nbgrader"]["evil"] = "<script>"
    (found,) = made(cell)
    about = found["metadata"]["nbgrader"]
    assert about["points"] == check_cell()["metadata"]["nbgrader"]["points"]
    assert about["checksum"] == "0" * 32
    assert "evil" not in about


def test_raw_and_unknown_cells_become_text():
    source = "<script>hacked()</script>\n~~~~~~~~\n[a](javascript:b)"
    for kind in ("raw", "heading", None):
        (cell,) = made({"cell_type": kind, "id": "a", "metadata": {}, "source": source})
        assert cell["cell_type"] == "markdown"
        page = BeautifulSoup(markdown2html(cell["source"]), "html.parser")
        assert [tag.name for tag in page.find_all(True)] == ["pre", "code"]
        assert "script>hacked()" in page.get_text()


def test_attachments_stay_if_they_are_pictures_that_are_shown():
    cell = {
        "cell_type": "markdown",
        "id": "a",
        "metadata": {},
        "source": "![my <b> x](attachment:p.png) ![drawing](attachment:q w.jpeg)\n"
        "![c](attachment:c.svg) ![d](attachment:none.png)",
        "attachments": {
            "p.png": {"image/png": picture()},
            "q w.jpeg": {"image/jpeg": picture("JPEG")},
            "c.svg": {"image/svg+xml": "<svg/>", "text/html": "<b>"},
            "unused.png": {"image/png": picture()},
        },
    }
    (found,) = made(cell)
    assert found["attachments"] == {
        "picture-1.png": {"image/png": picture()},
        "picture-2.jpeg": {"image/jpeg": picture("JPEG")},
    }
    assert "![my b x](attachment:picture-1.png)" in found["source"]
    assert "![drawing](attachment:picture-2.jpeg)" in found["source"]
    assert "![c] (attachment:c.svg)" in found["source"]
    assert made(found) == [found]
    page = markup.markdown(found["source"], pictures=found["attachments"])
    assert page.count('<img src="data:image/') == page.count("<img ") >= 1


@pytest.mark.full
@pytest.mark.parametrize("leaving", [False, True])
def test_the_whole_of_it_is_a_valid_notebook_and_harmless_html(leaving):
    found = payloads.submission(notebook(*RELEASED), leaving=leaving)
    make_harmless(found, RELEASED)
    nbformat.validate(nbformat.from_dict(found))
    json.dumps(found, ensure_ascii=False).encode()
    again = copy.deepcopy(found)
    make_harmless(again, RELEASED)
    assert again == found
    empty = notebook(*copy.deepcopy(RELEASED))
    make_harmless(empty, RELEASED)
    for template in ("lab", "classic"):
        tags = []
        for one in (found, empty):
            page, _ = HTMLExporter(template_name=template).from_notebook_node(
                nbformat.from_dict(one)
            )
            soup = BeautifulSoup(page, "html.parser")
            kinds = (
                "script",
                "img",
                "svg",
                "iframe",
                "link",
                "meta",
                "base",
                "form",
                "style",
                "object",
            )
            tags.append([(t.name, t.get("src")) for t in soup.find_all(kinds)])
            for tag in soup.find_all(True):
                assert not [name for name in tag.attrs if name.startswith("on")]
                assert not str(tag.get("href", "")).lower().startswith(("javascript", "data", "vb"))
        assert tags[0] == tags[1]


@pytest.mark.parametrize("broken", [None, [], "x", {"cells": 3}, {"cells": [1, None, {}]}])
def test_whatever_comes_in_a_notebook_comes_out(broken):
    every = {"source": broken, "outputs": broken, "metadata": broken, "id": broken}
    errors = [broken, {"output_type": "error", "traceback": broken}]
    found = notebook(
        {"cell_type": "code", "attachments": broken} | every,
        {"cell_type": "markdown", "source": ["a", 1], "attachments": broken},
        {
            "cell_type": "code",
            "outputs": [*errors, {"output_type": "display_data", "data": broken}],
        },
        broken,
    )
    make_harmless(found, RELEASED)
    nbformat.validate(nbformat.from_dict(found))


def test_too_many_cells_are_left_out_but_no_graded_one():
    cells = [{"cell_type": "markdown", "source": str(i)} for i in range(1200)]
    found = notebook(*cells, check_cell())
    make_harmless(found, RELEASED)
    assert len(found["cells"]) == harmless.MOST_CELLS + 2
    assert found["cells"][-2]["metadata"]["nbgrader"]["grade_id"] == "c00-e1-visible"
    assert "200 of 1201 cells left out" in found["cells"][-1]["source"]


# Formulas as MathML


def test_formulas_that_are_none_are_shown_as_code():
    for source in (r"\frac{a", r"\href{javascript:x}{y}", "<b>", "x" * 3000, r"\unknown{<b>}"):
        page = BeautifulSoup(markup.formula(source, True), "html.parser")
        assert not page.find_all("b")
        assert page.find(["code", "math"])


def test_without_the_library_formulas_are_shown_as_they_were_written(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_core", None)
    for cached in (markup._converter, markup.formula):
        cached.cache_clear()
    try:
        assert markup.formula("a<b", False) == "<code>a&lt;b</code>"
    finally:
        for cached in (markup._converter, markup.formula):
            cached.cache_clear()


def test_no_formula_of_the_allowed_length_ends_the_process():
    done = subprocess.run(
        [sys.executable, "-c", DEEP], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


DEEP = r"""
from gclib.grading.pages import markup
n, count = markup.LONGEST_FORMULA, 0
for piece, end in [
    ("{", "}"), (r"\frac{", "}1"), (r"\sqrt{", "}"), ("x^{", "}"), (r"\left(", r"\right)"),
    (r"\begin{matrix}", r"\end{matrix}"), (r"\text{", "}"), (r"\hat{", "}"), (r"\mathrm{", "}"),
    (r"\overset{x}{", "}"), (r"\hat ", ""), (r"\sqrt ", ""), (r"\sqrt[", "]x"), (r"\frac ", " 1"),
    ("x^", ""),
]:
    for deep in (n // len(piece), n // (len(piece) + len(end) + 1)):
        for middle in ("", "x"):
            text = (piece * deep + middle + end * deep)[:n]
            markup.formula(text, False)
            count += 1
print(count)
"""


def test_the_answers_of_the_course_stay_as_they_are():
    for chapter in CHAPTERS:
        for answer in references(chapter.number).values():
            (cell,) = made(code(source=answer))
            assert cell["source"] == answer
