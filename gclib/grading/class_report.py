"""The report on a class: ``DIR/reports/NN_topic.html``, for the instructor alone.

It names students, because somebody has to act on it: flags, who could not be graded, answers that
are alike. It holds nothing that is not elsewhere in ``DIR``, and is made anew by each ``gclib
grade``; after a student was removed, :func:`write_report` makes it without them.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclib import __version__
from gclib.chapters import Chapter, repository
from gclib.checks.cells import UnreadableWork, parse_cell, read_cells, source_of
from gclib.grading.classroom import Course
from gclib.grading.feedback import Grades, Layout, Part, read_check, read_grades
from gclib.grading.notebooks import grade_metadata
from gclib.grading.verdicts import Judgement, Verdict, read_judgement

if TYPE_CHECKING:
    from gclib.grading.driver import Result

STATES = ("passed", "failed", "not attempted")
MOST_REASONS = 8
SMALLEST_ALIKE = 60  # nodes of the syntax tree; shorter answers are alike by themselves
ENOUGH_TO_CORRELATE = 10


def write_report(course: Course, chapter: Chapter, results: Sequence[Result] | None = None) -> Path:
    """Write the report on a chapter.

    Args:
        course: the class.
        chapter: the chapter.
        results: of the run of ``gclib grade`` that has just ended, for problems that are not kept
            with the judgements.

    Returns:
        Where it is.

    Raises:
        CourseError: the gradebook or the chapter cannot be read.
    """
    from gclib.grading.pages import markup

    layout = Layout(chapter)
    students = course.students(chapter)
    found = {student: read_judgement(course.verdicts(student, chapter)) for student in students}
    judged = {s: j for s, j in found.items() if j is not None and not j.problem}
    grades = read_grades(course, chapter)
    problems = {s: j.problem for s, j in found.items() if j is not None and j.problem}
    problems |= {result.student: result.problem for result in results or () if result.problem}
    missing = [s for s in students if s not in judged and s not in problems]
    problems |= dict.fromkeys(missing, "not judged yet: run gclib grade")
    points = _points(layout, judged, grades, problems)
    scores = {student: sum(cells.values()) for student, cells in points.items()}
    for student in scores:
        scores[student] = max(0.0, scores[student] - grades.get(student, Grades()).penalty)
    rows = [_row(part, layout, judged, points) for part in layout.parts if part.checks]
    given, known = _answers(course, chapter, judged)
    waiting = {s: len(grades[s].waiting) for s in points if s in grades and grades[s].waiting}
    page = markup.template("report.html.j2").render(
        chapter=chapter,
        version=__version__,
        handed_in=len(students),
        graded=len(points),
        problems=sorted(problems.items()),
        waiting=sorted(waiting.items()),
        summary=_summary(scores),
        most=sum(layout.worth.values()),
        histogram=_histogram(scores, sum(layout.worth.values())) if scores else None,
        rows=rows,
        bars=_bars(rows) if judged else None,
        reasons=[(part, _reasons(part, judged)) for part in layout.parts if part.checks],
        times=_times(judged),
        flags=[(s, flag) for s, j in sorted(judged.items()) for flag in j.flags],
        mended=[(s, j.notes) for s, j in sorted(found.items()) if j is not None and j.notes],
        same_files=_same_files(judged),
        alike=_alike(layout, given, known),
        smallest=SMALLEST_ALIKE,
    )
    path = course.folder / "reports" / f"{chapter.folder}.html"
    course.replace_file(path, page.encode("utf-8", errors="replace"))
    return path


def _points(
    layout: Layout,
    judged: dict[str, Judgement],
    grades: dict[str, Grades],
    problems: dict[str, str],
) -> dict[str, dict[str, float]]:
    """Points by cell of everybody who was graded; the gradebook's, where it has them."""
    found = {}
    for student, judgement in judged.items():
        if student not in problems:
            saved = grades.get(student)
            found[student] = saved.points if saved else judgement.points(layout.worth)
    return found


def _summary(scores: dict[str, float]) -> dict[str, float]:
    values = sorted(scores.values())
    if not values:
        return {}
    quarters = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "lower quarter": quarters[0],
        "upper quarter": quarters[2],
        "lowest": values[0],
        "highest": values[-1],
    }


@dataclass
class Row:
    """How the class did on one exercise.

    Attributes:
        part: the exercise.
        counts: for ``"visible"`` and ``"hidden"``, how many passed, failed, did not attempt.
        discrimination: correlation of its points with those of all other cells, or None.
    """

    part: Part
    counts: dict[str, dict[str, int]]
    discrimination: float | None


