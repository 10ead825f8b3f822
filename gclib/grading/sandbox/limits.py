"""What a student's process may use, set by itself before any of the student's code runs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

_DUMPABLE, _CHILD_SUBREAPER, _PARENT_DEATH, _THP_DISABLE = 4, 36, 1, 41  # PR_SET_...
_MORE_ADDRESSES = 16 * 2**30
_MORE_PROCESSES = 1024


def limit(memory: int, seconds: int, running: int) -> None:
    """Limit this process and all that it starts; whoever watches it counts them together.

    Args:
        memory: private memory of each process in bytes, on top of what this one has.
        seconds: processor time of each process.
        running: processes of the user outside of the sandbox; some kernels count them in.
    """
    data, addresses = size("VmData"), size("VmSize")
    for what, most in (
        (resource.RLIMIT_DATA, data + memory),
        # Mappings that RLIMIT_DATA leaves out cost page tables.
        (resource.RLIMIT_AS, addresses + memory + _MORE_ADDRESSES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        # Only the last wall against a flood: it holds per user, on some kernels across sandboxes.
        (resource.RLIMIT_NPROC, running + _MORE_PROCESSES),
        (resource.RLIMIT_SIGPENDING, 1024),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(what, (most, most))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine runs out of memory after all, this one goes first


def size(name: str) -> int:
    """A line of this process's ``/proc/self/status``, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))


def close_to_children() -> None:
    """Let no child look into this process, and let no orphan of a child get away from it."""
    _prctl(_DUMPABLE, 0)
    _prctl(_CHILD_SUBREAPER, 1)


def be_watched(parent: int) -> None:
    """Let the parent see what this process takes; end with it.

    Orphans come to this process, so that it knows of all it has started. Large pages stay off, so
    that what is given back is given back.
    """
    import signal

    _prctl(_DUMPABLE, 1)
    _prctl(_CHILD_SUBREAPER, 1)
    _prctl(_THP_DISABLE, 1)
    _prctl(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
