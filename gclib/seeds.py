"""Seeds on a command line."""

from __future__ import annotations

from argparse import ArgumentTypeError


def seed_range(text: str) -> range:
    """Seeds of ``"3"`` or ``"1-5"``, for argparse's ``type``."""
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise ArgumentTypeError(f"{text!r}: expected a seed or a range, like 1-5")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise ArgumentTypeError(f"{text!r}: the range is empty")
    return seeds
