"""Mend a submission: from whatever an editor left of a notebook to one that can be graded.

The released notebook is the skeleton. Each of its cells is looked for in the submission, by
``grade_id``, by cell id, or by what it holds (an answer by the name it defines); what a student may
not change is taken from the release, what a student writes from the submission. Every other cell
stays behind the one that it followed. What was mended is said in a sentence for the student.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gclib.chapters import Chapter
from gclib.checks.cells import UnreadableWork, parse_cell, source_of
from gclib.grading.notebooks import grade_metadata

LARGEST = 64 * 2**20  # bytes of a notebook, nearly all of them outputs
MOST_CELLS = 2000
LONGEST = 100_000  # characters of a cell; a syntax tree takes 700 bytes for each
_DEEPEST = 4  # folders below that of the submission
Cell = dict[str, Any]


@dataclass
class Mended:
    """A submission that can be graded.

    Attributes:
        notebook: format 4.5, without outputs.
        notes: what was mended, in sentences.
        altered: ``grade_id`` of locked cells whose text was changed.
    """

    notebook: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)

    def code_cells(self) -> Iterator[tuple[str, bool, str]]:
        """Label, whether it is an answer, and source of each code cell."""
        for number, cell in enumerate(self.notebook["cells"], start=1):
            if cell["cell_type"] == "code":
                metadata = grade_metadata(cell)
                label = metadata.get("grade_id") or f"cell {number}"
                yield label, bool(metadata.get("solution")), source_of(cell)


def find_notebook(folder: Path, chapter: Chapter) -> tuple[Path, list[str]]:
    """The notebook of a chapter in what a student handed in, and what to say about its name.

    Raises:
        UnreadableWork: there is none, or it is not clear which one.
    """
    wanted = folder / f"{chapter.name}.ipynb"
    if folder.is_symlink() or folder.parent.is_symlink():
        raise UnreadableWork("the folder is a link; put the folder itself there")
    os.listdir(folder)  # says why where it cannot be read
    if _is_plain_file(wanted):
        return wanted, []
    found = sorted(_notebooks(folder))
    if not found:
        raise UnreadableWork(f"there is no notebook; hand in {wanted.name}")
    if len(found) > 1:
        ours = [p for p in found if _mentions(p, chapter)]
        found = ours or found
    if len(found) > 1:
        names = ", ".join(_text(p.name) for p in found[:5])
        raise UnreadableWork(f"several notebooks ({names}); hand in {wanted.name} alone")
    return found[0], [f"the file was called {_text(found[0].name)}; it was read as {wanted.name}"]


def _notebooks(folder: Path) -> Iterator[Path]:
    for top, folders, names in os.walk(folder):
        deep = len(Path(top).relative_to(folder).parts)
        folders[:] = [n for n in folders if deep < _DEEPEST and n != ".ipynb_checkpoints"]
        yield from (Path(top, n) for n in names if ".ipynb" in n and _is_plain_file(Path(top, n)))


def read_notebook(path: Path) -> bytes:
    """The bytes of a submitted file.

    Raises:
        UnreadableWork: it is too large to be a notebook.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise UnreadableWork(
            f"the file has {size >> 20} MiB, mostly outputs; clear them with Edit > Clear Outputs "
            "of All Cells, save, and hand that in"
        )
    return path.read_bytes()


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()  # a link could lead to somebody else's


def _mentions(path: Path, chapter: Chapter) -> bool:
    with open(path, "rb") as file:
        return f'"c{chapter.number}-'.encode() in file.read(LARGEST)


def mend(content: bytes, released: dict[str, Any], chapter: Chapter) -> Mended:
    """Fit a submission into the released notebook.

    Args:
        content: bytes of the submitted file.
        released: the notebook as it was handed out.
        chapter: the chapter of both.

    Raises:
        UnreadableWork: nothing in it can be graded; the message says why and what to do.
    """
    cells, notes = _read(content)
    _refuse_another_chapter(cells, chapter)
    mended = Mended(_empty(released), notes)
    places = _match(cells, released["cells"], mended)
    taken = {place for found in places for place in found}
    order = [found[0] for found in places if found]
    if order != sorted(order):
        mended.notes.append("cells were moved; they are graded in the order of the chapter")
    extras = _extras(cells, taken, places)
    result = extras.get(-1, [])
    for index, cell in enumerate(released["cells"]):
        result += _fitted(cell, [cells[place] for place in places[index]], mended)
        result += extras.get(index, [])
    mended.notebook["cells"] = _with_ids(result, released["cells"])
    return mended


