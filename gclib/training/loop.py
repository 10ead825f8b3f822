"""The training loop of the project.

It knows a model, batches, a loss and a recipe; nothing of images or blocks. Everything random is
drawn from the seed, so that the same recipe and seed give the same losses on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How to train: AdamW, linear warm-up, cosine decay to zero.

    Attributes:
        steps: number of updates.
        batch_size: examples of each update.
        lr: largest learning rate.
        weight_decay: decay of AdamW, on every parameter.
        warmup: updates over which the learning rate rises from zero.
        clip: largest norm of the gradient.
    """

    steps: int = 800
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 1e-4
    warmup: int = 50
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Learning rate of an update, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))


def config_hash(config: Any) -> str:
    """A short hash of a recipe or of any JSON value; two runs with the same one are comparable."""
    value = asdict(config) if hasattr(config, "__dataclass_fields__") else config
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def batches(
    tensors: tuple[Tensor, ...], recipe: Recipe, *, seed: int
) -> Iterator[tuple[Tensor, ...]]:
    """``recipe.steps`` batches of aligned tensors, shuffled anew in every epoch.

    Raises:
        ValueError: there are fewer examples than one batch holds.
    """
    count = len(tensors[0])
    if count < recipe.batch_size:
        raise ValueError(f"{count} examples: expected at least one batch of {recipe.batch_size}")
    generator = torch.Generator().manual_seed(seed)
    order, start = torch.randperm(count, generator=generator), 0
    for _ in range(recipe.steps):
        if start + recipe.batch_size > count:
            order, start = torch.randperm(count, generator=generator), 0
        chosen = order[start : start + recipe.batch_size]
        start += recipe.batch_size
        yield tuple(tensor[chosen] for tensor in tensors)


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    loss_of: Callable[[nn.Module, tuple[Tensor, ...]], Tensor],
    recipe: Recipe,
    *,
    on_step: Callable[[int, float], None] | None = None,
    label: str | None = None,
) -> list[float]:
    """Train ``model`` in place.

    Args:
        model: the model.
        batches: the batches, one for each update.
        loss_of: the loss of the model on a batch, a scalar.
        recipe: how to train.
        on_step: called after each update with its number and its loss.
        label: name on the progress bar; None for no bar.

    Returns:
        The loss of every update, before it.

    Raises:
        FloatingPointError: the loss is not finite; the message names the update.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    model.train()
    losses: list[float] = []
    for step, batch in enumerate(_with_bar(batches, recipe.steps, label)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss = loss_of(model, batch)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss of update {step} is {losses[-1]}: lower the learning rate "
                f"(lr={recipe.lr:g}) or look at the data"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        if on_step:
            on_step(step, losses[-1])
    model.eval()
    return losses


def _with_bar(items: Iterable, total: int, label: str | None) -> Iterable:
    if label is None:
        return items
    from tqdm import tqdm

    # On stdout: in a notebook, stderr is shown in red.
    return tqdm(
        items, total=total, desc=label, file=sys.stdout, mininterval=0.5, leave=False, delay=2
    )
