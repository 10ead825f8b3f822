"""A sandbox as the grader sees it: started once, then one fresh process for each student."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gclib.checks.handle import StudentError
from gclib.checks.work import Work
from gclib.grading.sandbox import wire
from gclib.grading.sandbox.bubblewrap import (
    NoSandbox,
    bubblewrap,
    check_bubblewrap,
    environment,
)
from gclib.grading.sandbox.containers import SOCKET, Container, check_container
from gclib.grading.sandbox.remote import answer_of, page_of, work_of

__all__ = [
    "Limits",
    "NoSandbox",
    "Sandbox",
    "SandboxDied",
    "Student",
    "check_bubblewrap",
    "check_sandbox",
]


class SandboxDied(Exception):
    """The sandbox itself has gone, which is the student's code's doing."""


@dataclass(frozen=True)
class Limits:
    """What a student's code may use.

    Attributes:
        memory: bytes on top of what Python and torch have, of all its processes together.
        call_seconds: wall-clock time of one call.
        seconds: processor time of a process, and wall-clock time of all its calls.
        processes: how many there may be at a time.
    """

    memory: int = 2 * 2**30
    call_seconds: float = 20.0
    seconds: float = 120.0
    processes: int = 64


def check_sandbox(kind: str = "bubblewrap", image: str = "") -> None:
    """See that code can be run safely here.

    Args:
        kind: ``"bubblewrap"``, ``"docker"`` or ``"podman"``.
        image: of a container.

    Raises:
        NoSandbox: it cannot; the message says why and what to do.
    """
    if kind == "bubblewrap":
        check_bubblewrap()
    else:
        check_container(kind, image)


class Sandbox:
    """A process in a sandbox that has imported torch, and a child of it for each student.

    Use it as a context manager, from one thread that lives as long: bubblewrap ends with the thread
    that started it. When a student's code breaks it, the next student gets a new one.

    Args:
        visible: the folder that holds the ``gclib`` which students' code may see.
        limits: what one student may use.
        unsafe: do without a sandbox. The code then runs as you, in a process of its own that sees
            your files: for code you trust. Limits and the filter of system calls hold there too.
        kind: ``"bubblewrap"``, ``"docker"`` or ``"podman"``.
        image: of a container; it has Python, and torch of the grader's version.
        hidden: folders that bubblewrap must not show, like the class's; a container shows none.

    Raises:
        NoSandbox: the program is not installed.
    """

    def __init__(
        self,
        visible: Path,
        limits: Limits | None = None,
        *,
        unsafe: bool = False,
        kind: str = "bubblewrap",
        image: str = "",
        hidden: Sequence[Path] = (),
    ) -> None:
        self.limits = limits or Limits()
        self._visible, self._alone = visible, not unsafe
        self._container = (
            None if unsafe or kind == "bubblewrap" else Container(kind, image, visible)
        )
        self._wrap = [] if unsafe or self._container else bubblewrap(visible, hidden)
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox and everything in it."""
        if self._control is not None:
            self._control.close()  # at which the process in there ends all others, then itself
            self._control = None
        if self._process is None:
            return
        if not self._wrap:  # bubblewrap takes its namespace with it, which is faster
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.poll() is None:
            if self._container:
                self._container.kill()
            self._process.kill()
            self._process.wait()
        self._said.close()
        self._process = None

    def start(self) -> None:
        """Start the process that imports torch.

        Raises:
            NoSandbox: it cannot be started; the message ends with what it said.
        """
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        hello = self._start_container() if self._container else self._start_here()
        try:
            found = json.loads(hello)
        except ValueError:
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().split("\n")[-3:]
            self.close()
            raise NoSandbox("the sandbox does not start: " + " / ".join(last)) from None
        import torch

        own = str(torch.__version__)
        if _minor(str(found.get("torch"))) != _minor(own):
            self.close()
            raise NoSandbox(
                f"the sandbox has torch {found.get('torch')}, the grader {own}; put the grader's "
                f"version into the image, so that both count alike"
            )

    def _start_here(self) -> bytes:
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        self._process = self._run(
            [*self._wrap, sys.executable, *self._worker(str(number))],
            pass_fds=(number,),
            env=environment(str(self._visible)) | {"PATH": os.environ.get("PATH", os.defpath)},
        )
        theirs.close()
        self._control = ours
        return self._hello()

    def _start_container(self) -> bytes:
        container, limits = self._container, self.limits
        server, folder = container.listen()
        command = container.command(folder, self._worker(SOCKET), limits.memory, limits.processes)
        self._process = self._run(command)
        self._control = container.accept(server, self._process)
        return self._hello() if self._control else b""

    def _run(self, command: list[str], **options: Any) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            cwd="/",
            **options,
        )

    def _worker(self, control: str) -> list[str]:
        settings = {
            "alone": self._alone,
            "memory": self.limits.memory,
            "seconds": int(self.limits.seconds) + 1,
            "processes": self.limits.processes,
            "running": _running(),
        }
        return ["-s", "-m", "gclib.grading.sandbox.worker", control, json.dumps(settings)]

    def _hello(self) -> bytes:
        """The line that the process sends once it has imported torch."""
        self._control.settimeout(120)
        line = bytearray()
        with contextlib.suppress(OSError):
            while not line.endswith(b"\n") and len(line) < 4096:
                part = self._control.recv(1)
                if not part:
                    break
                line += part
        return bytes(line)

    def _order(self, order: bytes, sent: socket.socket | None = None) -> bytes:
        """Give an order; how the student's process stands then, see ``worker.Keeper``."""
        attached = []
        if sent is not None:
            numbers = array.array("i", [sent.fileno()])
            attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
        try:
            self._control.settimeout(30)
            self._control.sendmsg([order], attached)
            if state := self._control.recv(1):
                return state
        except (OSError, AttributeError):
            pass
        self.close()
        raise SandboxDied("the sandbox has gone")

    @contextlib.contextmanager
    def student(self, cells: list[tuple[str, bool, str]], origin: str) -> Iterator[Student]:
        """A fresh process with the definitions of one student; all of it ends with the ``with``.

        Args:
            cells: label, whether it is an answer, and source of each code cell.
            origin: where they come from, for messages.
        """
        student = Student(self, cells, origin)
        try:
            yield student
        finally:
            student.end()


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _running() -> int:
    """How many threads this user has on this machine."""
    count = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.getuid():
                count += len(os.listdir(path / "task"))
    return count


