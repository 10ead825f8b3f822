"""What a training says while it runs: lines on the terminal, log.jsonl, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

LOG = "log.jsonl"
LINE_SECONDS = 10.0  # between two lines on the terminal


def duration(seconds: float) -> str:
    """For a person: ``"42 s"``, ``"3 min"``, ``"2 h 05 min"``, ``"3 d 4 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def memory_mib(device: torch.device) -> float:
    """Largest memory so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10


class Log:
    """Writes ``log.jsonl``, and TensorBoard's files where it is installed.

    Args:
        folder: of the run.
        step: update from which the run goes on: what was logged behind it is taken out, since it
            comes again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG
        self.full = False
        if self.path.is_file():
            self._cut(step)
        self.board = None
        with contextlib.suppress(Exception):  # not installed, or not with this protobuf
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def _cut(self, step: int) -> None:
        # An evaluation of this very update is made again: the checkpoint stands before it.
        kept = [
            line
            for line in read_log(self.path)
            if line["step"] < step or (line["step"] == step and line["event"] != "evaluation")
        ]
        temporary = self.path.with_suffix(".partial")
        temporary.write_text("".join(_as_line(line) for line in kept), encoding="utf-8")
        os.replace(temporary, self.path)

    def write(self, step: int, event: str, values: Mapping[str, Any]) -> None:
        """Add a line; a full disk costs lines, never the run."""
        line = {"step": step, "event": event, **values}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_as_line(line))
        except OSError as error:
            if not self.full:
                print(f"{self.path} cannot be written ({error.strerror}): going on without it")
            self.full = True
        try:
            for name, value in values.items() if self.board else ():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self.board.add_scalar(f"{event}/{name}", value, step)
        except OSError:  # raised by the thread that writes: mostly, the disk is full
            self.board = None

    def close(self) -> None:
        """Flush what is left."""
        with contextlib.suppress(OSError):
            if self.board:
                self.board.close()


def _as_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a killed process left half-written is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


class Meter:
    """Speed since the last look: examples, seconds, seconds of waiting for data."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.start, self.examples, self.waited, self.steps = time.perf_counter(), 0, 0.0, 0

    def add(self, examples: int, waited: float) -> None:
        """Count an update."""
        self.examples += examples
        self.waited += waited
        self.steps += 1

    def look(self) -> dict[str, float]:
        """Examples per second, share of the time that waited for data, seconds of an update."""
        seconds = max(1e-9, time.perf_counter() - self.start)
        return {
            "examples_per_s": self.examples / seconds,
            "waiting": self.waited / seconds,
            "seconds_per_step": seconds / max(1, self.steps),
        }
