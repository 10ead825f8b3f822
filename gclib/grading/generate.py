"""Generate ``chapters/`` from ``solutions/``: ``make chapters``.

nbgrader strips the solutions in a temporary folder; the result is verified there and then takes
the place of the old files, one atomic step each. When anything fails, ``chapters/`` stays as it
was. (Plain ``nbgrader generate_assignment`` deletes the chapter that it fails on.)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gclib.chapters import CHAPTERS, repository
from gclib.checks.cells import read_cells, source_of
from gclib.grading.notebooks import (
    BEGIN_HIDDEN,
    BEGIN_SOLUTION,
    END_HIDDEN,
    END_SOLUTION,
    grade_metadata,
    hidden_lines,
    solution_lines,
)


class GenerationFailed(Exception):
    """``chapters/`` was not changed; ``str()`` says why."""


def generate(root: Path, *, gradebook: str | None = None) -> list[Path]:
    """Generate all student notebooks of a checkout.

    Args:
        root: the checkout, with ``solutions/`` and ``nbgrader_config.py``.
        gradebook: URL of a gradebook in which to register the chapters, for example
            ``sqlite:////.../gradebook.db``; None leaves every gradebook alone.

    Returns:
        The files of ``chapters/`` that changed.

    Raises:
        GenerationFailed: nbgrader refused, or the result would leak a solution.
    """
    with _staged(root) as (stage, config):
        for chapter in CHAPTERS:
            _run_nbgrader(config, stage, chapter.folder, None)
        problems = list(verify(stage / "solutions", stage / "chapters"))
        if problems:
            raise GenerationFailed("; ".join(problems))
        if gradebook:  # only now: a chapter that fails leaves it as it was
            for chapter in CHAPTERS:
                _run_nbgrader(config, stage, chapter.folder, gradebook)
        return _swap(stage / "chapters", root / "chapters")


def register(root: Path, gradebook: str) -> None:
    """Register all chapters in a gradebook; ``chapters/`` stays as it is.

    Args:
        root: the checkout.
        gradebook: URL of the gradebook.

    Raises:
        GenerationFailed: nbgrader refused.
    """
    with _staged(root) as (stage, config):
        for chapter in CHAPTERS:
            _run_nbgrader(config, stage, chapter.folder, gradebook)


@contextlib.contextmanager
def _staged(root: Path) -> Iterator[tuple[Path, Any]]:
    """A temporary folder with a copy of ``solutions/``, and the settings."""
    config = load_config(root)
    for chapter in CHAPTERS:
        if not (root / "solutions" / chapter.notebook).is_file():
            raise GenerationFailed(f"solutions/{chapter.notebook} is missing")
    with tempfile.TemporaryDirectory(prefix="gclib-chapters-") as folder:
        shutil.copytree(
            root / "solutions",
            Path(folder, "solutions"),
            ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"),
        )
        yield Path(folder), config


def load_config(root: Path):
    """The settings of ``nbgrader_config.py``."""
    from traitlets.config import PyFileConfigLoader

    try:
        return PyFileConfigLoader("nbgrader_config.py", path=str(root)).load_config()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise GenerationFailed(f"nbgrader_config.py: {reason}") from None


def _run_nbgrader(settings, stage: Path, assignment: str, gradebook: str | None) -> None:
    from nbgrader.converters import GenerateAssignment
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    # nbgrader calls a bare "alembic" to make a gradebook; find the one beside this Python.
    programs = str(Path(sys.executable).parent)
    if not os.environ.get("PATH", "").startswith(programs):
        os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", "")])
    config = Config()
    config.merge(settings)
    config.CourseDirectory.root = str(stage)
    config.CourseDirectory.assignment_id = assignment
    config.GenerateAssignment.force = True
    config.SaveCells.enabled = gradebook is not None
    config.GenerateAssignment.no_database = gradebook is None
    if gradebook:
        config.CourseDirectory.db_url = gradebook
    coursedir = CourseDirectory(config=config)
    converter = GenerateAssignment(coursedir=coursedir, config=config)
    messages = Messages()
    converter.log = messages.logger
    try:
        converter.start()
    except NbGraderException:
        raise GenerationFailed(f"{assignment}: {messages.reason()}") from None


class Messages:
    """Collect nbgrader's log, which says more than its exceptions."""

    def __init__(self) -> None:
        import logging

        self.lines: list[str] = []
        self.logger = logging.Logger("gclib.generate")  # of its own: no global handlers
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: self.lines.append(record.getMessage())
        self.logger.addHandler(handler)

    def reason(self) -> str:
        """The error of the first traceback, or the first message, on one line."""
        for text in self.lines:
            if "Traceback" in text:
                found = re.findall(r"^[A-Za-z_][\w.]*: .*", text, flags=re.MULTILINE)
                return found[-1] if found else text.strip().split("\n")[-1]
        text = self.lines[0] if self.lines else "nbgrader failed without a message"
        return " ".join(text.split())


