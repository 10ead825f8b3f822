"""Executed notebooks: made two at a time, and kept until their sources change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gclib.chapters import Chapter

Progress = Callable[[str], None]
USUAL_SECONDS = 40.0  # of a chapter that was never timed, with two at a time


class ExecutionFailed(Exception):
    """A notebook does not run to its end; ``str()`` says where."""


def sources(root: Path) -> Iterator[Path]:
    """The files that outputs depend on: gclib without the book itself, and its data."""
    for folder in ("gclib", "data"):
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            skipped = "__pycache__" in relative.parts or relative.parts[1] == "book"
            if path.is_file() and not skipped:
                yield path


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Hash of names and contents."""
    found = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.update(f"{path.relative_to(root).as_posix()}\0{content}\0".encode())
    return found.hexdigest()


def versions() -> str:
    """Versions that outputs depend on."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "numpy", "matplotlib")
    return " ".join([sys.version.split()[0], *(version(name) for name in names)])


class Outputs:
    """The executed notebooks in a folder, one for each chapter.

    Args:
        root: of the repository.
        folder: where they are kept.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self._sources = ""

    def _key(self, chapter: Chapter) -> str:
        self._sources = self._sources or fingerprint(sources(self.root), self.root) + versions()
        notebook = (self.root / "solutions" / chapter.notebook).read_bytes()
        return hashlib.sha256(notebook + self._sources.encode()).hexdigest()[:20]

    def path(self, chapter: Chapter) -> Path:
        """Where the outputs that fit the sources are, or will be."""
        return self.folder / f"{chapter.number}-{self._key(chapter)}.ipynb"

    def kept(self, chapter: Chapter) -> Path | None:
        """The newest outputs, whatever changed since."""
        found = list(self.folder.glob(f"{chapter.number}-*.ipynb"))
        return max(found, key=lambda path: path.stat().st_mtime) if found else None

    def make(self, chapters: Sequence[Chapter], jobs: int, progress: Progress) -> dict[str, Path]:
        """Execute what is not up to date.

        Args:
            chapters: to have.
            jobs: how many at a time.
            progress: takes a line.

        Returns:
            Number of the chapter → executed notebook.

        Raises:
            ExecutionFailed: a notebook does not run to its end.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {chapter.number: self.path(chapter) for chapter in chapters}
        waiting = [chapter for chapter in chapters if not found[chapter.number].is_file()]
        if len(waiting) < len(chapters):
            progress(f"{len(chapters) - len(waiting)} chapters are as they were")
        if waiting:
            self._run(waiting, found, jobs, progress)
        for chapter in chapters:
            for path in self.folder.glob(f"{chapter.number}-*.ipynb"):
                if path != found[chapter.number]:
                    path.unlink()
        return found

    def _run(
        self, chapters: list[Chapter], found: dict[str, Path], jobs: int, progress: Progress
    ) -> None:
        times = self._times()
        left = sorted(chapters, key=lambda one: -times.get(one.number, USUAL_SECONDS))
        progress(f"Executing {len(left)} chapters, {min(jobs, len(left))} at a time")
        running: dict[str, _Process] = {}
        threads = max(1, (os.cpu_count() or 1) // jobs)
        done = 0
        try:
            while left or running:
                while left and len(running) < jobs:
                    chapter = left.pop(0)
                    running[chapter.number] = _Process(
                        self.root / "solutions" / chapter.notebook, found[chapter.number], threads
                    )
                time.sleep(0.1)
                for number, process in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[number]
                    said = process.said()
                    name = next(one.folder for one in chapters if one.number == number)
                    if said:
                        raise ExecutionFailed(f"chapter {name}: {said}")
                    done += 1
                    times[number] = round(process.seconds, 1)
                    seconds = sum(times.get(one.number, USUAL_SECONDS) for one in left)
                    for other, one in running.items():
                        seconds += max(0.0, times.get(other, USUAL_SECONDS) - one.seconds)
                    rest = f", about {seconds / jobs:.0f} s left" if left or running else ""
                    took = f"{process.seconds:.0f} s"
                    progress(f"  {name}: {took} ({done} of {len(chapters)}{rest})")
        finally:
            for process in running.values():
                process.stop()
            with contextlib.suppress(OSError):
                (self.folder / "seconds.json").write_text(json.dumps(times), encoding="utf-8")

    def _times(self) -> dict[str, float]:
        try:
            return json.loads((self.folder / "seconds.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}


def environment() -> dict[str, str]:
    """For processes of this gclib, wherever it lies."""
    here = str(Path(__file__).parents[2])
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([here, before] if before else [here])}


class _Process:
    """A notebook that is being executed."""

    def __init__(self, notebook: Path, result: Path, threads: int) -> None:
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._begin = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gclib.book.executing", str(notebook), str(result)],
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=environment() | {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "agg"},
            start_new_session=True,  # Ctrl-C reaches us, and we stop it
        )

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begin

    def said(self) -> str:
        """What failed; ``""`` if nothing did."""
        if self._process.returncode == 0:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        return lines[-1] if lines else f"its process ended with status {self._process.returncode}"

    def stop(self) -> None:
        """End it together with its kernel."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
