"""Read a student's definitions from a notebook or a module, and run the visible checks on them.

This runs the student's code in this process, without a sandbox: it is for one's own work.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import linecache
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from gclib.checks.cards import collected as collected_cards
from gclib.checks.cards import show_failed, show_not_attempted
from gclib.checks.cells import UnreadableWork, parse_cell, read_cells, source_of
from gclib.checks.exercise import Exercise, exercises_of
from gclib.checks.outcome import CheckFailed, NotAttempted


@dataclass
class Work:
    """A student's definitions.

    Attributes:
        origin: where they come from, as shown to the student.
        definitions: functions and classes by name.
        problems: for a ``grade_id`` or a cell's number, why the cell could not be read.
        names: for a name, the cell that tried to define it.
    """

    origin: str
    definitions: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a check said of one exercise.

    Attributes:
        exercise: the check.
        verdict: ``"passed"``, ``"failed"`` or ``"not attempted"``.
        message: the reason, in lines.
        printed: the ``ok`` lines.
        card: what a notebook shows below them, by MIME type.
        cause: the likely cause of a failure, or "".
    """

    exercise: Exercise
    verdict: str
    message: str
    printed: str = ""
    card: dict[str, str] = field(default_factory=dict)
    cause: str = ""


def load_notebook(path: Path) -> Work:
    """Collect imports, functions and classes from the code cells, without running the rest.

    Assignments are kept where the answer stands, elsewhere only those of plain values. A cell that
    does not parse, or a definition that raises, becomes a problem of that cell; the others count.

    Raises:
        UnreadableWork: the file is missing or not a notebook.
    """
    return load_cells(code_cells(path), path.name)


def load_cells(cells: Iterable[tuple[str, bool, str]], origin: str) -> Work:
    """:func:`load_notebook` for cells that were read before.

    Args:
        cells: label, whether it is an answer cell, and source of each code cell.
        origin: where they come from, as shown to the student.
    """
    work = Work(origin=origin)
    # What functions see as their globals; it keeps __builtins__, which torch looks for in there.
    namespace: dict[str, Any] = {}
    for label, is_answer, source in cells:
        filename = f"<{label}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        try:
            tree = parse_cell(source, filename)
        except SyntaxError as error:
            where = f"line {error.lineno}: {(error.text or '').strip()}"
            work.problems[label] = f"SyntaxError: {error.msg} in {where}"
            continue
        for statement in tree.body:
            for name in _defined_names(statement):
                work.names[name] = label
            if not _is_definition(statement, is_answer):
                continue
            try:
                module = ast.Module([statement], type_ignores=[])
                code = compile(module, filename, "exec", dont_inherit=True)
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(code, namespace)
            except (Exception, SystemExit) as error:
                work.problems[label] = f"{type(error).__name__}: {error}"
    work.definitions = {k: v for k, v in namespace.items() if k != "__builtins__"}
    return work


def load_module(name: str) -> Work:
    """Import a module by dotted name or by the path of a ``.py`` file.

    Raises:
        UnreadableWork: it cannot be found or raises on import.
    """
    try:
        if name.endswith(".py"):
            path = Path(name)
            if not path.is_file():
                raise UnreadableWork(f"{name}: no such file")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module  # dataclasses look there
            sys.path.insert(0, str(path.parent))
            try:
                spec.loader.exec_module(module)
            finally:
                sys.path.remove(str(path.parent))
        else:
            sys.path.insert(0, str(Path.cwd()))
            try:
                module = importlib.import_module(name)
            finally:
                sys.path.pop(0)
    except UnreadableWork:
        raise
    except (Exception, SystemExit) as error:
        raise UnreadableWork(f"cannot import {name}: {type(error).__name__}: {error}") from None
    return Work(origin=name, definitions=dict(vars(module)))


def check_work(work: Work, checks: ModuleType, seed: int = 0) -> Iterator[Outcome]:
    """Run the checks of a chapter on a student's definitions, one outcome per exercise."""
    for exercise in exercises_of(checks):
        yield check_one(work, exercise, seed)


def check_one(work: Work, exercise: Exercise, seed: int = 0) -> Outcome:
    """Run one check; what it prints is kept, what it raises becomes the outcome."""
    printed = io.StringIO()
    kind = "hidden" if exercise.hidden else "visible"
    verdict, message, cause = "passed", f"{exercise.id}: all {kind} checks passed", ""
    with contextlib.redirect_stdout(printed), collected_cards() as shown:
        try:
            _find_and_check(work, exercise, seed)
        except NotAttempted as error:
            verdict, message = "not attempted", str(error)
            if exercise.needs not in work.definitions:
                message = f"{exercise.id}: {work.origin} does not define {exercise.needs}"
        except CheckFailed as error:
            verdict, message, cause = "failed", str(error), error.cause
    card = shown[-1] if shown else {}
    return Outcome(exercise, verdict, message, printed.getvalue(), card, cause)


def _find_and_check(work: Work, exercise: Exercise, seed: int) -> None:
    implementation = work.definitions.get(exercise.needs)
    if implementation is not None:
        exercise(implementation, seed)
        return
    label = work.names.get(exercise.needs, exercise.id)
    if label in work.problems:
        raise refuse(exercise, work.problems[label])
    error = NotAttempted(exercise.id, exercise.needs)
    show_not_attempted(error)
    raise error


def refuse(exercise: Exercise, problem: str) -> CheckFailed:
    """Show and return the failure of an exercise whose cell cannot be read."""
    failed = CheckFailed(
        exercise.id,
        "the cell can be run",
        expected=f"a definition of {exercise.needs}",
        got=problem,
        cause="run the cell by itself: what does it say?",
        look=exercise.look,
    )
    show_failed(failed)
    return failed


def code_cells(path: Path) -> Iterator[tuple[str, bool, str]]:
    """Label, whether it is an answer cell, and source of each code cell of a notebook.

    Raises:
        UnreadableWork: the file is missing or not a notebook.
    """
    for number, cell in enumerate(read_cells(path), start=1):
        if cell.get("cell_type") == "code":
            nbgrader = cell.get("metadata", {}).get("nbgrader", {})
            label = nbgrader.get("grade_id") or f"cell {number}"
            yield label, bool(nbgrader.get("solution")), source_of(cell)


def _defined_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    return []


def _calls(value: ast.AST | None) -> bool:
    """Whether evaluating this calls anything; the body of a lambda is not evaluated."""
    if value is None or isinstance(value, ast.Lambda):
        return False
    return isinstance(value, ast.Call) or any(map(_calls, ast.iter_child_nodes(value)))


def _is_definition(statement: ast.stmt, is_answer: bool) -> bool:
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(statement, kept):
        return True
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        return is_answer or not _calls(statement.value)
    return is_answer and isinstance(statement, (ast.If, ast.Try, ast.With))