def _row(
    part: Part, layout: Layout, judged: dict[str, Judgement], points: dict[str, dict[str, float]]
) -> Row:
    counts: dict[str, dict[str, int]] = {}
    for cell in part.checks:
        kind = "hidden" if cell.endswith("-hidden") else "visible"
        found = Counter(v.verdict for j in judged.values() for v in j.verdicts if v.cell == cell)
        if found:
            counts[kind] = {state: found[state] for state in STATES}
    return Row(part, counts, _discrimination([*part.checks, part.id], layout, points))


def _discrimination(
    cells: list[str], layout: Layout, points: dict[str, dict[str, float]]
) -> float | None:
    if len(points) < ENOUGH_TO_CORRELATE or not any(layout.worth.get(cell) for cell in cells):
        return None
    here = [sum(given.get(cell, 0.0) for cell in cells) for given in points.values()]
    rest = [sum(given.values()) - own for given, own in zip(points.values(), here, strict=True)]
    try:
        return statistics.correlation(here, rest)
    except statistics.StatisticsError:  # everybody has the same points
        return None


def _reasons(part: Part, judged: dict[str, Judgement]) -> tuple[list[tuple[str, int, str]], int]:
    """The most frequent reasons of failure with the number of students, and how many are left."""
    found: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, set[str]] = defaultdict(set)
    for student, judgement in judged.items():
        for verdict in judgement.verdicts:
            if verdict.cell in part.checks and verdict.verdict == "failed":
                reason = verdict.cause or _headline(verdict)
                found[reason].add(student)
                kinds[reason].add(verdict.cell.rpartition("-")[2])
    counted = sorted(
        ((r, len(s), ", ".join(sorted(kinds[r], reverse=True))) for r, s in found.items()),
        key=lambda row: (-row[1], row[0]),
    )
    return counted[:MOST_REASONS], len(counted) - MOST_REASONS


def _headline(verdict: Verdict) -> str:
    """The property that does not hold, or the kind of error that was raised."""
    check = read_check(verdict)
    error = next((t.split("\n")[0].split(":")[0] for n, t in check.rows if n == "got"), "")
    return f"raises {error}" if check.headline == "runs without an error" else check.headline


def _times(judged: dict[str, Judgement]) -> dict[str, Any]:
    whole = sorted(judgement.seconds for judgement in judged.values())
    if not whole:
        return {}
    cells: dict[str, list[float]] = defaultdict(list)
    for judgement in judged.values():
        for verdict in judgement.verdicts:
            cells[verdict.cell].append(verdict.seconds)
    return {
        "median": statistics.median(whole),
        "longest": whole[-1],
        "sum": sum(whole),
        "cells": [(cell, statistics.median(s), max(s)) for cell, s in sorted(cells.items())],
    }


# Answers that are alike


def _answers(
    course: Course, chapter: Chapter, judged: dict[str, Judgement]
) -> tuple[dict[str, dict[str, str]], dict[str, set[str]]]:
    """Answers by part and student; and by part, the forms of the stub and of the solution."""
    given: dict[str, dict[str, str]] = defaultdict(dict)
    for student in judged:
        for name, source in _sources(course.graded(student, chapter)).items():
            given[name][student] = source
    known: dict[str, set[str]] = defaultdict(set)
    root = repository()
    ours = [root / "solutions" / chapter.notebook, root / "chapters" / chapter.notebook]
    for path in ours:
        for name, source in _sources(path).items():
            known[name].add(normal_form(source)[0])
    return given, known


def _sources(path: Path) -> dict[str, str]:
    try:
        cells = read_cells(path)
    except UnreadableWork:
        return {}
    return {
        grade_metadata(cell)["grade_id"]: source_of(cell)
        for cell in cells
        if cell.get("cell_type") == "code" and grade_metadata(cell).get("solution")
    }


