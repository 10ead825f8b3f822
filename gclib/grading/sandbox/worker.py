"""What runs inside of a sandbox: a process that has imported torch, and its children.

``python -m gclib.grading.sandbox.worker CONTROL SETTINGS`` serves the control socket that CONTROL
names: a file descriptor, or the path of a socket to connect to. It never runs a student's code; for
each student it forks a child, which has the definitions and answers calls on a socket of its own.
Whoever controls the child controls its answers, so the grader believes none of them: it sends
inputs, gets tensors, and judges.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import platform
import random
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from gclib.checks.handle import (
    Call,
    Gradients,
    Handle,
    ModuleHandle,
    Opaque,
    StubReached,
    StudentError,
)
from gclib.checks.work import Work, load_cells
from gclib.grading.sandbox import limits, seccomp, wire
from gclib.grading.sandbox.page import Page
from gclib.grading.sandbox.watch import Others

_MESSAGES = 4096  # characters of a student's error that are passed on
_LOOK = 0.05  # seconds between two looks at what a student's processes take
_THREADS = 4  # for each process that they may have


class Keeper:
    """Forks a child for each student, watches what it and its own children take, and ends them.

    Orders are single bytes: ``F`` with a socket forks a child that serves it, ``L`` ends what the
    child has started, ``K`` ends all. The answer says how it stands: ``A``, all is well, or why
    there is no child any more: ``G``, it has gone, ``M``, they took too much memory, ``P``, there
    were too many of them.

    Args:
        control: the grader's socket.
        settings: alone, memory, seconds, processes, running; see ``jail.Sandbox``.
    """

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control, self.settings = control, settings
        self.others = Others(settings["alone"])
        self.child = 0
        self.state = b"A"
        # What a child has at first is counted with it.
        self.most = settings["memory"] + limits.size("RssAnon")

    def serve(self) -> None:
        """Obey the grader until it goes away."""
        try:
            while True:
                pause = None
                if self.child:
                    begin = time.monotonic()
                    self.look()
                    pause = max(_LOOK, 2 * (time.monotonic() - begin))
                if not select.select([self.control], [], [], pause)[0]:
                    continue
                order, attached, _, _ = self.control.recvmsg(1, socket.CMSG_LEN(4))
                if not order:
                    return
                self.obey(order, attached)
        finally:
            self.others.kill()

    def obey(self, order: bytes, attached: list) -> None:
        """Follow one order, and answer."""
        if self.child:
            self.look()
        state = self.state
        if order == b"L":
            if self.child:
                try:
                    self.others.kill_but(self.child, seconds=5)
                except TimeoutError:
                    self.end(b"P")
                self.look()
            state = self.state
        else:
            self.end(b"A")
        if order == b"F":
            state = b"A"
            numbers = array.array("i")
            numbers.frombytes(attached[0][2][:4])
            parent = os.getpid()
            self.child = os.fork()
            if self.child == 0:
                _be_child(self.control, numbers[0], self.settings, parent)
            os.close(numbers[0])
        self.control.sendall(state)

    def look(self) -> None:
        """End everything if the child has ended or they take too much."""
        if self.child in self.others.reap():
            self.end(b"G")
            return
        processes = self.settings["processes"]
        if self.others.alone and len(self.others.numbers()) > 2 * processes:
            self.end(b"P")  # a flood; looking closer would only take time
            return
        tasks = self.others.tasks()
        if len(tasks) > processes or sum(t.threads for t in tasks) > _THREADS * processes:
            self.end(b"P")
        elif sum(task.memory for task in tasks) > self.most and self._too_much():
            self.end(b"M")

    def _too_much(self) -> bool:
        """Whether they take too much for longer than one that starts a program counts twice."""
        for pause in (0.005, 0.02, 0.06):  # the later ones for a machine that is very busy
            if self.others.memory() <= self.most:
                return False
            time.sleep(pause)
        return True

    def end(self, state: bytes) -> None:
        """End all of them, and keep why."""
        self.others.kill()
        self.child, self.state = 0, state


def _be_child(control: socket.socket, number: int, settings: dict[str, Any], parent: int) -> None:
    """Serve one student, then leave without running anything of the parent's."""
    status = 1
    try:
        control.close()
        limits.be_watched(parent)
        os.setsid()  # where the kernel groups sessions, a flood here leaves the parent its share
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for standard in (1, 2):
            os.dup2(0, standard)  # /dev/null
        limits.limit(settings["memory"], settings["seconds"], settings["running"])
        seccomp.install()
        serve(number)
        status = 0
    finally:
        os._exit(status)


