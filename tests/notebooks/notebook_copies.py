"""Copies of the course's notebooks that a test may break, edited as plain dictionaries."""

import json
import shutil
from pathlib import Path

from gclib.chapters import find_chapter
from gclib.grading.notebooks import canonical

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = find_chapter("01")  # the chapter whose copies are broken


def checkout(root):
    """Give ``root`` what generation and lint look at: solutions, chapters, configuration."""
    ignore = shutil.ignore_patterns(".ipynb_checkpoints")
    for folder in ("solutions", "chapters"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    shutil.copy(ROOT / "nbgrader_config.py", root)
    return root


def edit(path, change):
    """Apply ``change`` to the cells of a notebook file and write it in canonical form."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook["cells"])
    path.write_text(canonical(json.dumps(notebook)), encoding="utf-8")


def edit_as_is(path, change):
    """Apply ``change`` to the cells of a notebook file; outputs and metadata stay."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook["cells"])
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")


def cell(cells, name):
    """The cell with this id."""
    return next(c for c in cells if c["id"] == name)


def source(c):
    """The text of a cell."""
    return c["source"] if isinstance(c["source"], str) else "".join(c["source"])


def replace(name, old, new):
    """A change: ``old``, which must be there, becomes ``new`` in one cell."""

    def change(cells):
        text = source(cell(cells, name))
        assert old in text, f"{name} no longer contains {old!r}: this test's edit does nothing"
        cell(cells, name)["source"] = text.replace(old, new)

    return change


def append(name, text):
    """A change: one more line at the end of a cell."""

    def change(cells):
        cell(cells, name)["source"] = f"{source(cell(cells, name))}\n{text}"

    return change


def remove(name):
    """A change: the cell is gone."""
    return lambda cells: cells.remove(cell(cells, name))


def nbgrader(name, **values):
    """A change: other values in nbgrader's metadata of a cell."""
    return lambda cells: cell(cells, name)["metadata"]["nbgrader"].update(values)


def insert(*, before, id, source="pass", tags=(), **metadata):
    """A change: a new code cell, with nbgrader's metadata if any value of it is given."""

    def change(cells):
        new = {
            "cell_type": "code",
            "id": id,
            "metadata": {"tags": list(tags)} if tags else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        if metadata:
            new["metadata"]["nbgrader"] = {
                "grade": False,
                "grade_id": id,
                "locked": True,
                "schema_version": 3,
                "solution": False,
                "task": False,
            } | metadata
        cells.insert(cells.index(cell(cells, before)), new)

    return change


def both(*changes):
    """A change: several, in order."""

    def change(cells):
        for one in changes:
            one(cells)

    return change
