"""Visible checks of chapter 03: one attention map for all queries, and the distributive law.

The numbers are small enough to follow by hand; what each check expects is written out, not
computed by a second implementation.
"""

from __future__ import annotations

from math import isfinite, log, sqrt

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle, ModuleHandle, Opaque
from gclib.checks.properties import (
    blocks_are_apart,
    build,
    every_weight_learns,
    examples_apart,
    find_roles,
    forward_equals,
    gradient_arrives,
    identity_at_start,
    input_kept,
    keeps_float32,
    large_inputs_stay_finite,
    learns_from_the_start,
    module_keeps_float32,
    positions_are_a_set,
    randomise,
    same_in_eval_mode,
)
from gclib.checks.report import Report, fits
from gclib.checks.roles import Assignment


def _numbers(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@exercise(
    "c03-e1",
    "one map for all queries",
    needs="shared_attention",
    look="section 3, the weights of equation 2",
    points=(1, 1),
    minutes=8,
)
def e1(impl: Handle, report: Report) -> None:
    """``x (N, C, L)``, ``key_weight (C,)`` → ``(N, L)``."""
    key_weight = _numbers([1, 1, -1])
    first = [[0, 3, 3], [log(2), 1, 1], [log(4), -2, -2], [5, -2, 3]]
    second = [[0, 0, log(2)], [0, log(3), 0], [2, -2, 0], [1, 1, 2 + log(2)]]
    x = _numbers([first, second]).transpose(1, 2).contiguous()  # (2, 3, 4)
    scores = _numbers([[0, log(2), log(4), 0], [-log(2), log(3), 0, -log(2)]])
    exponentials = _numbers([[1, 2, 4, 1], [1 / 2, 3, 1, 1 / 2]])
    expected = _numbers([[1 / 8, 1 / 4, 1 / 2, 1 / 8], [1 / 10, 3 / 5, 1 / 5, 1 / 10]])
    call = impl.inspect(x, key_weight)
    report.tensor(
        "one weight for each position",
        call.result,
        (2, 4),
        causes={
            (2, 3): "one number for each channel: W_k sums over channels, softmax over positions",
            (2, 3, 4): "the channels are not summed: W_k x_j is one number for each position",
            (2, 4, 4): "one row for each query: here all queries share one row",
            (2, 1, 4): "one axis too many: (N, L)",
            (2, 4, 1): "one axis too many: (N, L)",
            (4, 2): "the axes are swapped: the examples come first",
            (4,): "axis 0, the examples, is gone",
            (8,): "the examples were flattened too: keep axis 0",
        },
    )
    report.ok("one weight for each position")
    report.close(
        "softmax of W_k x_j over the positions",
        call.result,
        expected,
        mistakes={
            "softmax over the examples (axis 0): each example is on its own": scores.softmax(0),
            "one softmax over the whole batch: each row sums to 1 by itself": (
                exponentials / exponentials.sum()
            ),
            "the exponentials are not divided by their sum": exponentials,
            "this is W_k x_j: the softmax is missing": scores,
            "softmax a second time": expected.softmax(1),
            "divided by the number of positions: equation 2 has a softmax": (
                scores / 4,
                expected / 4,
            ),
            "divided by √C: equation 2 has no scale": (scores / sqrt(3)).softmax(1),
            "divided by C (the mean over channels): W_k x_j is a sum": (scores / 3).softmax(1),
            "this is the logarithm of the softmax": expected.log(),
            "this is the sigmoid of each score, which does not compare the positions": (
                exponentials / (1 + exponentials)
            ),
            "the scores have the wrong sign": (-scores).softmax(1),
            "the scores lost their sign": (scores.abs().softmax(1), scores.relu().softmax(1)),
            "divided by the sum of the scores: softmax divides their exponentials": (
                scores / scores.sum(1, keepdim=True)
            ),
            "the softmax has powers of e, not of 2": (scores * log(2)).softmax(1),
            "the weights are multiplied by a number: each row sums to 1": (
                *(4 * expected, 3 * expected),
            ),
            "the scores are multiplied or divided before the softmax: equation 2 has no scale": (
                *((scores * factor).softmax(1) for factor in (1 / 4, 1 / 2, 2, 3, 4, sqrt(3))),
            ),
            "softmax comes behind W_k, not before it": (
                *((x.softmax(d).mT @ key_weight) for d in (1, 2)),
                *((x.softmax(d).mT @ key_weight).softmax(1) for d in (1, 2)),
            ),
            "softmax belongs to the scores, not to W_k": (x.mT @ key_weight.softmax(0)).softmax(1),
            "x is divided by its lengths: W_k x_j is the plain product": (
                (x / x.norm(dim=1, keepdim=True)).mT @ key_weight
            ).softmax(1),
            "only the position with the largest score is taken": _numbers(
                [[0, 0, 1, 0], [0, 1, 0, 0]]
            ),
            "all positions have the same weight: W_k is not used": torch.full_like(expected, 0.25),
            "the channels are summed without W_k": x.sum(1).softmax(1),
            "the examples changed places": expected.flip(0),
            "the scores are divided by their sum, without exp": scores
            / scores.sum(1, keepdim=True),
            "divided by the length of the row: a softmax divides by the sum": (
                exponentials / exponentials.norm(dim=1, keepdim=True)
            ),
            "powers of 2: the softmax has e": (log(2) * scores).softmax(1),
            "only the largest score counts: a softmax gives every position a weight": _numbers(
                [[0, 0, 1, 0], [0, 1, 0, 0]]
            ),
        },
    )
    large = _numbers([[[1e4, 1e4 + log(3)], [0, 0]], [[-1e4, -1e4], [0, 0]]])
    report.close(
        "scores of ±10,000 do not overflow",
        impl.call(large, _numbers([1, 1])),
        _numbers([[0.25, 0.75], [0.5, 0.5]]),
        cause="exp overflows: use softmax, or subtract the maximum of each row first",
    )
    examples_apart(report, lambda x: impl.call(x, key_weight), report.randn(3, 3, 5))
    input_kept(report, call, x, key_weight)
    gradient_arrives(report, *impl.gradients(x, key_weight, cotangent=report.randn(2, 4)).inputs)
    keeps_float32(report, impl.call, x, key_weight)


# The toy example of the chapter: four positions with three channels. W_k reads channel 0; W_v
# makes (b + c, 2b - c) of the channels (a, b, c). Section 2 shows it.
_POSITIONS = _numbers([[0, 8, 0], [log(2), 0, 4], [log(4), 8, 16], [0, 0, -8]])  # (4, 3)
_KEY = _numbers([1, 0, 0])
_VALUE = _numbers([[0, 1, 1], [0, 2, -1]])
_SCORES = _numbers([0, log(2), log(4), 0])
_WEIGHTS = _numbers([1 / 8, 1 / 4, 1 / 2, 1 / 8])
_VALUES_SEEN = _numbers([[8, 16], [4, -4], [24, 0], [-8, 8]])  # W_v x_j
_POOLED = _numbers([1.25 * log(2), 5, 8])
_CONTEXT = _numbers([[13, 2]])


def _context_mistakes() -> dict[str, Tensor | tuple[Tensor, ...]]:
    def with_weights(weights: Tensor) -> Tensor:
        return (weights @ _VALUES_SEEN)[None]

    def with_weights_of(values: Tensor) -> Tensor:
        return (_WEIGHTS @ values)[None]

    return {
        "the weights are not used: this is the plain mean": _numbers([[7, 5]]),
        "the weights are not used: this is the plain sum": _numbers([[28, 20]]),
        "the exponentials are not divided by their sum": 8 * _CONTEXT,
        "the softmax is missing": with_weights(_SCORES),
        "divided by the number of positions: the weights sum to 1 already": _CONTEXT / 4,
        "softmax a second time": with_weights(_WEIGHTS.softmax(0)),
        "only the position with the largest weight is taken": _numbers([[24, 0]]),
        "the weights are squared": with_weights(_WEIGHTS.square()),
        "the result is multiplied by a number": (2 * _CONTEXT, 3 * _CONTEXT, 4 * _CONTEXT),
        "divided by the sum of the scores: softmax divides their exponentials": with_weights(
            _SCORES / _SCORES.sum()
        ),
        "divided by √C: equation 2 has no scale": with_weights((_SCORES / sqrt(3)).softmax(0)),
        "W_v is reshaped: its transpose is value_weight.T": (
            _WEIGHTS @ (_POSITIONS @ _VALUE.reshape(3, 2))
        )[None],
        "the largest over the positions, not the sum": (
            (_WEIGHTS[:, None] * _VALUES_SEEN).amax(0)[None]
        ),
        "softmax of the values: it belongs to the scores W_k x_j": (
            *(with_weights_of(_VALUES_SEEN.softmax(d)) for d in (0, 1)),
        ),
        "softmax behind the weighted sum: it belongs to the scores": (
            (_VALUE @ _POOLED.softmax(0))[None],
            _CONTEXT.softmax(1),
        ),
        "the weights come from W_v x_j: they come from W_k x_j": (
            (_VALUES_SEEN * _VALUES_SEEN.softmax(1)).sum(0)[None],
            (_VALUES_SEEN * _VALUES_SEEN.softmax(0)).sum(0)[None],
        ),
        "this is the sigmoid of the scores, not the softmax": with_weights(_SCORES.sigmoid()),
        "the largest term of each channel is taken: equation 2 has a sum": (
            (_WEIGHTS[:, None] * _VALUES_SEEN).amax(0)[None]
        ),
        "the result is divided by √C: equation 2 has no scale": _CONTEXT / sqrt(3),
        "a second softmax, over the channels of the result": _CONTEXT.softmax(1),
        "the order of the positions was turned around": with_weights(_WEIGHTS.flip(0)),
        "negative values became zero: equation 2 has no ReLU": (
            (_WEIGHTS @ _VALUES_SEEN.relu())[None]
        ),
        "the weights were put on both sides of W_v: once is enough": (
            _WEIGHTS.square() @ _VALUES_SEEN
        )[None],
    }


_CONTEXT_SHAPES = {
    (1, 3): "W_v is not used: this is the pooled input",
    (1, 2, 4): "not summed over the positions",
    (1, 4, 2): "not summed over the positions",
    (1, 3, 4): "not summed over the positions, and W_v is not used",
    (1, 4): "summed over the channels: the sum runs over positions",
    (1, 2, 1): "one axis too many: (N, C')",
    (1, 1, 2): "one axis too many: (N, C')",
    (2,): "axis 0, the examples, is gone",
    (2, 1): "the axes are swapped: the examples come first",
}
_CHANNELS, _WIDE, _LONG = 4, 64, 400  # of the example on which the sizes are measured


def _context(impl: Handle, report: Report) -> None:
    """What both forms have in common; the toy example, with section 2's numbers."""
    x = _POSITIONS.T[None].contiguous()  # (1, 3, 4)
    call = impl.inspect(x, _KEY, _VALUE)
    what = "one context vector for each example"
    report.tensor(what, call.result, (1, 2), causes=_CONTEXT_SHAPES)
    report.ok(what)
    what = "four positions by hand"
    report.close(what, call.result, _CONTEXT, mistakes=_context_mistakes())
    report.close(
        "a single position (-1, -1, 3): its own value (2, -5)",
        impl.call(_numbers([[[-1], [-1], [3]]]), _KEY, _VALUE),
        _numbers([[2, -5]]),
        mistakes={
            "a ReLU stands behind W_v": _numbers([[2, 0]]),
            "a ReLU stands before W_v": _numbers([[3, -3]]),
            "the signs are lost": (_numbers([[2, 5]]), _numbers([[4, -1]])),
        },
        cause="one position has the weight 1, whatever its score: did squeeze() drop an axis, or "
        "is a number of positions fixed?",
    )
    key, value = report.randn(3), report.randn(2, 3)
    examples_apart(report, lambda x: impl.call(x, key, value), report.randn(3, 3, 5))
    input_kept(report, call, x, _KEY, _VALUE)
    found = impl.gradients(report.randn(2, 3, 5), key, value, cotangent=report.randn(2, 2))
    gradient_arrives(report, *found.inputs)
    keeps_float32(report, impl.call, x, _KEY, _VALUE)


def _long(report: Report) -> tuple[Tensor, Tensor, Tensor]:
    return (
        report.randn(1, _CHANNELS, _LONG),
        report.randn(_CHANNELS),
        report.randn(_WIDE, _CHANNELS),
    )


@exercise(
    "c03-e2",
    "equation 2: transform, then sum",
    needs="context_eq2",
    look="section 4, the left side of the table",
    points=(1, 1),
    minutes=8,
)
def e2(impl: Handle, report: Report) -> None:
    """``x (N, C, L)``, ``key_weight (C,)``, ``value_weight (C', C)`` → ``(N, C')``."""
    _context(impl, report)
    call = impl.inspect(*_long(report))
    report.true(
        "every position is transformed",
        call.total >= _WIDE * _LONG,
        expected=f"W_v x_j at {_LONG} positions: {_WIDE}·{_LONG} = {_WIDE * _LONG} numbers",
        got=f"{call.total} numbers in all tensors together",
        cause="pooled before W_v: that is equation 3, the next exercise (einsum with three "
        "tensors also does it)",
    )


@exercise(
    "c03-e3",
    "equation 3: sum, then transform",
    needs="context_eq3",
    look="section 4, the right side of the table",
    points=(1, 2),
    minutes=8,
)
def e3(impl: Handle, report: Report) -> None:
    """The same as exercise 2, without the tensor of all transformed positions."""
    _context(impl, report)
    call = impl.inspect(*_long(report))
    report.true(
        "no tensor holds all transformed positions",
        call.largest < _WIDE * _LONG,
        expected=f"tensors far below {_WIDE}·{_LONG} = {_WIDE * _LONG} numbers",
        got=f"one of {call.largest} numbers",
        cause="W_v is applied to every position: take the weighted sum of x first",
    )
    report.true(
        "W_v is applied to one vector",
        call.total < _WIDE * _LONG,
        expected=f"fewer than {_WIDE}·{_LONG} = {_WIDE * _LONG} numbers in all",
        got=f"{call.total} numbers, piece by piece",
        cause="the positions are transformed one after the other: W_v belongs behind the sum",
    )


@exercise(
    "c03-e4",
    "multiply-adds by hand",
    needs="multiply_adds",
    look="section 5, the three products",
    points=(1, 1),
    minutes=10,
)
def e4(impl: Handle, report: Report) -> None:
    """``channels``, ``positions`` → the multiply-adds of equation 2 and of equation 3."""
    result = impl.call(3, 4)
    what = "a pair of two whole numbers"
    pair = isinstance(result, (tuple, list)) and len(result) == 2
    cause = "return both numbers with a comma between them"
    if isinstance(result, (int, float)):
        cause = "one number alone: return eq2, eq3"
    elif result is None:
        cause = "the function ends without a return statement"
    elif isinstance(result, dict):
        cause = "a dictionary: return eq2, eq3"
    shown = f"{len(result)} values" if isinstance(result, (tuple, list)) else str(result)
    report.true(what, pair, expected="(eq2, eq3)", got=shown, cause=cause)
    plain = all(isinstance(n, (int, float)) for n in result)
    names = [n.type_name if isinstance(n, Opaque) else type(n).__name__ for n in result]
    report.true(
        "both are numbers",
        plain,
        expected="plain Python numbers",
        got=" and ".join(names),
        cause="count with plain Python numbers, without tensors, text or lists inside",
    )
    report.true(
        "counts are whole numbers",
        all(isfinite(n) and n == int(n) for n in result),
        expected="whole numbers",
        got=str(tuple(result)),
        cause="something was divided: a count is a sum of products",
    )
    _counts(report, "3 channels, 4 positions", result, (60, 33), 3, 4)
    _counts(report, "2 channels, 5 positions", impl.call(2, 5), (40, 24), 2, 5)
    for channels, positions, expected in (
        (1, 1, (3, 3)),  # one position: nothing to save
        (10, 100, (12_000, 2_100)),
        (100, 10, (102_000, 12_000)),
    ):
        what = f"{channels} channels, {positions} positions"
        _counts(report, what, impl.call(channels, positions), expected, channels, positions)


def _counts(report: Report, what: str, result, expected: tuple[int, int], c: int, n: int) -> None:
    """Compare a pair of counts; ``c`` channels, ``n`` positions."""
    logits = pooling = n * c
    eq2, eq3 = expected
    pair = _numbers([eq2, eq3])
    mistakes = {
        "the two are swapped: equation 2 first": pair.flip(0),
        "one number for each position is not enough: each score costs C, and the weighted sum "
        "adds C numbers for each position": (pair - logits + n, pair - logits + c),
        "the additions are counted again: a multiply-add is a product with its addition": (
            *(_numbers([eq2 - c, eq3 - c]), _numbers([2 * eq2 - n, 2 * eq3 - n])),
        ),
        "there is one W_v and no W_z: equation 2 dropped it": _numbers(
            [eq2 + n * c * c, eq3 + c * c]
        ),
        "equation 3 computes a score at every position, too": _numbers([eq2, eq3 - n * c + c]),
        "the scores W_k x_j are not counted (or the weighted sum is not): both cost C for each "
        "position": pair - logits,
        "neither the scores nor the weighted sum are counted": pair - logits - pooling,
        "a multiply-add counts 1, not 2": 2 * pair,
        "equation 3 applies W_v to one vector: C·C, not C·C for each position": _numbers(
            [eq2, eq2]
        ),
        "equation 2 applies W_v at every position: L·C·C": _numbers([eq3, eq3]),
        "W_v has C·C weights, not C": _numbers([2 * n * c + n * c, 2 * n * c + c]),
        "W_v is not counted": _numbers([2 * n * c, 2 * n * c]),
        "equation 3 still has to compute scores and the weighted sum at all positions": (
            _numbers([eq2, c * c]),
            _numbers([eq2, 2 * c + c * c]),
        ),
        "equation 3 needs the scores too": _numbers([eq2, eq3 - n * c]),
        "equation 2 needs the scores too": _numbers([eq2 - n * c, eq3]),
        "channels and positions are swapped": _numbers([2 * n * c + c * n * n, 2 * n * c + n * n]),
        "these are the products of all pairs of positions: there is one map for all queries": (
            _numbers([n * n * c * 2 + n * c * c, n * n * c * 2 + c * c])
        ),
        "softmax, additions and the residual are free, and there is no query: "
        "only products count": (
            pair + n,
            pair + 2 * n,
            pair + n * c,
        ),
        "a bias is an addition: it is free": _numbers([eq2 + n * c, eq3 + c]),
    }
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        report.fail(what, expected=f"({eq2}, {eq3})", got=str(result), cause="return eq2, eq3")
    report.close(
        what,
        _numbers([float(number) for number in result]),
        pair,
        mistakes=mistakes,
        cause="add three products: scores, weighted sum, W_v",
    )


# The block's toy: section 2's positions, and a third row of W_v, minus half of channel 2.
_SQUARE = _numbers([[0, 1, 1], [0, 2, -1], [0, 0, -0.5]])
_ADDED = _numbers([13, 2, -4])
_TRANSFORMED = _numbers([[8, 16, 0], [4, -4, -2], [24, 0, -8], [-8, 8, 4]])
_SHAPES = {"key": (1, 3), "value": (3, 3)}
_TOY_SIZES = {1: (4,), 2: (2, 2), 3: (2, 1, 2)}  # ndim → how the four positions are folded
_SIZES = {1: (7,), 2: (3, 5), 3: (2, 3, 2)}


def _as_map(rows: Tensor, size: tuple[int, ...]) -> Tensor:
    """Rows (L, C) as a feature map (1, C, *positions)."""
    return rows.T.reshape(1, rows.shape[1], *size)


def _block_mistakes() -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Wrong results, one row for each position."""

    def with_weights(weights: Tensor) -> Tensor:
        return _POSITIONS + (weights @ _TRANSFORMED)[None].expand(4, -1)

    added = _ADDED[None].expand(4, -1)
    halves = _numbers([1 / 3, 2 / 3, 4 / 5, 1 / 5])  # softmax inside of each row or frame
    inside = torch.stack([halves[:2] @ _TRANSFORMED[:2], halves[2:] @ _TRANSFORMED[2:]])
    return {
        "the residual is forgotten: the input is not added back": added,
        "the residual is counted twice": 2 * _POSITIONS + added,
        "the input is subtracted": added - _POSITIONS,
        "the context is subtracted": _POSITIONS - added,
        "the context is multiplied with the input: the fusion is an addition": _POSITIONS * added,
        "the context is not added": _POSITIONS,
        "the context times the input is added: add the context itself": _POSITIONS * (1 + added),
        "the softmax is missing": with_weights(_SCORES),
        "the exponentials are not divided by their sum": with_weights(8 * _WEIGHTS),
        "the weights are not used: this is the plain mean": with_weights(_numbers([0.25] * 4)),
        "every weight is 1: the softmax ran over an axis of size 1, not over the positions": (
            with_weights(_numbers([1.0] * 4))
        ),
        "this is the sigmoid of the scores, not the softmax": with_weights(_SCORES.sigmoid()),
        "divided by the number of positions as well": with_weights(_WEIGHTS / 4),
        "multiplied with the number of positions": with_weights(4 * _WEIGHTS),
        "a norm stands behind W_v: equation 3 has none": (
            _POSITIONS + torch.nn.functional.layer_norm(_ADDED, (3,))
        ),
        "a norm stands before W_v: equation 3 has none": (
            _POSITIONS + _SQUARE @ torch.nn.functional.layer_norm(_POOLED, (3,))
        ),
        "tanh or sigmoid stands behind W_v": (
            *(_POSITIONS + _ADDED.tanh(), _POSITIONS + _ADDED.sigmoid()),
        ),
        "the pooled vector is added as well: W_v has no residual of its own": (
            _POSITIONS + _ADDED + _POOLED
        ),
        "positions and channels are mixed: flatten to (N, C, L), and swap axes with transpose, "
        "not with view or reshape": _mixed(),
        "divided by √C: equation 2 has no scale": with_weights((_SCORES / sqrt(3)).softmax(0)),
        "W_v is not used: this is the pooled input": _POSITIONS + _POOLED,
        "softmax a second time": with_weights(_WEIGHTS.softmax(0)),
        "the weights are squared": with_weights(_WEIGHTS.square()),
        "the largest term of each channel is taken: the context is a sum": (
            _POSITIONS + (_WEIGHTS[:, None] * _POSITIONS).amax(0) @ _SQUARE.T
        ),
        "every position keeps its own value: sum over the positions": (
            _POSITIONS + _WEIGHTS[:, None] * _TRANSFORMED
        ),
        "softmax over an axis of size 1: every weight is 1, and nothing is summed": (
            _POSITIONS + _TRANSFORMED
        ),
        "each row or frame has a softmax of its own: flatten all position axes first": (
            with_weights(halves)
        ),
        "each row or frame has a context of its own: flatten all position axes first": (
            _POSITIONS + inside.repeat_interleave(2, 0)
        ),
        "a ReLU stands behind W_v, or before it": _POSITIONS + added.relu(),
        "a ReLU stands behind the sum": (_POSITIONS + added).relu(),
    }


def _mixed() -> Tensor:
    """The result where (C, L) numbers are read as (L, C) by view."""
    rows = _POSITIONS.T.reshape(4, 3)
    return _POSITIONS + _SQUARE @ (rows[:, 0].softmax(0) @ rows)


def _equal_positions(
    report: Report, module: ModuleHandle, assignment: Assignment, size: tuple[int, ...]
) -> None:
    """Weights that sum to 1 pool equal positions to that position: z = x + W_v x."""
    rows = _numbers([[1, 2, -1]] * 4)
    added = _numbers([1, 5, 0.5])
    forward_equals(
        report,
        "equal positions: their context is W_v of one of them",
        module,
        [assignment],
        {"key": _numbers([[1, 1, 0]]), "value": _SQUARE},
        _as_map(rows, size),
        _as_map(rows + added, size),
        mistakes={
            "the weights do not sum to 1: the softmax comes behind W_k, not before it": (
                *(_as_map(rows + k * added, size) for k in (2, 1 / 2, 1 / 4, 4, 3, 12)),
            )
        },
        cause="softmax over the positions gives weights that sum to 1",
    )


def _four_positions(
    report: Report, module: ModuleHandle, found: list[Assignment], size: tuple[int, ...]
) -> Assignment:
    return forward_equals(
        report,
        "four positions by hand",
        module,
        found,
        {"key": _KEY[None], "value": _SQUARE},
        _as_map(_POSITIONS, size),
        _as_map(_POSITIONS + _ADDED, size),
        mistakes={
            cause: [_as_map(r, size) for r in ([rows] if isinstance(rows, Tensor) else rows)]
            for cause, rows in _block_mistakes().items()
        },
        cause="is there a step that the table does not have: a norm, an activation, dropout, a "
        "factor?",
    )


@exercise(
    "c03-e5",
    "the simplified block",
    needs="SimplifiedNonLocalBlock",
    look="section 6, the table of steps",
    points=(2, 3),
    minutes=25,
)
def e5(impl: Handle, report: Report) -> None:
    """Equation 3 with residual and zero initialisation, for one to three position axes."""
    for ndim in (2, 1, 3):
        with report.group(f"ndim={ndim}"):
            _block(impl, report, _TOY_SIZES[ndim], report.randn(2, 3, *_SIZES[ndim]), ndim)
    with report.group("the default is ndim=2"):
        module = build(report, impl, 3)
        found = find_roles(report, module, _SHAPES, "layers key and value")
        _four_positions(report, module, found, (1, 4))


def _block(impl: Handle, report: Report, toy: tuple[int, ...], x: Tensor, ndim: int) -> None:
    module = build(report, impl, 3, ndim=ndim)
    found = find_roles(report, module, _SHAPES, "two layers: key to one number, value from C to C")
    identity_at_start(report, module, x, found[0]["value"])
    report.true(
        "W_k has a random start",
        bool(module.weights()[found[0]["key"].weight].any()),
        expected="random numbers in the key's weight",
        got="zeros",
        cause="only W_v starts at zero: leave the key as PyTorch makes it",
    )
    assignment = _four_positions(report, module, found, toy)
    _equal_positions(report, module, assignment, toy)
    randomise(report, module, x)
    added = report.tensor("the result has the input's shape", module.forward(x), tuple(x.shape)) - x
    report.true(
        "every position gets the same vector",
        bool((added.flatten(2) - added.flatten(2)[:, :, :1]).abs().max() < 1e-9),
        expected="z_i - x_i the same at all positions i",
        got="another vector at another position",
        cause="something depends on the position i beside the residual: one context for all",
    )
    positions_are_a_set(report, module, x)
    examples_apart(report, module.forward, x)
    every_weight_learns(report, module, x, assignment, dead=("key",))
    same_in_eval_mode(report, module, x)
    large_inputs_stay_finite(report, module, 100 * x)
    fresh = build(report, impl, 3, ndim=ndim)
    last = {"key": assignment["key"], "out": assignment["value"]}
    learns_from_the_start(report, fresh, x, last, dead=("key",))
    blocks_are_apart(report, impl, x, 3, ndim=ndim)
    module_keeps_float32(report, impl, x, 3, ndim=ndim)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=2, keepdim=True)


@exercise(
    "c03-e6",
    "over which queries",
    needs="query_dependence",
    look="section 7, the identity with the mean of unit vectors",
    points=(1, 1),
    minutes=12,
)
def e6(impl: Handle, report: Report) -> None:
    """``attention (N, L, M)``, ``chosen`` → ``(N,)``, the mean of (1 - cos)/2 over their pairs."""
    rows = _numbers([[[1, 0], [0, 1], [0, 2]], [[3, 4], [4, 3], [-3, -4]]])  # (2, 3, 2)
    others = _numbers([[[5, -5]], [[0, 1]]])  # (2, 1, 2), of a query that was not chosen
    attention, chosen = torch.cat((rows[:, :1], others, rows[:, 1:]), 1), [0, 2, 3]
    everything = attention / attention.norm(dim=2, keepdim=True)
    first = everything[:, :3].mean(1).square().sum(1)
    expected = _numbers([2 / 9, 4 / 9])
    lengths = _numbers([[[1], [1], [2]], [[5], [5], [5]]])
    units = rows / lengths
    call = impl.inspect(attention, chosen)
    report.tensor(
        "one number for each example",
        call.result,
        (2,),
        causes={
            (): "the examples were averaged too: one number for each",
            (2, 3): "not averaged over both rows of a pair",
            (2, 4): "one number for each row, all rows: average over the chosen ones",
            (2, 3, 3): "these are all pairs: average over them",
            (2, 2): "one number for each column: compare whole rows",
            (2, 1): "one axis too many: (N,)",
            (2, 1, 1): "one axis too many: (N,)",
            (3,): "averaged over the examples: average over the rows",
        },
    )
    report.ok("one number for each example")
    columns = rows / rows.norm(dim=1, keepdim=True)
    if not fits(call.result, expected) and fits(call.result, expected, 1e-4):
        report.fail(
            "three rows by hand",
            expected="2/9 and 4/9, to 8 digits",
            got=f"up to {(call.result - expected).abs().max():.1g} away",
            cause="a small number is added to the lengths (no row is zero: leave it out), or the "
            "code computes in float32",
        )
    report.close(
        "three chosen rows by hand",
        call.result,
        expected,
        mistakes={
            "all rows are averaged: those of the chosen queries alone count": (
                1 - everything.mean(1).square().sum(1)
            )
            / 2,
            "the first rows are taken, as many as were chosen: chosen holds their indices": (
                1 - first
            )
            / 2,
            "the factor ½ is missing: the distance is (1 - cos)/2": 2 * expected,
            "divided by 2 twice": expected / 2,
            "pairs of a row with itself are left out: they count, with distance 0": (
                expected * 3 / 2
            ),
            "every pair is counted once: (i, j) and (j, i) both count": (
                expected / 2,
                expected * 3 / 4,
            ),
            "this is the cosine, not the distance": 1 - 2 * expected,
            "the rows are not divided by their lengths": (1 - rows.mean(1).square().sum(1)) / 2,
            "the length of the mean is not squared": (1 - units.mean(1).norm(dim=1)) / 2,
            "the mean over positions is a sum": (1 - units.sum(1).square().sum(1)) / 2,
            "the rows are divided by their sum, not by their length": (
                (1 - (rows / rows.sum(2, keepdim=True)).mean(1).square().sum(1)) / 2,
                (1 - (rows / rows.abs().sum(2, keepdim=True)).mean(1).square().sum(1)) / 2,
            ),
            "softmax: the rows are used as they are": (
                (1 - _unit(rows.softmax(2)).mean(1).square().sum(1)) / 2,
                (1 - rows.softmax(2).mean(1).square().sum(1)) / 2,
            ),
            "first the mean, then the length: first each row to length 1, then their mean": (
                _numbers([0, 0])
            ),
            "the cosines lost their sign": (1 - units.abs().mean(1).square().sum(1)) / 2,
            "this is the spread without a square: the distance is a mean of squares": (
                units.std(1, unbiased=False).sum(1) / 2
            ),
            "the mean of each row is subtracted first: the formula has no such step": (
                1 - _unit(rows - rows.mean(2, keepdim=True)).mean(1).square().sum(1)
            )
            / 2,
            "the mean runs over the examples, too": (
                (1 - units.mean((0, 1)).square().sum()) / 2
            ).expand(2),
            "the mean runs over the columns, too: it is one row of M numbers": (
                1 - units.mean((1, 2)).square()
            )
            / 2,
            "columns are compared, not rows": (1 - columns.mean(2).square().sum(1)) / 2,
            "each column is divided by its length: each row has to be": (
                1 - columns.mean(1).square().sum(1)
            )
            / 2,
            "all rows are compared with the first one alone": _numbers([1 / 3, 1.02 / 3]),
            "the mean over columns, not the squared length": (1 - units.mean(1).square().mean(1))
            / 2,
            "only the squared length is halved: subtract it from 1, then halve": expected + 0.5,
            "divided by the sum of absolute values, or by the largest: the length is the root of "
            "the sum of squares": tuple(
                (1 - (rows / size).mean(1).square().sum(1)) / 2
                for size in (rows.abs().sum(2, keepdim=True), rows.abs().amax(2, keepdim=True))
            ),
            "the plus sign: (1 + cos)/2 is a similarity": 1 - expected,
        },
    )
    examples_apart(report, lambda part: impl.call(part, [0, 3]), report.randn(3, 4, 5))
    report.close(
        "the order of the chosen queries does not matter",
        impl.call(attention, [3, 0, 2]),
        expected,
        cause="chosen holds indices of rows, in any order",
    )
    report.close(
        "one chosen query",
        impl.call(attention, [1]),
        _numbers([0, 0]),
        cause="a row has the distance 0 to itself",
    )
    same = report.randn(1, 1, 4).expand(2, 5, 4).contiguous()
    scaled = same * report.randn(2, 5, 1).abs().add(0.1)
    report.close(
        "equal rows have distance 0, whatever their lengths",
        impl.call(scaled, [0, 1, 2, 3, 4]),
        _numbers([0, 0]),
        cause="the rows are not divided by their lengths, or pairs are counted wrongly",
    )
    report.close(
        "a row and its opposite",
        impl.call(_numbers([[[1, 2, 2], [-1, -2, -2]]]), [0, 1]),
        _numbers([0.5]),
        cause="of four pairs two have distance 1: the mean is ½",
    )
    count = 300
    many = impl.inspect(report.randn(1, count, 4), list(range(count)))
    report.true(
        "the pairs are not made",
        many.total < count * count,
        expected=f"fewer than {count}·{count} = {count * count} numbers in all",
        got=f"{many.total} numbers",
        cause="a table of all pairs of rows: use the mean of the unit vectors",
    )
    input_kept(report, call, attention)
    gradient_arrives(report, *impl.gradients(attention, chosen, cotangent=_numbers([1, 2])).inputs)
    keeps_float32(report, impl.call, attention, chosen)
