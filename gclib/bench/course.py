"""``gclib bench course``: what a student waits for, in time and memory, of whole processes."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gclib.bench.measure import OtherLoad, median_interval, time_rounds
from gclib.chapters import CHAPTERS, repository

PARTS = ("commands", "notebooks", "tests")
_EXECUTE = "from nbclient.cli import main; main()"  # jupyter execute, in this environment
SECONDS = {"commands": 5.0, "notebooks": 60.0, "tests": 600.0}  # what they may take


@dataclass(frozen=True)
class Task:
    """A process to measure.

    Attributes:
        name: as one would type it.
        part: one of ``PARTS``.
        command: its arguments.
        folder: where it runs.
    """

    name: str
    part: str
    command: tuple[str, ...]
    folder: Path


def tasks(parts: tuple[str, ...], root: Path, scratch: Path) -> Iterator[Task]:
    """What is measured.

    Args:
        parts: some of ``PARTS``.
        root: the checkout.
        scratch: an empty folder; ``gclib start`` and the notebooks write there only.
    """
    python = sys.executable
    if "commands" in parts:
        copy = scratch / "start"
        for folder in ("gclib", "chapters"):
            shutil.copytree(
                root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
        for module in ("torch", "gclib", "gclib.blocks"):
            yield Task(f"import {module}", "commands", (python, "-c", f"import {module}"), root)
        start = (python, "-m", "gclib.cli", "start", "--again", "01")
        yield Task("gclib start 01", "commands", start, copy)
        for chapter in CHAPTERS:
            solved = str(root / "solutions" / chapter.notebook)
            check = (python, "-m", "gclib.cli", "check", chapter.number, "--notebook", solved)
            yield Task(f"gclib check {chapter.number}", "commands", check, root)
    if "notebooks" in parts:
        for chapter in CHAPTERS:
            path = scratch / "notebooks" / chapter.notebook
            path.parent.mkdir(parents=True)
            shutil.copy(root / "solutions" / chapter.notebook, path)
            execute = (python, "-c", _EXECUTE, "--timeout=600", path.name)
            yield Task(f"solutions/{chapter.notebook}", "notebooks", execute, path.parent)
    if "tests" in parts:
        yield Task("pytest tests/", "tests", (python, "-m", "pytest", "-q", "tests/"), root)


def run(
    parts: tuple[str, ...] = PARTS, rounds: int = 5, *, root: Path | None = None
) -> list[dict[str, Any]]:
    """Seconds and peak memory of every task; those of a part take turns in random order.

    Commands run ``rounds`` times after one that warms the disk's cache, notebooks a third as
    often (at least once), the tests once.

    Returns:
        One record for each task with ``median``, ``low`` and ``high`` in seconds and ``peak``,
        the largest resident memory of one of its processes in bytes (None on Windows).

    Raises:
        RuntimeError: a task failed; the message ends with its last lines. Or gclib was installed
            without the course.
    """
    root = root or repository()
    if root is None:
        raise RuntimeError("the course is not here: clone it and run this command in its folder")
    records = []
    with tempfile.TemporaryDirectory() as folder:
        found = list(tasks(parts, root, Path(folder)))
        for part, count in zip(PARTS, (rounds, max(1, rounds // 3), 1), strict=True):
            of_part = [task for task in found if task.part == part]
            if not of_part:
                continue
            print(f"{part}: {len(of_part)}, {count} rounds", file=sys.stderr, flush=True)
            peaks: dict[str, list[int]] = {task.name: [] for task in of_part}
            calls = {task.name: _caller(task, peaks[task.name], Path(folder)) for task in of_part}
            seconds = time_rounds(calls, count, others=OtherLoad(), warm_up=part == "commands")
            for name, values in seconds.items():
                low, high = median_interval(values)
                records.append(
                    {
                        "task": name,
                        "part": part,
                        "median": statistics.median(values),
                        "low": low,
                        "high": high,
                        "peak": max(peaks[name]) if peaks[name] else None,
                        "rounds": len(values),
                    }
                )
    return records


# A process of its own, because Linux counts the memory of the parent as the child's until exec.
_LAUNCH = """
import subprocess, sys
status = subprocess.call(sys.argv[2:], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    open(sys.argv[1], "w").write(str(unit * peak))
except ImportError:  # Windows
    pass
sys.exit(status != 0)
"""


def _caller(task: Task, peaks: list[int], scratch: Path) -> Callable[[], None]:
    peak = scratch / "peak"
    launch = (sys.executable, "-I", "-S", "-c", _LAUNCH, str(peak))

    def call() -> None:
        done = subprocess.run(launch + task.command, cwd=task.folder, stdout=subprocess.PIPE)
        if done.returncode:
            last = done.stdout.decode(errors="replace").strip().split("\n")[-5:]
            raise RuntimeError(f"{task.name} failed:\n" + "\n".join(last))
        if peak.is_file():
            peaks.append(int(peak.read_text()))

    return call
