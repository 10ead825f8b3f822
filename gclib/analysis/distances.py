r"""Distances between the vectors of different positions (paper section 3.2, table 1).

.. math:: \mathrm{avg\_dist} = \frac{1}{N_p^2}\sum_{i=1}^{N_p}\sum_{j=1}^{N_p}
          \mathrm{dist}(v_i, v_j)

Pairs of a position with itself count, with distance 0, as in the paper. All functions take one
vector per position, ``(..., positions, d)``, and compute in float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 1 << 20  # numbers of one temporary: 8 MiB
_TINY = 1e-300


def average_cosine_distance(vectors: Tensor, *, positions: Tensor | None = None) -> Tensor:
    r"""Average of :math:`(1 - \cos(v_i, v_j))/2` over all pairs, without the pairs.

    With the unit vectors :math:`u_i = v_i/|v_i|` and their mean :math:`\bar u` it is

    .. math:: \frac{1 - |\bar u|^2}{2} = \frac{1}{2N}\sum_i |u_i - \bar u|^2 ,

    linear in the number of positions. The right side is used: it loses no digits where all vectors
    are nearly the same.

    Args:
        vectors: ``(..., N, d)``.
        positions: indices of the positions to average over; default: all.

    Returns:
        ``(...)``, from 0 to 1; 0.5 for vectors without any relation. A vector of zeros has no
        direction: it counts as 0 away from another one and as 1/2 away from all others.

    Raises:
        ValueError: no position, or a vector that is not finite.
    """
    vectors = _chosen(vectors, positions)
    length = vectors.norm(dim=-1, keepdim=True)  # (..., N, 1)
    empty = (length == 0).squeeze(-1)
    units = vectors / length.masked_fill(length == 0, 1)
    share = empty.double().mean(-1)  # of the positions without a direction
    spread = (units - units.mean(-2, keepdim=True)).square().sum(-1).mean(-1) / 2
    # For a unit vector |u|² = 1, for an empty one 0: the pair formula differs from the spread by
    # share/2, and pairs of two empty ones, share² of all, are 0 in place of 1/2.
    return spread + share / 2 - share.square() / 2


def average_jsd(
    distributions: Tensor, *, positions: Tensor | None = None, progress: str | None = None
) -> Tensor:
    r"""Average Jensen-Shannon divergence over all pairs, natural logarithm.

    .. math:: \mathrm{dist}(v_i, v_j) = \frac12\sum_k\Bigl(v_{ik}\log\frac{2v_{ik}}{v_{ik}+v_{jk}}
              + v_{jk}\log\frac{2v_{jk}}{v_{ik}+v_{jk}}\Bigr)
              = H\Bigl(\frac{v_i+v_j}{2}\Bigr) - \frac{H(v_i)+H(v_j)}{2}

    Every pair is computed once, in blocks: memory stays at the input and a few MiB, time grows
    with N²·d (about two minutes for N = d = 4200 on 2 free cores).

    Args:
        distributions: ``(..., N, d)``, rows that are not negative and sum to 1.
        positions: indices of the positions to average over; default: all.
        progress: label of a progress bar; None for no bar.

    Returns:
        ``(...)``, from 0 to log 2.

    Raises:
        ValueError: no position, or rows that are not distributions: dot-product and concat maps.
    """
    rows = _check_distributions(_chosen(distributions, positions))
    count, width = rows.shape[-2:]
    rows = rows.reshape(-1, count, width).clamp(min=_TINY)  # so that 0 · log 0 is 0
    negative_entropy = (rows * rows.log2()).sum(2)  # (examples, N); log2 is the fast logarithm
    step = max(1, _BLOCK // (len(rows) * width or 1))
    total = rows.new_zeros(len(rows))
    for i in _with_bar(range(count), progress):
        for start in range(i + 1, count, step):
            others = slice(start, start + step)
            mixture = (rows[:, others] + rows[:, i : i + 1]).mul_(0.5)
            mixed = torch.log2(mixture).mul_(mixture).sum(2)
            pairs = (negative_entropy[:, others] + negative_entropy[:, i : i + 1]) / 2 - mixed
            total += 2 * pairs.sum(1)  # (i, j) and (j, i)
    average = total.clamp(min=0) * math.log(2) / count**2
    return average.reshape(distributions.shape[:-2])


class Estimate(NamedTuple):
    """A mean over sampled pairs and its standard error."""

    mean: Tensor
    standard_error: Tensor


def sampled_distance(
    vectors: Tensor, kind: str, *, pairs: int, seed: int = 0, positions: Tensor | None = None
) -> Estimate:
    """Estimate an average distance from pairs drawn with replacement from all N² pairs.

    Args:
        vectors: ``(..., N, d)``; distributions for ``"jsd"``.
        kind: ``"cosine"`` or ``"jsd"``.
        pairs: number of pairs, at least 2; the same for every example.
        seed: seed of the pairs.
        positions: indices of the positions to draw from; default: all.

    Returns:
        Mean and standard error, each ``(...)``.

    Raises:
        ValueError: the kind is unknown, there are fewer than 2 pairs, or the vectors do not fit.
    """
    if kind not in ("cosine", "jsd"):
        raise ValueError(f"kind={kind!r}: expected 'cosine' or 'jsd'")
    if pairs < 2:
        raise ValueError(f"pairs={pairs}: expected at least 2, for a standard error")
    vectors = _chosen(vectors, positions)
    if kind == "jsd":
        _check_distributions(vectors)
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(vectors.shape[-2], (2, pairs), generator=generator)
    step = max(1, _BLOCK // (vectors[..., 0, :].numel() or 1))
    distance = _cosine if kind == "cosine" else _jsd
    values = torch.cat(
        [
            distance(vectors[..., i, :], vectors[..., j, :])
            for i, j in zip(first.split(step), second.split(step), strict=True)
        ],
        dim=-1,
    )
    return Estimate(values.mean(-1), values.std(-1) / pairs**0.5)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.norm(dim=-1) * b.norm(dim=-1)
    cosine = (a * b).sum(-1) / lengths.masked_fill(lengths == 0, 1)
    both_empty = (a == 0).all(-1) & (b == 0).all(-1)
    return ((1 - cosine) / 2).masked_fill(both_empty, 0).clamp(0, 1)


def _jsd(a: Tensor, b: Tensor) -> Tensor:
    middle = (a + b) / 2
    entropies = torch.special.xlogy(a, a) + torch.special.xlogy(b, b)
    return (entropies / 2 - torch.special.xlogy(middle, middle)).sum(-1).clamp(min=0)


def _chosen(vectors: Tensor, positions: Tensor | None) -> Tensor:
    if vectors.dim() < 2:
        raise ValueError(f"expected one vector per position (..., N, d), got {_shape(vectors)}")
    if positions is not None:
        vectors = vectors[..., torch.as_tensor(positions), :]
    if vectors.shape[-2] == 0:
        raise ValueError("no position to average over")
    vectors = vectors.detach().to(torch.float64)
    if not vectors.isfinite().all():
        raise ValueError("a vector is not finite: expected numbers, got NaN or infinity")
    return vectors


def _check_distributions(rows: Tensor) -> Tensor:
    sums = rows.sum(-1)
    if bool((rows < 0).any()) or bool(((sums - 1).abs() > 1e-3).any()):
        raise ValueError(
            f"rows sum to {sums.min():.4g} up to {sums.max():.4g}, smallest entry {rows.min():.4g}:"
            f" JSD needs rows that are not negative and sum to 1 (Gaussian, embedded Gaussian)"
        )
    return rows / sums.unsqueeze(-1)  # float16 maps sum to 1 within their own precision only


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _with_bar(items: Iterable[int], label: str | None) -> Iterable[int]:
    if label is None:
        return items
    from tqdm import tqdm

    # On stdout: in a notebook, stderr is shown in red.
    return tqdm(items, desc=label, file=sys.stdout, mininterval=0.5, leave=False, delay=2)
