"""Time and peak memory of a call, for side-by-side comparison.

Single times on a shared machine mean little: compare medians of rounds that take turns.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch

Function = Callable[[], object]


def median_seconds(functions: Mapping[str, Function], rounds: int = 5) -> dict[str, float]:
    """Median seconds of each function over rounds in which all of them run in random order.

    Args:
        functions: name → call without arguments; each runs once before the first round.
        rounds: number of rounds.

    Returns:
        name → median in seconds.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: expected at least 1")
    for function in functions.values():
        function()
    order = random.Random(0)  # of its own: the caller's random state stays as it is
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name in order.sample(list(functions), len(functions)):
            start = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_bytes(function: Function) -> int:
    """Largest number of bytes that ``function`` held at once, its result included.

    Counted from the events of torch's CPU allocator, so buffers inside of operations count and
    memory that was there before does not.
    """
    function()  # one-time buffers of libraries are not the function's
    with (
        _quiet_profiler(),
        torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile,
    ):
        result = function()  # kept until the profile ends, so that it counts
    del result
    events = profile.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


@contextlib.contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keep the profiler's library from logging to stderr, where a notebook shows it in red."""
    name = "KINETO_LOG_LEVEL"  # read when the first profile starts
    before = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
