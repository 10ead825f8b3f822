"""What runs beside the process that watches a sandbox: how much it takes, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A process, as ``/proc`` tells of it.

    Attributes:
        pid: its number.
        parent: its parent's.
        threads: how many it has.
        memory: bytes, page tables included, counting what it shares with others in full.
        running: whether it has not ended.
    """

    pid: int
    parent: int
    threads: int
    memory: int
    running: bool


class Others:
    """The processes that a student's code has, or may have, started.

    Args:
        alone: this process is the first of a namespace: all others that it sees are meant. If not,
            only its descendants are. Orphans come to it, so none gets away.
    """

    def __init__(self, alone: bool) -> None:
        self.alone = alone

    def numbers(self) -> list[int]:
        """All processes that this one can see, but for itself."""
        own = os.getpid()
        return [int(n) for n in os.listdir("/proc") if n.isdigit() and int(n) != own]

    def tasks(self) -> list[Task]:
        """Those that run."""
        own, found = os.getpid(), {}
        for number in self.numbers():
            with contextlib.suppress(OSError, KeyError, ValueError):  # it has just ended
                found[number] = _task(number)
        if not self.alone:
            found = {pid: task for pid, task in found.items() if _descends(task, found, own)}
        return [task for task in found.values() if task.running]

    def memory(self) -> int:
        """Bytes that they take together, counting what they share once.

        They stand still meanwhile: else one that forks all the time makes the kernel wait for it.
        """
        try:
            self._stop(self.tasks())
            return sum(_share(task) for task in self.tasks())
        finally:
            self._stop(self.tasks(), signal.SIGCONT)

    def _stop(self, tasks: list[Task], number: int = signal.SIGSTOP) -> None:
        for pid in [-1] if self.alone else [task.pid for task in tasks]:
            _send(pid, number)

    def reap(self) -> set[int]:
        """Take leave of children that have ended."""
        ended = set()
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                ended.add(pid)
        return ended

    def kill(self, seconds: float = 20) -> None:
        """End all of them.

        Args:
            seconds: how long that may take.

        Raises:
            TimeoutError: some did not end.
        """
        self._end(0, seconds)

    def kill_but(self, kept: int, seconds: float = 20) -> None:
        """End all but one.

        Args:
            kept: the process that goes on.
            seconds: how long that may take.

        Raises:
            TimeoutError: some did not end.
        """
        try:
            self._end(kept, seconds)
        finally:
            _send(kept, signal.SIGCONT)

    def _end(self, kept: int, seconds: float) -> None:
        until, known = time.monotonic() + seconds, set()
        while True:
            if self.alone and not kept:
                _send(-1, signal.SIGKILL)  # all there are at once, and no fork on its way succeeds
            self.reap()
            if self.alone and not self.numbers():
                return
            tasks = self.tasks()
            found = {task.pid for task in tasks} - {kept}
            if not found:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"{len(found)} processes do not end")
            if kept or not self.alone:
                # Stopped ones start no others. Once there are no new ones, all can be ended.
                self._stop(tasks)
                for pid in found if self.alone else found & known:
                    _send(pid, signal.SIGKILL)
            known = found
            time.sleep(0.002)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _fields(path: str) -> dict[bytes, bytes]:
    with open(path, "rb") as file:
        return dict(line.split(b":", 1) for line in file.read().split(b"\n") if b":" in line)


def _bytes(fields: dict[bytes, bytes], *names: bytes) -> int:
    return sum(1024 * int(fields[name].split()[0]) for name in names if name in fields)


_TAKEN = (b"RssAnon", b"RssShmem", b"VmSwap", b"VmPTE")


def _task(pid: int) -> Task:
    fields = _fields(f"/proc/{pid}/status")
    threads, state = int(fields[b"Threads"]), fields[b"State"].split()[0]
    memory = _bytes(fields, *_TAKEN)
    if state in (b"Z", b"X") and threads > 1:  # its first thread has ended, the process has not
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                memory = max(memory, _bytes(_fields(f"/proc/{pid}/task/{thread}/status"), *_TAKEN))
    running = state not in (b"Z", b"X") or threads > 1
    return Task(pid, int(fields[b"PPid"]), threads, memory, running)


def _share(task: Task) -> int:
    """What a task takes, and its part of what it shares; all of it where the kernel hides that."""
    try:
        shared = _fields(f"/proc/{task.pid}/smaps_rollup")
        if b"Pss_Anon" not in shared:
            return task.memory
        tables = _bytes(_fields(f"/proc/{task.pid}/status"), b"VmPTE")
        return tables + _bytes(shared, b"Pss_Anon", b"Pss_Shmem", b"SwapPss")
    except (OSError, ValueError):
        return task.memory


def _descends(task: Task, tasks: dict[int, Task], ancestor: int) -> bool:
    seen = set()
    while task.pid not in seen:
        if task.parent == ancestor:
            return True
        seen.add(task.pid)
        if task.parent not in tasks:
            return False
        task = tasks[task.parent]
    return False
