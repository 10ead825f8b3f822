"""A solution notebook as a page: stubs with the solution behind them, and no hidden check.

What a reader sees of an exercise is the student's stub; the solution stands in a ``solution``
directive (:mod:`gclib.book.extension`), folded. Outputs are those of the executed notebook: of
several forms of one output the best static one is kept, so that no page needs a script from far.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from gclib.chapters import Chapter
from gclib.checks.cells import read_cells, source_of
from gclib.grading.notebooks import (
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_SOLUTION,
    grade_metadata,
)

WIDGET = "application/vnd.jupyter.widget-view+json"
# Of one output, the first of these forms is shown.
FORMS = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/plain")
LIVE = "*This part is alive in JupyterLab: open the chapter there to use it.*"
_PICTURE = re.compile(r'src="data:image/(png|jpeg|svg\+xml);base64,([A-Za-z0-9+/=\s]+)"')


def page_of(
    chapter: Chapter,
    solution: Path,
    student: Path,
    pictures: Path,
    *,
    up: str = "../",
    live: str = "",
) -> dict:
    """The notebook that Sphinx gets.

    Args:
        chapter: the chapter.
        solution: its notebook with answers, executed or not.
        student: the notebook that students get, for the stubs.
        pictures: where pictures of outputs are written to, each once.
        up: the way from the page to the top of the book.
        live: address of the attention explorer's own page, from the top; "" for none.
    """
    stubs = {cell.get("id"): source_of(cell) for cell in read_cells(student)}
    exercise = ""
    cells: list[dict] = []
    for cell in read_cells(solution):
        source = source_of(cell)
        if BEGIN_HIDDEN in source:
            continue
        name = cell["id"]
        if cell["cell_type"] == "markdown":
            if BEGIN_SOLUTION in source:
                text = _without_marks(source)
                cells.append(_text(name, _folded("Model answer and rubric", text)))
                continue
            box = re.search(r"^> ### Exercise (\d+)", source, re.MULTILINE)
            exercise = box[1] if box else exercise
            cells.append(_text(name, _boxes(source)))
            continue
        outputs = list(_outputs(cell.get("outputs", []), pictures, up, live))
        if BEGIN_SOLUTION in source:
            cells.append(_code(name, stubs[name], []))
            title = f"Solution of exercise {exercise}" if exercise else "Solution"
            answer = f"`````python\n{_without_marks(source)}\n`````"
            cells.append(_text(f"{name}-solution", _folded(title, answer)))
            if outputs:
                cells.append(_code(f"{name}-outputs", "# what the solution prints", outputs))
        else:
            cells.append(_code(name, source, outputs, grade_metadata(cell)))
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        },
        "cells": cells,
    }


def _text(name: str, source: str) -> dict:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _code(name: str, source: str, outputs: list[dict], about: dict | None = None) -> dict:
    tags = ["check"] if about and about.get("grade") else []
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"tags": tags},
        "execution_count": None,
        "source": source,
        "outputs": outputs,
    }


def _without_marks(source: str) -> str:
    lines = source.split("\n")
    kept = [line for line in lines if BEGIN_SOLUTION not in line and END_SOLUTION not in line]
    return "\n".join(kept).strip("\n")


def _folded(title: str, text: str) -> str:
    return f"``````{{solution}} {title}\n{text}\n``````"


def _boxes(source: str) -> str:
    """Boxes of exercises as headings with a box below, claims as boxes of their own.

    A heading inside of a quotation is none: it has no place in the contents of the page.
    """
    lines = source.split("\n")
    made: list[str] = []
    at = 0
    while at < len(lines):
        if not lines[at].startswith(">"):
            made.append(lines[at])
            at += 1
            continue
        quoted = []
        while at < len(lines) and lines[at].startswith(">"):
            quoted.append(re.sub(r"^> ?", "", lines[at]))
            at += 1
        if quoted[0].startswith("### "):
            made += [quoted.pop(0), ""]
            kind = "exercise-box"
        elif quoted[0].startswith("**Claim"):
            kind = "claim-box"
        else:
            made += [f"> {line}".rstrip() for line in quoted]
            continue
        made += [f"``````{{container}} {kind}", *quoted, "``````"]
    return "\n".join(made)


def _outputs(outputs: list[dict], pictures: Path, up: str, alive: str) -> Iterator[dict]:
    for output in outputs:
        if output["output_type"] not in ("display_data", "execute_result"):
            yield output
            continue
        data = dict(output.get("data", {}))
        live = data.pop(WIDGET, None) is not None
        form = next((one for one in FORMS if one in data), None)
        if live and form in (None, "text/plain"):
            form, data = "text/markdown", {"text/markdown": LIVE}
        if form is None:
            continue
        shown = data[form] if isinstance(data[form], str) else "".join(data[form])
        if form == "text/html":
            shown = _PICTURE.sub(lambda found: f'src="{up}{_store(found, pictures)}"', shown)
            if live and alive:
                link = f'<p><a href="{up}{alive}">Open the explorer, alive</a>, or see it here:</p>'
                shown = link + shown
        metadata = output.get("metadata", {})
        yield {"output_type": "display_data", "data": {form: shown}, "metadata": metadata}


def _store(found: re.Match, pictures: Path) -> str:
    """Write a picture that came inside of a page; its address below the folder of the book."""
    content = base64.b64decode(found[2])
    ending = {"svg+xml": "svg", "jpeg": "jpg"}.get(found[1], found[1])
    name = f"{hashlib.sha256(content).hexdigest()[:16]}.{ending}"
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / name).write_bytes(content)
    return f"_static/{pictures.name}/{name}"
