"""Pages of the book before Sphinx: nothing runs here, and all chapters are looked at."""

import json
import re

import pytest

from gclib.book import code_pages, documents
from gclib.book.build import write_sources
from gclib.book.chapter import LIVE, WIDGET, page_of
from gclib.book.code_links import link_code, places_in
from gclib.book.documents import Book, UnclearDocument
from gclib.book.names import Place, hidden, names_of
from gclib.chapters import CHAPTERS, repository
from gclib.checks.cells import read_cells, source_of
from gclib.grading.notebooks import hidden_lines, solution_lines

ROOT = repository()
THERE = [one for one in CHAPTERS if (ROOT / "chapters" / one.notebook).is_file()]
IDS = [one.folder for one in THERE]
NAMES = names_of(ROOT)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The sources of the whole book, without outputs."""
    folder = tmp_path_factory.mktemp("stage")
    notebooks = {one.number: ROOT / "solutions" / one.notebook for one in THERE}
    write_sources(Book.of(ROOT, THERE), notebooks, folder)
    return folder


def cells_of(stage, chapter):
    page = stage / "chapters" / f"{chapter.folder}.ipynb"
    return {cell["id"]: cell for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]}


# Chapters


@pytest.mark.parametrize("chapter", THERE, ids=IDS)
def test_every_exercise_shows_its_stub_and_folds_its_solution(stage, chapter):
    cells = cells_of(stage, chapter)
    stubs = {c["id"]: source_of(c) for c in read_cells(ROOT / "chapters" / chapter.notebook)}
    exercises = 0
    for cell in read_cells(ROOT / "solutions" / chapter.notebook):
        source, name = source_of(cell), cell["id"]
        if "BEGIN SOLUTION" not in source:
            continue
        if cell["cell_type"] == "markdown":
            assert cells[name]["source"].startswith("``````{solution} Model answer and rubric\n")
            assert "**Rubric.**" in cells[name]["source"]
            continue
        exercises += 1
        assert cells[name]["source"] == stubs[name]
        assert "raise NotImplementedError" in cells[name]["source"]
        folded = cells[f"{name}-solution"]["source"]
        assert folded.startswith("``````{solution} Solution of exercise ")
        for line in solution_lines(source):
            assert line in folded
        assert "SOLUTION" not in folded
    assert exercises


@pytest.mark.parametrize("chapter", THERE, ids=IDS)
def test_a_line_of_a_solution_stands_nowhere_but_in_its_fold(stage, chapter):
    cells = cells_of(stage, chapter)
    student = "".join(map(source_of, read_cells(ROOT / "chapters" / chapter.notebook)))
    open_text = "\n".join(
        cell["source"] for cell in cells.values() if "{solution}" not in cell["source"]
    )
    for cell in read_cells(ROOT / "solutions" / chapter.notebook):
        for line in solution_lines(source_of(cell)):
            if line not in student:
                assert line not in open_text


@pytest.mark.parametrize("chapter", THERE, ids=IDS)
def test_no_page_holds_a_hidden_check(stage, chapter):
    text = "".join(cell["source"] for cell in cells_of(stage, chapter).values())
    assert "hidden_checks" not in text
    assert "HIDDEN TESTS" not in text
    assert "Hidden checks of exercise" not in text
    lines = [
        line
        for cell in read_cells(ROOT / "solutions" / chapter.notebook)
        for line in hidden_lines(source_of(cell))
    ]
    assert lines
    assert not [line for line in lines if line in text]


@pytest.mark.parametrize("chapter", THERE, ids=IDS)
def test_headings_of_exercises_stand_in_the_contents_and_claims_in_boxes(stage, chapter):
    cells = cells_of(stage, chapter)
    text = "\n".join(c["source"] for c in cells.values() if c["cell_type"] == "markdown")
    source = "\n".join(map(source_of, read_cells(ROOT / "solutions" / chapter.notebook)))
    boxes = re.findall(r"^> (### Exercise .+)$", source, re.MULTILINE)
    assert boxes
    assert re.findall(r"^### Exercise .+$", text, re.MULTILINE) == boxes
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert not re.search(r"^> (###|\*\*Claim)", text, re.MULTILINE)
    assert text.count("{container} exercise-box") == len(boxes)
    assert text.count("{container} claim-box") == source.count("\n> **Claim")


def notebook_with(tmp_path, *outputs, live=""):
    cell = {
        "cell_type": "code",
        "id": "one",
        "metadata": {},
        "source": "show()",
        "execution_count": 1,
        "outputs": list(outputs),
    }
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4}))
    return page_of(THERE[0], path, path, tmp_path / "figures", live=live)["cells"][0]["outputs"]


def shown(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def test_a_widget_is_replaced_by_its_static_form(tmp_path):
    still = {"text/html": '<img alt="a map" src="x.png">', "text/plain": "Explorer()"}
    both, alone = notebook_with(
        tmp_path,
        shown(**{WIDGET: {"model_id": "a"}, **still}),
        shown(**{WIDGET: {"model_id": "b"}, "text/plain": "Explorer()"}),
    )
    assert both["data"] == {"text/html": still["text/html"]}
    assert alone["data"] == {"text/markdown": LIVE}


def test_the_explorer_leads_to_its_own_page(tmp_path):
    still = {"text/html": '<img alt="a map" src="x.png">'}
    widget, figure = notebook_with(
        tmp_path,
        shown(**{WIDGET: {"model_id": "a"}, **still}),
        shown(**still),
        live="explorer.html",
    )
    assert 'href="../explorer.html"' in widget["data"]["text/html"]
    assert "explorer.html" not in figure["data"]["text/html"]


def test_pictures_leave_the_page_for_a_file_and_keep_their_alt_text(tmp_path):
    png = "iVBORw0KGgo="
    page = f'<img alt="a map" src="data:image/png;base64,{png}">'
    first, second = notebook_with(
        tmp_path, shown(**{"text/html": page}), shown(**{"text/html": page})
    )
    (file,) = (tmp_path / "figures").iterdir()
    assert file.read_bytes() == b"\x89PNG\r\n\x1a\n"
    assert first == second
    assert first["data"]["text/html"] == f'<img alt="a map" src="../_static/figures/{file.name}">'


# The start page and the documents


def test_the_start_page_leads_to_every_chapter_and_document(stage):
    text = (stage / "index.md").read_text(encoding="utf-8")
    for chapter in THERE:
        assert re.search(rf"^\| \[{chapter.number}[ \]]", text, re.MULTILINE), chapter
        assert f"<chapters/{chapter.folder}>" in text
    for name in ("LEDGER", "PERFORMANCE", "TRAINING", "INSTRUCTORS", "AUTHORING"):
        assert f"<docs/{name}>" in text
    assert "![" in text
    assert "## This book" in text
    assert "{{" not in text
    assert 'href="explorer.html"' in text
    assert text.count("\n# ") + text.startswith("# ") == 1


def test_a_new_document_is_in_the_book_without_a_list_of_names(tmp_path):
    (tmp_path / "docs").mkdir()
    for folder in ("gclib", "chapters"):
        (tmp_path / folder).mkdir()
    (tmp_path / "README.md").write_text("# The course\n\nText, and [more](docs/HISTORY.md).\n")
    (tmp_path / "docs" / "HISTORY.md").write_text("# History\n\n[Back](../README.md#x)\n")
    book = Book.of(tmp_path, THERE[:1])
    pages = dict(documents.pages(book))
    assert "\ndocs/HISTORY\n" in pages["index"]
    assert "[more](docs/HISTORY.md)" in pages["index"]
    assert "[Back](../index.md#x)" in pages["docs/HISTORY"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("[a](gclib/blocks/framework.py)", "[a](code/gclib.blocks.framework.md)"),
        ("[`a`](gclib/blocks)", "[`a`](code/gclib.blocks.md)"),
        ("[a](solutions/00_start/start.ipynb)", "[a](chapters/00_start.ipynb)"),
        ("[a](docs/LEDGER.md#table-1)", "[a](docs/LEDGER.md#table-1)"),
        ("[a](LICENSE)", "a"),
        ("[a](https://arxiv.org/abs/1904.11492)", "[a](https://arxiv.org/abs/1904.11492)"),
        ("```\n[a](nowhere.md)\n```", "```\n[a](nowhere.md)\n```"),
        ("| 00 start | x |", "| [00 start](chapters/00_start.ipynb) | x |"),
    ],
)
def test_links_of_the_repository_become_links_of_the_book(text, made):
    book = Book.of(ROOT, THERE)
    assert documents._linked(text, "README.md", "index", book) == made


def test_a_link_to_nothing_is_named():
    with pytest.raises(UnclearDocument, match=r"README\.md links to docs/GONE\.md"):
        documents._linked("[a](docs/GONE.md)", "README.md", "index", Book.of(ROOT, THERE))


# The code


def test_every_module_has_a_page_but_the_hidden_checks(stage):
    pages = {path.stem for path in (stage / "code").glob("gclib*.md")}
    assert pages == set(NAMES.modules)
    files = {path.relative_to(ROOT) for path in (ROOT / "gclib").rglob("*.py")}
    left_out = files - {path for path in files if not hidden(path)}
    assert {path.parent.as_posix() for path in left_out} == {"gclib/checks/hidden"}
    assert len(pages) == len(files) - len(left_out)
    assert "gclib.checks.c03" in pages


def test_no_page_shows_a_line_of_a_hidden_check():
    public = "\n".join(module.source for module in NAMES.modules.values())
    for path in (ROOT / "gclib" / "checks" / "hidden").glob("c*.py"):
        own = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        long = {line for line in own if len(line) > 60 and not line.startswith(("from", "import"))}
        shared = [line for line in long if line in public]
        assert len(shared) <= 0.1 * len(long), (path.name, shared)
        assert f'"""{own[0]}' not in public


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("gclib.blocks", Place("gclib.blocks")),
        ("gclib.blocks.GCBlock", Place("gclib.blocks.global_context", "GCBlock")),
        ("gclib.GCBlock", Place("gclib.blocks.global_context", "GCBlock")),
        ("gclib.models.insert_blocks", Place("gclib.models.insertion", "insert_blocks")),
        ("gclib.analysis.figures.maps", Place("gclib.analysis.figures", "maps")),
        ("gclib.checks.c03.e1", Place("gclib.checks.c03", "e1")),
        ("gclib.checks.hidden.c03", None),
        ("gclib.blocks.NoSuchBlock", None),
        ("numpy.array", None),
    ],
)
def test_names_lead_to_where_they_are_defined(name, place):
    assert NAMES.find(name) == place


