"""A folder that one run at a time may write to."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def lock(folder: Path, busy: Exception) -> Any:
    """An open file that keeps others out of the folder; None where that is not to be had.

    Args:
        folder: it must be there.
        busy: what is raised if somebody else is at work in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise busy from None
    except OSError:  # some network disks have no locks
        pass
    return file
