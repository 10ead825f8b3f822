"""Notebooks as plain dictionaries: reading them needs neither torch nor Jupyter."""

from __future__ import annotations

import ast
import json
import re
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
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists in lists
        raise UnreadableWork(f"{path.name}: not a notebook: no program saves this") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        old = isinstance(notebook, dict) and "worksheets" in notebook
        hint = "open it in JupyterLab and save it once" if old else "is this the right file?"
        kind = "a notebook in an old format" if old else "not a notebook"
        raise UnreadableWork(f"{path.name}: {kind}; {hint}")
    if not all(_is_cell(cell) for cell in notebook["cells"]):
        raise UnreadableWork(f"{path.name}: not a notebook: a cell has no text; restore a backup")
    return notebook["cells"]


def _is_cell(cell: object) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata", {}), dict):
        return False
    source = cell.get("source", "")
    lines = source if isinstance(source, list) else [source]
    return all(isinstance(line, str) for line in lines)


def parse_cell(source: str, filename: str = "<cell>") -> ast.Module:
    """The syntax tree of a code cell, with what Jupyter takes besides Python left out.

    Raises:
        SyntaxError: it is not Python without that, either.
    """
    try:
        return _parse(source, filename)
    except SyntaxError:
        return _parse(python_of(source), filename)


def _parse(source: str, filename: str) -> ast.Module:
    try:
        flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        return compile(source, filename, "exec", flags, dont_inherit=True)
    except ValueError as error:  # a null byte, before Python 3.12
        raise SyntaxError(str(error), (filename, 1, 1, "")) from None


_RUNS_PYTHON = ("%%time", "%%timeit", "%%capture", "%%prun")


def python_of(source: str) -> str:
    """The Python of a cell: magics, commands and help become ``pass``; line numbers stay."""
    if source.lstrip().startswith("%%"):
        blank, _, rest = source.partition("%%")
        first, _, body = rest.partition("\n")
        if f"%%{first}".split()[0] not in _RUNS_PYTHON:
            return ""
        source = f"{blank}\n{body}"
    return "\n".join(_python_of_line(line) for line in source.split("\n"))


def _python_of_line(line: str) -> str:
    text = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    if text.startswith(("%", "!", "?")) or text.endswith("?"):
        return f"{indent}pass"
    found = re.match(r"([^=!%]*=\s*)[%!]", line)  # x = !ls, x = %magic
    return f"{found[1]}None" if found and re.fullmatch(r"[\w., ]+=\s*", found[1].lstrip()) else line


def source_of(cell: dict) -> str:
    """The text of a cell, which JSON holds as a string or as a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)