def test_anchors_of_a_page_of_code_stand_at_their_lines():
    module = NAMES.modules["gclib.blocks.global_context"]
    body = code_pages.body_of(module, NAMES, lambda place: f"{place.module}#{place.anchor}")
    found = re.search(r'<span class="defined" id="GCBlock">(.*)', body)
    assert "class GCBlock" in re.sub(r"<[^>]+>", "", found[1])
    text = re.sub(r'<span class="linenos">.*?</span>|<[^>]+>', "", body.split("<pre>")[1])
    assert text.count("\n") >= module.source.count("\n")


CODE = """from gclib.analysis import figures
from gclib.blocks import (
    NonLocalBlock,
)
import gclib.checks.hidden.c01

ä = "ß"; figures.matrices({"<ß>": x}, alt="ä")
block = NonLocalBlock(4)
"""


def highlighted(source):
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(nowrap=True))


def test_what_a_cell_takes_from_gclib_becomes_a_link():
    scope = {}
    before = highlighted(CODE)
    made = link_code(before, NAMES, scope, lambda place: f"{place.module}#{place.anchor}")
    links = re.findall(r'<a class="code-link" href="([^"]*)">([^<]*)</a>', made)
    assert links == [
        ("gclib.analysis#", "gclib.analysis"),
        ("gclib.analysis.figures#", "figures"),
        ("gclib.blocks#", "gclib.blocks"),
        ("gclib.blocks.non_local#NonLocalBlock", "NonLocalBlock"),
        ("gclib.analysis.figures#", "figures"),
        ("gclib.analysis.figures#matrices", "matrices"),
        ("gclib.blocks.non_local#NonLocalBlock", "NonLocalBlock"),
    ]
    plain = re.sub(r"</?a[^>]*>", "", made)
    assert re.sub(r"<[^>]+>", "", plain) == re.sub(r"<[^>]+>", "", before)
    later = link_code(highlighted("figures.show(x)"), NAMES, scope, lambda place: place.anchor)
    assert 'href="show"' in later  # imported by an earlier cell


def test_a_name_that_the_reader_defines_is_no_link():
    scope = {"NonLocalBlock": "gclib.blocks.NonLocalBlock"}
    source = "class NonLocalBlock:\n    pass\n\nNonLocalBlock()"
    assert places_in(source, NAMES, scope) == []
    assert scope == {}


@pytest.mark.parametrize("source", ["not python at all", "x = (", "\0"])
def test_text_that_is_no_python_stays_as_it_is(source):
    assert link_code(source, NAMES, {}, lambda place: "x") == source
