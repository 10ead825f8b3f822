"""Notebooks as files: their graded cells, their marked regions, and the one form git keeps."""

from __future__ import annotations

import json

from gclib.checks.cells import source_of

BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"


def grade_metadata(cell: dict) -> dict:
    """The nbgrader metadata of a cell, or an empty dictionary."""
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def solution_lines(source: str) -> list[str]:
    """The lines between solution marks, without indentation and blank lines."""
    return _between(source, BEGIN_SOLUTION, END_SOLUTION)


def hidden_lines(source: str) -> list[str]:
    """The lines between hidden-test marks, without indentation and blank lines."""
    return _between(source, BEGIN_HIDDEN, END_HIDDEN)


def _between(source: str, begin: str, end: str) -> list[str]:
    found, inside = [], False
    for line in source.split("\n"):
        if begin in line:
            inside = True
        elif end in line:
            inside = False
        elif inside and line.strip():
            found.append(line.strip())
    return found


def canonical(text: str) -> str:
    """The one form in which git keeps a notebook: sorted keys, one space, no outputs."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell["source"] = source_of(cell).splitlines(True)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            cell.setdefault("metadata", {}).pop("execution", None)
    notebook["metadata"] = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
