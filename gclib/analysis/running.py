"""Table 1 over a whole data set: distances of each image, averaged over images as they come.

Nothing of an image is kept but its numbers, so memory does not grow with the data. The paper does
not say how it averages over images; here each image has one average over all its pairs of
positions, and the mean over images is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from gclib.analysis.capture import Captured
from gclib.analysis.distances import average_cosine_distance, average_jsd, sampled_distance

KINDS = ("cosine/input", "cosine/output", "cosine/attention", "jsd/attention")


@dataclass
class Mean:
    """Mean and standard error of numbers that come one by one (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = field(default=0.0, repr=False)  # sum of squared differences from the mean

    def add(self, value: float) -> None:
        """Take in another number."""
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)

    def merge(self, other: Mean) -> None:
        """Take in all numbers of another mean."""
        count = self.count + other.count
        if not count:
            return
        change = other.mean - self.mean
        self.squares += other.squares + change**2 * self.count * other.count / count
        self.mean += change * other.count / count
        self.count = count

    @property
    def standard_error(self) -> float:
        """Of the mean; NaN for fewer than two numbers."""
        if self.count < 2:
            return math.nan
        return math.sqrt(self.squares / (self.count - 1) / self.count)


class RunningDistances:
    """Average distances of each captured block over images.

    Args:
        pairs: estimate the JSD from so many pairs of each image, if it has more; None: all pairs,
            which takes minutes for an image of 4200 positions on a CPU. The cosine distance always
            has all.
        seed: of the pairs.

    Attributes:
        means: block → kind (:data:`KINDS`) → :class:`Mean`. JSD is there only for maps whose rows
            are distributions, and no kind is there for an image without its numbers.
    """

    def __init__(self, pairs: int | None = None, seed: int = 0) -> None:
        self.pairs, self.seed = pairs, seed
        self.means: dict[str, dict[str, Mean]] = {}

    def add(self, captured: Mapping[str, Captured]) -> None:
        """Take in the images of one call of a model.

        Raises:
            ValueError: vectors that are not finite; the message names the block.
        """
        for name, block in captured.items():
            means = self.means.setdefault(name, {})
            for what in ("input", "output", "attention"):
                vectors = block.vectors(what)
                for number in range(len(vectors)):  # one by one: float64 of all would be large
                    try:
                        self._add_one(means, what, vectors[number])
                    except ValueError as error:
                        raise ValueError(f"block {name}, {what}: {error}") from None

    def _add_one(self, means: dict[str, Mean], what: str, vectors: Tensor) -> None:
        distance = average_cosine_distance(vectors).item()
        means.setdefault(f"cosine/{what}", Mean()).add(distance)
        if what == "attention" and _are_distributions(vectors):
            if self.pairs is None or len(vectors) ** 2 <= self.pairs:  # no more than are drawn
                jsd = average_jsd(vectors)
            else:
                seed = self.seed + means["cosine/attention"].count
                jsd = sampled_distance(vectors, "jsd", pairs=self.pairs, seed=seed).mean
            means.setdefault("jsd/attention", Mean()).add(jsd.item())

    def merge(self, other: RunningDistances) -> None:
        """Take in what another process has seen."""
        for name, kinds in other.means.items():
            for kind, mean in kinds.items():
                self.means.setdefault(name, {}).setdefault(kind, Mean()).merge(mean)

    def as_dict(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
        """Plain values: block → kind → mean, standard error (None: one image), images."""
        return {
            name: {
                kind: {
                    "mean": mean.mean,
                    "standard_error": None if mean.count < 2 else mean.standard_error,
                    "images": mean.count,
                }
                for kind, mean in kinds.items()
            }
            for name, kinds in self.means.items()
        }


def _are_distributions(rows: Tensor) -> bool:
    """Whether rows are not negative and sum to 1 as closely as the JSD wants it."""
    if bool((rows < 0).any()):
        return False
    return bool(((rows.double().sum(-1) - 1).abs() <= 1e-3).all())
