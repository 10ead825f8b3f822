"""Leaving a training in good order: Ctrl-C, SIGTERM, and what Slurm sends before the time is up."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # Windows has two of them
_HEARD = b"Saving after this update; Ctrl-C once more ends at once.\n"


class StopSignals:
    """While it is open, a first signal is remembered; a second Ctrl-C ends at once.

    Args:
        say: say on stderr that a signal was heard, since an update can take minutes.

    Attributes:
        received: number of the signal, or 0.
    """

    def __init__(self, *, say: bool = False) -> None:
        self.received, self.say = 0, say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for name in _NAMES:
            number = getattr(signal, name, None)
            # nohup makes SIGHUP ignored, which it must stay
            if number and signal.getsignal(number) is not signal.SIG_IGN:
                try:
                    self._before[number] = signal.signal(number, self._remember)
                except ValueError:  # not in the main thread: nothing to be done there
                    return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received and self.say:
            with contextlib.suppress(OSError):
                os.write(2, _HEARD)
        self.received = self.received or number


def name_of(number: int) -> str:
    """For a sentence: ``"Ctrl-C"`` or the signal's name."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def ignore_in_worker(number: int) -> None:
    """In a process that reads data: the training process alone decides when to stop."""
    for name in _NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
