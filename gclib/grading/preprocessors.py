"""nbgrader preprocessors that keep one damaged notebook from costing points or stopping a class.

``nbgrader_config.py`` puts them in the place of nbgrader's own.
"""

from __future__ import annotations

import json
from pathlib import Path

from nbformat import from_dict
from nbformat.v4 import new_markdown_cell
from nbgrader import utils
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearHiddenTests, NbGraderPreprocessor, OverwriteCells
from traitlets import Dict, Unicode

from gclib.chapters import repository
from gclib.checks.cells import read_cells, source_of
from gclib.grading.notebooks import grade_metadata
from gclib.grading.verdicts import read_judgement

HIDDEN_MARK = "BEGIN HIDDEN TESTS"
RUBRIC_TAG = "rubric"


class DropDuplicateIds(NbGraderPreprocessor):
    """Keep one cell for each ``grade_id``; the others become ordinary cells.

    JupyterLab copies the metadata when a cell is duplicated or split. nbgrader's own preprocessor
    leaves metadata that its next step refuses, and the whole run stops. Of several copies the last
    one with an answer is kept; the others still run, in their order.
    """

    def preprocess(self, nb, resources):
        """Drop the metadata of duplicates and of cells whose metadata is damaged."""
        keep: dict[str, int] = {}
        for index, cell in enumerate(nb.cells):
            metadata = cell.metadata.get("nbgrader")
            if metadata is None:
                continue
            if not isinstance(metadata, dict) or not metadata.get("grade_id"):
                del cell.metadata["nbgrader"]
                continue
            name = metadata["grade_id"]
            if name not in keep or _is_answered(cell) or not _is_answered(nb.cells[keep[name]]):
                keep[name] = index
        for index, cell in enumerate(nb.cells):
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name and keep[name] != index:
                self.log.warning("Cell %r is there more than once; one copy counts", name)
                del cell.metadata["nbgrader"]
        return nb, resources


def _is_answered(cell) -> bool:
    checksum = cell.metadata.nbgrader.get("checksum")
    complete = {"grade", "solution", "locked"} <= set(cell.metadata.nbgrader)
    return bool(checksum) and complete and utils.compute_checksum(cell) != checksum


class RestoreCells(OverwriteCells):
    """Put back the check cells and written answers that a submission lacks.

    nbgrader's own version looks for the cell before the missing one and fails when that is gone as
    well. Here a missing cell follows the last cell of its exercise, or comes at the end.
    """

    def preprocess(self, nb, resources):
        """Restore locked cells from the gradebook, then add what is missing."""
        for cell in nb.cells:
            if "nbgrader" in cell.metadata:
                MetadataValidator().upgrade_cell_metadata(cell)
        self.add_missing_cells = True
        return super().preprocess(nb, resources)

    def add_missing_grade_cells(self, nb, resources):
        """Add graded cells that are missing."""
        source = self.gradebook.find_notebook(self.notebook_id, self.assignment_id)
        sources = {cell.name: cell for cell in source.source_cells}
        solutions = {cell.name for cell in source.solution_cells}
        present = {
            cell.metadata.nbgrader["grade_id"] for cell in nb.cells if "nbgrader" in cell.metadata
        }
        for grade_cell in sorted(source.grade_cells, key=lambda cell: cell.name, reverse=True):
            if grade_cell.name in present:
                continue
            self.log.warning("Cell %r is missing; it was put back", grade_cell.name)
            restored = self.missing_cell_transform(
                sources[grade_cell.name],
                grade_cell.max_score,
                is_solution=grade_cell.name in solutions,
            )
            nb.cells.insert(_place(nb, grade_cell.name), restored)
        return nb, resources


def _place(nb, name: str) -> int:
    """Index behind the answer of the same exercise, or the end."""
    exercise = "-".join(name.split("-")[:2])
    for index, cell in enumerate(nb.cells):
        if cell.metadata.get("nbgrader", {}).get("grade_id") == exercise:
            return index + 1
    return len(nb.cells)