def _read(content: bytes) -> tuple[list[Cell], list[str]]:
    """The cells in format 4, each with its type, metadata and source; what had to be mended."""
    notes = []
    if not content.strip():
        raise UnreadableWork("the file is empty; hand in the notebook again")
    try:
        text = content.decode("utf-8-sig" if content[:2] not in _UTF16 else "utf-16")
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f" (line {error.lineno} is not JSON)" if hasattr(error, "lineno") else ""
        raise UnreadableWork(
            f"not a notebook{line}; restore a backup or a checkpoint, and hand that in"
        ) from None
    if not isinstance(notebook, dict):
        raise UnreadableWork("not a notebook; is this the right file?")
    if "worksheets" in notebook or str(notebook.get("nbformat")) in ("1", "2", "3"):
        notebook = _upgraded(notebook)
        notes.append("the notebook was in an old format; it was read all the same")
    if not isinstance(notebook.get("cells"), list):
        raise UnreadableWork("not a notebook (it has no cells); is this the right file?")
    if _kernel(notebook) not in ("", "python"):
        notes.append("the notebook names another kernel; it is graded with Python 3")
    if len(notebook["cells"]) > MOST_CELLS:
        raise UnreadableWork(
            f"it has {len(notebook['cells'])} cells (at most {MOST_CELLS}); delete your own that "
            "you do not need, save, and hand that in"
        )
    cells = [_clean(cell) for cell in notebook["cells"] if isinstance(cell, dict)]
    for number, cell in enumerate(cells, start=1):
        if len(cell["source"]) > LONGEST:
            raise UnreadableWork(
                f"cell {number} has {len(cell['source'])} characters (at most {LONGEST}); shorten "
                "it, save, and hand that in"
            )
    if len(cells) < len(notebook["cells"]):
        notes.append("some cells were damaged and left out")
    return cells, notes


_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def _upgraded(notebook: dict) -> dict:
    import nbformat

    try:
        return json.loads(json.dumps(nbformat.convert(nbformat.from_dict(notebook), 4)))
    except Exception:
        raise UnreadableWork(
            "a notebook in an old format that cannot be read; open it in JupyterLab, save it, and "
            "hand that in"
        ) from None


def _kernel(notebook: dict) -> str:
    metadata = notebook.get("metadata")
    spec = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = spec.get("language", "python") if isinstance(spec, dict) else ""
    return str(language).lower()


def _clean(cell: dict) -> Cell:
    kind = cell.get("cell_type")
    source = cell.get("source", cell.get("input", ""))
    lines = source if isinstance(source, list) else [source]
    name = grade_metadata(cell).get("grade_id")
    found = {
        "cell_type": kind if kind in ("code", "markdown", "raw") else "markdown",
        # All that is asked of it; a student's could be anything.
        "metadata": {"nbgrader": {"grade_id": name}} if isinstance(name, str) else {},
        "source": _text("".join(s for s in lines if isinstance(s, str))),
        "id": cell.get("id") if isinstance(cell.get("id"), str) else "",
    }
    if isinstance(cell.get("attachments"), dict) and found["cell_type"] == "markdown":
        found["attachments"] = {
            _text(name): {_text(kind): _text(data)}
            for name, bundle in cell["attachments"].items()
            if isinstance(bundle, dict)
            for kind, data in bundle.items()
            if isinstance(data, str)
        }
    return found