def verify(solutions: Path, chapters: Path) -> Iterator[str]:
    """Yield every leak: marks, outputs, lines of a solution or of a hidden check."""
    for chapter in CHAPTERS:
        source_path, path = solutions / chapter.notebook, chapters / chapter.notebook
        if not path.is_file():
            yield f"{chapter.notebook}: was not generated"
            continue
        source, student = read_cells(source_path), read_cells(path)
        text = path.read_text(encoding="utf-8")
        for mark in (BEGIN_SOLUTION, END_SOLUTION, BEGIN_HIDDEN, END_HIDDEN):
            if mark in text:
                yield f"{chapter.notebook}: contains '{mark}'"
        if any(cell.get("outputs") for cell in student):
            yield f"{chapter.notebook}: contains outputs"
        for line in _leaks(source, student):
            yield f"{chapter.notebook}: leaks the line '{line}'"
        graded = [grade_metadata(c).get("grade_id") for c in source if grade_metadata(c)]
        if graded != [grade_metadata(c).get("grade_id") for c in student if grade_metadata(c)]:
            yield f"{chapter.notebook}: its graded cells differ from those of the solution"


def _leaks(source: list[dict], student: list[dict]) -> Iterator[str]:
    """Lines that stand only inside of solutions or hidden checks, and in the student's text."""
    secret: set[str] = set()
    public: set[str] = set()
    for cell in source:
        text = source_of(cell)
        inside = [*solution_lines(text), *hidden_lines(text)]
        secret.update(inside)
        remaining = [line.strip() for line in text.split("\n")]
        for line in inside:
            remaining.remove(line)
        if cell["cell_type"] == "code":
            public.update(remaining)
    seen = {line.strip() for cell in student for line in source_of(cell).split("\n")}
    yield from sorted((secret - public) & seen)


def _swap(new: Path, target: Path) -> list[Path]:
    """Replace the files of ``target`` by those of ``new``, each in one atomic step."""
    changed = []
    for path in sorted(new.rglob("*.ipynb")):
        destination = target / path.relative_to(new)
        content = _sorted_text(path)
        partial = destination.with_name(f".{destination.name}.partial")
        partial.unlink(missing_ok=True)  # of an interrupted run
        if destination.is_file() and destination.read_text(encoding="utf-8") == content:
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, destination)
        changed.append(destination)
    for path in sorted(target.glob("[0-9][0-9]_*/*.ipynb")):
        is_chapter = path.parent.name[3:] == path.stem
        if is_chapter and not (new / path.relative_to(target)).is_file():
            path.unlink()
            changed.append(path)
            with contextlib.suppress(OSError):  # somebody's file is still in there
                path.parent.rmdir()
    return changed


def _sorted_text(path: Path) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Generate, and register in the gradebook of this folder unless told not to."""
    parser = argparse.ArgumentParser(prog="python -m gclib.grading.generate", description=__doc__)
    parser.add_argument("--no-gradebook", action="store_true", help="leave gradebook.db alone")
    options = parser.parse_args(argv)
    root = repository()
    if root is None:
        print("no chapters/ beside gclib: run this in a checkout of the course", file=sys.stderr)
        return 2
    gradebook = None if options.no_gradebook else f"sqlite:///{root / 'gradebook.db'}"
    try:
        changed = generate(root, gradebook=gradebook)
    except GenerationFailed as error:
        print(f"chapters/ is unchanged: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        reason = f"{error.strerror or error}: every file is whole, old or new; run this again"
        print(f"chapters/ is not complete: {reason}", file=sys.stderr)
        return 1
    for path in changed:
        print(f"wrote {path.relative_to(root)}")
    print(f"{len(CHAPTERS)} chapters are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