def _alike(
    layout: Layout, given: dict[str, dict[str, str]], known: dict[str, set[str]]
) -> list[dict[str, Any]]:
    """Groups of students with the same answer, the longest answers first.

    One pass over the answers, whatever their number: equal forms meet in a dictionary.
    """
    found = []
    for part in layout.parts:
        groups: dict[str, list[str]] = defaultdict(list)
        sizes: dict[str, int] = {}
        for student, source in sorted(given.get(part.id, {}).items()):
            form, size = normal_form(source)
            if size >= SMALLEST_ALIKE and form not in known[part.id]:
                groups[form].append(student)
                sizes[form] = size
        for form, students in groups.items():
            if len(students) > 1:
                texts = {given[part.id][student].strip() for student in students}
                found.append(
                    {
                        "part": part,
                        "students": students,
                        "size": sizes[form],
                        "letters": len(texts) == 1,
                        "of": len(given[part.id]),
                    }
                )
    return sorted(found, key=lambda group: (len(group["students"]) > 5, -group["size"]))


def normal_form(source: str) -> tuple[str, int]:
    """What is left of code without comments, docstrings and the names it gives; and its size.

    Args:
        source: of a cell.

    Returns:
        A hash that is the same for the same program in other words, and the number of nodes of its
        syntax tree; "" and 0 where it is no Python.
    """
    try:
        tree = parse_cell(source)
    except (SyntaxError, RecursionError, MemoryError):
        return "", 0
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    # Lambdas and comprehensions bind names as arguments and targets, like everything else.
    own = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    names: dict[str, str] = {}
    size = 0
    for node in ast.walk(tree):
        size += 1
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and node.id in own):
            field = "arg" if isinstance(node, ast.arg) else "id"
            name = getattr(node, field)
            setattr(node, field, names.setdefault(name, f"v{len(names)}"))
    try:
        text = ast.dump(tree)
    except RecursionError:
        return "", 0
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(), size


def _same_files(judged: dict[str, Judgement]) -> list[list[str]]:
    """Students who handed in the same file, byte by byte; not those who did nothing."""
    groups: dict[str, list[str]] = defaultdict(list)
    for student, judgement in sorted(judged.items()):
        if any(verdict.verdict != "not attempted" for verdict in judgement.verdicts):
            groups[judgement.submission].append(student)
    return [students for students in groups.values() if len(students) > 1]


# Figures


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _picture(figure: Any, alt: str) -> dict[str, str]:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    width = str(round(figure.get_figwidth() * 96))
    return {"alt": alt, "data": base64.b64encode(png.getvalue()).decode(), "width": width}


def _histogram(scores: dict[str, float], most: float) -> dict[str, Any]:
    """How many students have how many points, as a picture and as numbers."""
    from gclib.analysis.figures import COLOURS

    top = max(most, *scores.values(), 1.0)
    step = max(1, round(top / 20))
    edges = [i * step for i in range(int(top // step) + 2)]
    counts = [sum(low <= s < high for s in scores.values()) for low, high in pairwise(edges)]
    figure = _figure(7.6, 2.9)
    axis = figure.subplots()
    axis.bar(
        edges[:-1],
        counts,
        width=step * 0.9,
        align="edge" if step > 1 else "center",
        color=COLOURS[0],
    )
    axis.axvline(
        statistics.median(scores.values()), color=COLOURS[1], linestyle="--", label="median"
    )
    axis.set_xlabel("points")
    axis.set_ylabel("students")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    named = [
        (f"{low:g}" if step == 1 else f"{low:g} to under {low + step:g}", count)
        for low, count in zip(edges, counts, strict=False)
        if count
    ]
    alt = "Number of students by points: " + ", ".join(f"{n} with {p}" for p, n in named)
    return _picture(figure, alt) | {"table": named}


def _bars(rows: list[Row]) -> dict[str, str]:
    """Passed, failed and not attempted for each check, as stacked bars."""
    from gclib.analysis.figures import COLOURS

    bars = [
        (f"{row.part.title.split(' · ')[0]} {kind}", counts)
        for row in rows
        for kind, counts in row.counts.items()
    ]
    figure = _figure(7.6, 0.6 + 0.27 * len(bars))
    axis = figure.subplots()
    left = [0] * len(bars)
    colours = dict(zip(STATES, (COLOURS[2], COLOURS[1], "#c9ced3"), strict=True))
    hatches = dict(zip(STATES, ("", "///", ""), strict=True))
    for state in STATES:
        values = [counts[state] for _, counts in bars]
        axis.barh(
            range(len(bars)), values, left=left, color=colours[state], hatch=hatches[state],
            edgecolor="white", label=state,
        )  # fmt: skip
        left = [a + b for a, b in zip(left, values, strict=True)]
    axis.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("students")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    return _picture(figure, "Verdicts of each check; the table below has the same numbers")
