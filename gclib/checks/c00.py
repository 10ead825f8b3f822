"""Visible checks of chapter 00: shapes, einsum, softmax over an axis, residual."""

from __future__ import annotations

import math

import torch

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle
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
    learns_from_the_start,
    module_keeps_float32,
    same_in_eval_mode,
)
from gclib.checks.report import Report


@exercise(
    "c00-e1",
    "positions first",
    needs="to_positions",
    look="section 2, the numbered map",
    points=(1, 1),
    minutes=8,
)
def e1(impl: Handle, report: Report) -> None:
    """``(N, C, H, W)`` → ``(N, H·W, C)``, row by row."""
    # Entry 100·c + 10·h + w says where it comes from.
    c, h, w = (torch.arange(n, dtype=torch.float64) for n in (2, 2, 3))
    x = (100 * c[:, None, None] + 10 * h[None, :, None] + w)[None]  # (1, 2, 2, 3)
    call = impl.inspect(x)
    report.tensor(
        "shape is (N, H·W, C)",
        call.result,
        (1, 6, 2),
        causes={
            (1, 2, 6): "positions are on the last axis: one transpose is missing",
            (1, 2, 3, 2): "height and width are still two axes: flatten them into one",
            (6, 2): "the examples were flattened too: keep axis 0",
            (2, 6): "the examples were flattened too: keep axis 0",
            (12,): "everything was flattened: keep the axes of examples and channels",
            (1, 2): "the positions were averaged away: keep one row for each position",
            (1, 4, 2): "H·H positions: the map is not square",
            (1, 9, 2): "W·W positions: the map is not square",
        },
    )
    report.ok("shape is (N, H·W, C)")
    rows = [[0, 100], [1, 101], [2, 102], [10, 110], [11, 111], [12, 112]]
    flat = x.flatten()
    report.close(
        "row h·W + w holds the channels at (h, w)",
        call.result,
        torch.tensor([rows], dtype=torch.float64),
        mistakes={
            "reshape cuts the memory in a new way: it mixes channels and positions; "
            "move the axes with transpose or permute": flat.reshape(1, 6, 2),
            "positions run down the columns: H must come before W": x.permute(0, 3, 2, 1).reshape(
                1, 6, 2
            ),
            "the channels are in reverse order": x.flip(1).flatten(2).transpose(1, 2),
            "the positions are in reverse order": x.flatten(2).flip(2).transpose(1, 2),
            "the rows are mirrored: W runs backwards": x.flip(3).flatten(2).transpose(1, 2),
        },
    )
    batch = report.randn(3, 4, 3, 5)
    examples_apart(report, impl.call, batch)
    input_kept(report, call, x)
    found = impl.gradients(batch, cotangent=torch.ones(3, 15, 4, dtype=torch.float64))
    gradient_arrives(report, found.inputs[0])
    keeps_float32(report, impl.call, batch)


