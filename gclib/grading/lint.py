"""Rules that every source notebook and guide keeps, part of ``make lint``.

``python -m gclib.grading.lint`` checks ``solutions/``, ``docs/`` and README. With ``--write`` it
first puts the notebooks into the form that git keeps.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gclib.chapters import CHAPTERS, Chapter, repository
from gclib.checks.cells import UnreadableWork, read_cells, source_of
from gclib.checks.exercise import exercises_of
from gclib.grading.notebooks import (
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_HIDDEN,
    END_SOLUTION,
    canonical,
    grade_metadata,
)
from gclib.grading.prose import lint_prose

LONGEST_SETUP = 5
_MEASURED = r"the cells run in \d+ s on 2 cores \(measured\)"
_FORBIDDEN = {
    r"^\s*[%!]\s*(pip|conda|apt)": "installs packages: environments are made before class",
    r"urlopen|urlretrieve|requests\.|wget |curl |hub\.load|download=True": "downloads something",
    r"\.\./": "relative path out of the folder: it breaks when the notebook is graded elsewhere",
    r"get_ipython\(": "IPython call: the cell must also run as plain Python",
}


def lint_solution(path: Path, chapter: Chapter) -> Iterator[str]:
    """Yield what is wrong with a source notebook, one sentence each."""
    try:
        cells = read_cells(path)
    except UnreadableWork as error:
        yield str(error)
        return
    if path.read_text(encoding="utf-8") != canonical(path.read_text(encoding="utf-8")):
        yield "not in the form git keeps: run python -m gclib.grading.lint --write"
    yield from _lint_ids(cells)
    yield from _lint_header(cells, chapter)
    yield from _lint_cells(cells)
    yield from _lint_exercises(cells, chapter)
    yield from _lint_ending(cells)
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            where = cell.get("id", "a cell of text")
            yield from (f"{where}: {problem}" for problem in lint_prose(source_of(cell)))


def _lint_ids(cells: list[dict]) -> Iterator[str]:
    ids, grade_ids = set(), set()
    for number, cell in enumerate(cells, start=1):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cell.get("id", "")):
            yield f"cell {number}: no valid id"
        if cell.get("id") in ids:
            yield f"cell {number}: id {cell['id']!r} is used twice"
        ids.add(cell.get("id"))
        metadata = grade_metadata(cell)
        if not metadata:
            continue
        name = metadata.get("grade_id")
        if name in grade_ids:
            yield f"cell {number}: grade_id {name!r} is used twice"
        grade_ids.add(name)
        if cell.get("id") != name:
            yield f"cell {number}: id {cell.get('id')!r} differs from grade_id {name!r}"
        if metadata.get("schema_version") != 3:
            yield f"{name}: nbgrader's schema_version is not 3"
        points = metadata.get("points")
        if metadata.get("grade") and not (isinstance(points, (int, float)) and points > 0):
            yield f"{name}: a graded cell needs points"


def _lint_header(cells: list[dict], chapter: Chapter) -> Iterator[str]:
    header = source_of(cells[0]) if cells else ""
    if not header.startswith(f"# Chapter {chapter.number} · {chapter.title}\n"):
        yield f"the first cell must begin with '# Chapter {chapter.number} · {chapter.title}'"
    for row in ("**Time**", "**You need**", "**You will**", "**In the paper**"):
        if row not in header:
            yield f"the first cell lacks the row {row}"
    if not re.search(_MEASURED, header):
        yield "the first cell lacks 'the cells run in N s on 2 cores (measured)'"
    setup = source_of(cells[1]) if len(cells) > 1 else ""
    if not re.search(r"^course\.start\(", setup, flags=re.MULTILINE):
        yield "the second cell must call course.start"
    if len([line for line in setup.split("\n") if line.strip()]) > LONGEST_SETUP:
        yield f"the set-up cell is longer than {LONGEST_SETUP} lines"


def _lint_cells(cells: list[dict]) -> Iterator[str]:
    for number, cell in enumerate(cells, start=1):
        source, metadata = source_of(cell), grade_metadata(cell)
        name = metadata.get("grade_id") or f"cell {number}"
        tags = cell.get("metadata", {}).get("tags", [])
        if not source.strip():
            yield f"{name}: empty"
        if (BEGIN_SOLUTION in source) != bool(metadata.get("solution")):
            yield f"{name}: solution marks and nbgrader's solution flag do not agree"
        if BEGIN_HIDDEN in source and not metadata.get("grade"):
            yield f"{name}: hidden checks in a cell that is not graded"
        for begin, end in ((BEGIN_SOLUTION, END_SOLUTION), (BEGIN_HIDDEN, END_HIDDEN)):
            if source.count(begin) != source.count(end):
                yield f"{name}: '{begin}' and '{end}' do not pair"
        if cell["cell_type"] != "code":
            continue
        for pattern, reason in _FORBIDDEN.items():
            if re.search(pattern, source, flags=re.MULTILINE):
                yield f"{name}: {reason}"
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            yield f"{name}: SyntaxError in line {error.lineno}: {error.msg}"
            continue
        needs_tag = metadata or "experiment" in tags
        if needs_tag and "raises-exception" not in tags:
            yield f"{name}: lacks the tag raises-exception, so a blank notebook would stop here"
        if metadata.get("grade"):
            yield from _lint_graded(name, tree)


def _lint_graded(name: str, tree: ast.Module) -> Iterator[str]:
    """A graded cell must call a check, and end with a statement whose value is None."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and re.fullmatch(r"e\d+", node.func.attr)
    ]
    if not calls:
        yield f"{name}: a graded cell that calls no check gives points to everyone"
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr) and last.value not in calls:
        yield f"{name}: ends with a value, which nbgrader would read as partial credit"


