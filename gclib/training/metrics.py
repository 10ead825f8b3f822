"""Top-k accuracy, as counts: counts of parts and of processes add up exactly."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def topk_correct(logits: Tensor, labels: Tensor, ks: Sequence[int] = (1, 5)) -> list[int]:
    """How many examples have their class among the k largest logits, for each k.

    Args:
        logits: ``(N, classes)``.
        labels: ``(N,)`` int64.
        ks: numbers of guesses; more than there are classes count as all of them.

    A logit that is no number is no guess: an example with one counts as wrong for every k.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (N, classes) and labels (N,), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    finite = logits.isfinite().all(1)
    most = min(max(ks), logits.shape[1])
    guesses = logits.topk(most, dim=1).indices
    hits = (guesses == labels[:, None]) & finite[:, None]
    return [int(hits[:, : min(k, most)].sum()) for k in ks]


def as_shares(correct: Sequence[float], count: float) -> list[float]:
    """Counts as percentages, as the paper prints them."""
    if not count:
        raise ValueError("no example was evaluated")
    return [100 * number / count for number in correct]