def _text(text: str) -> str:
    """With one kind of line ends, and nothing that UTF-8 cannot hold."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()


def _refuse_another_chapter(cells: Iterable[Cell], chapter: Chapter) -> None:
    names = [str(grade_metadata(cell).get("grade_id", "")) for cell in cells]
    numbers = {found[1] for name in names if (found := re.match(r"c(\d\d)-", name))}
    if numbers and chapter.number not in numbers:
        raise UnreadableWork(
            f"this is the notebook of chapter {', '.join(sorted(numbers))}; hand in "
            f"{chapter.name}.ipynb"
        )


def _empty(released: dict) -> dict:
    kept = {key: copy.deepcopy(value) for key, value in released.items() if key != "cells"}
    return kept | {"nbformat": 4, "nbformat_minor": 5, "cells": []}


def _match(cells: list[Cell], released: list[Cell], mended: Mended) -> list[list[int]]:
    """Places of each released cell in the submission: none, one, or several copies."""
    places: list[list[int]] = [[] for _ in released]
    free = set(range(len(cells)))

    def take(index: int, found: Iterable[int]) -> None:
        places[index] = sorted(found)
        free.difference_update(places[index])

    graded = {grade_metadata(cell).get("grade_id"): i for i, cell in enumerate(released)}
    graded.pop(None, None)
    for name, index in graded.items():
        take(index, [p for p in free if grade_metadata(cells[p]).get("grade_id") == name])
    ids = {cell.get("id"): i for i, cell in enumerate(released) if cell.get("id")}
    for place in sorted(free):
        index = ids.get(cells[place]["id"])
        if index is not None and not places[index] and _may_be(cells[place], released[index]):
            take(index, [place])
    texts: dict[str, int] = {}
    for index, cell in enumerate(released):
        if not places[index] and not _is_answer(cell):
            texts.setdefault(_squeezed(source_of(cell)), index)
    for place in sorted(free):
        index = texts.get(_squeezed(cells[place]["source"]))
        if index is not None and not places[index]:
            take(index, [place])
    _match_answers(cells, released, places, free, take)
    _match_second_halves(cells, released, places, free)
    missing = [name for name, index in graded.items() if not places[index]]
    stripped = not any(grade_metadata(cell).get("grade_id") in graded for cell in cells)
    if stripped and len(missing) == len(graded):
        raise UnreadableWork(
            "nothing of this chapter was found in it; copy your answers into a fresh notebook "
            "(gclib start NN --again), and hand that in"
        )
    if stripped:
        mended.notes.append(
            "the marks of the graded cells were gone (an editor removed them); they were put back"
        )
    return places


def _may_be(cell: Cell, released: Cell) -> bool:
    """An id alone says little of an answer: editors number cells anew."""
    if not _is_answer(released) or released["cell_type"] != "code":
        return True
    return bool(_names(cell["source"]) & _names(source_of(released)))


def _match_answers(cells, released, places, free, take) -> None:
    """Answers without marks: code by the name it defines, text by the question before it."""
    for index, cell in enumerate(released):
        if places[index] or not _is_answer(cell):
            continue
        if cell["cell_type"] == "code":
            wanted = _names(source_of(cell))
            found = [p for p in sorted(free) if wanted & _names(cells[p]["source"])]
            found = [p for p in found if cells[p]["cell_type"] == "code"] or found[-1:]
            take(index, found)
        elif index and places[index - 1]:
            place = places[index - 1][-1] + 1
            if place in free and cells[place]["cell_type"] == "markdown":
                take(index, [place])


def _match_second_halves(cells, released, places, free) -> None:
    """A cell that was split, whose second half has no marks: it begins with an indented line."""
    for index, found in enumerate(places):
        if not (found and _is_answer(released[index]) and released[index]["cell_type"] == "code"):
            continue
        place = found[-1] + 1
        while place in free and cells[place]["source"].lstrip("\n")[:1] in (" ", "\t"):
            found.append(place)
            free.discard(place)
            place += 1


def _extras(cells: list[Cell], taken: set[int], places: list[list[int]]) -> dict[int, list[Cell]]:
    """Cells of the student's own, by the released cell that they followed (-1: none)."""
    owner = {place: index for index, found in enumerate(places) for place in found}
    extras: dict[int, list[Cell]] = {}
    last = -1
    for place, cell in enumerate(cells):
        if place in taken:
            last = owner[place]
        elif cell["source"].strip():
            extras.setdefault(last, []).append(_ordinary(cell))
    return extras