class Student:
    """The definitions of one student, in a process that is made again when the code ends it."""

    def __init__(self, sandbox: Sandbox, cells: list[tuple[str, bool, str]], origin: str) -> None:
        self._sandbox, self._cells, self._origin = sandbox, cells, origin
        self._socket: socket.socket | None = None
        self._left = sandbox.limits.seconds
        self._problems: dict[str, str] = {}  # by label, why a cell cannot be read
        self.ended: list[str] = []  # why its processes ended early

    def _fork(self) -> None:
        """A new process, which has nothing of the student's."""
        self.end()
        sandbox = self._sandbox
        for attempt in range(2):
            ours, theirs = socket.socketpair()
            try:
                if sandbox._process is None:
                    sandbox.start()
                sandbox._order(b"F", theirs)
                self._socket = ours
                return
            except BaseException as error:
                ours.close()
                if attempt or not isinstance(error, SandboxDied):
                    raise
            finally:
                theirs.close()

    def work(self) -> Work:
        """The student's work, with handles in place of functions and classes.

        A cell that ends the process or takes too long when it is read is left out from then on, and
        becomes a problem of its own; the others count.

        Raises:
            StudentError: there is no time left to read them.
        """
        try:
            return self._load(self._cells)
        except StudentError:
            kept: list[tuple[str, bool, str]] = []
            for cell in self._cells:
                try:
                    self._load([*kept, cell])
                    kept.append(cell)
                except StudentError as error:
                    self._problems[cell[0]] = str(error)
            self._cells = kept
        return self._load(self._cells)

    def _load(self, cells: Sequence[tuple[str, bool, str]]) -> Work:
        self._fork()
        loaded = self.ask("load", cells=[list(cell) for cell in cells], origin=self._origin)
        work = work_of(self.ask, loaded, self._origin)
        work.problems.update(self._problems)
        return work

    def begin(self) -> Work:
        """The work in the state in which every check starts, in a new process if need be.

        Processes that a call leaves behind end with it; threads do not reach the next check.

        Raises:
            StudentError: there is no time left to read the definitions.
        """
        for attempt in range(2):
            if self._socket is None or not self._calm():
                self._work = self.work()
                self._calm()
            if self.ask("begin") is not False or attempt:
                break
            self.end()
        return self._work

    def _calm(self) -> bool:
        """End what the process has started; whether it is still there itself."""
        try:
            return self._sandbox._order(b"L") == b"A"
        except SandboxDied:
            return False

    def page(self, sources: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Run cells of the notebook in order, in a new process, for a page to look at.

        Args:
            sources: of the code cells.

        Returns:
            For each cell what it shows: nbformat's outputs with text, PNG images and errors only.
            A cell that takes too long is stopped; what could not be run says so.
        """
        limits, found = self._sandbox.limits, []
        until, size = time.monotonic() + limits.seconds, 0
        try:
            self._fork()
            for source in sources:
                left = min(limits.call_seconds, until - time.monotonic())
                if left <= 0:
                    raise StudentError(f"the notebook took {limits.seconds:g} s in all: stopped")
                outputs = page_of(self.ask("page", source=source, seconds=left, patience=left + 2))
                size += len(json.dumps(outputs))
                if size > _PAGE:
                    raise StudentError(f"the notebook shows more than {_PAGE >> 20} MiB: stopped")
                found.append(outputs)
        except (StudentError, SandboxDied) as error:
            why = str(error)
            found += [[_said(f"stopped: {why}")], *[[_said(f"not run: {why}")] for _ in sources]]
        self.end()
        return found[: len(sources)]

    def ask(self, do: str, *, patience: float | None = None, **request: Any) -> Any:
        """Send a request to the process; its result.

        Args:
            do: what to do.
            patience: seconds to wait, in place of the limits'.
            request: what it needs.

        Raises:
            StubReached, StudentError: as the student's code gave; StudentError too where it ended
                its process, took too long, or sent what cannot be read.
        """
        limits = self._sandbox.limits
        if self._socket is None:
            raise StudentError("the code ended its process before")
        if self._left <= 0:
            self.end()
            raise StudentError(f"the code took {limits.seconds:g} s in all: stopped")
        begin, counted = time.monotonic(), patience is None
        if patience is None:
            patience = min(limits.call_seconds, self._left)
        try:
            wire.send(self._socket, wire.pack({"do": do, **request}), patience)
            answer = wire.receive(self._socket, patience)
            if isinstance(answer, dict) and "left" in answer:
                self._calm()
            return answer_of(answer)
        except wire.Silence:
            why = f"the code took more than {patience:.0f} s: is there an endless loop?"
        except wire.Closed:
            why = ""
        except wire.BadMessage as error:
            why = f"the code sent {error}"
        finally:
            if counted:
                self._left -= time.monotonic() - begin
        state = self.end()
        why = self._because(state) or why or self._because(b"G")
        self.ended.append(why)
        raise StudentError(why)

    def _because(self, state: bytes) -> str:
        limits = self._sandbox.limits
        return {
            b"M": f"the code and the processes it started took more memory than the "
            f"{limits.memory / 2**30:.3g} GiB they may have",
            b"P": f"the code started more than {limits.processes} processes, or too many threads",
            b"G": "the code ended its process, or asked for more memory than it may have",
        }.get(state, "")

    def end(self) -> bytes:
        """Kill the process and all it started; how it stood, see ``worker.Keeper``."""
        if self._socket is None:
            return b"A"
        self._socket.close()
        self._socket = None
        try:
            return self._sandbox._order(b"K")
        except SandboxDied:
            return b"G"


_PAGE = 8 * 2**20


def _said(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stderr", "text": f"{text}\n"}
