"""Notebooks run: solutions pass every check, blank chapters run to their end, figures are true.

Executions take a kernel and up to half a minute each, so they wait for --full.
"""

import contextlib
import io
import json
import shutil
import time

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from notebook_copies import ROOT
from prose_numbers import numbers, quoted, stands
from test_prose_numbers import NOT_PRINTED

from gclib.chapters import CHAPTERS
from gclib.checks import cards as cards_module
from gclib.checks import expected

FIGURES = ROOT / "gclib" / "checks" / "expected_figures"
CHAPTER_IDS = [chapter.folder for chapter in CHAPTERS]


class Executed:
    """A notebook after all of its cells ran."""

    def __init__(self, path, folder):
        self.name = path.relative_to(ROOT).as_posix()
        shutil.copy(path, folder)  # the last cell looks for the saved notebook
        self.notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            self.notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        )
        begin = time.perf_counter()
        client.execute()  # stops at an error in a cell without the tag raises-exception
        self.seconds = time.perf_counter() - begin

    def code_cells(self, tag=None):
        for cell in self.notebook.cells:
            if cell.cell_type == "code" and (tag is None or tag in cell.metadata.get("tags", [])):
                yield cell

    def errors(self):
        """Cell, type and text of every error."""
        return [
            (cell.id, output.ename, output.evalue)
            for cell in self.code_cells()
            for output in cell.outputs
            if output.output_type == "error"
        ]

    def stderr(self):
        return [
            (cell.id, output.text)
            for cell in self.code_cells()
            for output in cell.outputs
            if output.output_type == "stream" and output.name == "stderr"
        ]


def printed(cell):
    """What a cell wrote to stdout."""
    return "".join(
        output.text
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )


def displayed(cell):
    """The plain texts of what a cell displayed: how far the student is, and the rest."""
    shown = [output for output in cell.outputs if output.output_type == "display_data"]
    marked = [output.metadata == cards_module.PROGRESS for output in shown]
    texts = [output.data.get("text/plain", "") for output in shown]
    return (
        [text for text, mark in zip(texts, marked, strict=True) if mark],
        [text for text, mark in zip(texts, marked, strict=True) if not mark],
    )


def standing(cell):
    """How far the student is, as the cell displayed it."""
    return displayed(cell)[0]


def cards(cell):
    """The plain text of what else a cell displayed."""
    return displayed(cell)[1]


def html(cell):
    """What a cell displayed, as HTML."""
    return "".join(
        output.data.get("text/html", "")
        for output in cell.outputs
        if output.output_type == "display_data"
    )


@pytest.fixture(scope="module", params=CHAPTERS, ids=CHAPTER_IDS)
def solved(request, tmp_path_factory):
    """A solution notebook, executed once for all tests."""
    folder = tmp_path_factory.mktemp("solved")
    executed = Executed(ROOT / "solutions" / request.param.notebook, folder)
    executed.chapter = request.param
    return executed


@pytest.fixture(scope="module", params=CHAPTERS, ids=CHAPTER_IDS)
def blank(request, tmp_path_factory):
    """A student's notebook, untouched, executed once for all tests."""
    folder = tmp_path_factory.mktemp("blank")
    return Executed(ROOT / "chapters" / request.param.notebook, folder)


@pytest.mark.full
def test_a_solution_runs_without_an_error_and_says_how_long(solved, capsys):
    with capsys.disabled():
        print(f"\n{solved.name}: {solved.seconds:.1f} s")
    assert solved.errors() == []


@pytest.mark.full
def test_a_solution_writes_nothing_to_stderr(solved):
    assert solved.stderr() == []


@pytest.mark.full
def test_every_check_of_a_solution_ends_with_a_passed_card(solved):
    checks = list(solved.code_cells("check"))
    assert checks
    for cell in checks:
        assert cell.outputs, cell.id
        assert cell.outputs[-1].output_type == "display_data", cell.id
        kind = "hidden" if cell.id.endswith("-hidden") else "visible"
        (card,) = cards(cell)
        assert card.startswith(f"passed: {cell.id.rsplit('-', 1)[0]} ")
        assert card.endswith(f" {kind} checks passed")
        assert "passed</strong>" in html(cell)


@pytest.mark.full
def test_a_solution_counts_its_exercises_as_they_pass(solved):
    checks = [cell for cell in solved.code_cells("check") if cell.id.endswith("-visible")]
    for number, cell in enumerate(checks, start=1):
        (line,) = standing(cell)
        if number < len(checks):
            assert f": {number} of {len(checks)} exercises passed, about " in line, cell.id
        else:
            assert line.endswith(f": all {number} exercises passed"), cell.id
    (above,) = standing(solved.notebook.cells[1])  # the first cell follows
    assert f": all {len(checks)} exercises passed" in above


