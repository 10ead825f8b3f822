"""Time and peak memory of a call, for side-by-side comparison.

Single times on a shared machine mean little: compare medians of rounds that take turns.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from math import comb
from typing import TypeVar

import torch

Function = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


def median_seconds(
    functions: Mapping[Name, Function], rounds: int = 5, *, threads: int | None = None
) -> dict[Name, float]:
    """Median seconds of each function over rounds in which all of them run in random order.

    Args:
        functions: name → call without arguments; each runs once before the first round.
        rounds: number of rounds.
        threads: threads of torch during the rounds; default: as many as before. With 1, calls of
            different sizes can be compared: torch splits only large ones over several threads,
            and a thread that waits for a busy processor holds up all the others.

    Returns:
        name → median in seconds.
    """
    with _threads(threads):
        seconds = time_rounds(functions, rounds)
    return {name: statistics.median(values) for name, values in seconds.items()}


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_rounds(
    functions: Mapping[Name, Function],
    rounds: int = 5,
    *,
    synchronise: Callable[[], None] = lambda: None,
    others: Callable[[], float] = lambda: 0.0,
    warm_up: bool = True,
) -> dict[Name, list[float]]:
    """Seconds of each function in each round.

    Args:
        functions: name → call without arguments.
        rounds: number of rounds.
        synchronise: waits for the device, for example ``torch.cuda.synchronize``.
        others: processors that other programs kept busy since its last call, for example an
            :class:`OtherLoad`. A round with more than a quarter of one is made again, at most
            ``rounds`` times in all.
        warm_up: each function runs once before the first round.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: expected at least 1")
    for function in functions.values() if warm_up else ():
        function()
    order = random.Random(0)  # of its own: the caller's random state stays as it is
    kept: list[dict[Name, float]] = []
    disturbed: list[dict[Name, float]] = []
    while len(kept) < rounds and len(disturbed) < rounds:
        others()
        seconds = {}
        for name in order.sample(list(functions), len(functions)):
            synchronise()
            start = time.perf_counter()
            functions[name]()
            synchronise()
            seconds[name] = time.perf_counter() - start
        (kept if others() <= 0.25 else disturbed).append(seconds)
    kept = (kept + disturbed)[:rounds]
    return {name: [seconds[name] for seconds in kept] for name in functions}


def graphed(function: Function, repeat: int = 1, pool: object = None) -> Function:
    """Record ``function`` as a CUDA graph: the call that replays it, without Python or launches.

    The time of a replay is that of the GPU alone, so it tells work from the cost of launching it.

    Args:
        function: a call without arguments that waits for nothing and allocates on the GPU only.
        repeat: times that it runs in one replay, to make the start of the replay small beside it.
        pool: memory to share with other graphs, of ``torch.cuda.graph_pool_handle()``; then only
            the results of the last replay are valid.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what libraries do once must not be recorded
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        for _ in range(repeat):
            result = function()

    def replay() -> object:
        graph.replay()
        return result

    return replay


class OtherLoad:
    """Processors that other programs keep busy: 0.5 is half of one. 0 where Linux is not."""

    def __init__(self) -> None:
        self._last = self._read()

    def __call__(self) -> float:
        """The mean since the last call."""
        (wall, busy, own), self._last = self._last, self._read()
        elapsed = self._last[0] - wall
        if elapsed <= 0:
            return 0.0
        return max(0.0, (self._last[1] - busy) - (self._last[2] - own)) / elapsed

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Seconds of the clock, of all processors, and of this process and its ended children."""
        own = sum(os.times()[:4])
        try:
            with open("/proc/stat", encoding="ascii") as file:
                user, nice, system, *_ = map(int, file.readline().split()[1:])
        except OSError:
            return time.perf_counter(), 0.0, 0.0
        busy = (user + nice + system) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, own


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Bounds of the median: the two order statistics that hold it with at least ``level``.

    With fewer than 6 values no pair reaches 0.95; the smallest and the largest are given then.
    """
    ordered, n = sorted(values), len(values)
    k, outside = 0, comb(n, 0) / 2**n  # P(Binomial(n, 1/2) <= k)
    while k + 1 <= (n - 1) // 2 and 2 * (outside + comb(n, k + 1) / 2**n) <= 1 - level:
        k += 1
        outside += comb(n, k) / 2**n
    return ordered[k], ordered[n - 1 - k]


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
