"""The order of the examples: from seed, epoch and update alone.

So it is the same for any number of processes and workers, and a run that goes on after a stop takes
the examples that it would have taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gclib.datasets.images import mixed

Key = tuple[int, int]  # epoch, index


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The permutation of an epoch, ``(count,)`` int64."""
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    return torch.randperm(count, generator=generator)


def grouped(order: Tensor, groups: Tensor, size: int) -> Tensor:
    """An order whose parts hold examples of one group each.

    Images that lie and images that stand, padded to one shape, would cost half as much again. The
    parts stand where their last example stood, so both kinds come in a mixed order. Examples that
    do not fill a part of their group are left out of the epoch.

    Args:
        order: ``(count,)``, a permutation.
        groups: ``(count,)``, the group of each example.
        size: examples of a part.

    Returns:
        ``(parts * size,)``.
    """
    places = groups[order]
    parts, ends = [], []
    for group in groups.unique():
        at = (places == group).nonzero().flatten()
        at = at[: len(at) // size * size].view(-1, size)
        parts.append(order[at])
        ends.append(at[:, -1])
    return torch.cat(parts)[torch.cat(ends).argsort()].flatten()


class Order:
    """Batches for ``DataLoader(batch_sampler=...)``, from any update on.

    An update takes ``batch_size`` examples, cut into parts of ``micro_batch``. Part k goes
    to process k mod ``processes``. With one process, the parts are accumulated; with as many
    processes as parts, each takes one. Both compute the same gradient, if the loss is a mean
    over examples and norms do not mix the examples of a part.

    Args:
        count: examples of the data set.
        batch_size: examples of an update, over all processes.
        micro_batch: examples of one forward pass in one process.
        seed: of the order.
        first: the first update, counted from 0.
        steps: the number of updates of the whole run.
        rank: of this process.
        processes: number of processes.
        groups: ``(count,)``; the examples of a part are of one group. None: all are alike.

    Raises:
        ValueError: the batch does not split into equal parts, or is larger than the data set.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        micro_batch: int,
        *,
        seed: int,
        first: int,
        steps: int,
        rank: int = 0,
        processes: int = 1,
        groups: Tensor | None = None,
    ) -> None:
        self.parts = parts_of(batch_size, micro_batch, processes)
        self.whole = count  # examples that an epoch can use
        if groups is not None:
            _, sizes = groups.unique(return_counts=True)
            self.whole = int((sizes // micro_batch).sum()) * micro_batch
        if self.whole < batch_size:
            raise ValueError(
                f"{count} examples: expected at least one batch of {batch_size}; lower batch_size"
            )
        self.count, self.batch_size, self.micro_batch = count, batch_size, micro_batch
        self.groups = groups
        self.seed, self.first, self.steps = seed, first, steps
        self.rank, self.processes = rank, processes

    @property
    def steps_per_epoch(self) -> int:
        """Updates of an epoch; the examples that do not fill a batch are left out of it."""
        return self.whole // self.batch_size

    def __len__(self) -> int:
        return max(0, self.steps - self.first) * self.parts

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, torch.empty(0)
        for step in range(self.first, self.steps):
            now, at = divmod(step, self.steps_per_epoch)
            if now != epoch:
                epoch, order = now, epoch_order(self.count, self.seed, now)
                if self.groups is not None:
                    order = grouped(order, self.groups, self.micro_batch)
            chosen = order[at * self.batch_size : (at + 1) * self.batch_size]
            for part in chosen.split(self.micro_batch)[self.rank :: self.processes]:
                yield [(epoch, index) for index in part.tolist()]


def parts_of(batch_size: int, micro_batch: int, processes: int) -> int:
    """How many parts one process accumulates for an update.

    Raises:
        ValueError: the batch does not split into equal parts; the message names sizes that fit.
    """
    parts, rest = divmod(batch_size, micro_batch * processes)
    if rest or not parts:
        each = batch_size // processes
        fitting = (
            [n for n in range(1, each + 1) if each % n == 0] if batch_size % processes == 0 else []
        )
        near = sorted(fitting, key=lambda n: abs(n - micro_batch))[:3]
        hint = (
            f"micro_batch could be {', '.join(map(str, sorted(near)))}"
            if near
            else (f"batch_size must be a multiple of the {processes} processes")
        )
        raise ValueError(
            f"batch_size={batch_size} does not split into parts of micro_batch={micro_batch} for "
            f"{processes} process{'es' if processes > 1 else ''}: {hint}"
        )
    return parts