@pytest.mark.full
def test_every_experiment_of_a_solution_does_its_work(solved):
    for cell in solved.code_cells("experiment"):
        assert "Finish exercise" not in printed(cell), cell.id
        assert printed(cell) or cards(cell), cell.id
        if "expected.beside(" in cell.source:
            (figure,) = cards(cell)
            assert figure.startswith("Expected figure, yours beside it\nexpected "), cell.id
            assert "\nyours: shape" in figure, cell.id
            assert "<details open" in html(cell), cell.id


@pytest.mark.full
def test_numbers_in_the_text_are_those_that_cells_print(solved):
    printed_here = set()
    for cell in solved.code_cells():
        printed_here |= numbers(cell.source) | numbers(printed(cell))
        printed_here |= set().union(*(numbers(text) for text in cards(cell)), set())
    other = NOT_PRINTED[solved.chapter.number]
    asked = {
        number: cell.id
        for cell in solved.notebook.cells
        if cell.cell_type == "markdown"
        for number in quoted(cell.source)
    }
    stale = {
        number: cell
        for number, cell in asked.items()
        if number not in other and not stands(number, printed_here)
    }
    assert not stale, "no cell prints them, and quoted_numbers.json has no source of them"
    assert set(other) <= set(asked), "quoted_numbers.json has numbers that the text does not quote"


@pytest.mark.full
def test_a_blank_chapter_runs_to_its_end(blank, capsys):
    with capsys.disabled():
        print(f"\n{blank.name}: {blank.seconds:.1f} s")
    assert all(cell.execution_count for cell in blank.code_cells())
    assert "ready to hand in" in printed(blank.notebook.cells[-1])


@pytest.mark.full
def test_every_visible_check_of_a_blank_chapter_says_not_attempted_and_nothing_else_fails(blank):
    visible = [cell.id for cell in blank.code_cells("check") if cell.id.endswith("-visible")]
    assert visible
    assert [(name, kind) for name, kind, _ in blank.errors()] == [
        (name, "NotAttempted") for name in visible
    ]
    for cell in blank.code_cells("check"):
        if cell.id in visible:
            exercise = cell.id.rsplit("-", 1)[0]
            assert [card.split("\n")[0] for card in cards(cell)] == [f"not attempted: {exercise}"]
        else:
            assert cell.outputs == []


@pytest.mark.full
def test_a_blank_chapter_writes_nothing_to_stderr(blank):
    assert blank.stderr() == []


@pytest.mark.full
def test_experiments_of_a_blank_chapter_name_the_exercise_to_finish(blank):
    waiting = [cell for cell in blank.code_cells("experiment") if "course.after(" in cell.source]
    assert waiting
    for cell in waiting:
        exercise = cell.source.split('course.after("')[1].split('"')[0]
        assert printed(cell) == f"Finish exercise {exercise} first, then run this cell again.\n"
    for cell in blank.code_cells("experiment"):
        if "expected.beside(" in cell.source and cell not in waiting:
            (figure,) = cards(cell)
            assert figure.startswith("Expected figure\nexpected "), cell.id
            assert "yours" not in figure.lower(), cell.id
            assert "<details style=" in html(cell), cell.id


def cells_with_figures(chapter):
    """Sources of a solution's code, of its experiments only those that show a figure."""
    path = ROOT / "solutions" / chapter.notebook
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        if "experiment" not in cell.metadata.get("tags", []) or "expected.beside" in cell.source:
            yield cell.id, cell.source


@pytest.mark.parametrize("chapter", CHAPTERS, ids=CHAPTER_IDS)
def test_expected_figures_are_what_the_solution_computes(chapter, tmp_path, monkeypatch):
    seen = []

    def compare(exercise, yours):
        stored = torch.tensor(expected.load_expected(exercise)["matrix"], dtype=torch.float64)
        torch.testing.assert_close(yours().detach().double(), stored, atol=1e-5, rtol=0)
        seen.append(exercise)

    monkeypatch.setattr(expected, "beside", compare)
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "solutions" / chapter.notebook, tmp_path)
    namespace = {"__name__": "__main__"}
    with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        for name, source in cells_with_figures(chapter):
            exec(compile(source, f"<{name}>", "exec"), namespace)
    path = FIGURES / f"c{chapter.number}.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    assert sorted(seen) == sorted(f"c{chapter.number}-{name}" for name in stored)


def test_every_file_of_figures_belongs_to_a_chapter():
    chapters = {f"c{chapter.number}.json" for chapter in CHAPTERS}
    assert {path.name for path in FIGURES.iterdir()} <= chapters