def serve(number: int) -> None:
    """Answer requests on a socket until it closes."""
    student, own = _Student(), os.getpid()
    connection = socket.socket(fileno=number)
    while True:
        try:
            request = wire.receive(connection)
        except wire.Closed:
            return
        answer = student.answer(request)
        if os.getpid() != own:  # a copy that the code has made and not ended: one answer is enough
            os._exit(0)
        if _has_started_others():
            answer["left"] = True
        try:
            frame = wire.pack(answer)
        except Exception as error:
            error = StudentError(f"{type(error).__name__}: the result cannot be sent: {error}")
            frame = wire.pack(_failure(error))
        wire.send(connection, frame)


def _has_started_others() -> bool:
    """Whether processes that the code started still run, which must not slow the next call."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


class _Student:
    """The definitions of one student, and the modules built from them."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.modules: list[ModuleHandle] = []
        self.shell: Page | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do: dict[str, Callable] = {
            "load": self.load,
            "begin": self.begin,
            "function": self.function,
            "build": self.build,
            "module": self.module,
            "page": self.page,
        }
        try:
            return {"result": do[request.pop("do")](**request)}
        except StubReached:
            return {"stub": True}
        except StudentError as error:
            return _failure(error)
        except MemoryError:
            return _failure(StudentError("MemoryError: the code asks for too much memory"))
        except BaseException as error:
            return _failure(StudentError(f"{type(error).__name__}: {error}"))

    def load(self, cells: list, origin: str) -> dict[str, Any]:
        self.work = load_cells([tuple(cell) for cell in cells], origin)
        self.modules.clear()
        return {
            "definitions": {
                name: Handle(value).name
                for name, value in self.work.definitions.items()
                if callable(value)
            },
            "problems": {str(k): str(v)[:_MESSAGES] for k, v in self.work.problems.items()},
            "names": {str(k): str(v) for k, v in self.work.names.items()},
        }

    def begin(self) -> bool:
        """Before each check: the state in which every check starts, and no modules.

        Returns:
            Whether nothing else is at work here: no thread that the code has left.
        """
        self.modules.clear()
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.manual_seed(0)
        random.seed(0)
        return threading.active_count() == 1

    def function(self, name: str, method: str, inputs: tuple, options: dict) -> Any:
        handle = Handle(self.work.definitions[name])
        if method not in ("inspect", "gradients"):
            raise ValueError(method)
        return _as_plain(getattr(handle, method)(*inputs, **options))

    def build(self, name: str, arguments: tuple, dtype: Any, options: dict) -> Any:
        built = Handle(self.work.definitions[name]).build(*arguments, dtype=dtype, **options)
        if isinstance(built, Opaque):
            return built
        self.modules.append(built)
        return len(self.modules) - 1

    def module(self, index: int, method: str, inputs: tuple, options: dict) -> Any:
        known = ("train", "parameters", "weights", "load", "inspect", "gradients")
        if method not in known:
            raise ValueError(method)
        return _as_plain(getattr(self.modules[index], method)(*inputs, **options))

    def page(self, source: str, seconds: float) -> list[dict[str, Any]]:
        """Run a cell of the notebook; what it shows."""
        if self.shell is None:
            self.shell = Page()
        return self.shell.run(source, seconds)


def _as_plain(value: Any) -> Any:
    if isinstance(value, Call):
        return {
            "result": value.result,
            "inputs": value.inputs,
            "largest": value.largest,
            "total": value.total,
        }
    if isinstance(value, Gradients):
        return {"result": value.result, "inputs": value.inputs, "parameters": value.parameters}
    return value


def _failure(error: StudentError) -> dict[str, Any]:
    return {
        "error": str(error)[:_MESSAGES],
        "kinds": tuple(str(kind) for kind in error.kinds),
        "called": bool(error.called),
    }


def is_alone() -> bool:
    """Whether this is a namespace's first process: only then may it kill all others it sees."""
    return os.getpid() == 1


def connect(control: str) -> socket.socket:
    """The grader's socket: an open file descriptor's number, or the path of one that listens."""
    if control.isdigit():
        return socket.socket(fileno=int(control))
    found = socket.socket(socket.AF_UNIX)
    found.connect(control)
    return found


def warm_up_optimizers() -> None:
    """Import what torch's optimizers import at their first use: seconds, which each child saves.

    That asks for folders for temporary files and for a cache; nothing can be written here, and
    nothing is.
    """
    tempfile.tempdir = "/"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = "/"
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    tempfile.tempdir = None
    del os.environ["TORCHINDUCTOR_CACHE_DIR"]


def main() -> None:
    """Serve the control socket that the first argument names, as the second one says."""
    settings = json.loads(sys.argv[2])
    if settings["alone"] and not is_alone():
        sys.exit("not in a sandbox of its own")
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    torch.set_num_interop_threads(1)
    torch.zeros(1, requires_grad=True).sum()  # first calls are slow; no backward: it makes threads
    warm_up_optimizers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits.close_to_children()
    control = connect(sys.argv[1])
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    control.sendall(json.dumps(versions).encode() + b"\n")
    Keeper(control, settings).serve()


if __name__ == "__main__":
    main()