class InsertVerdicts(NbGraderPreprocessor):
    """Put verdicts in the place of what a kernel would print, for ``gclib grade``.

    No output of a check's cell is the student's, so whatever their code would have printed there
    earns nothing. Other cells show what they printed in the sandbox.
    """

    path = Unicode(help="the verdicts on this submission").tag(config=True)

    def preprocess(self, nb, resources):
        """Fill the cells; a check without a verdict gets no points."""
        judgement = read_judgement(Path(self.path))
        outputs = {verdict.cell: verdict.outputs for verdict in judgement.verdicts}
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            if utils.is_grade(cell) and not utils.is_solution(cell):
                missing = {"ename": "NoVerdict", "evalue": "no such check", "traceback": []}
                found = outputs.get(cell.metadata.nbgrader["grade_id"])
                found = [{"output_type": "error", **missing}] if found is None else found
            else:
                found = judgement.pages.get(cell.get("id", ""), [])
            cell.outputs = [from_dict(output) for output in found]
        return nb, resources


class Harmless(NbGraderPreprocessor):
    """Take out of a graded notebook what could act in a browser, and say what it was made from."""

    mark = Dict(help="what the notebook was made from").tag(config=True)

    def preprocess(self, nb, resources):
        """Make the notebook harmless."""
        from gclib.grading.harmless import make_harmless

        names = resources["nbgrader"]
        path = f"chapters/{names['assignment']}/{names['notebook']}.ipynb"
        released = (repository() or Path()) / path
        plain = json.loads(json.dumps(nb))
        make_harmless(plain, read_cells(released) if released.is_file() else [])
        if self.mark:
            plain["metadata"]["gclib"] = dict(self.mark)
        return from_dict(plain), resources


class StderrToStdout(NbGraderPreprocessor):
    """Show what a graded cell wrote to stderr, without taking its points for it.

    nbgrader gives 0 to a cell with any stderr, a library's warning included.
    """

    def preprocess_cell(self, cell, resources, cell_index):
        """Rename the stream."""
        if cell.cell_type == "code" and utils.is_grade(cell):
            for output in cell.outputs:
                if output.output_type == "stream" and output.name == "stderr":
                    output.name = "stdout"
        return cell, resources


class ShowRubric(NbGraderPreprocessor):
    """For the formgrader: put the model answer and the rubric under a written answer.

    They stand in the source notebook's solution, which nbgrader shows to nobody. Feedback pages
    leave them out again (:class:`HideRubric`).
    """

    def preprocess(self, nb, resources):
        """Add a cell behind each answer that a person grades."""
        names = resources["nbgrader"]
        root = repository() or Path()  # wherever nbgrader was started
        source = root / "solutions" / names["assignment"] / f"{names['notebook']}.ipynb"
        rubrics = {
            grade_metadata(cell)["grade_id"]: "\n".join(_marked_text(source_of(cell)))
            for cell in (read_cells(source) if source.is_file() else [])
            if grade_metadata(cell).get("grade") and grade_metadata(cell).get("solution")
        }
        cells = []
        for cell in nb.cells:
            cells.append(cell)
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name in rubrics:
                text = f"> **For the person who grades** ({name})\n\n{rubrics[name]}"
                made = new_markdown_cell(text, metadata={"tags": [RUBRIC_TAG]})
                made["id"] = f"{name}-rubric"  # the same each time
                cells.append(made)
        nb.cells = cells
        return nb, resources


class HideRubric(NbGraderPreprocessor):
    """For feedback: leave out what :class:`ShowRubric` added."""

    def preprocess(self, nb, resources):
        """Drop the cells for the grader."""
        nb.cells = [c for c in nb.cells if RUBRIC_TAG not in c.metadata.get("tags", [])]
        return nb, resources


def _marked_text(source: str) -> list[str]:
    return [
        line for line in source.split("\n") if "### BEGIN" not in line and "### END" not in line
    ]


class HideHiddenTests(ClearHiddenTests):
    """For feedback: remove the source of hidden checks, and tracebacks that would show it."""

    def preprocess_cell(self, cell, resources, cell_index):
        """Clear a cell that holds hidden checks."""
        if HIDDEN_MARK in cell.source and cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [_one_line(output)]
        return super().preprocess_cell(cell, resources, cell_index)


def _one_line(error) -> str:
    """The error without frames; our own errors are one line already."""
    if error.ename in ("CheckFailed", "NotAttempted") and len(error.traceback) == 1:
        return error.traceback[0]
    return f"{error.ename}: {error.evalue}" if error.evalue else error.ename
