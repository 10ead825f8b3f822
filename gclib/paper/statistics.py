"""Paired differences over seeds, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# Two-sided 95 % points of Student's t, by degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t-interval.

    Raises:
        ValueError: fewer than 2 values, or more than the table of t covers (21).
    """
    count = len(values)
    if not 2 <= count <= len(_T) + 1:
        raise ValueError(f"{count} values: expected 2 to {len(_T) + 1}")
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = _T[count - 2] * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half)


def paired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of ``first - second`` over seeds, and its 95 % t-interval.

    Raises:
        ValueError: the two differ in length, or :func:`interval` refuses.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values: expected the same seeds")
    return interval([a - b for a, b in zip(first, second, strict=True)])