def _ordinary(cell: Cell) -> Cell:
    made = {**cell, "metadata": {"tags": ["own"]}}
    if cell["cell_type"] == "code":
        made |= {"outputs": [], "execution_count": None}
    return made


def _fitted(released: Cell, found: list[Cell], mended: Mended) -> list[Cell]:
    """The cell as it is graded, behind copies that stay as ordinary cells."""
    name = grade_metadata(released).get("grade_id")
    cell = copy.deepcopy(released)
    if not name:
        if found:
            cell["source"] = found[0]["source"]
            if "attachments" in found[0] and cell["cell_type"] == "markdown":
                cell["attachments"] = found[0]["attachments"]
        return [cell]
    if not found:
        what = "answer" if _is_answer(released) else "cell"
        mended.notes.append(f"{what} {name} was missing; it was put back as it was handed out")
        return [cell]
    if any(copied["cell_type"] != released["cell_type"] for copied in found):
        kind = next(c["cell_type"] for c in found if c["cell_type"] != released["cell_type"])
        mended.notes.append(f"cell {name} had become a {kind} cell; it was changed back")
    if not _is_answer(released):
        if any(_squeezed(c["source"]) != _squeezed(source_of(released)) for c in found):
            mended.altered.append(name)
            mended.notes.append(f"cell {name} was edited; the original is what counts")
        return [cell]
    before, source, attachments = _answer(name, released, found, mended)
    cell["source"] = source
    if attachments and cell["cell_type"] == "markdown":
        cell["attachments"] = attachments
    return [*map(_ordinary, before), cell]


def _answer(name: str, released: Cell, found: list[Cell], mended: Mended):
    """Of several copies: what stays before the answer, the answer, and its attachments."""
    stub = _squeezed(source_of(released))
    written = [copied for copied in found if _squeezed(copied["source"]) != stub]
    if not written:
        return [], found[-1]["source"], None
    attachments = {k: v for c in written for k, v in c.get("attachments", {}).items()}
    if len(written) == 1:
        if len(found) > 1:
            mended.notes.append(f"cell {name} was there {len(found)} times; your answer counts")
        return [], written[0]["source"], attachments
    sources = [copied["source"] for copied in written]
    if released["cell_type"] != "code":
        mended.notes.append(f"cell {name} was there {len(written)} times; they were joined")
        return [], "\n\n".join(sources), attachments
    joined = "\n".join(source.removesuffix("\n") for source in sources)
    if _parses(joined) and not all(map(_parses, sources)):
        mended.notes.append(f"cell {name} was split; the parts were joined")
        return [], joined, None
    mended.notes.append(f"cell {name} was there {len(written)} times; all run, in their order")
    return [], "\n\n".join(sources) if _parses("\n\n".join(sources)) else sources[-1], None


def _parses(source: str) -> bool:
    try:
        parse_cell(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _names(source: str) -> set[str]:
    """Functions and classes that a cell defines at its top level."""
    try:
        tree = parse_cell(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"^(?:def|class)\s+(\w+)", source, flags=re.MULTILINE))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def _is_answer(cell: Cell) -> bool:
    return bool(grade_metadata(cell).get("solution"))


def _squeezed(source: str) -> str:
    """Without what editors change: line ends, trailing blanks, empty lines around."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _with_ids(cells: list[Cell], released: list[Cell]) -> list[Cell]:
    """Give every cell an id of its own, of the form that nbformat asks for."""
    reserved = {cell.get("id") for cell in released}
    seen: set[str] = set()
    for number, cell in enumerate(cells):
        name = str(cell.get("id") or "")
        own = "own" in cell["metadata"].get("tags", [])
        if (
            name in seen
            or (own and name in reserved)
            or not re.fullmatch(r"[\w-]{1,64}", name, re.A)
        ):
            name = f"own-{number}"
        while name in seen:
            name += "-"
        seen.add(name)
        cell["id"] = name
    return cells
