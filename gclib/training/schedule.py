r"""Learning rates: linear warm-up, then a cosine or steps.

Both are functions of the update $t$ of $T$, counted from 0. With $w$ updates of warm-up that
starts at the share $s$ of the largest rate $\eta$:

$$\eta_t = \eta\,\Bigl(s + (1 - s)\frac{t + 1}{w}\Bigr)\ (t < w), \qquad
\eta_t = \frac{\eta}{2}\Bigl(1 + \cos\frac{\pi (t - w)}{T - w}\Bigr)\ (t \ge w).$$
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence


def warmup_factor(step: int, warmup: int, start: float = 0.0) -> float:
    """Share of the largest rate in update ``step`` of a linear warm-up; 1 behind it."""
    if step >= warmup:
        return 1.0
    return start + (1 - start) * (step + 1) / warmup


def cosine(step: int, steps: int, lr: float, *, warmup: int = 0, start: float = 0.0) -> float:
    """Learning rate of an update: warm-up, then half a cosine down to zero.

    Args:
        step: update, counted from 0.
        steps: number of updates.
        lr: largest learning rate.
        warmup: updates of the linear warm-up.
        start: share of ``lr`` from which it rises.
    """
    if step < warmup:
        return lr * warmup_factor(step, warmup, start)
    progress = (step - warmup) / max(1, steps - warmup)
    return lr * 0.5 * (1 + math.cos(math.pi * progress))


def multistep(
    step: int,
    drops: Sequence[int],
    lr: float,
    *,
    factor: float = 0.1,
    warmup: int = 0,
    start: float = 0.0,
) -> float:
    """Learning rate of an update: warm-up, then ``lr`` times ``factor`` at every drop.

    Args:
        step: update, counted from 0.
        drops: updates from which on the rate is smaller, in rising order.
        lr: largest learning rate.
        factor: of every drop.
        warmup: updates of the linear warm-up.
        start: share of ``lr`` from which it rises.
    """
    return lr * warmup_factor(step, warmup, start) * factor ** bisect_right(drops, step)


def scaled_lr(lr: float, lr_batch: int, batch_size: int) -> float:
    """The linear scaling rule: a batch that is twice as large takes twice the learning rate.

    Args:
        lr: learning rate that belongs to ``lr_batch`` examples.
        lr_batch: see ``lr``.
        batch_size: examples of an update.
    """
    return lr * batch_size / lr_batch
