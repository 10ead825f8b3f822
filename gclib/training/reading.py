"""Test examples in their order, for evaluations and analyses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from gclib.training.distributed import World
from gclib.training.recipe import Machine
from gclib.training.stopping import ignore_in_worker


class First(Dataset):
    """The first examples of a data set."""

    def __init__(self, data: Any, count: int) -> None:
        self.data, self.count = data, min(count, len(data))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]


def in_order(
    data: Dataset,
    collate: Callable[[list], Any],
    world: World,
    machine: Machine,
    *,
    batch_size: int = 1,
    chosen: Sequence[int] | None = None,
) -> DataLoader:
    """This process's share of the examples, each once over all processes.

    Args:
        data: the examples.
        collate: makes a batch of them.
        world: the processes.
        machine: how many processes read.
        batch_size: examples of a batch.
        chosen: indices of the examples; None for all.
    """
    chosen = range(len(data)) if chosen is None else chosen
    return DataLoader(
        Subset(data, chosen[world.rank :: world.size]),
        batch_size=batch_size,
        collate_fn=collate,
        num_workers=machine.workers,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=ignore_in_worker,
        # Its own generator: the training's goes on as if nothing had been evaluated.
        generator=torch.Generator().manual_seed(0),
    )
