"""Visible checks of chapter 02: maps of single queries, and two distances between positions.

The numbers are small enough to follow by hand; what each check expects is written out, not
computed by a second implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle, Opaque, StudentError
from gclib.checks.properties import examples_apart, gradient_arrives, input_kept, keeps_float32
from gclib.checks.report import Report, fits

_LN2 = log(2)


def _numbers(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _distributions(report: Report, *shape: int) -> Tensor:
    """Random rows that are positive and sum to 1."""
    return report.randn(*shape).softmax(-1)


def _refused(run: Callable[[], object]) -> str:
    """What a call did: an empty string if it raised a ValueError."""
    try:
        result = run()
    except StudentError as error:
        return "" if "ValueError" in error.kinds else f"raised {str(error).splitlines()[0]}"
    if isinstance(result, Opaque):
        return f"returned {result.type_name}"
    return "returned nothing" if result is None else "a map"


def _map_inside(
    impl: Handle, report: Report, attention: Tensor, size: tuple[int, int], query: tuple[int, int]
) -> object:
    """The map of a query that exists; fail if it is refused."""
    try:
        return impl.call(attention, size, query)
    except StudentError as error:
        if "ValueError" not in error.kinds or "raise" not in str(error):
            raise
        return report.fail(
            f"query {query} lies inside of {size[0]}×{size[1]}",
            expected="a map",
            got=str(error),
            cause="rows run from 0 to H - 1 and columns from 0 to W - 1: is 0 or the last one "
            "refused, or are H and W swapped?",
        )


_SIZE = (4, 6)
# The entry of query i and key j is the number 100·i + j.
_PAIR_NAMES = 100 * torch.arange(24).double()[:, None] + torch.arange(24).double()


def _row_of(index: int) -> Tensor:
    """The row of a query of ``_PAIR_NAMES`` as a map."""
    return (100 * index + torch.arange(24).double()).view(_SIZE)


@exercise(
    "c02-e1",
    "the map of one query",
    needs="map_of_query",
    look="section 3, the table of indices",
    points=(1, 1),
    minutes=10,
)
def e1(impl: Handle, report: Report) -> None:
    """``attention (L, L)``, ``size (H, W)``, ``query (row, column)`` → ``(H, W)``."""
    size = _SIZE
    _map_inside(impl, report, _PAIR_NAMES, size, (1, 3))
    call = impl.inspect(_PAIR_NAMES, size, (1, 3))
    report.tensor(
        "a map of H rows and W columns",
        call.result,
        size,
        causes={
            (6, 4): "height and width are swapped: size is (H, W), rows come first",
            (24,): "the row of the query is not folded: reshape its keys to (H, W)",
            (1, 24): "the row of the query is not folded: reshape its keys to (H, W)",
            (24, 24): "these are all pairs: take the row of one query",
            (4, 6, 4, 6): "these are all pairs: take the row of one query",
            (4, 6, 24): "these are all pairs: take the row of one query",
            (1, 4, 6): "one axis too many: index with a number, not with a slice or a list",
        },
    )
    report.ok("a map of H rows and W columns")
    right = _row_of(9)
    report.close(
        "query (1, 3) of a 4×6 map is row 9 of the attention",
        call.result,
        right,
        mistakes={
            "this is column 9, what all queries give to one key: rows belong to queries": (
                _PAIR_NAMES[:, 9].view(size)
            ),
            "the index of the query is row·W + column, not row·H + column": _row_of(7),
            "row and column of the query are swapped": (_row_of(19), _row_of(13)),
            "the index of the query is row·W + column, not row + column": _row_of(4),
            "the index of the query is row·W + column, not row·column": _row_of(3),
            "the index counts from 0: the first row and column are 0, not 1": (
                *(_row_of(8), _row_of(10), _row_of(2), _row_of(16)),
            ),
            "only the row of the query is used": (_row_of(1), _row_of(6)),
            "keys are folded column by column: reshape to (H, W), without a transpose": (
                right.reshape(6, 4).T
            ),
            "the weight of the query on itself is changed": right.where(right != 909, 0.0),
            "the map is upside down or mirrored": (
                right.flip(0),
                right.flip(1),
                right.flip((0, 1)),
            ),
            "this is the mean over all queries: take one row": _PAIR_NAMES.mean(0).view(size),
            "this is the sum over all queries: take one row": _PAIR_NAMES.sum(0).view(size),
            "the map is scaled for a picture: return the numbers of the attention as they are": (
                right / right.max(),
                right / right.sum(),
                (right - right.min()) / (right.max() - right.min()),
                right.flatten().softmax(0).view(size),
            ),
        },
    )
    for query, index in (((0, 0), 0), ((0, 5), 5), ((3, 0), 18), ((3, 5), 23)):
        report.close(
            f"query {query} is row {index}",
            _map_inside(impl, report, _PAIR_NAMES, size, query),
            _row_of(index),
            mistakes={
                "the index of the query is row·W + column, not row·H + column": _row_of(
                    query[0] * 4 + query[1]
                )
            },
            cause="the index of the query is row·W + column",
        )
    long = report.randn(10, 10)
    report.close(
        "the same attention on 2×5 and on 5×2 positions",
        torch.cat(
            [impl.call(long, (2, 5), (1, 1)).flatten(), impl.call(long, (5, 2), (1, 1)).flatten()]
        ),
        torch.cat([long[6], long[3]]),
        cause="the sizes are fixed numbers: read H and W from size",
    )
    for query in ((0, 6), (4, 0), (-1, 2), (1, -1)):
        got = _refused(lambda query=query: impl.call(_PAIR_NAMES, size, query))
        cause = (
            "row·W + column of a position outside can be the index of another one: compare the "
            "row with H and the column with W, and raise ValueError(...)"
        )
        if min(query) < 0:
            cause = "a negative index counts from the end in Python: it is outside here, too"
        if got.startswith("raised"):
            cause = "the exercise asks for a ValueError: raise ValueError(...)"
        elif got.startswith("returned"):
            cause = "nothing is raised: write raise ValueError(...), without return or print"
        report.true(
            f"query {query} lies outside of 4×6 and is refused",
            not got,
            expected="a ValueError",
            got=got,
            cause=cause,
        )
    input_kept(report, call, _PAIR_NAMES)
    keeps_float32(report, lambda a: impl.call(a, size, (1, 3)), _PAIR_NAMES)


# Four vectors of two numbers: cosines 0, -1, 0.6 in the first row, 0 and 0.8 in the second, -0.6
# in the third. All 16: 4 of a position with itself, twice the six others: 4 + 2·(-0.2) = 3.6.
# The second example has one direction and four lengths.
_VECTORS = _numbers([[[1, 0], [0, 2], [-3, 0], [3, 4]], [[1, 1], [2, 2], [5, 5], [3, 3]]])
_COSINES = _numbers([[1, 0, -1, 0.6], [0, 1, 0, 0.8], [-1, 0, 1, -0.6], [0.6, 0.8, -0.6, 1]])
_DISTANCES = _numbers([0.3875, 0])  # (1 - 3.6/16)/2


def _cosine_mistakes() -> dict[str, Tensor | tuple[Tensor, ...]]:
    products = (_VECTORS @ _VECTORS.mT).mean((1, 2))
    over_positions = _VECTORS / _VECTORS.norm(dim=1, keepdim=True)
    over_all = _VECTORS / _VECTORS.norm(dim=(1, 2), keepdim=True)
    unit_sums = _VECTORS / _VECTORS.sum(2, keepdim=True)
    absolute_sums = _VECTORS / _VECTORS.abs().sum(2, keepdim=True)
    units = _VECTORS / _VECTORS.norm(dim=2, keepdim=True)
    centred = _VECTORS - _VECTORS.mean(1, keepdim=True)
    middle = _VECTORS.mean(1, keepdim=True)
    to_middle = (units * middle / middle.norm(dim=2, keepdim=True)).sum(2).mean(1)
    mean = _numbers([0.225, 1])  # of the cosines
    absolute = _numbers([_COSINES.abs().mean().item(), 1])

    def distance(units: Tensor) -> Tensor:
        return (1 - (units @ units.mT).mean((1, 2))) / 2

    return {
        "not halved: the distance is (1 - cos)/2, from 0 to 1": 2 * _DISTANCES,
        "this is the mean cosine: the distance is (1 - cos)/2": mean,
        "half of it: halved twice, or one half of the pairs is summed and all L² are counted": (
            _DISTANCES / 2
        ),
        "this is 1 + cos in place of 1 - cos": ((1 + mean) / 2, 1 + mean),
        "pairs of a position with itself are left out: the paper divides by L², with i = j": (
            _DISTANCES * 16 / 12
        ),
        "summed, not averaged: divide by the number of pairs": (16 * _DISTANCES, 4 * _DISTANCES),
        "the vectors are not divided by their lengths: this is not the cosine": (
            (1 - products) / 2,
            1 - products,
            -products,
        ),
        "each channel is divided by its length over the positions: the cosine needs the length of "
        "each vector, over the last axis": distance(over_positions),
        "all vectors are divided by one common length: each needs its own": (
            distance(over_all),
            distance(_VECTORS / _VECTORS.norm()),
        ),
        "divided by the sum of the numbers: the length is the root of the sum of squares": (
            distance(unit_sums),
            distance(absolute_sums),
        ),
        "divided by the largest number: the length is the root of the sum of squares": distance(
            _VECTORS / _VECTORS.abs().amax(2, keepdim=True)
        ),
        "softmax does not make vectors 1 long: divide by the length": (
            distance(_VECTORS.softmax(2)),
            distance(_VECTORS.softmax(2) / _VECTORS.softmax(2).norm(dim=2, keepdim=True)),
        ),
        "the mean over the positions is subtracted first: the formula has no such step": distance(
            centred / centred.norm(dim=2, keepdim=True)
        ),
        "each vector is compared with the mean vector: compare it with every vector": (
            (1 - to_middle) / 2
        ),
        "only one position is compared with all: average over both axes of positions": tuple(
            torch.stack([(1 - _COSINES[i].mean()) / 2, _numbers(0)]) for i in (0, 1, 2)
        ),
        "every pair is counted once: (i, j) and (j, i) both count": _numbers([0.31, 0]),
        "each vector is compared with itself: compare all pairs": _numbers([0, 0]),
        "this is the distance |a - b|, not the cosine distance": (
            torch.cdist(_VECTORS, _VECTORS).mean((1, 2)),
            torch.cdist(units, units).mean((1, 2)),
            torch.cdist(units, units).mean((1, 2)) / 2,
        ),
        "channels and positions are exchanged: cosines are between positions, (N, L, L)": (
            (1 - (units.mT @ units).mean((1, 2))) / 2
        ),
        "the products are not summed over the channels": _numbers([0.25, 0.25]),
        "the sign is wrong: (1 - cos)/2": -_DISTANCES,
        "this is the mean of roots: the formula has none": _numbers(
            [((1 - _COSINES) / 2).sqrt().mean().item(), 0]
        ),
        "divided by the squared length: divide by the length once": distance(
            _VECTORS / _VECTORS.square().sum(2, keepdim=True)
        ),
        "the cosines lost their sign": ((1 - absolute) / 2, 1 - absolute),
        "the cosines are squared": (1 - _numbers([_COSINES.square().mean().item(), 1])) / 2,
        "this is the largest distance, not the average": _numbers([1, 0]),
        "only neighbours are compared: the average runs over all pairs": (
            _numbers([(1 - (0 + 0 - 0.6) / 3) / 2, 0]),
            _numbers([(1 - (0 + 0 - 0.6 + 0.6) / 4) / 2, 0]),
        ),
        "each pair is counted once: (i, j) and (j, i) both count, of L² pairs": _numbers([0.31, 0]),
        "only the first position is compared with all: average over both axes": _numbers(
            [0.425, 0]
        ),
        "negative cosines became zero: opposite vectors have the distance 1": _numbers([0.2875, 0]),
        "divided by the sum of absolute values, or by the largest: the length is the root of the "
        "sum of squares": (
            distance(_VECTORS / _VECTORS.abs().sum(2, keepdim=True)),
            distance(_VECTORS / _VECTORS.abs().amax(2, keepdim=True)),
        ),
        "a mean is subtracted first: the formula has none": _numbers([0.375, 0.5]),
        "channels are compared: the vectors belong to positions": distance(
            (_VECTORS / _VECTORS.norm(dim=1, keepdim=True)).mT
        ),
        "this is the angle, not the cosine": _numbers(
            [(_COSINES.acos() / torch.pi).mean().item(), 0]
        ),
    }


def _is_average_cosine(impl: Handle, report: Report, mistakes: dict) -> None:
    """What both ways to the cosine distance must satisfy."""
    call = impl.inspect(_VECTORS)
    if isinstance(call.result, Tensor) and not call.result.isfinite().all():
        report.fail(
            "finite numbers",
            expected="finite numbers: no vector is zero",
            got="NaN or infinity",
            cause="0/0: something became zero before the division. Is a mean subtracted first?",
        )
    report.tensor(
        "one number for each example",
        call.result,
        (2,),
        causes={
            (): "averaged over the examples too: axis 0 stays",
            (2, 4, 4): "these are all pairs: average over both axes of positions",
            (2, 4): "one of the two axes of positions is left: average over both",
            (2, 1): "one axis too many: average without keepdim",
            (2, 1, 1): "one axis too many: average without keepdim",
            (2, 2): "one number for each channel: sum the squares over the last axis",
            (4, 4): "the examples are merged: axis 0 stays",
            (4,): "the average runs over the examples: axis 0 stays",
            (1,): "axis 0, the examples, is gone",
        },
    )
    report.ok("one number for each example")
    what = "the average of (1 - cos)/2 over all pairs, i = j among them"
    if not fits(call.result, _DISTANCES) and fits(call.result, _DISTANCES, 1e-4):
        report.fail(
            what,
            expected="0.3875 and 0, to 8 digits",
            got=f"up to {(call.result - _DISTANCES).abs().max():.1g} away",
            cause="a small number is added to the lengths (no vector is zero: leave it out), or "
            "the code computes in float32",
        )
    report.close(
        what,
        call.result,
        _DISTANCES,
        mistakes=mistakes,
    )
    lengths = _numbers([[[0.001], [7], [40], [1]], [[2], [0.5], [300], [1]]])
    report.close(
        "the lengths of the vectors do not matter",
        impl.call(lengths * _VECTORS),
        _DISTANCES,
        cause="divide each vector by its own length, and by nothing else; a small number added to "
        "the length shows here",
    )
    opposite = _numbers([[[2, 0], [-2, 0]], [[0, 1], [3, 0]]])
    report.close(
        "two opposite vectors: 1/2, two at a right angle: 1/4",
        impl.call(opposite),
        _numbers([0.5, 0.25]),
        cause="with two positions, half of the pairs are a position with itself",
    )
    examples_apart(report, impl.call, report.randn(3, 5, 4))
    input_kept(report, call, _VECTORS)
    found = impl.gradients(_VECTORS, cotangent=report.randn(2))
    gradient_arrives(report, *found.inputs)
    keeps_float32(report, impl.call, _VECTORS)


@exercise(
    "c02-e2",
    "the average cosine distance",
    needs="cosine_distance",
    look="section 4, the formula and the toy example",
    points=(1, 1),
    minutes=15,
)
def e2(impl: Handle, report: Report) -> None:
    """``vectors (N, L, d)`` → ``(N,)``."""
    _is_average_cosine(impl, report, _cosine_mistakes())


@exercise(
    "c02-e3",
    "the same without pairs",
    needs="cosine_distance_fast",
    look="section 5, the identity",
    points=(1, 1),
    minutes=12,
)
def e3(impl: Handle, report: Report) -> None:
    """``vectors (N, L, d)`` → ``(N,)``, without any tensor of pairs."""
    mean = _VECTORS.mean(1)  # (2, 2)
    units_mean = _numbers([[0.15, 0.45], [sqrt(0.5), sqrt(0.5)]])
    square = _numbers([0.225, 1])  # the squared lengths of these
    mistakes = {
        "the length of the mean is not squared": (1 - square.sqrt()) / 2,
        "first the mean, then the length: first each vector to length 1, then their mean": (
            (1 - mean.square().sum(1)) / 2,
            (1 - mean.square().sum(1) / _VECTORS.square().sum(2).mean(1)) / 2,
            _numbers([0, 0]),
        ),
        "this is the sum of the unit vectors, not their mean": (
            (1 - 16 * square) / 2,
            (1 - 4 * square) / 2,
        ),
        "the mean over the channels, not the sum: the squared length is a sum": (
            (1 - square / 2) / 2
        ),
        "the numbers of the mean are summed without squares": (
            (1 - units_mean.sum(1)) / 2,
            (1 - units_mean.sum(1).square()) / 2,
        ),
        "only the squared length is halved: subtract it from 1, then halve": 1 - square / 2,
        **_cosine_mistakes(),
    }
    _is_average_cosine(impl, report, mistakes)
    positions = 300
    wide = impl.inspect(report.randn(1, positions, 4))
    pairs = f"{positions}·{positions}"
    report.true(
        "no tensor of all pairs is made",
        wide.largest < positions * positions,
        expected=f"tensors far below {pairs} = {positions * positions} numbers",
        got=f"one of {wide.largest} numbers",
        cause="all cosines are computed first: the mean of the unit vectors is enough",
    )
    report.true(
        "the pairs are not computed piece by piece",
        wide.total < positions * positions,
        expected=f"fewer than {pairs} numbers in all",
        got=f"{wide.total} numbers",
        cause="a loop over positions still computes every pair: take the mean of the unit vectors",
    )


# Pairs of distributions over three keys, worked out by hand in section 6.
_P = _numbers([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.25, 0.5], [1, 0, 0]])
_Q = _numbers([[0.5, 0, 0.5], [1 / 3, 2 / 3, 0], [0.25, 0.25, 0.5], [0, 0, 1]])
_FROM_P = _numbers([_LN2 / 2, log(1.5), 0, _LN2])  # relative entropies to the middle
_FROM_Q = _numbers([_LN2 / 2, _LN2 / 3, 0, _LN2])


@exercise(
    "c02-e4",
    "the Jensen-Shannon divergence",
    needs="jsd",
    look="section 6, the formula and the table of pairs",
    points=(1, 2),
    minutes=20,
)
def e4(impl: Handle, report: Report) -> None:
    """``p``, ``q (..., M)`` → ``(...)``."""
    p, q = _numbers([[0.5, 0.5], [0.5, 0.5]]), _numbers([[1 / 6, 5 / 6], [0.5, 0.5]])
    from_p = _numbers([log(1.5) / 2 + log(0.75) / 2, 0])
    from_q = _numbers([-_LN2 / 6 + 5 / 6 * log(1.25), 0])
    expected = (from_p + from_q) / 2
    entropy_p, entropy_q = _LN2, -(log(1 / 6) + 5 * log(5 / 6)) / 6
    call = impl.inspect(p, q)
    report.tensor(
        "one number for each pair",
        call.result,
        (2,),
        causes={
            (): "one number for all pairs together: sum over the last axis alone (F.kl_div needs "
            "reduction='none' for that)",
            (2, 2): "the terms are not summed: sum over the last axis, the keys",
            (2, 1): "one axis too many: sum without keepdim",
        },
    )
    report.ok("one number for each pair")
    if not fits(call.result, expected) and fits(call.result, expected, 1e-4):
        report.fail(
            "half of each distribution's relative entropy to the middle",
            expected="the formula, to 8 digits",
            got=f"up to {(call.result - expected).abs().max():.1g} away",
            cause="a small number is added where the formula has none, or the code computes in "
            "float32",
        )
    report.close(
        "half of each distribution's relative entropy to the middle",
        call.result,
        expected,
        mistakes={
            "not halved: the two relative entropies are averaged": 2 * expected,
            "half of it: halve once, and sum over the keys, without a mean": expected / 2,
            "the logarithm to base 2: the natural one is asked for": expected / _LN2,
            "the logarithm to base 10: the natural one is asked for": expected / log(10),
            "only p is compared with the middle: q has its term, too": (from_p, from_p / 2),
            "only q is compared with the middle: p has its term, too": (from_q, from_q / 2),
            "the middle is (p + q)/2: it is not halved": expected - _numbers([_LN2, _LN2]),
            "the sign is wrong: log(p/m), not log(m/p)": -expected,
            "this is the root, the Jensen-Shannon distance: the paper's has no root": (
                expected.sqrt()
            ),
            "p and q are compared with each other, not with the middle": (
                _numbers([(log(3) + log(0.6)) / 2, 0]),
                _numbers([log(1 / 3) / 6 + 5 / 6 * log(5 / 3), 0]),
                _numbers([(log(3) - log(0.6)) / 6, 0]),
                _numbers([(log(3) - log(0.6)) / 3, 0]),
            ),
            "the middle is √(p·q), or the two arguments of xlogy are swapped: the middle is "
            "(p + q)/2, and xlogy(x, y) is x · log y": _numbers([(log(3) - log(0.6)) / 12, 0]),
            "the middle is the larger of p and q: it is (p + q)/2": _numbers(
                [(0.5 * log(0.6) + log(1 / 3) / 6) / 2, 0]
            ),
            "the two are the wrong way round: the weight is p or q, and m stands below "
            "(F.kl_div(m.log(), p), not F.kl_div(p.log(), m))": _numbers(
                [(log(2 / 3) + 2 * log(4 / 3) + log(2) + 2 * log(0.8)) / 6, 0]
            ),
            "F.kl_div takes the logarithm of the middle as its first argument": _numbers(
                [-(entropy_p + entropy_q) / 2 - 5 / 9, -_LN2 - 0.5]
            ),
            "softmax: p and q are distributions already": _softmax_first(p, q),
            "this is another distance, not the Jensen-Shannon divergence": (
                _numbers([1 / 9, 0]),
                _numbers([2 / 9, 0]),
                _numbers([1 - sqrt(1 / 12) - sqrt(5 / 12), 0]),
                _numbers([(1 - 3 / sqrt(13)) / 2, 0]),
                _numbers([1 - 3 / sqrt(13), 0]),
            ),
            "the sum runs over the first axis, the pairs: sum over the keys, dim=-1": _numbers(
                [log(1.5) / 4 - _LN2 / 12, log(0.75) / 4 + 5 / 12 * log(1.25)]
            ),
            "the entropies of p and q are not subtracted: this is the entropy of the middle": (
                _numbers([log(3) - 2 / 3 * _LN2, _LN2])
            ),
            "the logarithm is not weighted with p and q": (
                _numbers([(log(1.5) + log(0.75) - _LN2 + log(1.25)) / 2, 0])
            ),
            "the middle is compared with p and q: m stands inside of the logarithm alone": _numbers(
                [(-log(1.5) / 3 + 2 / 3 * log(4 / 3) + _LN2 / 3 + 2 / 3 * log(0.8)) / 2, 0]
            ),
            "this is the cosine distance: exercise 4 has logarithms": _numbers(
                [(1 - 3 / sqrt(13)) / 2, 0]
            ),
            "half the sum of differences: this is the total variation": _numbers([1 / 3, 0]),
            "this is the mean of the two entropies": _numbers([(entropy_p + entropy_q) / 2, _LN2]),
        },
    )
    zeros = impl.inspect(_P, _Q)
    what = "with zeros: 0 · log 0 counts as 0"
    if isinstance(zeros.result, Tensor) and zeros.result.shape == (4,):
        right = (_FROM_P + _FROM_Q) / 2
        if not zeros.result.isfinite().all():
            report.fail(
                what,
                expected="ln 2 / 2, 0.3183, 0 and ln 2",
                got="NaN or infinity",
                cause="log 0 is -infinity, and 0 · -infinity is NaN; where p and q are both 0, p/m "
                "is 0/0, NaN even in xlogy: take log p and log m apart, each in an xlogy",
            )
        if not fits(zeros.result, right) and fits(zeros.result, right, 1e-3):
            report.fail(
                what,
                expected="the formula, to 8 digits",
                got=f"up to {(zeros.result - right).abs().max():.1g} away",
                cause="a small number is added inside of the logarithm and shows in the result: "
                "use torch.xlogy(x, y), which is x · log y and 0 where x is 0",
            )
    report.close(
        what,
        zeros.result,
        (_FROM_P + _FROM_Q) / 2,
        cause="a key with 0 on one side still counts on the other side",
    )
    first, second = _distributions(report, 2, 3, 5), _distributions(report, 2, 3, 5)
    there = report.tensor(
        "any leading axes: (2, 3, 5) gives (2, 3)",
        impl.call(first, second),
        (2, 3),
        causes=dict.fromkeys(
            ((2, 5), (3, 5)), "another axis is summed: the keys are the last one, dim=-1"
        ),
        cause="work element by element, and sum over the last axis: then any leading axes stay",
    )
    report.ok("any leading axes: (2, 3, 5) gives (2, 3)")
    report.tensor(
        "two single distributions give one number", impl.call(first[0, 0], second[0, 0]), ()
    )
    report.ok("two single distributions give one number")
    report.close(
        "swapping p and q changes nothing",
        impl.call(second, first),
        there,
        cause="the formula treats p and q alike",
    )
    report.true(
        "never negative, never above ln 2",
        bool((there >= 0).all() and (there <= _LN2).all()),
        expected="numbers from 0 to 0.6931",
        got=f"from {there.min():.4g} to {there.max():.4g}",
        cause="the rows are distributions: no second normalisation is needed",
    )
    _broadcasts(impl, report)
    input_kept(report, zeros, _P, _Q)
    gradient_arrives(report, *impl.gradients(first, second, cotangent=report.randn(2, 3)).inputs)
    _adds_nothing(impl, report)
    keeps_float32(report, impl.call, first, second)


def _softmax_first(p: Tensor, q: Tensor) -> Tensor:
    """The result where softmax is applied to two rows of two keys; the second row is even."""
    a, b = (x[0].softmax(0)[0].item() for x in (p, q))
    m = (a + b) / 2
    parts = [x * log(x / m) + (1 - x) * log((1 - x) / (1 - m)) for x in (a, b)]
    return _numbers([sum(parts) / 2, 0])


def _broadcasts(impl: Handle, report: Report) -> None:
    what = "all pairs by broadcasting: (4, 1, 3) and (1, 4, 3) give (4, 4)"
    cause = (
        "p and q have other shapes here, and p + q has the shape of both together: stack, cat, "
        "zeros_like(p) and += do not broadcast; use p + q, p * q and the like"
    )
    try:
        table = impl.call(_P[:, None], _Q[None])
    except StudentError as error:
        report.fail(what, expected="shape (4, 4)", got=str(error), cause=cause)
    table = report.tensor(what, table, (4, 4), cause=cause)
    report.close(what, table.diagonal(), (_FROM_P + _FROM_Q) / 2, cause=cause)


def _adds_nothing(impl: Handle, report: Report) -> None:
    """The gradient ½ log(p/m) at a tiny probability shows every number added to it.

    Over two keys, with q = (½, ½) and p = (2⁻⁴⁰, 1 - 2⁻⁴⁰), m is (¼, ¾) but for 2⁻⁴¹. The
    difference of the two gradients is what counts: p keeps the sum 1.
    """
    what = "no small number is added: the gradient at the probability 2⁻⁴⁰"
    tiny = 2.0**-40
    p, q = _numbers([[tiny, 1 - tiny]]), _numbers([[0.5, 0.5]])
    gradient = impl.gradients(p, q, cotangent=_numbers([1])).inputs[0]
    if gradient is None:
        gradient_arrives(report, gradient)
    gradient = report.tensor(what, gradient, (1, 2))
    report.close(
        what,
        gradient[:, 0] - gradient[:, 1],
        _numbers([(log(3) - 40 * _LN2) / 2]),
        mistakes={
            "a part of the formula is cut off from the graph (detach, data or no_grad)": _numbers(
                [(log(3) - 40 * _LN2) / 2 + 1 / 3]
            )
        },
        cause="a small number is added inside of the logarithm, or small probabilities are cut "
        "off: use torch.xlogy(x, y), which is x · log y and 0 where x is 0",
        atol=1e-4,
    )


# Maps of three queries over two keys. The first: queries 0 and 1 look at key 0, query 2 at key 1.
# The second: query 0 at key 0, the others at key 1. Two of the three pairs are ln 2 apart.
_MAPS = _numbers([[[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]]])  # (2, 3, 2)
_AVERAGES = _numbers([4 * _LN2 / 9, 4 * _LN2 / 9])


@exercise(
    "c02-e5",
    "the average over all pairs of queries",
    needs="average_jsd",
    look="section 7, the toy maps",
    points=(1, 1),
    minutes=12,
)
def e5(impl: Handle, report: Report) -> None:
    """``attention (N, L, M)`` → ``(N,)``."""
    call = impl.inspect(_MAPS)
    if isinstance(call.result, Tensor) and not call.result.isfinite().all():
        report.fail(
            "maps with zeros",
            expected="finite numbers",
            got="NaN or infinity",
            cause="log 0, or p is divided by a q that is 0: call your jsd, which takes care of "
            "both once exercise 4 passes",
        )
    report.tensor(
        "one number for each example",
        call.result,
        (2,),
        causes={
            (): "averaged over the examples too: axis 0 stays",
            (2, 3, 3): "these are all pairs: average over both axes of queries",
            (2, 3): "one of the two axes of queries is left: average over both",
            (2, 2): "one of the keys' axes is left: distributions run over the keys",
            (2, 1, 1): "one axis too many: average without keepdim",
            (2, 2, 2): "the pairs are pairs of keys: compare the rows",
            (3, 3): "the examples are merged: axis 0 stays",
            (3,): "the average runs over the examples: axis 0 stays",
        },
    )
    report.ok("one number for each example")
    report.close(
        "the average over all pairs of rows, i = j among them",
        call.result,
        _AVERAGES,
        mistakes={
            "pairs of a query with itself are left out: the paper divides by L², with i = j": (
                _AVERAGES * 9 / 6
            ),
            "half of it: only one half of the pairs is summed and all L² are counted, or the keys "
            "are averaged, not summed": _AVERAGES / 2,
            "only one query is compared with all: average over both axes of queries": (
                *(_numbers([_LN2 / 3, 2 * _LN2 / 3]), _numbers([2 * _LN2 / 3, _LN2 / 3])),
            ),
            "a query is left out: do both loops start at 0?": (
                *(_numbers([3 * _LN2 / 9, 2 * _LN2 / 9]), _numbers([2 * _LN2 / 9, 3 * _LN2 / 9])),
                *(_numbers([_LN2 / 2, 0]), _numbers([0, _LN2 / 2])),
            ),
            "every pair is counted once, or the columns are normalised first: (i, j) and (j, i) "
            "both count, and rows sum to 1 already": _AVERAGES * 3 / 4,
            "each query is compared with itself, or only the first ones are compared: both "
            "indices run over all L queries": _numbers([0, 0]),
            "this is the cosine distance: use jsd": _numbers([2 / 9, 2 / 9]),
            "the logarithm to base 2: see exercise 4": _AVERAGES / _LN2,
            "this is the mean of roots: the formula has none": _AVERAGES / sqrt(_LN2),
            "examples are compared with each other: compare the rows of one example": _numbers(
                [_LN2 / 6, _LN2 / 6]
            ),
            "only neighbours are compared: the average runs over all pairs": _AVERAGES * 9 / 8,
            "summed, not averaged: divide by the number of pairs": 9 * _AVERAGES,
            "summed and divided by L: divide by the number of pairs, L²": 3 * _AVERAGES,
            "keys are compared: the rows belong to queries": _numbers([0.75 * _LN2] * 2),
            "the rows are compared with their mean: every pair has a distance of its own": _numbers(
                [log(3) - 2 / 3 * _LN2] * 2
            ),
            "this is the largest distance, or the sum divided by M²: average over the L² pairs": (
                9 / 4 * _AVERAGES
            ),
            "softmax a second time: the rows are distributions already": _again(),
            "not halved: see exercise 4": 2 * _AVERAGES,
            "the logarithm to base 2: the natural one is asked for": _AVERAGES / _LN2,
            "a root is taken of each distance: the paper's JSD has no root": _AVERAGES / sqrt(_LN2),
            "this is the cosine distance of the rows: use jsd": _numbers([2 / 9, 0]),
        },
    )
    disjoint = torch.eye(4).double()[None]
    report.close(
        "four queries with a key each: 12 of 16 pairs are ln 2 apart",
        impl.call(disjoint),
        _numbers([0.75 * _LN2]),
        cause="the average runs over L² pairs",
    )
    maps = _distributions(report, 3, 4, 6)
    result = report.tensor("the order of the queries does not matter", impl.call(maps), (3,))
    report.close(
        "the order of the queries does not matter",
        impl.call(maps[:, report.permutation(4)]),
        result,
        cause="some pairs are left out: the average runs over all of them",
    )
    report.close(
        "equal rows are at distance 0",
        impl.call(maps[:, :1].expand(3, 5, 6).contiguous()),
        _numbers([0, 0, 0]),
        cause="something beside the difference of rows is counted",
    )
    report.close(
        "a single query is 0 away from itself",
        impl.call(maps[:, :1]),
        _numbers([0, 0, 0]),
        cause="with one query there is one pair, at distance 0",
    )
    examples_apart(report, impl.call, maps)
    input_kept(report, call, _MAPS)
    gradient_arrives(report, *impl.gradients(maps, cotangent=report.randn(3)).inputs)
    keeps_float32(report, impl.call, maps)


def _again() -> Tensor:
    """The result of a second softmax on ``_MAPS``: rows (s, 1 - s) and (1 - s, s)."""
    s = torch.sigmoid(_numbers(1)).item()
    pair = s * log(2 * s) + (1 - s) * log(2 * (1 - s))
    return _numbers([4 * pair / 9] * 2)
