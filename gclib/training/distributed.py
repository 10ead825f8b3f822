"""Processes of one training: started by ``torchrun``, or one alone.

>>> world = start("auto")       # one process, or what torchrun says in the environment
>>> world.rank, world.size
(0, 1)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where this process computes.
        control: group of the processes on CPUs, for words that must not wait for a GPU; None for
            one process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: Any = field(default=None, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def largest(self, *values: int) -> list[int]:
        """The largest of each value over all processes."""
        return self._reduced(values, torch.int64, dist.ReduceOp.MAX)

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        return self._reduced(values, torch.float64, dist.ReduceOp.SUM)

    def _reduced(self, values: Sequence, dtype: torch.dtype, operation: Any) -> list:
        tensor = torch.tensor(values, dtype=dtype)
        if self.size == 1:
            return tensor.tolist()
        dist.all_reduce(tensor, operation, group=self.control)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in all of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def to_leader(self, value: Any) -> list[Any]:
        """The value of every process, in process 0; the others get an empty list."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size if self.leads else []
        dist.gather_object(value, found if self.leads else None, group=self.control)
        return found

    def from_leader(self, value: Any) -> Any:
        """The value of process 0."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes, on its device."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value


def start(device: str = "auto", *, timeout: float = 1800.0) -> World:
    """Join the processes that ``torchrun`` started; one process where it did not.

    Args:
        device: ``"auto"`` (a GPU for each process where there is one), ``"cpu"`` or ``"cuda"``.
        timeout: seconds after which a process that waits for the others gives up.

    Raises:
        ValueError: no GPU, or fewer GPUs than processes on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    kind = device
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here; take --device cpu")
    elif device not in ("cpu", "cuda"):
        raise ValueError(f"--device {device}: expected auto, cpu or cuda")
    here = torch.device("cpu")
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs: start as "
                "many processes as there are GPUs (torchrun --nproc-per-node)"
            )
        here = torch.device("cuda", local)
        torch.cuda.set_device(here)
    if size == 1:
        return World(device=here)
    wait = timedelta(seconds=timeout)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=wait)
    control = dist.new_group(backend="gloo", timeout=wait) if kind == "cuda" else dist.group.WORLD
    return World(rank, size, here, control)


def finish() -> None:
    """Leave the other processes; nothing where there are none."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
