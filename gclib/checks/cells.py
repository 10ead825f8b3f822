"""Notebooks as plain dictionaries: reading them needs neither torch nor Jupyter."""

from __future__ import annotations

import json
from pathlib import Path


class UnreadableWork(Exception):
    """The notebook or module cannot be read; ``str()`` says why and what to do."""


def read_cells(path: Path) -> list[dict]:
    """The cells of a notebook in format 4, as plain dictionaries.

    Raises:
        UnreadableWork: missing, not JSON, not a notebook, or in an old format.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnreadableWork(f"{path.name}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableWork(f"{path.name}: cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise UnreadableWork(
            f"{path.name}: not a notebook (line {error.lineno} is not JSON); restore it from "
            "JupyterLab's File > Revert Notebook to Checkpoint, or from a backup"
        ) from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        old = isinstance(notebook, dict) and "worksheets" in notebook
        hint = "open it in JupyterLab and save it once" if old else "is this the right file?"
        kind = "a notebook in an old format" if old else "not a notebook"
        raise UnreadableWork(f"{path.name}: {kind}; {hint}")
    return notebook["cells"]


def source_of(cell: dict) -> str:
    """The text of a cell, which JSON holds as a string or as a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)
