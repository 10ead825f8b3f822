"""The self-check before handing in: is this notebook one that can be graded?

It runs none of the student's code. ``gclib submit-check PATH`` in a terminal,
``course.submit_check(NN)`` in the notebook.
"""

from __future__ import annotations

from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, repository
from gclib.checks.cells import UnreadableWork, parse_cell, read_cells, source_of
from gclib.checks.outcome import STUB_MESSAGE
from gclib.grading.notebooks import grade_metadata

LARGEST_MIB = 5


def chapter_of(path: Path) -> Chapter:
    """The chapter that a notebook belongs to, by its graded cells or else by its name.

    Raises:
        UnreadableWork: the file is no notebook, or of no chapter.
    """
    names = [grade_metadata(cell).get("grade_id", "") for cell in read_cells(path)]
    for chapter in CHAPTERS:
        if any(str(name).startswith(f"c{chapter.number}-") for name in names):
            return chapter
    for chapter in CHAPTERS:
        if path.stem == chapter.name or path.parent.name == chapter.folder:
            return chapter
    raise UnreadableWork(
        f"{path.name}: no graded cell of any chapter; is this a notebook of the course?"
    )


def problems_of(path: Path, chapter: Chapter | None = None) -> list[str]:
    """What would cost points or stop grading, one sentence each with its remedy.

    Raises:
        UnreadableWork: the file is no notebook, or of no chapter.
    """
    chapter = chapter or chapter_of(path)
    cells = read_cells(path)
    problems = []
    if path.name != f"{chapter.name}.ipynb":
        problems.append(f"the file is called {path.name}; hand in {chapter.name}.ipynb (rename it)")
    size = path.stat().st_size / 2**20
    if size > LARGEST_MIB:
        problems.append(
            f"the file has {size:.0f} MiB (at most {LARGEST_MIB} MiB), mostly outputs; clear them "
            "with Edit > Clear Outputs of All Cells, and save"
        )
    problems += _graded_cells(cells, _released(chapter))
    for number, cell in enumerate(cells, start=1):
        name = grade_metadata(cell).get("grade_id") or number
        if cell.get("cell_type") == "code":
            problems += _syntax(name, source_of(cell))
    return problems


def unanswered(path: Path) -> list[str]:
    """The answers that still hold their stub: not a mistake, but worth knowing."""
    stub = f'raise NotImplementedError("{STUB_MESSAGE}")'
    found = []
    for cell in read_cells(path):
        metadata, source = grade_metadata(cell), source_of(cell).strip()
        if metadata.get("solution") and (stub in source or source == "*Write your answer here.*"):
            found.append(metadata["grade_id"])
    return found


def report(path: Path) -> tuple[bool, str]:
    """Whether the notebook can be handed in, and what to tell the student."""
    try:
        chapter = chapter_of(path)
        problems = problems_of(path, chapter)
        open_ = unanswered(path)
    except UnreadableWork as error:
        return False, str(error)
    lines = [f"{path.name}, chapter {chapter.number}:"]
    lines += [f"  - {problem}" for problem in problems]
    if open_:
        lines.append(f"  not attempted: {', '.join(open_)} (0 points each, no other harm)")
    lines.append(
        "  mend this before you hand in" if problems else "  ready to hand in: every cell is there"
    )
    return not problems, "\n".join(lines)


def _released(chapter: Chapter) -> list[dict] | None:
    """The graded cells as they were handed out, or None where the chapters are not at hand."""
    root = repository()
    path = root / "chapters" / chapter.notebook if root else None
    return read_cells(path) if path and path.is_file() else None


def _graded_cells(cells: list[dict], released: list[dict] | None) -> list[str]:
    problems = []
    found: dict[str, list[dict]] = {}
    for cell in cells:
        name = grade_metadata(cell).get("grade_id")
        if name:
            found.setdefault(name, []).append(cell)
    for name, copies in found.items():
        if len(copies) > 1:
            problems.append(
                f"cell {name} is there {len(copies)} times (duplicated or split); keep one"
            )
    if released is None:
        return problems
    if not found:
        return [
            "the marks of the graded cells are gone (an editor removed them); copy your answers "
            "into a fresh notebook (gclib start NN --again) in JupyterLab"
        ]
    for cell in released:
        metadata = grade_metadata(cell)
        name = metadata.get("grade_id")
        if not name:
            continue
        if name not in found:
            problems.append(
                f"cell {name} is missing; undo the deletion, or copy your answers into a fresh "
                "notebook (gclib start NN --again)"
            )
            continue
        copy = found[name][-1]
        if copy.get("cell_type") != cell["cell_type"]:
            problems.append(f"cell {name} became a {copy.get('cell_type')} cell; change it back")
        elif metadata.get("locked") and source_of(copy) != source_of(cell):
            problems.append(
                f"cell {name} was edited; undo your change (grading uses the original in any case)"
            )
    return problems


def _syntax(name: str | int, source: str) -> list[str]:
    try:
        parse_cell(source)
    except SyntaxError as error:
        return [f"cell {name} has a syntax error in line {error.lineno}: {error.msg}"]
    return []