@exercise(
    "c00-e2",
    "weighted sum with einsum",
    needs="weighted_sum",
    look="section 3, the table of letters",
    points=(1, 1),
    minutes=6,
)
def e2(impl: Handle, report: Report) -> None:
    """``weights (N, L, M)``, ``values (N, M, C)`` → ``(N, L, C)``."""
    weights = _numbers([[[1, 0, 2], [0, 3, -1]]])  # (1, 2, 3)
    values = _numbers([[[1, 10], [2, 20], [3, 40]]])  # (1, 3, 2)
    call = impl.inspect(weights, values)
    report.tensor(
        "shape is (N, L, C)",
        call.result,
        (1, 2, 2),
        causes={
            (2, 2): "the examples were summed: keep the letter of axis 0 on the right of ->",
            (1, 2, 3, 2): "the products are not summed: leave the letter of M out on the right",
            (1, 3, 2): "the sum runs over L: sum over M, the axis the two tensors share",
            (1, 2): "one axis too many is summed: keep the letters of L and C on the right",
            (1, 1, 2): "the rows were summed: keep the letter of L on the right of ->",
        },
    )
    report.ok("shape is (N, L, C)")
    expected = _numbers([[[7, 90], [3, 20]]])
    softmaxed = weights.softmax(-1) @ values
    report.close(
        "row i is the sum over j of weights[i, j] · values[j]",
        call.result,
        expected,
        mistakes={
            "the sum was divided by the number of values: a sum, not a mean": expected / 3,
            "the weights were normalised: use them as they are": softmaxed,
            "the weights were divided by their sum: use them as they are": expected
            / weights.sum(2, keepdim=True),
            "the weights are not used: every value counted once": values.sum(
                1, keepdim=True
            ).expand(1, 2, 2),
            "weights and values are summed apart: give the axis that they share one letter": (
                weights.sum(2, keepdim=True) * values.sum(1, keepdim=True)
            ),
            "the weights lost their sign": weights.abs() @ values,
            "C is on the middle axis: check the order of the letters on the right of ->": (
                expected.transpose(1, 2)
            ),
        },
    )
    square = _numbers([[[1, 2], [0, 1]], [[3, 0], [1, 1]]])  # (2, 2, 2)
    other = _numbers([[[1, 0], [10, 5]], [[2, 1], [20, 6]]])  # (2, 2, 2)
    report.close(
        "the sum runs over the last axis of weights, example by example",
        impl.call(square, other),
        _numbers([[[21, 10], [10, 5]], [[6, 3], [22, 7]]]),
        mistakes={
            "weights are read as (M, L): the letters of its last two axes are swapped": (
                _numbers([[[1, 0], [12, 5]], [[26, 9], [20, 6]]])
            ),
            "the values of all examples are summed: use the same letter for both axes 0": (
                _numbers([[[63, 23], [30, 11]], [[9, 3], [33, 12]]])
            ),
        },
    )
    input_kept(report, call, weights, values)
    found = impl.gradients(square, other, cotangent=report.randn(2, 2, 2))
    gradient_arrives(report, *found.inputs)
    keeps_float32(report, impl.call, square, other)


@exercise(
    "c00-e3",
    "softmax over an axis",
    needs="softmax",
    look="section 4, the picture of the two axes",
    points=(1, 1),
    minutes=10,
)
def e3(impl: Handle, report: Report) -> None:
    """``softmax(x, dim)`` from ``exp``, for any axis and any size of number."""
    x = _numbers([[0, math.log(3), 0], [math.log(2), math.log(2), math.log(4)]])  # (2, 3)
    call = impl.inspect(x, 1)
    expected = _numbers([[1 / 5, 3 / 5, 1 / 5], [1 / 4, 1 / 4, 1 / 2]])
    exponentials = _numbers([[1, 3, 1], [2, 2, 4]])
    shifted = _numbers([[1 / 3, 1, 1 / 3], [1 / 2, 1 / 2, 1]])  # the maximum subtracted first
    report.close(
        "softmax of (0, ln 3, 0) is (1/5, 3/5, 1/5)",
        call.result,
        expected,
        mistakes={
            "the exponentials are not divided by their sum": (exponentials, shifted),
            "the sum runs over all entries: sum over dim alone": (
                exponentials / exponentials.sum(),
                shifted / shifted.sum(),
            ),
            "the sum runs over the other axis": (
                exponentials / exponentials.sum(0),
                shifted / shifted.sum(0),
            ),
            "this is the logarithm of softmax": expected.log(),
            "powers of 2 in place of powers of e": 2**x / (2**x).sum(1, keepdim=True),
            "the numbers are divided by their sum without exp": x / x.sum(1, keepdim=True),
            "this is the sigmoid of each number: softmax compares numbers": x.sigmoid(),
            "the exponents have the wrong sign": (-x).exp() / (-x).exp().sum(1, keepdim=True),
        },
    )
    cube = report.randn(2, 3, 4)
    for dim in (0, 1, 2, -1):
        result = report.tensor(
            f"sums to 1 over dim={dim}",
            impl.call(cube, dim),
            (2, 3, 4),
            cause="keep the summed axis with keepdim=True",
        )
        ones = torch.ones_like(result.sum(dim))
        report.true(
            f"sums to 1 over dim={dim}",
            bool(((result.sum(dim) - ones).abs() < 1e-8).all()),
            expected=f"sums of 1 over axis {dim} of a (2, 3, 4) tensor",
            got=f"sums from {result.sum(dim).min():.4g} to {result.sum(dim).max():.4g}",
            cause="the argument dim is not used: the axis is fixed in the code",
        )
    for row, shares in (
        ([[1e4, 1e4 + math.log(3)]], [[1 / 4, 3 / 4]]),
        ([[-1e4, -1e4]], [[1 / 2, 1 / 2]]),
    ):
        report.close(
            "numbers of ±10,000 do not overflow",
            impl.call(_numbers(row), 1),
            _numbers(shares),
            cause="exp overflows or vanishes: subtract the maximum over dim first, "
            "which changes nothing else",
        )
    report.close(
        "each row may have its own size",
        impl.call(_numbers([[1e4, 1e4], [-1e4, -1e4]]), 1),
        _numbers([[1 / 2, 1 / 2], [1 / 2, 1 / 2]]),
        cause="the maximum runs over all entries: take it over dim, with keepdim=True",
    )
    report.close(
        "numbers from -10,000 to 10,000 in one row do not overflow",
        impl.call(_numbers([[-1e4, 0, 1e4]]), 1),
        _numbers([[0, 0, 1]]),
        cause="after the subtraction the largest number must be 0: subtract the maximum, not the "
        "minimum or the mean",
    )
    input_kept(report, call, x)
    gradient_arrives(report, impl.gradients(cube, 1, cotangent=report.randn(2, 3, 4)).inputs[0])
    keeps_float32(report, lambda x: impl.call(x, 1), cube)


