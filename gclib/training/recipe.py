"""What the three recipes of full training share, and what belongs to the machine alone.

A recipe decides the result: two runs with one recipe are comparable, whatever they ran on, and a
checkpoint goes on under its own recipe alone. What does not change the result to the last rounding
(processes, workers, compilation) is a matter of the :class:`Machine`.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gclib.training.options import BadOption, option
from gclib.training.schedule import cosine, multistep, scaled_lr

PRECISIONS = ("fp32", "bf16", "fp16")
CORES = min(4, os.cpu_count() or 1)
OPTIMIZERS = ("sgd", "adamw")
NORMS = ("batch", "sync", "frozen")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train: SGD with momentum (or AdamW), warm-up, cosine or steps.

    Raises:
        BadOption: fields that contradict one another.
    """

    row: str = option("", "row of the paper's tables")
    seed: int = option(0, "of weights, order and augmentation", least=0)
    epochs: int = option(1, "passes over the data", least=1)
    batch_size: int = option(512, "examples of an update, over all processes", least=1)
    micro_batch: int = option(64, "examples of a forward pass in one process", least=1)
    lr: float = option(0.2, "learning rate for lr_batch examples", above=0)
    lr_batch: int = option(512, "batch that lr belongs to: the rate grows with batch_size", least=1)
    optimizer: str = option("sgd", "adamw: for small networks from scratch", choices=OPTIMIZERS)
    momentum: float = option(0.9, "of SGD; of AdamW the first beta", least=0, most=1)
    nesterov: bool = option(False, "Nesterov's momentum")
    weight_decay: float = option(1e-4, "on every parameter", least=0)
    schedule: str = option("cosine", "of the learning rate", choices=("cosine", "steps"))
    drops: tuple[float, ...] = option((), "epochs after which it drops (steps)", above=0)
    drop_factor: float = option(0.1, "of a drop", above=0, most=1)
    warmup_epochs: float = option(0.0, "linear warm-up, in epochs", least=0)
    warmup_steps: int = option(0, "linear warm-up, in updates", least=0)
    warmup_start: float = option(0.0, "share of the rate where warm-up starts", least=0, most=1)
    clip: float | None = option(None, "largest norm of the gradient", above=0)
    norm: str = option("batch", "BatchNorm: per process, synchronised, frozen", choices=NORMS)
    precision: str = option("bf16", "autocast; fp32 is TF32 on a GPU", choices=PRECISIONS)

    def __post_init__(self) -> None:
        if self.warmup_epochs and self.warmup_steps:
            raise BadOption("warmup_epochs and warmup_steps: give one of them")
        if list(self.drops) != sorted(set(self.drops)):
            raise BadOption(f"drops={self.drops}: expected rising epochs")
        if bool(self.drops) != (self.schedule == "steps"):
            raise BadOption("schedule=steps and drops belong together: give both or none")
        if self.warmup_start and not (self.warmup_epochs or self.warmup_steps):
            raise BadOption("warmup_start needs warmup_epochs or warmup_steps")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise BadOption(
                f"warmup_epochs={self.warmup_epochs:g}: expected fewer than epochs={self.epochs}"
            )
        if self.nesterov and (not self.momentum or self.optimizer != "sgd"):
            raise BadOption("nesterov needs optimizer=sgd with a momentum")
        if self.optimizer == "adamw" and self.momentum == 1:
            raise BadOption("momentum=1: AdamW needs less than 1")

    @property
    def largest_lr(self) -> float:
        """The learning rate behind the warm-up, scaled to the batch (linear scaling rule)."""
        return scaled_lr(self.lr, self.lr_batch, self.batch_size)

    def decay_of(self, module: nn.Module) -> float:
        """Weight decay of the parameters that a module owns itself."""
        return self.weight_decay

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of an update, counted from 0."""
        warmup = self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)
        how: dict[str, Any] = {"warmup": warmup, "start": self.warmup_start}
        if self.schedule == "cosine":
            return cosine(step, self.epochs * steps_per_epoch, self.largest_lr, **how)
        drops = [round(epoch * steps_per_epoch) for epoch in self.drops]
        return multistep(step, drops, self.largest_lr, factor=self.drop_factor, **how)

    def as_dict(self) -> dict[str, Any]:
        """Field → plain value, as checkpoints and summaries hold it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run takes of its machine; none of it changes what is computed but for rounding."""

    device: str = option("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    workers: int = option(CORES, "processes that read data, for each training process", least=0)
    channels_last: bool = option(True, "layout of the feature maps")
    compile: bool = option(False, "torch.compile the network")
    deterministic: bool = option(False, "only operations that repeat bit for bit (slower)")
    threads: int | None = option(None, "of torch, for each process", least=1)
    evaluate_every: int = option(1, "epochs between evaluations", least=1)
    checkpoint_steps: int | None = option(None, "updates between them, not minutes", least=1)
    checkpoint_minutes: float = option(10.0, "minutes between checkpoints", above=0)
    keep: int = option(2, "how many of the last checkpoints stay", least=1)
    log_every: int = option(50, "updates between lines of log.jsonl", least=1)
    max_broken: int = option(100, "unreadable files of a process, then it stops", least=0)
    stop_after: int | None = option(None, "updates after which to save and leave", least=1)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run lives.

    Attributes:
        out: folder of the run.
        resume: go on from the newest checkpoint there, if there is one.
        command: what started it, for the summary.
    """

    out: Path
    resume: bool = False
    command: str = ""
