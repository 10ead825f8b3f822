"""What ``gclib data ... --check`` says of a data set of photographs, whichever it is."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gclib.datasets.image_files import BrokenImage
from gclib.datasets.image_folder import Progress

_SHOWN = 5  # broken files and odd classes in a report


@dataclass
class Report:
    """What a check found; ``str(report)`` is for a person.

    Attributes:
        found: what is there, one sentence each.
        problems: what is missing or wrong and what to do, one sentence each.
        broken: sampled files that cannot be read, with the reason.
    """

    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether a training can start on it and nothing is missing."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join(
            [f"ok  {line}" for line in self.found] + [f"no  {line}" for line in self.problems]
        )


def some(items: Iterable[str]) -> str:
    """The first few of a list, and how many more there are."""
    items = list(items)
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


def read_some(
    report: Report,
    images: Sequence[Any],
    read: Callable[[Any], Any],
    decode: int,
    seed: int,
    *,
    good: str = "can be read",
    bad: str = "cannot be read",
) -> None:
    """Read some images, drawn at random, in threads; what is broken goes into the report.

    Args:
        report: takes a sentence.
        images: what ``read`` takes, one for each image.
        read: reads an image; raises :class:`BrokenImage`.
        decode: how many.
        seed: of the draw.
        good: what is said of them if all can be read.
        bad: what is said of those that cannot.
    """
    chosen = sorted(random.Random(seed).sample(range(len(images)), min(decode, len(images))))
    progress = Progress("images read", len(chosen))

    def reason_of(at: int) -> str:
        try:
            read(images[at])
        except BrokenImage as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for reason in pool.map(reason_of, chosen):
            progress.step()
            if reason:
                report.broken.append(reason)
    if not report.broken:
        report.found.append(f"{len(chosen):,} images drawn at random {good}")
        return
    report.problems.append(
        f"{len(report.broken):,} of {len(chosen):,} images drawn at random {bad}: put them in "
        f"again from the archive, or let the training skip them ({some(report.broken)})"
    )
