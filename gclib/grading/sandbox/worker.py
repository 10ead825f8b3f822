"""What runs inside of a sandbox: a process that has imported torch, and its children.

``python -m gclib.grading.sandbox.worker N alone`` serves the control socket of file descriptor N.
It never runs a student's code; for each student it forks a child, which has the definitions and
answers calls on a socket of its own. Whoever controls the child controls its answers, so the grader
believes none of them: it sends inputs, gets tensors, and judges.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import sys
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
from gclib.grading.sandbox import wire

_PR_SET_DUMPABLE = 4
_MESSAGES = 4096  # characters of a student's error that are passed on


def serve_control(number: int, alone: bool) -> None:
    """Obey the grader: ``F`` with a socket forks a child for it, ``K`` kills all there are.

    Args:
        number: the file descriptor of the socket.
        alone: this process and its children are the only ones it can see. If not, only what is in
            the child's session is killed.
    """
    child = 0
    control = socket.socket(fileno=number)
    with contextlib.suppress(OSError, AttributeError):
        # No child may look into this process or take its socket.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    control.sendall(b"R")
    while True:
        order, attached, _, _ = control.recvmsg(1, socket.CMSG_LEN(4))
        if not order:
            return
        if alone:
            _kill_others()
        elif child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
        if order == b"F":
            numbers = array.array("i")
            numbers.frombytes(attached[0][2][:4])
            child = os.fork()
            if child == 0:
                _be_child(control, numbers[0])
            with contextlib.suppress(OSError):  # the child does the same; who is first, wins
                os.setpgid(child, child)
            os.close(numbers[0])
        control.sendall(b"A")


def _kill_others() -> None:
    """End every process of the sandbox but this one and the first."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        running = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if set(running) <= {1, os.getpid()}:
            return


def _be_child(control: socket.socket, number: int) -> None:
    """Serve one student, then leave without running anything of the parent's."""
    status = 1
    try:
        control.close()
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        serve(number)
        status = 0
    finally:
        os._exit(status)


def limit(data: int, seconds: int) -> None:
    """Limit this process: private memory on top of what it has, processor time, files, cores."""
    with open("/proc/self/status", encoding="ascii") as file:
        now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData"))
    for what, most in (
        (resource.RLIMIT_DATA, now + data),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 64),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))


def serve(number: int) -> None:
    """Answer requests on a socket until it closes."""
    student = _Student()
    connection = socket.socket(fileno=number)
    while True:
        try:
            request = wire.receive(connection)
        except wire.Closed:
            return
        answer = student.answer(request)
        try:
            frame = wire.pack(answer)
        except Exception as error:
            error = StudentError(f"{type(error).__name__}: the result cannot be sent: {error}")
            frame = wire.pack(_failure(error))
        wire.send(connection, frame)


class _Student:
    """The definitions of one student, and the modules built from them."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.modules: list[ModuleHandle] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        do: dict[str, Callable] = {
            "load": self.load,
            "begin": self.begin,
            "function": self.function,
            "build": self.build,
            "module": self.module,
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

    def load(self, cells: list, origin: str, data: int, seconds: int) -> dict[str, Any]:
        limit(data, seconds)
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

    def begin(self) -> None:
        """Before each check: the state in which every check starts, and no modules."""
        self.modules.clear()
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.manual_seed(0)
        random.seed(0)

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
    """Whether bubblewrap is the first process that this one can see.

    Only then may it kill all others: anywhere else those are the user's.
    """
    try:
        with open("/proc/1/comm", encoding="ascii") as file:
            return file.read().strip() == "bwrap" and os.getppid() <= 1
    except OSError:
        return False


def main() -> None:
    """Serve the control socket whose number is the first argument."""
    alone = sys.argv[2] == "alone"
    if alone and not is_alone():
        sys.exit("not in a sandbox of its own")
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    torch.set_num_interop_threads(1)
    torch.zeros(1, requires_grad=True).sum()  # first calls are slow; no backward: it makes threads
    serve_control(int(sys.argv[1]), alone)


if __name__ == "__main__":
    main()
