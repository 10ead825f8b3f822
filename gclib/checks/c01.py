"""Visible checks of chapter 01: the non-local block, from one product to four instantiations.

The numbers are small enough to follow by hand; what each check expects is written out, not
computed by a second implementation.
"""

from __future__ import annotations

from math import log, sqrt

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle, ModuleHandle
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
    raises_value_error,
    randomise,
    same_in_eval_mode,
)
from gclib.checks.report import Report
from gclib.checks.roles import Assignment, weights_for


def _numbers(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@exercise(
    "c01-e1",
    "pairwise similarity",
    needs="pairwise_similarity",
    look="section 3, the table of products",
    points=(1, 1),
    minutes=6,
)
def e1(impl: Handle, report: Report) -> None:
    """``query (N, L, d)``, ``key (N, M, d)`` → ``(N, L, M)``."""
    query = _numbers([[[1, 0], [0, 2], [1, 1]]])  # (1, 3, 2)
    key = _numbers([[[3, 0], [1, -4], [0, 1], [2, 2]]])  # (1, 4, 2)
    expected = _numbers([[[3, 1, 0, 2], [0, -8, 2, 4], [3, -3, 1, 4]]])  # (1, 3, 4)
    call = impl.inspect(query, key)
    report.tensor(
        "rows belong to queries, columns to keys",
        call.result,
        (1, 3, 4),
        causes={
            (1, 4, 3): "rows belong to the keys: query comes first in the product",
            (1, 2, 2): "the product ran over positions: the shared axis is d",
            (3, 4): "axis 0, the examples, is gone",
            (1, 3): "the keys were summed: keep one number for each pair",
            (1, 1, 3, 4): "one axis too many: use the axes of the inputs as they are",
        },
    )
    report.ok("rows belong to queries, columns to keys")
    lengths = _numbers([[1], [2], [sqrt(2)]]) * _numbers([[3, sqrt(17), 1, sqrt(8)]])
    report.close(
        "entry (i, j) is the product of query i and key j",
        call.result,
        expected,
        mistakes={
            "divided by √d: equation 1 has no scale": expected / sqrt(2),
            "divided by d: equation 1 has no scale": expected / 2,
            "divided by the number of keys: that is the normalisation of exercise 2": expected / 4,
            "softmax belongs to exercise 2": expected.softmax(2),
            "the vectors were normalised to length 1: this is the cosine": expected / lengths,
            "minus the squared distance, not the product": _numbers(
                [[[-4, -16, -2, -5], [-13, -37, -1, -4], [-5, -25, -1, -2]]]
            ),
            "negative products became zero": expected.relu(),
            "the products lost their sign": expected.abs(),
        },
    )
    examples_apart(report, impl.call, report.randn(3, 4, 2), report.randn(3, 5, 2))
    input_kept(report, call, query, key)
    gradient_arrives(report, *impl.gradients(query, key, cotangent=report.randn(1, 3, 4)).inputs)
    keeps_float32(report, impl.call, query, key)


@exercise(
    "c01-e2",
    "normalisation",
    needs="normalise",
    look="section 4, the table of the four instantiations",
    points=(1, 1),
    minutes=12,
)
def e2(impl: Handle, report: Report) -> None:
    """``similarity (N, L, M)`` → attention ``(N, L, M)``, by the name of the instantiation."""
    similarity = _numbers(
        [[[0, log(2), log(5)], [log(4), 0, 0]], [[0, 0, 0], [0, log(3), 0]]]
    )  # (2, 2, 3)
    exponentials = _numbers([[[1, 2, 5], [4, 1, 1]], [[1, 1, 1], [1, 3, 1]]])
    expected = _numbers(
        [[[1 / 8, 1 / 4, 5 / 8], [2 / 3, 1 / 6, 1 / 6]], [[1 / 3] * 3, [1 / 5, 3 / 5, 1 / 5]]]
    )
    softmax_mistakes = {
        "softmax over the queries (axis 1): each query shares its weight among the keys (axis 2)": (
            exponentials / exponentials.sum(1, keepdim=True)
        ),
        "softmax over the examples (axis 0): each example is on its own": (
            exponentials / exponentials.sum(0, keepdim=True)
        ),
        "one softmax over the whole map: each row sums to 1 by itself": (
            exponentials / exponentials.sum((1, 2), keepdim=True)
        ),
        "the exponentials are not divided by their sum": exponentials,
        "this is the logarithm of the softmax": expected.log(),
        "the exponential is taken twice: softmax has one already": exponentials.softmax(2),
        "softmax and division by the number of keys: one of them is enough": expected / 3,
        "this is the sigmoid of each number, which does not compare the keys": (
            exponentials / (1 + exponentials)
        ),
        "divided by the number of keys: that is for dot_product and concat": similarity / 3,
        "not normalised": similarity,
    }
    for name in ("embedded_gaussian", "gaussian"):
        with report.group(name):
            call = impl.inspect(similarity, name)
            what = "exponentials, divided by their sum over the keys"
            report.close(what, call.result, expected, mistakes=softmax_mistakes)
            input_kept(report, call, similarity)
            found = impl.gradients(similarity, name, cotangent=report.randn(2, 2, 3))
            gradient_arrives(report, *found.inputs)
            keeps_float32(report, lambda s, name=name: impl.call(s, name), similarity)
    products = _numbers([[[3, -6, 9], [0, 12, 1.5]]] * 4)  # (4, 2, 3)
    shares = _numbers([[[1, -2, 3], [0, 4, 0.5]]] * 4)
    for name in ("dot_product", "concat"):
        with report.group(name):
            call = impl.inspect(products, name)
            report.close(
                "divided by the number of keys",
                call.result,
                shares,
                mistakes={
                    "divided by the number of queries: the sum runs over keys": products / 2,
                    "divided by the number of examples: the sum runs over keys": products / 4,
                    "divided by the number of pairs": products / 6,
                    "divided by the sum of the row": products / products.sum(2, keepdim=True),
                    "divided by the square root of the number of keys": products / sqrt(3),
                    "softmax is for the two Gaussians": products.softmax(2),
                    "not normalised": products,
                    "negative entries became zero (ReLU belongs to exercise 5)": shares.relu(),
                    "the entries lost their sign": shares.abs(),
                },
            )
            input_kept(report, call, products)
            found = impl.gradients(products, name, cotangent=report.randn(4, 2, 3))
            gradient_arrives(report, *found.inputs)
            keeps_float32(report, lambda s, name=name: impl.call(s, name), products)
    large = _numbers([[[1e4, 1e4 + log(3)], [-1e4, -1e4]]])
    report.close(
        "similarities of ±10,000 do not overflow",
        impl.call(large, "embedded_gaussian"),
        _numbers([[[0.25, 0.75], [0.5, 0.5]]]),
        cause="exp overflows: use softmax, or subtract the maximum of each row first",
    )
    for name in UNKNOWN:
        raises_value_error(
            report,
            f"the unknown instantiation {name!r} is refused",
            lambda name=name: impl.call(similarity, name),
            "instantiation",
        )


@exercise(
    "c01-e3",
    "aggregation",
    needs="aggregate",
    look="section 5, the formula",
    points=(1, 1),
    minutes=4,
)
def e3(impl: Handle, report: Report) -> None:
    """``attention (N, L, M)``, ``value (N, M, C')`` → ``(N, L, C')``."""
    attention = _numbers([[[0.5, 0.25, 0.25], [0, 1, 0]]])  # (1, 2, 3)
    value = _numbers([[[4, 0], [8, 4], [0, 12]]])  # (1, 3, 2)
    expected = _numbers([[[4, 4], [8, 4]]])  # (1, 2, 2)
    call = impl.inspect(attention, value)
    report.tensor(
        "one context vector for each query",
        call.result,
        (1, 2, 2),
        causes={
            (1, 3, 2): "one vector for each key: the sum runs over the queries",
            (1, 1, 2): "one vector for all queries: the rows of the attention map were merged",
            (1, 2): "one vector for all queries: the rows of the attention map were merged",
            (2, 2): "axis 0, the examples, is gone",
            (1, 2, 3, 2): "the products are not summed over the keys",
        },
    )
    report.ok("one context vector for each query")
    report.close(
        "row i is the mean of the values, weighted by row i of the attention map",
        call.result,
        expected,
        mistakes={
            "the weights are not used: this is the plain mean of the values": _numbers(
                [[[4, 16 / 3], [4, 16 / 3]]]
            ),
            "the weights are not used: this is the sum of the values": _numbers(
                [[[12, 16], [12, 16]]]
            ),
            "only the value with the largest weight is taken": _numbers([[[4, 0], [8, 4]]]),
            "divided by the number of keys a second time": expected / 3,
            "softmax a second time": attention.softmax(2) @ value,
            "the two axes of the result are swapped": expected.transpose(1, 2),
            "the weights are squared": attention.square() @ value,
            "the context is multiplied with the first values": expected * value[:, :2],
        },
    )
    signed = _numbers([[[2, 0, -1], [1, 1, 1]]])  # as the dot product gives: any sign, any sum
    report.close(
        "the weights need not be positive or sum to 1",
        impl.call(signed, value),
        _numbers([[[8, -12], [12, 16]]]),
        mistakes={
            "the weights were divided by their sum: use them as they are": _numbers(
                [[[8, -12], [4, 16 / 3]]]
            ),
            "the weights lost their sign": _numbers([[[8, 12], [12, 16]]]),
            "negative weights became zero": _numbers([[[8, 0], [12, 16]]]),
        },
    )
    square = _numbers([[[1, 0], [0.5, 0.5]], [[0.25, 0.75], [0, 1]]])  # (2, 2, 2)
    values = _numbers([[[8, 0], [4, 2]], [[4, 4], [0, 8]]])  # (2, 2, 2)
    report.close(
        "rows of the map belong to queries",
        impl.call(square, values),
        _numbers([[[8, 0], [6, 1]], [[1, 7], [0, 8]]]),
        mistakes={
            "the attention map is transposed": _numbers([[[10, 1], [2, 1]], [[1, 1], [3, 11]]]),
            "the values are transposed": _numbers([[[8, 4], [4, 3]], [[4, 6], [4, 8]]]),
        },
    )
    examples_apart(report, impl.call, report.randn(3, 4, 5), report.randn(3, 5, 2))
    input_kept(report, call, attention, value)
    cotangent = report.randn(1, 2, 2)
    gradient_arrives(report, *impl.gradients(attention, value, cotangent=cotangent).inputs)
    keeps_float32(report, impl.call, attention, value)


# One example with three positions and four channels, for every block of this chapter. W_q reads
# channel 0, W_k channel 1, W_v channels 2 and 3; W_z writes to all four. Section 6 shows it.
_POSITIONS = _numbers([[1, 0, 3, 0], [0, log(3), 0, 5], [2, 0, 1, 1]])  # (3, 4)
_QUERY = _numbers([[1, 0, 0, 0], [0, 0, 0, 0]])  # queries (1, 0), (0, 0) and (2, 0)
_KEY = _numbers([[0, 1, 0, 0], [0, 0, 0, 0]])  # keys (0, 0), (ln 3, 0) and (0, 0)
_VALUE = _numbers([[0, 0, 1, 0], [0, 0, 0, 1]])
_OUT = _numbers([[1, 0], [0, 1], [1, -1], [0, 2]])
_QUERIES_SEEN = _numbers([[1, 0], [0, 0], [2, 0]])
_KEYS_SEEN = _numbers([[0, 0], [log(3), 0], [0, 0]])
_VALUES_SEEN = _numbers([[3, 0], [0, 5], [1, 1]])
_WEIGHTS = {"query": _QUERY, "key": _KEY, "value": _VALUE, "out": _OUT}
_SHAPES = {"query": (2, 4), "key": (2, 4), "value": (2, 4), "out": (4, 2)}
# By hand: similarities, and the attention map of the embedded Gaussian.
_SIMILARITY = log(3) * _numbers([[0, 1, 0], [0, 0, 0], [0, 2, 0]])
_EMBEDDED = _numbers([[1 / 5, 3 / 5, 1 / 5], [1 / 3] * 3, [1 / 11, 9 / 11, 1 / 11]])


def _z(attention: Tensor, values: Tensor = _VALUES_SEEN, positions: Tensor = _POSITIONS) -> Tensor:
    """The result for a given attention map, positions first."""
    return positions + (attention @ values) @ _OUT.T


def _as_map(rows: Tensor, *positions: int) -> Tensor:
    """Rows (L, C) as a feature map (1, C, *positions)."""
    return rows.T.reshape(1, rows.shape[1], *positions)


def _cut(rows: Tensor) -> Tensor:
    """What a reshape in place of a transpose makes of rows (L, C')."""
    return rows.T.reshape(rows.shape)


def _block_mistakes(attention: Tensor, values: Tensor, positions: Tensor) -> dict[str, Tensor]:
    """Mistakes around the attention map, for any instantiation."""
    context = attention @ values
    branch = context @ _OUT.T
    return {
        "the residual is forgotten: the input is not added back": branch,
        "the residual is counted twice": 2 * positions + branch,
        "the residual is subtracted": branch - positions,
        "the branch is not added: it is multiplied by zero or left out": positions,
        "a ReLU stands behind W_z": positions + branch.relu(),
        "a ReLU stands behind the sum": (positions + branch).relu(),
        "positions and channels are mixed when the context becomes a map again: swap the axes of "
        "(N, H·W, C') before unflatten": positions + context.reshape(2, 3).T @ _OUT.T,
        _ALONE: positions + values @ _OUT.T,
    }


def _softmax_mistakes(
    query: Tensor, key: Tensor, values: Tensor, positions: Tensor, root: str
) -> dict[str, Tensor]:
    """Mistakes inside of the two Gaussians."""
    similarity = query @ key.T
    exponentials = similarity.exp()

    def z(attention: Tensor, values: Tensor = values) -> Tensor:
        return _z(attention, values, positions)

    cut_map = (_cut(query) @ _cut(key).T).softmax(1)
    cut_context = cut_map @ _cut(values)
    over_channels = (query.T @ key).softmax(1)
    mistakes = {
        "softmax over the queries: the wrong axis": z(similarity.softmax(0)),
        "softmax over the whole map": z(exponentials / exponentials.sum()),
        "softmax over an axis of size 1: every weight is 1": z(torch.ones_like(similarity)),
        f"divided by √{root}: equation 1 has no scale": z(
            (similarity / query.shape[1] ** 0.5).softmax(1)
        ),
        f"divided by {root}: equation 1 has no scale": z((similarity / query.shape[1]).softmax(1)),
        f"multiplied by √{root}: equation 1 has no scale": z(
            (similarity * query.shape[1] ** 0.5).softmax(1)
        ),
        "query and key are swapped": z(similarity.T.softmax(1)),
        "the attention map is transposed": z(similarity.softmax(1).T),
        "the exponentials are not divided by their sum": z(exponentials),
        "this is the dot product: softmax is missing": z(similarity / 3),
        "not normalised": z(similarity),
        "every query gets the same map: the query is not used": z(torch.ones(3, 3).double() / 3),
    }
    if query.shape == values.shape:
        mistakes |= {
            "the maps are cut with reshape: use flatten(2).transpose(1, 2) on the way in (chapter "
            "00, exercise 1)": (
                positions + cut_context @ _OUT.T,
                positions + cut_context.reshape(2, 3).T @ _OUT.T,
            ),
            "channels attend to channels: the positions must come first, (N, H·W, C')": (
                positions + (over_channels @ values.T).T @ _OUT.T
            ),
            "the weights go onto the keys, not onto the values": z(similarity.softmax(1), key),
            "the weights go onto the queries, not onto the values": z(similarity.softmax(1), query),
            "W_q is used for the keys too": z((query @ query.T).softmax(1)),
            "W_k is used for the queries too": z((key @ key.T).softmax(1)),
        }
    return mistakes


_ALONE = (
    "every position sees itself alone: there is one query and one key (are rows or frames moved "
    "into the batch axis?)"
)
UNKNOWN = ("embedded gaussian", "dot", "")  # no instantiation has these names
# Fresh biases are often zero, and those of query and key then have no gradient worth asking for.
_DEAD = ("query", "key", "value", "pair")


@exercise(
    "c01-e4",
    "the non-local block",
    needs="NonLocalBlock2d",
    look="section 6, equation 1 with shapes",
    points=(2, 3),
    minutes=35,
)
def e4(impl: Handle, report: Report) -> None:
    """Embedded Gaussian on maps ``(N, C, H, W)``, with residual and zero initialisation."""
    module = build(report, impl, 4)
    what = "four 1×1 maps: query, key, value to C/2, out back to C"
    found = find_roles(report, module, _SHAPES, what)
    x = report.randn(2, 4, 3, 5)
    identity_at_start(report, module, x, found[0]["out"])
    assignment = _three_positions(report, module, found, "embedded_gaussian", (1, 3))
    randomise(report, module, x)
    positions_are_a_set(report, module, x)
    examples_apart(report, module.forward, x)
    every_weight_learns(report, module, x, assignment, dead=("key",))
    same_in_eval_mode(report, module, x)
    large_inputs_stay_finite(report, module, x)
    learns_from_the_start(report, build(report, impl, 4), x, assignment, dead=_DEAD)
    blocks_are_apart(report, impl, x, 4)
    module_keeps_float32(report, impl, x, 4)
    narrow = build(report, impl, 8, reduction=4)
    narrow_shapes = {"query": (2, 8), "key": (2, 8), "value": (2, 8), "out": (8, 2)}
    find_roles(report, narrow, narrow_shapes, "reduction=4 gives an inner width of C/4")


# Gaussian: W_q and W_k are gone, so the positions themselves must give simple products.
_GAUSSIAN_POSITIONS = _numbers(
    [[sqrt(log(3)), 0, 0, 0], [0, sqrt(log(2)), 0, 0], [2 * sqrt(log(3)), 0, 0, 0]]
)
_GAUSSIAN_WEIGHTS = {
    "value": _numbers([[1 / sqrt(log(3)), 0, 0, 0], [0, 1 / sqrt(log(2)), 0, 0]]),
    "out": _OUT,
}
_GAUSSIAN_VALUES = _numbers([[1, 0], [0, 1], [2, 0]])
_PAIR = _numbers([[2, 0, -1, 0]])  # concat: 2 · query[0] - key[0]

_GAUSSIAN = _numbers([[3 / 13, 1 / 13, 9 / 13], [1 / 4, 1 / 2, 1 / 4], [9 / 91, 1 / 91, 81 / 91]])
_DOT = log(3) * _numbers([[0, 1 / 3, 0], [0, 0, 0], [0, 2 / 3, 0]])
_CONCAT = _numbers([[2, 2 - log(3), 2], [0, 0, 0], [4, 4 - log(3), 4]]) / 3
_SUMS = _numbers([[2, 2 - log(3), 2], [0, -log(3), 0], [4, 4 - log(3), 4]]) / 3  # before ReLU
# Name → positions, values and weights of the toy block, its attention map, and wrong results.
_CASES = {
    "embedded_gaussian": (
        (_POSITIONS, _VALUES_SEEN, _WEIGHTS),
        _EMBEDDED,
        _softmax_mistakes(_QUERIES_SEEN, _KEYS_SEEN, _VALUES_SEEN, _POSITIONS, "d"),
    ),
    "gaussian": (
        (_GAUSSIAN_POSITIONS, _GAUSSIAN_VALUES, _GAUSSIAN_WEIGHTS),
        _GAUSSIAN,
        {
            "the similarity is that of the values, not of the input": _z(
                (_GAUSSIAN_VALUES @ _GAUSSIAN_VALUES.T).softmax(1),
                _GAUSSIAN_VALUES,
                _GAUSSIAN_POSITIONS,
            ),
            **_softmax_mistakes(
                _GAUSSIAN_POSITIONS,
                _GAUSSIAN_POSITIONS,
                _GAUSSIAN_VALUES,
                _GAUSSIAN_POSITIONS,
                "C",
            ),
        },
    ),
    "dot_product": (
        (_POSITIONS, _VALUES_SEEN, _WEIGHTS),
        _DOT,
        {
            "not divided by the number of positions": _z(3 * _DOT),
            "softmax is for the two Gaussians": _z(_EMBEDDED),
            "query and key are swapped": _z(_DOT.T),
            "divided by √d as well": _z(_DOT / sqrt(2)),
            "divided by the number of channels": _z(3 * _DOT / 2),
        },
    ),
    "concat": (
        (_POSITIONS, _VALUES_SEEN, _WEIGHTS | {"pair": _PAIR}),
        _CONCAT,
        {
            "ReLU is missing": _z(_SUMS),
            "the key comes before the query": _z(
                _numbers([[0, 2 * log(3) - 1, 0], [0, 2 * log(3), 0], [0, 2 * log(3) - 2, 0]])
                .relu()
                .div(3)
            ),
            "not divided by the number of positions": _z(3 * _CONCAT),
            "softmax is for the two Gaussians": _z((3 * _CONCAT).softmax(1)),
            "the absolute value, not ReLU": _z(_SUMS.abs()),
            "rows belong to the keys: the map is transposed": _z(_CONCAT.T),
            "this is the dot product": _z(_DOT),
            "divided by the number of channels": _z(3 * _CONCAT / 2),
        },
    ),
}
_LAYERS = {
    "embedded_gaussian": "query, key, value, out",
    "gaussian": "value and out alone",
    "dot_product": "query, key, value, out",
    "concat": "query, key, value, out and a pair weight (1, C)",
}


@exercise(
    "c01-e5",
    "four instantiations",
    needs="NonLocalBlock",
    look="section 7, the table of the four instantiations",
    points=(2, 3),
    minutes=35,
)
def e5(impl: Handle, report: Report) -> None:
    """One class, four ways to compare positions."""
    for name in _CASES:
        with report.group(name):
            _check_instantiation(report, impl, name, (1, 3), (3, 5), {"instantiation": name})
    _check_default(report, impl, (1, 3))
    refuses_unknown(report, impl)


def refuses_unknown(report: Report, impl: Handle) -> None:
    """A block of an unknown instantiation is refused when it is built."""
    with report.group("an unknown instantiation is refused"):
        for name in UNKNOWN:
            raises_value_error(
                report,
                f"{name!r} is refused",
                lambda name=name: impl.build(4, instantiation=name),
                "instantiation",
                later=lambda name=name: impl.build(4, instantiation=name).forward(
                    report.randn(1, 4, 2, 3)
                ),
            )


def _three_positions(
    report: Report, module: ModuleHandle, found: list[Assignment], name: str, size: tuple[int, ...]
) -> Assignment:
    """Compare with the toy block of an instantiation; ``size`` folds its three positions."""
    (positions, values, weights), attention, mistakes = _CASES[name]
    rows = mistakes | _block_mistakes(attention, values, positions)
    return forward_equals(
        report,
        "three positions by hand",
        module,
        found,
        weights,
        _as_map(positions, *size),
        _as_map(_z(attention, values, positions), *size),
        mistakes={
            cause: [_as_map(r, *size) for r in (wrong if isinstance(wrong, tuple) else [wrong])]
            for cause, wrong in rows.items()
        },
    )


def _check_instantiation(
    report: Report, impl: Handle, name: str, toy: tuple, size: tuple, options: dict
) -> None:
    module = build(report, impl, 4, **options)
    shapes = {role: tuple(weight.shape) for role, weight in _CASES[name][0][2].items()}
    found = find_roles(report, module, shapes, f"layers {_LAYERS[name]}")
    x = report.randn(2, 4, *size)
    identity_at_start(report, module, x, found[0]["out"])
    assignment = _three_positions(report, module, found, name, toy)
    randomise(report, module, x)
    positions_are_a_set(report, module, x)
    examples_apart(report, module.forward, x)
    softmax = "gaussian" in name
    every_weight_learns(report, module, x, assignment, dead=("key",) if softmax else ())
    same_in_eval_mode(report, module, x)
    large_inputs_stay_finite(report, module, x)
    fresh = build(report, impl, 4, **options)
    learns_from_the_start(report, fresh, x, assignment, dead=_DEAD)
    blocks_are_apart(report, impl, x, 4, **options)
    module_keeps_float32(report, impl, x, 4, **options)


def _check_default(report: Report, impl: Handle, size: tuple[int, ...]) -> None:
    with report.group("the default is embedded_gaussian"):
        module = build(report, impl, 4)
        found = find_roles(report, module, _SHAPES, "layers query, key, value, out")
        _three_positions(report, module, found, "embedded_gaussian", size)


@exercise(
    "c01-e6",
    "sequences, images, clips",
    needs="NonLocalBlockNd",
    look="section 8, the table of axes",
    points=(1, 2),
    minutes=10,
)
def e6(impl: Handle, report: Report) -> None:
    """The same block on ``(N, C, L)``, ``(N, C, H, W)`` and ``(N, C, T, H, W)``."""
    sizes = {1: (7,), 2: (3, 5), 3: (2, 3, 4)}
    for ndim, size in sizes.items():
        toy = (3, *[1] * (ndim - 1))  # for clips: one pixel in three frames
        options = {"ndim": ndim, "instantiation": "embedded_gaussian"}
        with report.group(f"ndim={ndim}, embedded_gaussian"):
            _check_instantiation(report, impl, "embedded_gaussian", toy, size, options)
    for name in ("gaussian", "dot_product", "concat"):
        options = {"ndim": 3, "instantiation": name}
        with report.group(f"ndim=3, {name}"):
            _check_instantiation(report, impl, name, (3, 1, 1), (2, 3, 4), options)
    _check_default(report, impl, (1, 3))
    refuses_unknown(report, impl)
    x = report.randn(2, 4, 1, 3, 5)
    values = {role: 0.7 * report.randn(*shape) for role, shape in _SHAPES.items()}
    clips, images = (_loaded(report, impl, values, ndim, toy) for ndim, toy in _FOLDED.items())
    what = "a clip of one frame is an image"
    expected = report.tensor(what, images.forward(x[:, :, 0]), (2, 4, 3, 5))
    report.close(what, clips.forward(x), expected[:, :, None])
    x = report.randn(1, 4, 3, 2, 2)
    changed = x.clone()
    changed[:, :, 2] += 1
    before, after = clips.forward(x), clips.forward(changed)
    report.true(
        "the first frame sees the last",
        bool((before - after)[:, :, 0].abs().max() > 1e-6),
        expected="a change in frame 0 when frame 2 changes",
        got="none",
        cause="attention stays inside a frame: flatten time together with height and width",
    )


_FOLDED = {3: (3, 1, 1), 2: (1, 3)}  # ndim → how the toy block's three positions are folded


def _loaded(
    report: Report, impl: Handle, values: dict[str, Tensor], ndim: int, toy: tuple[int, ...]
) -> ModuleHandle:
    """A block with these weights in its roles, which the toy block finds out."""
    with report.group(f"ndim={ndim} again"):
        module = build(report, impl, 4, ndim=ndim)
        found = find_roles(report, module, _SHAPES, "layers query, key, value, out")
        assignment = _three_positions(report, module, found, "embedded_gaussian", toy)
    module.load(weights_for(assignment, values))
    return module


@exercise(
    "c01-e7",
    "bonus: the dot product without the map",
    needs="dot_product_linear",
    look="section 10, the brackets",
    points=(0, 0),
    minutes=10,
)
def e7(impl: Handle, report: Report) -> None:
    """``query (N, L, d)``, ``key (N, M, d)``, ``value (N, M, C')`` → ``(N, L, C')``."""
    query = _numbers([[[1, 0], [0, -2]]])  # (1, 2, 2)
    key = _numbers([[[3, 0], [1, -4], [0, 1]]])  # (1, 3, 2)
    value = _numbers([[[1, 0, 2], [0, 3, 0], [6, 0, 3]]])  # (1, 3, 3)
    expected = _numbers([[[1, 1, 2], [-4, 8, -2]]])  # (1, 2, 3)
    call = impl.inspect(query, key, value)
    report.tensor(
        "shape is (N, L, C')",
        call.result,
        (1, 2, 3),
        causes={
            (1, 2, 2): "the product of key and value is transposed: it is (d, C')",
            (1, 3, 2): "the last two axes are swapped",
        },
    )
    report.ok("shape is (N, L, C')")
    report.close(
        "the mean over keys of (query · key) value",
        call.result,
        expected,
        mistakes={
            "not divided by the number of keys": expected * 3,
            "divided by the number of queries: the sum runs over keys": expected * 3 / 2,
            "divided by d as well": expected / 2,
            "divided by √d as well": expected / sqrt(2),
            "softmax: it stands between the two products, so they cannot be swapped": (
                _numbers([[[3, 1, 0], [0, 8, -2]]]).softmax(2) @ value
            ),
            "the products lost their sign": (
                expected.abs(),
                _numbers([[[1, 1, 2], [4, -8, 2]]]),
                _numbers([[[1, 1, 2], [-4, -8, -2]]]),
            ),
            "negative results became zero": expected.relu(),
        },
    )
    positions = 300
    wide = impl.inspect(*(report.randn(1, positions, n) for n in (4, 4, 5)))
    report.true(
        "the products of all pairs are not computed",
        wide.total < positions * positions or wide.largest >= positions * positions,
        expected=f"fewer than {positions}·{positions} numbers in all",
        got=f"{wide.total} numbers, piece by piece",
        cause="the map is made in pieces, so the time is still quadratic: multiply key and value "
        "first",
    )
    report.true(
        "the (L, M) map is never made",
        wide.largest < positions * positions,
        expected=f"tensors far below {positions}·{positions} = {positions * positions} numbers",
        got=f"one of {wide.largest} numbers",
        cause="query and key are multiplied first: multiply key and value first",
    )
    examples_apart(report, impl.call, *(report.randn(3, n, 2) for n in (4, 5, 5)))
    input_kept(report, call, query, key, value)
    cotangent = report.randn(1, 2, 3)
    gradient_arrives(report, *impl.gradients(query, key, value, cotangent=cotangent).inputs)
