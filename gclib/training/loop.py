"""The training loop of the project: one update, and the short runs of the lab.

:func:`update` is what every training here is made of, in a notebook and on many GPUs
(:mod:`gclib.training.trainer`). It knows a model, batches and a loss; nothing of images or blocks.
Everything random is drawn from the seed, so that the same recipe and seed give the same losses on
the same machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gclib.training.schedule import cosine

LossOf = Callable[[nn.Module, Any], Tensor]
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        return cosine(step, self.steps, self.lr, warmup=self.warmup)


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


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Any],
    count: int,
    loss_of: LossOf,
    *,
    clip: float | None = None,
    precision: str = "fp32",
    device: str = "cpu",
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """One update of the weights, from a batch that comes in parts.

    Gradients of the parts are accumulated; processes exchange them once, with the last part.

    Args:
        model: in training mode; may be wrapped in ``DistributedDataParallel``.
        optimizer: with the learning rate of this update.
        parts: the parts of the batch, of equal size.
        count: how many there are.
        loss_of: the mean loss of the model over the examples of a part, a scalar.
        clip: largest norm of the gradient; None for no limit.
        precision: ``"fp32"``, or autocast to ``"bf16"`` or ``"fp16"``.
        device: type of the device.
        scaler: of fp16's losses.

    Returns:
        The mean loss before the update, a scalar that was not waited for.
    """
    optimizer.zero_grad(set_to_none=True)
    dtype = AUTOCAST[precision]
    total: Tensor | None = None
    for number, part in enumerate(parts, start=1):
        quiet = number < count and hasattr(model, "no_sync")
        with model.no_sync() if quiet else contextlib.nullcontext():
            with torch.autocast(device, dtype) if dtype else contextlib.nullcontext():
                loss = loss_of(model, part)
            loss = loss if count == 1 else loss / count
            (scaler.scale(loss) if scaler else loss).backward()
        total = loss.detach() if total is None else total + loss.detach()
    if total is None:
        raise ValueError("the batch has no parts")
    if clip is not None:
        if scaler:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    return total


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group of parameters this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def not_finite(step: str, loss: float, lr: float) -> FloatingPointError:
    """What to say of a loss that is no number."""
    return FloatingPointError(
        f"the loss of update {step} is {loss}: lower the learning rate (lr={lr:g}) or look at the "
        "data"
    )


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    loss_of: LossOf,
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
        set_rate(optimizer, recipe.rate(step))
        loss = update(model, optimizer, [batch], 1, loss_of, clip=recipe.clip)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise not_finite(str(step), losses[-1], recipe.lr)
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