def _lint_exercises(cells: list[dict], chapter: Chapter) -> Iterator[str]:
    by_id = {grade_metadata(cell).get("grade_id"): cell for cell in cells if grade_metadata(cell)}
    for exercise in exercises_of(chapter.checks()):
        name, number = exercise.id, exercise.id.split("-e")[1]
        if name not in by_id:
            yield f"{name}: no answer cell"
            continue
        definition = rf"^(def|class) {exercise.needs}\b"
        if not re.search(definition, source_of(by_id[name]), flags=re.MULTILINE):
            yield f"{name}: the answer cell does not define {exercise.needs}"
        kinds = ("visible", "hidden") if exercise.points != (0, 0) else ("visible",)
        for kind, points in zip(kinds, exercise.points, strict=False):
            yield from _lint_check(by_id.get(f"{name}-{kind}"), f"{name}-{kind}", points, exercise)
        headline = f"> ### Exercise {number} ·"
        boxes = [source_of(cell) for cell in cells if source_of(cell).startswith(headline)]
        worth = " + ".join(str(points) for points in exercise.points)
        worth = f"{worth} points" if sum(exercise.points) else "no points"
        for part in ("Difficulty", f"{exercise.minutes} minutes", worth):
            if not re.search(rf"(?<!\d){re.escape(part)}", "".join(boxes)):
                yield f"{name}: its box lacks '{part}'"
        below = _text_below(cells, f"{name}-visible")
        if below.count("<details>") < 3:
            yield f"{name}: fewer than three hints"
        if "**What this check proves, and what it does not.**" not in below:
            yield f"{name}: nothing on what the check proves"


def _lint_check(cell: dict | None, name: str, points: int, exercise) -> Iterator[str]:
    if cell is None:
        yield f"{name}: no such cell"
        return
    metadata = grade_metadata(cell)
    worth = metadata.get("points", 0) if metadata.get("grade") else 0
    if worth != points:
        yield f"{name}: worth {worth} points, its check says {points}"
    call = rf"^\w+\.e{exercise.id.split('-e')[1]}\({exercise.needs}\)"
    if not re.search(call, source_of(cell), flags=re.MULTILINE):
        yield f"{name}: does not check {exercise.needs}"


def _text_below(cells: list[dict], start: str) -> str:
    """The text behind a cell up to the next answer cell."""
    text, inside = [], False
    for cell in cells:
        metadata = grade_metadata(cell)
        if inside and metadata.get("solution"):
            break
        if inside:
            text.append(source_of(cell))
        inside = inside or metadata.get("grade_id") == start
    return "\n".join(text)


def _lint_ending(cells: list[dict]) -> Iterator[str]:
    text = "\n".join(source_of(cell) for cell in cells if cell["cell_type"] == "markdown")
    for part in ("## Summary", "**Further reading.**", "Reflection ("):
        if part not in text:
            yield f"lacks '{part}'"
    reflections = [
        c for c in cells if c["cell_type"] == "markdown" and grade_metadata(c).get("grade")
    ]
    for cell in reflections:
        for part in ("**Model answer.**", "**Rubric.**"):
            if part not in source_of(cell):
                yield f"{grade_metadata(cell)['grade_id']}: its solution lacks '{part}'"
    if not cells or "course.submit_check(" not in source_of(cells[-1]):
        yield "the last cell must be the self-check (course.submit_check)"


def main(argv: list[str] | None = None) -> int:
    """Check every source notebook; exit status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m gclib.grading.lint", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite into canonical form first")
    options = parser.parse_args(argv)
    root = repository()
    if root is None:
        print("no chapters/ beside gclib: run this in a checkout of the course", file=sys.stderr)
        return 2
    found = 0
    for chapter in CHAPTERS:
        path = root / "solutions" / chapter.notebook
        if options.write:
            with contextlib.suppress(UnreadableWork):  # lint_solution says so
                read_cells(path)
                path.write_text(canonical(path.read_text(encoding="utf-8")), encoding="utf-8")
        for problem in lint_solution(path, chapter):
            found += 1
            print(f"solutions/{chapter.notebook}: {problem}")
    known = {chapter.folder for chapter in CHAPTERS}
    for folder in sorted((root / "solutions").glob("*/")):
        if folder.name not in known:
            found += 1
            print(f"solutions/{folder.name}: not a chapter of gclib.chapters.CHAPTERS")
    guides = [*root.glob("README.md"), *sorted((root / "docs").glob("*.md"))]
    for path in guides:
        for problem in lint_prose(path.read_text(encoding="utf-8")):
            found += 1
            print(f"{path.relative_to(root)}: {problem}")
    print(f"{len(CHAPTERS)} notebooks and {len(guides)} guides checked, {found or 'no'} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
