"""The part of gclib that a student's code may see while it is graded.

An allow-list: what a chapter teaches, its checks, and everything later are not there at all, so an
answer that imports the reference fails like any other missing module.
"""

from __future__ import annotations

import ast
from pathlib import Path

import gclib
from gclib.chapters import CHAPTERS, Chapter

_ALWAYS = (
    "__init__.py",
    "analysis/__init__.py",
    "analysis/diagrams.py",
    "analysis/figures.py",
    "bench/__init__.py",
    "bench/measure.py",
    "chapters.py",
    "checks/__init__.py",
    "checks/cards.py",
    "checks/cells.py",
    "checks/exercise.py",
    "checks/handle.py",
    "checks/outcome.py",
    "checks/report.py",
    "checks/work.py",
    "course.py",
    "grading/__init__.py",
    "grading/sandbox/__init__.py",
    "grading/sandbox/wire.py",
    "grading/sandbox/worker.py",
)
# What the reader has built once a chapter is done. The framework stands below SNL as well, so that
# waits for chapter 04.
_BUILT = {
    "01": (
        "blocks/__init__.py",
        "blocks/_arguments.py",
        "blocks/fast/__init__.py",
        "blocks/fast/choice.py",
        "blocks/fast/non_local.py",
        "blocks/non_local.py",
    ),
    "02": ("analysis/capture.py", "analysis/distances.py", "analysis/maps.py"),
    "04": (
        "blocks/fast/framework.py",
        "blocks/framework.py",
        "blocks/simplified_non_local.py",
        "blocks/squeeze_excitation.py",
    ),
    "05": (
        "analysis/complexity.py",
        "blocks/converters.py",
        "blocks/global_context.py",
        "blocks/registry.py",
    ),
}


def write_visible(chapter: Chapter, folder: Path) -> None:
    """Write the ``gclib`` that answers of a chapter may see to ``folder / "gclib"``.

    Packages that collect names, like ``gclib.blocks``, keep those that are there.
    """
    root = Path(gclib.__file__).parent
    names = set(_ALWAYS)
    for earlier in CHAPTERS:
        if earlier.number < chapter.number:
            names.update(_BUILT.get(earlier.number, ()))
    for name in sorted(names):
        text = (root / name).read_text(encoding="utf-8")
        if name.endswith("/__init__.py"):
            text = _without_missing(text, names)
        path = folder / "gclib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _without_missing(text: str, names: set[str]) -> str:
    """The source of a package without its imports from modules of gclib that are not there."""
    tree = ast.parse(text)
    gone, kept = set(), []
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("gclib."):
            path = "/".join(statement.module.split(".")[1:])
            if f"{path}.py" not in names and f"{path}/__init__.py" not in names:
                gone.update(alias.asname or alias.name for alias in statement.names)
                continue
        kept.append(statement)
    for statement in kept:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            elements = statement.value.elts
            statement.value.elts = [item for item in elements if item.value not in gone]
    return ast.unparse(ast.Module(kept, [])) + "\n"
