"""Visible checks of chapter 04: pooling, transform, fusion, and the blocks they compose.

The numbers are small enough to follow by hand; what each check expects is written out, not
computed by a second implementation.
"""

from __future__ import annotations

from math import log, sqrt

import torch
import torch.nn.functional as F
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
from gclib.checks.report import Mistakes, Report, known_mistake
from gclib.checks.roles import Slot


def _numbers(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@exercise(
    "c04-e1",
    "average pooling",
    needs="average_pooling",
    look="section 3, the first row of the table",
    points=(1, 1),
    minutes=5,
)
def e1(impl: Handle, report: Report) -> None:
    """``x (N, C, *positions)`` → ``(N, C)``."""
    x = _numbers([[[[6, -3, 0], [3, 3, 3]], [[9, 2, 3], [4, 5, 1]]]])  # (1, 2, 2, 3)
    expected = _numbers([[2, 4]])
    call = impl.inspect(x)
    what = "one number for each channel"
    report.tensor(
        what,
        call.result,
        (1, 2),
        causes={
            (1, 2, 2): "only the last axis was pooled: the mean runs over all axes from 2 on",
            (1, 2, 3): "only one axis was pooled: the mean runs over all axes from 2 on",
            (1, 3): "the channels were pooled: the positions are the axes from 2 on",
            (1, 2, 1, 1): "axes of size 1 are left over: no keepdim here",
            (1, 2, 1): "an axis of size 1 is left over: no keepdim here",
            (1, 1): "the channels were pooled too: keep one number for each channel",
            (1,): "the channels were pooled too: keep one number for each channel",
            (): "everything was pooled into one number: keep examples and channels",
            (2,): "axis 0, the examples, is gone",
            (2, 1): "examples and channels are swapped: the result is (N, C)",
            (1, 2, 2, 3): "nothing was pooled: the mean has to lose the positions",
        },
    )
    report.ok(what)
    report.close(
        "it is the mean over all positions",
        call.result,
        expected,
        mistakes={
            "this is the sum: divide by the number of positions": 6 * expected,
            "divided by the width alone: there are H·W positions": 2 * expected,
            "divided by the height alone: there are H·W positions": 3 * expected,
            "divided by the number of positions twice": expected / 6,
            "divided by all numbers of the example: there are H·W positions": expected / 2,
            "divided by H·W - 1: this is a mean, not a variance": expected * 6 / 5,
            "this is the maximum, not the mean": _numbers([[6, 9]]),
            "this is the median, not the mean": _numbers([[3, 3]]),
            "only the first row of the map was pooled": _numbers([[1, 14 / 3]]),
            "positions and channels are mixed: flatten(2) keeps the channels": (
                _numbers([[26 / 6, 10 / 6]]),
                _numbers([[17 / 6, 19 / 6]]),
            ),
            "the sign is lost: this is the mean of the absolute values": _numbers([[3, 4]]),
            "negative numbers are lost: there is no ReLU here": _numbers([[2.5, 4]]),
            "the channels are in another order: keep them as they are": expected.flip(1),
        },
    )
    for name, positions in (("a sequence", (6,)), ("a clip", (3, 1, 2))):
        with report.group(name):
            flat = x.reshape(1, 2, *positions)
            got = report.tensor("one number for each channel", impl.call(flat), (1, 2), cause=_AXES)
            report.close("it is the mean over all positions", got, expected, cause=_AXES)
    report.close(
        "two positions in place of six",
        impl.call(_numbers([[[1, 3], [-4, 0]]])),
        _numbers([[2, -2]]),
        cause="the number of positions is fixed in the code: divide by the number there is",
    )
    examples_apart(report, impl.call, report.randn(3, 4, 2, 5))
    input_kept(report, call, x)
    gradient_arrives(report, *impl.gradients(x, cotangent=report.randn(1, 2)).inputs)
    keeps_float32(report, impl.call, x)


_AXES = "the number of axes is fixed: x.flatten(2) makes one axis of all positions"

# The toy map of section 2: four positions with two channels.
_TOY = _numbers([[[[2, 4], [-4, 6]], [[0, 1], [1, 2]]]])  # (1, 2, 2, 2)
_TOY_KEY = _numbers([0, log(3)])  # logits 0, ln 3, ln 3, 2 ln 3: exponentials 1, 3, 3, 9


def _cut(key: Tensor) -> Tensor:
    """The result where the toy map is cut with reshape(N, L, C) in place of transposed."""
    rows = _TOY.reshape(4, 2)
    return ((rows @ key).softmax(0) @ rows)[None]


def _pooled(weights: Tensor) -> Tensor:
    """The toy map, weighted by ``(4,)``."""
    return (_TOY.flatten(2) * weights).sum(2)


@exercise(
    "c04-e2",
    "attention pooling",
    needs="attention_pooling",
    look="section 3, the example by hand",
    points=(1, 1),
    minutes=15,
)
def e2(impl: Handle, report: Report) -> None:
    """``x (N, C, *positions)``, ``key_weight (C,)`` → ``(N, C)``."""
    logits = log(3) * _numbers([0, 1, 1, 2])
    exponentials = _numbers([1, 3, 3, 9])
    expected = _numbers([[3.5, 1.5]])
    call = impl.inspect(_TOY, _TOY_KEY)
    what = "one number for each channel"
    report.tensor(
        what,
        call.result,
        (1, 2),
        causes={
            (1, 2, 1): "an axis of size 1 is left over: squeeze it",
            (1, 1, 2): "an axis of size 1 is left over: squeeze it",
            (1, 2, 1, 1): "axes of size 1 are left over",
            (2,): "axis 0, the examples, is gone",
            (1, 4): "these are the weights of the positions: sum the positions with them",
            (1, 1, 4): "these are the weights of the positions: sum the positions with them",
            (1, 2, 2): "these are the weights of the positions: sum the positions with them",
            (1, 2, 4): "weighted and not summed: the sum over the positions is missing",
            (1, 2, 2, 2): "weighted and not summed: the sum over the positions is missing",
        },
    )
    report.ok(what)
    report.close(
        "the mean of the positions, weighted by the softmax of the logits",
        call.result,
        expected,
        mistakes={
            "the weights are not used: this is the plain mean": _numbers([[2, 1]]),
            "every weight is 1: softmax ran over an axis of size 1, not over the positions": (
                _pooled(torch.ones(4).double())
            ),
            "the exponentials are not divided by their sum": _pooled(exponentials),
            "softmax is missing: the logits are the weights": _pooled(logits),
            "the logits are divided by their sum: softmax is missing": _pooled(logits)
            / logits.sum(),
            "this is the sigmoid of each logit, which does not compare positions": _pooled(
                exponentials / (1 + exponentials)
            ),
            "divided by the number of positions as well: softmax sums to 1 already": expected / 4,
            "divided by √C: the logits have no scale": _pooled((logits / sqrt(2)).softmax(0)),
            "divided by C, or by the root of N_p: the logits have no scale": _pooled(
                (logits / 2).softmax(0)
            ),
            "softmax ran over the channels: it runs over the positions": (
                (_TOY.flatten(2) * (_TOY.flatten(2) * _TOY_KEY[:, None]).softmax(1)).sum(2)
            ),
            "softmax for each channel by itself: a position has one logit, summed over the "
            "channels": (_TOY.flatten(2) * (_TOY.flatten(2) * _TOY_KEY[:, None]).softmax(2)).sum(2),
            "log_softmax gives logarithms of weights": _pooled(logits.log_softmax(0)),
            "divided by the number of channels: softmax sums to 1 already": expected / 2,
            "the map is cut with reshape: positions and channels are mixed": _cut(_TOY_KEY),
            "the weights are sigmoids, divided by their sum: softmax has exponentials": _pooled(
                logits.sigmoid() / logits.sigmoid().sum()
            ),
            "only the position with the largest logit is taken, or only maxima": _numbers([[6, 2]]),
            "the sign of the logits is wrong": _pooled((-logits).softmax(0)),
            "softmax twice": _pooled(logits.softmax(0).softmax(0)),
            "softmax runs over the rows of the map alone: flatten the positions first": _pooled(
                _numbers([1 / 4, 3 / 4, 1 / 4, 3 / 4])
            ),
            "softmax runs over the columns of the map alone: flatten the positions first": _pooled(
                _numbers([1 / 4, 1 / 4, 3 / 4, 3 / 4])
            ),
            "the context is multiplied by the key: the values are the positions themselves": (
                expected * _TOY_KEY
            ),
            "the mean is added: attention takes its place": expected + _numbers([[2, 1]]),
        },
    )
    report.close(
        "a key of zeros gives the plain mean",
        impl.call(_TOY, torch.zeros(2).double()),
        _numbers([[2, 1]]),
        mistakes={"without logits the weights must be 1/4 each": _pooled(torch.ones(4).double())},
        cause="with equal logits every position has the weight 1/4: is the mean of a softmax used?",
    )
    key = report.randn(3)
    x = report.randn(2, 3, 4, 5)
    order = report.permutation(20)
    report.close(
        "the order of the positions does not matter",
        impl.call(x.flatten(2)[:, :, order].reshape(x.shape), key),
        report.tensor("one number for each channel", impl.call(x, key), (2, 3)),
        cause="positions and channels are mixed: flatten(2) first, then one softmax over the last "
        "axis",
    )
    for name, positions in (("a sequence", (4,)), ("a clip", (2, 1, 2))):
        with report.group(name):
            got = impl.call(_TOY.reshape(1, 2, *positions), _TOY_KEY)
            got = report.tensor("one number for each channel", got, (1, 2), cause=_AXES)
            report.close("the weighted mean", got, expected, cause=_AXES)
    report.close(
        "logits of ±10,000 do not overflow",
        impl.call(1e4 * _numbers([[[1, -1], [1, -1]]]), _numbers([0, 1])),
        1e4 * _numbers([[1, 1]]),
        cause="exp overflows: use softmax, or subtract the largest logit first",
    )
    examples_apart(report, lambda x: impl.call(x, key), x)
    report.close(
        "logits of one example do not reach another",
        impl.call(1e4 * _numbers([[[1, 1]], [[-1, -1]]]), _numbers([1])),
        1e4 * _numbers([[1], [-1]]),
        cause="the largest logit of the whole batch is subtracted: take that of each example",
    )
    input_kept(report, call, _TOY, _TOY_KEY)
    gradient_arrives(report, *impl.gradients(_TOY, _TOY_KEY, cotangent=report.randn(1, 2)).inputs)
    keeps_float32(report, impl.call, _TOY, _TOY_KEY)


# Bottleneck by hand: two vectors with four channels, hidden width 2.
_REDUCE = _numbers([[1, 0, -1, 0], [0, 1, 0, 1]])
_EXPAND = _numbers([[1, 0], [0, 1], [1, 1], [2, -1]])
_VECTORS = _numbers([[3, 1, 1, 2], [0, 3, 2, -1]])
_HIDDEN = _numbers([[2, 3], [-2, 2]])  # before ReLU
_TRANSFORMED = _numbers([[2, 3, 5, 1], [0, 2, 2, -2]])


def _expanded(hidden: Tensor) -> Tensor:
    return hidden @ _EXPAND.T


@exercise(
    "c04-e3",
    "the bottleneck",
    needs="Bottleneck",
    look="section 4, the table of shapes",
    points=(1, 2),
    minutes=12,
)
def e3(impl: Handle, report: Report) -> None:
    """Vectors ``(N, C)`` → ``(N, C)`` through C // ratio numbers."""
    module = build(report, impl, 4, ratio=2)
    shapes = {"reduce": (2, 4), "out": (4, 2)}
    found = find_roles(report, module, shapes, "two layers: C to C // ratio and back")
    x = 3 * report.randn(12, 4)
    _starts_at(
        report,
        "a fresh bottleneck gives zero",
        module,
        x,
        0 * x,
        found[0]["out"],
        {
            "the input is added: the residual belongs to the fusion": x,
            "a sigmoid stands at the end: the gate belongs to the fusion, exercise 4": 0 * x + 0.5,
        },
    )
    assignment = forward_equals(
        report,
        "two vectors by hand",
        module,
        found,
        {"reduce": _REDUCE, "out": _EXPAND},
        _VECTORS,
        _TRANSFORMED,
        mistakes={
            "ReLU is missing between the two layers": _expanded(_HIDDEN),
            "ReLU stands behind the second layer: it belongs between the two": (
                _expanded(_HIDDEN).relu()
            ),
            "a second ReLU stands behind the second layer": _TRANSFORMED.relu(),
            "a sigmoid stands between the maps: ReLU belongs there": _expanded(_HIDDEN.sigmoid()),
            "a sigmoid stands at the end: the gate belongs to the fusion, exercise 4": (
                _TRANSFORMED.sigmoid(),
                _expanded(_HIDDEN).sigmoid(),
            ),
            "the input is added: the residual belongs to the fusion": _VECTORS + _TRANSFORMED,
            "the result is multiplied by the input: that is the fusion": _VECTORS * _TRANSFORMED,
            "negative numbers leak: use ReLU, which makes them zero": (
                _expanded(F.leaky_relu(_HIDDEN)),
                _expanded(F.elu(_HIDDEN)),
            ),
            "another activation than ReLU": (
                _expanded(F.gelu(_HIDDEN)),
                _expanded(F.silu(_HIDDEN)),
                _expanded(F.softplus(_HIDDEN)),
                _expanded(_HIDDEN.softmax(1)),
                _expanded(_HIDDEN.relu().square()),
            ),
            "the absolute value is not ReLU": _expanded(_HIDDEN.abs()),
            "tanh is not ReLU": _expanded(_HIDDEN.tanh()),
            "a norm stands between the maps: that is chapter 05": tuple(
                _expanded(result)
                for norm in (
                    lambda h: F.layer_norm(h, (2,)),
                    lambda h: F.batch_norm(h, None, None, training=True),
                )
                for result in (norm(_HIDDEN).relu(), norm(_HIDDEN.relu()))
            ),
            "ReLU stands in front of the first layer: it belongs between the two": (
                _expanded(_VECTORS.relu() @ _REDUCE.T),
                _expanded((_VECTORS.relu() @ _REDUCE.T).relu()),
            ),
            "always zero: the last layer starts at zero, and forward multiplies by nothing": (
                0 * _TRANSFORMED
            ),
        },
    )
    randomise(report, module, x)
    examples_apart(report, module.forward, x)
    every_weight_learns(report, module, x, assignment)
    same_in_eval_mode(report, module, x)
    learns_from_the_start(report, build(report, impl, 4, ratio=2), x, assignment)
    blocks_are_apart(report, impl, x, 4, ratio=2)
    module_keeps_float32(report, impl, x, 4, ratio=2)
    _starts_at_random(report, impl, assignment["reduce"])
    for channels in (12, 14):  # 12 / 5 = 2.4 and 14 / 5 = 2.8
        narrow = build(report, impl, channels, ratio=5)
        shapes = {"reduce": (2, channels), "out": (channels, 2)}
        find_roles(report, narrow, shapes, f"{channels} channels, ratio=5: width 2")
    default = build(report, impl, 240)  # 15 or 17 would give another width
    find_roles(report, default, {"reduce": (15, 240), "out": (240, 15)}, "the default ratio is 16")


def _starts_at_random(report: Report, impl: Handle, first: Slot) -> None:
    """The first layer of a fresh bottleneck has random numbers, others in each new one."""
    what = "the first layer keeps its random start"
    one, other = (build(report, impl, 4, ratio=2).weights()[first.weight] for _ in range(2))
    if len(one.unique()) == 1:
        cause = "only the last layer starts at zero: leave the numbers of the first layer alone"
        report.fail(what, expected="random numbers", got="one number everywhere", cause=cause)
    report.true(
        what,
        not torch.equal(one, other),
        expected="other random numbers in a second module",
        got="the same",
        cause="torch.manual_seed, or fixed numbers, inside of the class: two modules start alike",
    )


def _starts_at(
    report: Report,
    what: str,
    module: ModuleHandle,
    x: Tensor,
    expected: Tensor,
    last: Slot,
    mistakes: Mistakes,
) -> None:
    """A fresh module gives ``expected``, because its layer ``last`` starts at zero."""
    weights = module.weights()
    zero = not any(weights[name].any() for name in (last.weight, last.bias) if name)
    start = report.tensor(what, module.forward(x), tuple(expected.shape))
    cause = "the last layer does not start at zero: set its weight and its bias to zero"
    if zero:
        cause = "the last layer starts at zero, so something else changes the result"
    report.close(what, start, expected, mistakes=mistakes, cause=cause)


# Fusion by hand: four positions with two channels.
_MAP = _numbers([[[[4, 8], [-4, 0]], [[1, 0], [2, -2]]]])  # (1, 2, 2, 2)
_ADDED = _numbers([[10, -1]])
_GATED = _numbers([[log(3), -log(4)]])  # sigmoids 3/4 and 1/5
_GATES = _numbers([3 / 4, 1 / 5]).view(1, 2, 1, 1)
_HOWS = ("add", "scale", "2scale")
_TYPOS = ("mul", "Scale", "rescale", "")


@exercise(
    "c04-e4",
    "fusion",
    needs="fuse",
    look="section 5, the table of the three ways",
    points=(1, 1),
    minutes=12,
)
def e4(impl: Handle, report: Report) -> None:
    """``x (N, C, *positions)``, ``transformed (N, C)`` → the shape of x, in three ways."""
    gated = _GATED.view(1, 2, 1, 1)
    scale_mistakes = {
        "added, not multiplied": _MAP + gated,
        "multiplied without a sigmoid": _MAP * gated,
        "the input is added as well: scaling has no residual": _MAP + _MAP * _GATES,
        "the sigmoid is added, not multiplied": _MAP + _GATES,
        "the gate alone came back: multiply x by it": _GATES.expand_as(_MAP),
        "1 - σ in place of σ: the sign is wrong": _MAP * (1 - _GATES),
        "divided by the gate": _MAP / _GATES,
        "tanh in place of the sigmoid": _MAP * gated.tanh(),
        "softmax over the channels in place of the sigmoid: channels do not compete": (
            _MAP * gated.softmax(1)
        ),
        "the sigmoid was taken of x: the gate is σ(t)": _MAP.sigmoid() * gated,
        "the sigmoid was taken twice": _MAP * _GATES.sigmoid(),
        "the sigmoid was taken of the sum: it is of t alone": (_MAP + gated).sigmoid(),
        "another gate than the sigmoid": tuple(
            _MAP * gate(gated) * factor
            for gate in (F.hardsigmoid, F.softplus, F.relu, torch.exp, lambda t: t.clamp(0, 1))
            for factor in (1, 2)
        ),
        "one gate for all channels: each channel has its own": _MAP * gated.mean().sigmoid(),
        "this is x/2: the gate has to follow t": _MAP / 2,
        "the gate is 1 everywhere: a softmax over one example, or no gate": (_MAP, 2 * _MAP),
    }
    cases = {
        "add": (
            _ADDED,
            _numbers([[[[14, 18], [6, 10]], [[0, -1], [1, -3]]]]),
            {
                "multiplied, not added": _MAP * _ADDED.view(1, 2, 1, 1),
                "subtracted, not added": _MAP - _ADDED.view(1, 2, 1, 1),
                "the residual is forgotten: x is not in the result": (
                    _ADDED.view(1, 2, 1, 1).expand_as(_MAP)
                ),
                "a sigmoid is for scaling alone": _MAP + _ADDED.view(1, 2, 1, 1).sigmoid(),
                "this is the gate: add is for addition": _MAP * _ADDED.view(1, 2, 1, 1).sigmoid(),
                "the sum is divided: z is x + t": _MAP / 2 + _ADDED.view(1, 2, 1, 1) / 2,
                "t is added twice": _MAP + 2 * _ADDED.view(1, 2, 1, 1),
                "negative numbers of t are lost: there is no ReLU here": (
                    _MAP + _ADDED.view(1, 2, 1, 1).relu()
                ),
                "one number for all channels: each channel has its own": _MAP + _ADDED.mean(),
                "a ReLU stands behind the sum": _numbers([[[[14, 18], [6, 10]], [[0, 0], [1, 0]]]]),
            },
        ),
        "scale": (
            _GATED,
            _numbers([[[[3, 6], [-3, 0]], [[0.2, 0], [0.4, -0.4]]]]),
            {
                "the factor 2 belongs to 2scale alone": 2 * _MAP * _GATES,
                "σ(2t) is not σ(t)": _MAP * (2 * gated).sigmoid(),
                **scale_mistakes,
            },
        ),
        "2scale": (
            _GATED,
            _numbers([[[[6, 12], [-6, 0]], [[0.4, 0], [0.8, -0.8]]]]),
            {
                "the factor 2 is missing: 2scale is x · 2σ(t)": _MAP * _GATES,
                "σ(2t) is not 2σ(t)": _MAP * (2 * gated).sigmoid(),
                "2 + σ(t) is not 2σ(t)": _MAP * (2 + _GATES),
                "the gate is squared, not doubled": _MAP * _GATES.square(),
                "doubled, but without a sigmoid": 2 * _MAP * gated,
                "the gate is added, not multiplied": _MAP + 2 * _GATES,
                "1 + tanh(t) is 2σ(2t), not 2σ(t)": _MAP * (1 + gated.tanh()),
                **scale_mistakes,
            },
        ),
    }
    for how in _HOWS:
        with report.group(how):
            transformed, expected, mistakes = cases[how]
            _check_fusion(report, impl, how, transformed, expected, mistakes)
    x = report.randn(2, 3, 2, 5)
    zeros = torch.zeros(2, 3).double()
    start = {"add": ("x", x), "scale": ("x/2", x / 2), "2scale": ("x", x)}
    for how, (name, expected) in start.items():
        report.close(f"{how} with t = 0 gives {name}", impl.call(x, zeros, how), expected)
    for typo in _TYPOS:
        what = f"the unknown way {typo!r} is refused"
        raises_value_error(report, what, lambda typo=typo: impl.call(x, zeros, typo), "fusion")


_SPREAD = (
    "t met the wrong axes: (N, C) has to become (N, C, 1, 1) first, one 1 for each axis of "
    "positions"
)


def _check_fusion(report: Report, impl: Handle, how: str, transformed, expected, mistakes) -> None:
    square = torch.ones(2, 2, 2, 2).double()
    numbers = _numbers([[1, 2], [3, 4]])
    if how == "add":
        channels, columns = square + numbers.view(2, 2, 1, 1), square + numbers
    else:
        gates = numbers.sigmoid() * (2 if how == "2scale" else 1)
        channels, columns = gates.view(2, 2, 1, 1) * square, gates * square
    call = impl.inspect(_MAP, transformed, how)
    what = "every position gets the number of its channel"
    report.tensor(what, call.result, (1, 2, 2, 2), cause=_SPREAD)
    spread = {_SPREAD: columns, _SWAPPED: channels.transpose(0, 1)}
    got = impl.call(square, numbers, how)
    if isinstance(got, Tensor) and known_mistake(got, spread):
        report.close(what, got, channels, mistakes=spread)
    report.close("four positions by hand", call.result, expected, mistakes=mistakes)
    report.close(what, got, channels, mistakes=spread, cause=_OTHER_EXAMPLE)
    for name, positions in (("a sequence", (4,)), ("a clip", (2, 1, 2))):
        shape = (1, 2, *positions)
        got = impl.call(_MAP.reshape(shape), transformed, how)
        got = report.tensor(name, got, shape, cause=_SPREAD)
        report.close(name, got, expected.reshape(shape), cause=_SPREAD)
    examples_apart(
        report, lambda x, t: impl.call(x, t, how), report.randn(3, 4, 2, 5), report.randn(3, 4)
    )
    input_kept(report, call, _MAP, transformed)
    found = impl.gradients(_MAP, transformed, how, cotangent=report.randn(1, 2, 2, 2))
    gradient_arrives(report, *found.inputs)
    keeps_float32(report, lambda x, t: impl.call(x, t, how), _MAP, transformed)


_SWAPPED = "examples and channels are swapped"
_OTHER_EXAMPLE = "examples are mixed: each one has its own row of transformed"

# One example with three positions and four channels, for every block of this chapter.
_POSITIONS = _numbers([[12, 0, 0, 24], [0, 1, 12, 0], [0, 0, -12, 12]])
_KEY = _numbers([[0, log(2), 0, 0]])  # weights 1/4, 1/2, 1/4
_LINEAR = _numbers([[0, 1, 0, 0], [0, 0, 0, 0.25], [1, 0, 0, 0], [0, 0, -1, 0]])
_DOWN = _numbers([[1, 0, 0, 0], [0, 0, 1, -0.25]])
_UP = _numbers([[0.5, 0], [0, 1], [1, -1], [0, 2]])
_CONTEXT = {
    "average": _numbers([4, 1 / 3, 0, 12]),
    "attention": _numbers([3, 1 / 2, 3, 9]),
}
# (pooling, transform) → the vector that the fusion gets, by hand.
_T = {
    ("average", "linear"): _numbers([1 / 3, 3, 4, 0]),
    ("attention", "linear"): _numbers([1 / 2, 9 / 4, 3, -3]),
    ("average", "bottleneck"): _numbers([2, 0, 4, 0]),
    ("attention", "bottleneck"): _numbers([3 / 2, 3 / 4, 9 / 4, 3 / 2]),
}
_NAMED = {
    ("average", "bottleneck", "scale"): "SE",
    ("attention", "linear", "add"): "SNL",
    ("attention", "bottleneck", "add"): "GC without its LayerNorm",
}


def _fused(t: Tensor, fusion: str) -> Tensor:
    """The three positions, fused with ``t``, as a map ``(1, 4, 1, 3)``."""
    gate = t.sigmoid()
    rows = {"add": _POSITIONS + t, "scale": _POSITIONS * gate, "2scale": 2 * _POSITIONS * gate}
    return _as_map(rows[fusion])


def _as_map(rows: Tensor) -> Tensor:
    return rows.T.reshape(1, 4, 1, 3)


def _transformed(transform: str, context: Tensor) -> Tensor:
    if transform == "linear":
        return _LINEAR @ context
    return _UP @ (_DOWN @ context).relu()


def _block_mistakes(pooling: str, transform: str, fusion: str) -> dict[str, Tensor]:
    t = _T[pooling, transform]
    other = "attention" if pooling == "average" else "average"
    context = _CONTEXT[pooling]
    weights = _LINEAR if transform == "linear" else None
    summed = {"average": 3 * context, "attention": 4 * context}[pooling]
    sum_t = _transformed(transform, summed)
    over_channels = (_POSITIONS * (_POSITIONS * _KEY).softmax(1)).sum(0)
    each = _POSITIONS @ _LINEAR.T if weights is not None else (_POSITIONS @ _DOWN.T).relu() @ _UP.T
    mistakes = {
        f"{pooling} pooling was asked for, and the other one was used": _fused(
            _T[other, transform], fusion
        ),
        "the transform is skipped: the context goes to the fusion as it is": _fused(
            context, fusion
        ),
        "the sum over the positions was not divided": _fused(sum_t, fusion),
        "the context is forgotten: every position is transformed by itself": _as_map(
            _POSITIONS + each if fusion == "add" else _POSITIONS * each.sigmoid()
        ),
        "x is not in the result: fuse x with the transformed context": (
            _as_map(t.expand(3, 4)),
            _as_map(t.sigmoid().expand(3, 4)),
        ),
        "the transformed context is fused twice": _fused(2 * t, fusion)
        if fusion == "add"
        else _as_map(_POSITIONS * t.sigmoid().square()),
        "the largest number of each channel was taken: pooling is a mean": _fused(
            _transformed(transform, _POSITIONS.amax(0)), fusion
        ),
        "softmax ran over the channels: it runs over the positions": _fused(
            _transformed(transform, over_channels), fusion
        ),
        "a LayerNorm stands before the transform: that is no part of equation 4": _fused(
            _transformed(transform, F.layer_norm(context, (4,))), fusion
        ),
        "the input comes back unchanged: the fused result is not returned": _as_map(_POSITIONS),
    }
    for how in _HOWS:
        if how != fusion:
            mistakes[f"fusion {fusion} was asked for, and {how} was used"] = _fused(t, how)
    if transform == "bottleneck":
        weights_of = _numbers([1, 1, 1] if pooling == "average" else [1, 2, 1])
        after = (weights_of / weights_of.sum()) @ each
        mistakes["transformed first and pooled then: with a ReLU between, the order matters"] = (
            _fused(after, fusion)
        )
        mistakes["ReLU is missing between the two layers"] = _fused(_UP @ (_DOWN @ context), fusion)
    else:
        mistakes["linear has no ReLU"] = _fused(t.relu(), fusion)
    return mistakes


@exercise(
    "c04-e5",
    "the context block",
    needs="ContextBlock",
    look="section 6, equation 4 with shapes",
    points=(2, 3),
    minutes=25,
)
def e5(impl: Handle, report: Report) -> None:
    """Two poolings, two transforms, three fusions: one class, twelve blocks."""
    sizes = ((3, 5), (7,), (2, 3, 4))
    for number, (pooling, transform) in enumerate(_T):
        for fusion in _HOWS:
            case = (pooling, transform, fusion)
            name = f" = {_NAMED[case]}" if case in _NAMED else ""
            with report.group(f"{pooling}, {transform}, {fusion}{name}"):
                _check_block(report, impl, case, sizes[(number + _HOWS.index(fusion)) % 3])
    with report.group("the defaults are attention, bottleneck, add and ratio=16"):
        module = build(report, impl, 240)
        shapes = {"key": (1, 240), "reduce": (15, 240), "out": (240, 15)}
        found = find_roles(report, module, shapes, "layers of the default block")
        identity_at_start(report, module, report.randn(2, 240, 2, 3), found[0]["out"])
    with report.group("unknown names are refused"):
        for option in ("pooling", "transform", "fusion"):
            for name in ("max", ""):
                raises_value_error(
                    report,
                    f"{option}={name!r} is refused",
                    lambda option=option, name=name: impl.build(8, **{option: name, "ratio": 2}),
                    option,
                    later=lambda option=option, name=name: impl.build(
                        8, **{option: name, "ratio": 2}
                    ).forward(report.randn(1, 8, 2, 3)),
                )


def _shapes(pooling: str, transform: str) -> dict[str, tuple[int, int]]:
    shapes = {"key": (1, 4)} if pooling == "attention" else {}
    if transform == "linear":
        return shapes | {"out": (4, 4)}
    return shapes | {"reduce": (2, 4), "out": (4, 2)}


def _check_block(report: Report, impl: Handle, case: tuple[str, str, str], size: tuple) -> None:
    pooling, transform, fusion = case
    options = {"pooling": pooling, "transform": transform, "fusion": fusion, "ratio": 2}
    module = build(report, impl, 4, **options)
    shapes = _shapes(pooling, transform)
    found = find_roles(report, module, shapes, f"layers {', '.join(shapes)}")
    # Large offsets by channel: with contexts near zero, ReLU might cut all hidden numbers off.
    x = report.randn(8, 4, *size) + 5 * report.randn(8, 4, *[1] * len(size))
    last = found[0]["out"]
    if fusion == "add":
        identity_at_start(report, module, x, last)
    elif fusion == "scale":
        mistakes = {
            "it starts at x, as add and 2scale do: scale is x · σ(t), and σ(0) = 1/2": x,
            "x is added as well: scaling has no residual": 3 * x / 2,
            "multiplied without a sigmoid": 0 * x,
        }
        _starts_at(report, "a fresh block halves its input", module, x, x / 2, last, mistakes)
    else:
        mistakes = {
            "the gate has no factor 2: σ(0) is 1/2": x / 2,
            "x is added as well: scaling has no residual": 2 * x,
            "multiplied without a sigmoid": 0 * x,
        }
        _starts_at(report, "a fresh block is the identity", module, x, x, last, mistakes)
    values = {"key": _KEY, "reduce": _DOWN, "out": _LINEAR if transform == "linear" else _UP}
    assignment = forward_equals(
        report,
        "three positions by hand",
        module,
        found,
        {role: values[role] for role in shapes},
        _as_map(_POSITIONS),
        _fused(_T[pooling, transform], fusion),
        mistakes=_block_mistakes(*case),
    )
    randomise(report, module, x)
    positions_are_a_set(report, module, x)
    what = "every position twice: the same result, twice"
    once = report.tensor(what, module.forward(x), tuple(x.shape))
    report.close(
        what,
        module.forward(torch.cat([x, x], dim=2)),
        torch.cat([once, once], dim=2),
        cause="the number of positions is fixed in the code: a context is a mean, not a sum",
    )
    examples_apart(report, module.forward, x)
    dead = ("key",)
    every_weight_learns(report, module, x, assignment, dead=dead)
    same_in_eval_mode(report, module, x)
    if pooling == "attention":
        large_inputs_stay_finite(report, module, x)
    learns_from_the_start(report, build(report, impl, 4, **options), x, assignment, dead=dead)
    if fusion == "add":  # the layers do not depend on the fusion
        blocks_are_apart(report, impl, x, 4, **options)
    module_keeps_float32(report, impl, x, 4, **options)
