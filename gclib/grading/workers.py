"""Processes that do one thing at a time for a parent that outlives whatever happens to them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)
_PR_SET_PDEATHSIG = 1
_ATTEMPTS = 2


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    key: Any = None
    since: float = 0.0
    started: bool = False


class CannotStart(Exception):
    """A process could not be set up, which no task is to blame for; ``str()`` says why."""


def run_all(
    tasks: Sequence[tuple[Key, tuple]],
    start: Callable[..., Callable[..., Any]],
    arguments: tuple,
    *,
    workers: int,
    seconds: float,
) -> Iterator[tuple[Key, Any, str]]:
    """Run a function on every task in processes of their own, each of which is set up once.

    A process that dies or takes too long costs its own task at most: the task is tried once more in
    a new process, then given up. All processes end with the iterator, and with this process however
    that ends.

    Args:
        tasks: a key and the arguments of the function for each.
        start: called once in each process with ``arguments``; returns the function.
        arguments: of ``start``; both must be picklable.
        workers: how many processes.
        seconds: how long one task may take.

    Yields:
        The key, the result and "", or the key, None and what went wrong, in the order of ending.

    Raises:
        CannotStart: ``start`` failed.
    """
    todo, attempts = deque(tasks), dict.fromkeys((key for key, _ in tasks), 0)
    inputs = dict(tasks)
    context = multiprocessing.get_context("spawn")
    running: list[_Worker] = []
    try:
        while todo or any(worker.key is not None for worker in running):
            while todo and len(running) < workers:
                running.append(_launch(context, start, arguments))
            for worker in running:
                if worker.key is None and todo:
                    _wait_until_started(worker)
                    key, given = todo.popleft()
                    attempts[key] += 1
                    worker.key, worker.since = key, time.monotonic()
                    with contextlib.suppress(OSError):  # it has died: seen below
                        worker.pipe.send(given)
            busy = {worker.pipe: worker for worker in running if worker.key is not None}
            ready = [busy[pipe] for pipe in wait(list(busy), timeout=1.0)]
            late = [w for w in busy.values() if time.monotonic() - w.since > seconds]
            for worker in {id(w): w for w in ready + late}.values():
                key, said = worker.key, None
                if worker in ready:
                    with contextlib.suppress(EOFError, OSError):
                        said = worker.pipe.recv()
                if said is not None:
                    worker.key = None
                    yield (key, *said)
                    continue
                why = "it took too long" if worker not in ready else _ending(worker.process)
                _end(worker)
                running.remove(worker)
                if attempts[key] < _ATTEMPTS:
                    todo.append((key, inputs[key]))
                else:
                    yield key, None, why
    finally:
        for worker in running:
            _end(worker)


def _launch(context, start, arguments) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, start, arguments), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _wait_until_started(worker: _Worker) -> None:
    if worker.started:
        return
    try:
        problem = worker.pipe.recv()
    except (EOFError, OSError):
        problem = _ending(worker.process)
    if problem:
        raise CannotStart(problem)
    worker.started = True


def _ending(process) -> str:
    process.join(5)
    return f"the process that judges it ended (exit status {process.exitcode})"


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(0.2)  # it leaves by itself when nobody listens
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _serve(pipe: Connection, start, arguments) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        function = start(*arguments)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send("")
    with contextlib.suppress(EOFError, OSError):  # nobody listens any more
        while True:
            pipe.send(_answer(function, pipe.recv()))


def _answer(function: Callable[..., Any], given: tuple) -> tuple[Any, str]:
    try:
        return function(*given), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
