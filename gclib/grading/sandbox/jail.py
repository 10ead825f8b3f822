"""A sandbox as the grader sees it: started once, then one fresh process for each student."""

from __future__ import annotations

import array
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gclib.checks.handle import StudentError
from gclib.checks.work import Work
from gclib.grading.sandbox import wire
from gclib.grading.sandbox.remote import answer_of, work_of


class NoSandbox(Exception):
    """There is no way to run code safely here; ``str()`` says what to install."""


class SandboxDied(Exception):
    """The sandbox itself has gone, which is the student's code's doing."""


@dataclass(frozen=True)
class Limits:
    """What a student's process may use.

    Attributes:
        memory: bytes on top of what Python and torch have.
        call_seconds: wall-clock time of one call.
        seconds: processor time of the process, and wall-clock time of all its calls.
    """

    memory: int = 2 * 2**30
    call_seconds: float = 20.0
    seconds: float = 120.0


def bubblewrap(visible: Path) -> list[str]:
    """The command that runs another one with nothing but the system, Python and ``visible``.

    No network, no other processes, no place to write, no environment.

    Args:
        visible: the folder that holds the ``gclib`` which the code may see.

    Raises:
        NoSandbox: bubblewrap is missing or may not make namespaces here.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise NoSandbox(
            "bubblewrap is not installed; install it (Debian: apt install bubblewrap), or grade "
            "code you trust with --unsafe"
        )
    command = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += [
        "--clearenv",
        "--setenv",
        "PATH",
        "/usr/bin:/bin",
        "--setenv",
        "HOME",
        "/nonexistent",
    ]
    command += ["--setenv", "PYTHONDONTWRITEBYTECODE", "1", "--setenv", "LANG", "C.UTF-8"]
    command += ["--setenv", "PYTHONPATH", str(visible)]
    for path in _system():
        command += ["--ro-bind", str(path), str(path)]
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind", str(visible), str(visible)]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, "--chdir", "/", "--"]


def check_bubblewrap() -> None:
    """Run nothing in a sandbox, to see that it can be made.

    Raises:
        NoSandbox: it cannot; the message says why and what to do.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [*bubblewrap(Path(folder)), "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().split("\n")[-1]
        raise NoSandbox(
            f"bubblewrap cannot make a sandbox here ({said}); let users make namespaces (Debian: "
            f"sysctl kernel.unprivileged_userns_clone=1), or grade code you trust with --unsafe"
        )


def _system() -> list[Path]:
    """Read-only parts of the system that Python needs; the outermost folders only."""
    found = {
        Path("/usr"),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(sys.executable).resolve().parent.parent,
        Path(sysconfig.get_paths()["purelib"]),
        *(
            Path("/etc", name)
            for name in ("ld.so.cache", "ld.so.conf", "localtime", "alternatives")
        ),
    }
    found = {path for path in found if path.exists()}
    return sorted(path for path in found if not any(p in found for p in path.parents))


class Sandbox:
    """A process in a sandbox that has imported torch, and a child of it for each student.

    Use it as a context manager. When a student's code breaks it, the next student gets a new one.

    Args:
        visible: the folder that holds the ``gclib`` which students' code may see.
        limits: what one student may use.
        unsafe: do without bubblewrap. The code then runs as you, in a process of its own that sees
            your files and the network: for code you trust.
    """

    def __init__(
        self, visible: Path, limits: Limits | None = None, *, unsafe: bool = False
    ) -> None:
        self.limits = limits or Limits()
        self._wrap = [] if unsafe else bubblewrap(visible)
        self._visible = visible
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox and everything in it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()  # bubblewrap takes the first process of the namespace with it
            self._process.wait()
            self._said.close()
            self._process = None

    def start(self) -> None:
        """Start the process that imports torch.

        Raises:
            NoSandbox: it cannot be started; the message ends with what it said.
        """
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        alone = "alone" if self._wrap else "among others"
        command = [sys.executable, "-s", "-m", "gclib.grading.sandbox.worker", str(number), alone]
        said = self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*self._wrap, *command],
            pass_fds=(number,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(self._visible)},
        )
        theirs.close()
        self._control = ours
        ours.settimeout(120)
        try:
            ready = ours.recv(1)
        except OSError:
            ready = b""
        if ready != b"R":
            said.seek(0)
            last = said.read().decode(errors="replace").strip().split("\n")[-3:]
            self.close()
            raise NoSandbox("the sandbox does not start: " + " / ".join(last))

    def _order(self, order: bytes, sent: socket.socket | None = None) -> None:
        attached = []
        if sent is not None:
            numbers = array.array("i", [sent.fileno()])
            attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
        try:
            self._control.settimeout(30)
            self._control.sendmsg([order], attached)
            if self._control.recv(1) == b"A":
                return
        except OSError:
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


class Student:
    """The definitions of one student, in a process that is made again when the code ends it."""

    def __init__(self, sandbox: Sandbox, cells: list[tuple[str, bool, str]], origin: str) -> None:
        self._sandbox, self._cells, self._origin = sandbox, cells, origin
        self._socket: socket.socket | None = None
        self._left = sandbox.limits.seconds
        self.ended: list[str] = []  # why its processes ended early

    def work(self) -> Work:
        """The student's work, with handles in place of functions and classes.

        Raises:
            StudentError: reading the definitions ended the process or took too long.
        """
        self.end()
        sandbox = self._sandbox
        ours, theirs = socket.socketpair()
        for attempt in range(2):
            try:
                if sandbox._process is None:
                    sandbox.start()
                sandbox._order(b"F", theirs)
                break
            except SandboxDied:
                if attempt:
                    raise
        theirs.close()
        self._socket = ours
        loaded = self.ask(
            "load",
            cells=[list(cell) for cell in self._cells],
            origin=self._origin,
            data=sandbox.limits.memory,
            seconds=int(sandbox.limits.seconds) + 1,
        )
        return work_of(self.ask, loaded, self._origin)

    def begin(self) -> Work:
        """The work in the state in which every check starts, in a new process if need be."""
        if self._socket is None:
            self._work = self.work()
        self.ask("begin")
        return self._work

    def ask(self, do: str, **request: Any) -> Any:
        """Send a request to the process; its result.

        Raises:
            StubReached, StudentError: as the student's code gave; StudentError too where it ended
                its process, took too long, or sent what cannot be read.
        """
        if self._socket is None:
            raise StudentError("the code ended its process before")
        if self._left <= 0:
            self.end()
            raise StudentError(f"the code took {self._sandbox.limits.seconds:g} s in all: stopped")
        begin = time.monotonic()
        patience = min(self._sandbox.limits.call_seconds, self._left)
        try:
            wire.send(self._socket, wire.pack({"do": do, **request}), patience)
            return answer_of(wire.receive(self._socket, patience))
        except wire.Silence:
            why = f"the code took more than {patience:.0f} s: is there an endless loop?"
        except wire.Closed:
            why = "the code ended its process, or asked for more memory than it may have"
        except wire.BadMessage as error:
            why = f"the code sent {error}"
        finally:
            self._left -= time.monotonic() - begin
        self.ended.append(why)
        self.end()
        raise StudentError(why)

    def end(self) -> None:
        """Kill the process and all it started."""
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        with contextlib.suppress(SandboxDied):
            self._sandbox._order(b"K")