@exercise(
    "c00-e4",
    "a residual that starts as the identity",
    needs="ResidualConv",
    look="section 5, z = x + f(x), and the box of exercise 4",
    points=(1, 1),
    minutes=8,
)
def e4(impl: Handle, report: Report) -> None:
    """``z = x + conv(x)`` with a zero-initialised 1×1 convolution."""
    channels = 3
    module = build(report, impl, channels)
    what = "holds one 1×1 convolution from C to C"
    found = find_roles(report, module, {"out": (channels, channels)}, what)
    x = report.randn(2, channels, 2, 4)
    identity_at_start(report, module, x, found[0]["out"])
    weight = _numbers([[1, 2, 0], [0, -1, 0], [0, 0, 3]])
    bias = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    pixel = torch.tensor([1, 10, 100], dtype=torch.float64).view(1, 3, 1, 1)
    has_bias = found[0]["out"].bias is not None
    branch = torch.tensor([21, -10, 301 if has_bias else 300], dtype=torch.float64)
    branch = branch.view(1, 3, 1, 1)
    assignment = forward_equals(
        report,
        "z = x + conv(x)",
        module,
        found,
        {"out": weight},
        pixel,
        pixel + branch,
        biases={"out": bias},
        mistakes={
            "the input is not added back": branch,
            "x is multiplied with conv(x)": (pixel * branch, pixel + pixel * branch),
            "a ReLU stands behind the sum": (pixel + branch).relu(),
            "a ReLU stands behind the convolution": pixel + branch.relu(),
            "the branch is halved": pixel + branch / 2,
            "the branch is subtracted": pixel - branch,
            "the residual is counted twice": 2 * pixel + branch,
        },
    )
    input_kept(report, module.inspect(x), x)
    every_weight_learns(report, module, x, assignment)
    same_in_eval_mode(report, module, x)
    fresh = build(report, impl, channels)
    learns_from_the_start(report, fresh, x, assignment)
    blocks_are_apart(report, impl, x, channels)
    module_keeps_float32(report, impl, x, channels)


def _numbers(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
