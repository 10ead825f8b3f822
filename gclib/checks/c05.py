"""Visible checks of chapter 05: the global context block, its parameters, and its usual mistakes.

The numbers are small enough to follow by hand; what each check expects is written out, not
computed by a second implementation.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
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
from gclib.checks.roles import Assignment, Slot


def _numbers(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@exercise(
    "c05-e1",
    "layer norm",
    needs="layer_norm",
    look="section 3, the formula with its two sums",
    points=(1, 1),
    minutes=10,
)
def e1(impl: Handle, report: Report) -> None:
    """``x (N, C')``, ``weight (C',)``, ``bias (C',)`` → ``(N, C')``, with eps=4 by hand."""
    x = _numbers([[1, 3, 5, 7], [8, -8, 0, 0]])  # means 4 and 0, variances 5 and 32
    weight, bias = _numbers([1, 3, 6, 2]), _numbers([10, 0, -1, 0.5])
    centred = _numbers([[-3, -1, 1, 3], [8, -8, 0, 0]])
    roots = _numbers([[3], [6]])  # of variance + 4
    expected = _numbers([[9, -1, 1, 2.5], [34 / 3, -4, -1, 0.5]])
    variances = _numbers([[5], [32]])
    squares = x.square().mean(1, keepdim=True)
    over_batch = [(x - x.mean(0)) / (x.var(0, correction=c) + 4).sqrt() for c in (0, 1)]
    over_all = (x - x.mean()) / (x.var(correction=0) + 4).sqrt()
    call = impl.inspect(x, weight, bias, 4.0)
    report.close(
        "centred, divided by the root, scaled, shifted",
        call.result,
        expected,
        mistakes={
            "the variance is divided by C' - 1: LayerNorm divides by C' (correction=0)": (
                centred / (variances * 4 / 3 + 4).sqrt() * weight + bias
            ),
            "eps stands outside of the root": (
                centred / (variances.sqrt() + 4) * weight + bias,
                centred / ((variances * 4 / 3).sqrt() + 4) * weight + bias,
            ),
            "the squares of x, not of x - mean: centre before you square": (
                centred / (squares + 4).sqrt() * weight + bias
            ),
            "this is the root mean square of x: LayerNorm subtracts the mean first": (
                x / (squares + 4).sqrt() * weight + bias
            ),
            "the squares are summed: the variance is their mean": (
                centred / (4 * variances + 4).sqrt() * weight + bias,
                centred / (4 * variances).sqrt() * weight + bias,
            ),
            "a ReLU stands behind the shift: that is the next step of the transform": (
                expected.relu()
            ),
            "bias is subtracted": centred / roots * weight - bias,
            "eps is squared": centred / (variances + 16).sqrt() * weight + bias,
            "eps is not used": (
                centred / variances.sqrt() * weight + bias,
                centred / (variances + 1e-5).sqrt() * weight + bias,
            ),
            "divided by the variance: the root is missing": centred / roots**2 * weight + bias,
            "the mean is not subtracted": x / roots * weight + bias,
            "axis 0 is the batch: mean and variance run over the channels of one example": (
                tuple(y * weight + bias for y in over_batch)
            ),
            "one mean for all examples: each example has its own": over_all * weight + bias,
            "weight and bias are not used": centred / roots,
            "bias is not added": centred / roots * weight,
            "weight is not used": centred / roots + bias,
            "bias comes before weight: scale first, then shift": (centred / roots + bias) * weight,
            "weight and bias are swapped": centred / roots * bias + weight,
            "multiplied by the root": centred * roots * weight + bias,
            "the mean of the absolute deviations, not the root of the variance": (
                centred / (centred.abs().mean(1, keepdim=True) + 4) * weight + bias
            ),
        },
    )
    small = 1e-3 * centred
    ones, zeros = torch.ones(4).double(), torch.zeros(4).double()
    report.close(
        "eps is 1e-5 when it is not given",
        impl.call(small, ones, zeros),
        small / _numbers([[sqrt(1.5e-5)], [sqrt(4.2e-5)]]),
        cause="the default of eps is not 1e-5",
    )
    constant = impl.call(_numbers([[7, 7, 7, 7]]), weight, bias)
    report.close(
        "equal channels give the bias",
        constant,
        bias[None],
        cause="0/0: eps must stand inside of the root",
    )
    input_kept(report, call, x, weight, bias)
    examples_apart(report, lambda x: impl.call(x, weight, bias), report.randn(3, 4))
    found = impl.gradients(report.randn(2, 4), weight, bias, cotangent=report.randn(2, 4))
    gradient_arrives(report, *found.inputs)
    keeps_float32(report, impl.call, x, weight, bias)


# Layers of a GC block ------------------------------------------------------------------------


def _trim(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _sibling(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _pick(names: list[str], count: int) -> list[tuple[str | None, ...]]:
    """Orders of ``names``, filled up to ``count`` with None."""
    filled = [*names, *[None] * (count - len(names))]
    return (
        list(itertools.permutations(filled))
        if len(names) == count
        else [(*order, *[None] * (count - len(names))) for order in itertools.permutations(names)]
    )


def assignments_of(
    parameters: Mapping[str, tuple[int, ...]], channels: int, inner: int, *, key: bool
) -> list[Assignment]:
    """The ways in which parameters can be the layers of a GC block, or of its transform.

    Roles: ``key`` (1, C) if asked for, ``reduce`` (C', C), ``norm`` (C',) with its bias, ``out``
    (C, C'). Only C' > 1 different from C can be told apart.
    """
    shapes = {name: _trim(shape) for name, shape in parameters.items()}
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    narrow = [name for name, shape in shapes.items() if shape == (inner,)]
    wide = [name for name, shape in shapes.items() if shape == (channels,)]
    single = [name for name, shape in shapes.items() if shape == ()]
    known = len(matrices) + len(narrow) + len(wide) + len(single)
    fit = (
        known == len(shapes)
        and sorted(shapes[name] for name in matrices)
        == sorted([(inner, channels), (channels, inner)])
        and len(narrow) in (2, 3)
        and key <= len(wide) <= key + 1
        and len(single) <= key
    )
    if not fit:
        return []
    scored = []
    for turned in (False, True):
        first = (inner, channels)[:: -1 if turned else 1]
        reduce, out = sorted(matrices, key=lambda name: shapes[name] != first)
        for scale, shift, reduce_bias in _pick(narrow, 3):
            for query, out_bias in _pick(wide, 2) if key else [(None, *wide, None)[:2]]:
                slots = {"key": Slot(query, single[0] if single else None, False)} if key else {}
                slots |= {
                    "reduce": Slot(reduce, reduce_bias, turned),
                    "norm": Slot(scale, shift, False),
                    "out": Slot(out, out_bias, turned),
                }
                score = sum(
                    name is not None and name == _sibling(weight)
                    for weight, name in ((reduce, reduce_bias), (scale, shift), (out, out_bias))
                )
                scored.append((score, slots))
    best = max(score for score, _ in scored)
    return [slots for score, slots in scored if score == best]


def _shift_missing(parameters: Mapping[str, tuple[int, ...]], inner: int) -> bool:
    """Whether the two vectors of C' numbers are the bias of a map and the scale of a norm."""
    biases = {_sibling(name) for name, shape in parameters.items() if len(_trim(shape)) == 2}
    narrow = [name for name, shape in parameters.items() if _trim(shape) == (inner,)]
    other = [name for name in narrow if name not in biases]
    return len(other) == 1 and other[0].endswith("weight")


def gc_layers(
    report: Report, module: ModuleHandle, channels: int, inner: int, *, key: bool
) -> list[Assignment]:
    """Find the layers by shape; fail with the likely cause if they are not all there."""
    parameters = module.parameters()
    found = assignments_of(parameters, channels, inner, key=key)
    what = f"layers for C = {channels}, C' = {inner}"
    narrow = sum(_trim(shape) == (inner,) for shape in parameters.values())
    if found and not (narrow == 2 and _shift_missing(parameters, inner)):
        report.ok(what)
        return found
    shapes = [_trim(shape) for shape in parameters.values()]
    matrices = [shape for shape in shapes if len(shape) == 2]
    wide = shapes.count((channels,))
    cause = "a layer too many, or one with other channels than the text says"
    if set(module.weights()) - set(parameters):
        cause = "requires_grad is off for a layer: it could never learn"
    elif (channels, channels) in matrices:
        cause = "a map from C to C: the bottleneck goes down to C // ratio and up again"
    elif any(len(shape) > 2 for shape in shapes):
        cause = "a kernel larger than 1, or a LayerNorm over positions"
    elif len(matrices) < 2:
        cause = "a map is missing, or the module does not know it: set it as self.name = ..."
    elif len(matrices) > 2:
        cause = "too many maps: the transform has W_v1 and W_v2 alone"
    elif sorted(matrices) != sorted([(inner, channels), (channels, inner)]):
        cause = "the inner width is not the one that ratio asks for"
        if any(max(shape) > channels for shape in matrices):
            cause = (
                "the inner width is larger than C: does the ratio divide here, or is it a "
                "multiplier?"
            )
        elif any(inner + 1 in shape for shape in matrices):
            cause = "the inner width is rounded up: C' is the whole part of C / r"
    elif narrow == 2 and _shift_missing(parameters, inner):
        cause = "LayerNorm has a scale and no shift: keep its bias"
    elif narrow < 2 and wide >= 2 + key:
        cause = "LayerNorm stands behind the last layer: it belongs to the C' numbers inside"
    elif narrow < 2:
        cause = "LayerNorm, or its scale and shift of C' numbers each, is missing"
    elif key and not wide:
        cause = "W_k, a map from C to one number, is missing"
    elif len([shape for shape in shapes if shape == ()]) > key:
        cause = "a parameter of one number that the formula does not have"
    roles = f"W_v1 ({inner}, {channels}), LayerNorm ({inner},), W_v2 ({channels}, {inner})"
    report.fail(
        what,
        expected=f"W_k (1, {channels}), {roles}" if key else roles,
        got=", ".join(f"{name} {shape}" for name, shape in parameters.items()) or "no parameters",
        cause=cause,
    )


# The toy: context → three numbers → LayerNorm → ReLU → six numbers ------------------------------

_WEIGHTS = {
    "key": _numbers([[0, 0, 0, 0, 0, 1]]),  # reads channel 5
    "reduce": torch.eye(3, 6).double() / 10,  # a tenth of the channels 0, 1, 2
    "norm": _numbers([2, 1, 3]),
    "out": _numbers([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, -1], [0, 0, 2]]),
}
_BIASES = {"norm": _numbers([0, 1, 0])}
# W_v1 gives (0.4, 0.1, 0.1) and (-0.1, 0.2, 0.5): means 0.2, variances 0.02 and 0.06.
_S1, _S2 = sqrt(0.02 + 1e-5), sqrt(0.06 + 1e-5)
_CONTEXTS = _numbers([[4, 1, 1, 9, 9, 0], [-1, 2, 5, -9, 9, 5]])
_A, _B, _C = 0.4 / _S1, 1 - 0.1 / _S1, 0.9 / _S2
_TRANSFORMED = _numbers([[_A, _B, 0, _A + _B, _B, 0], [0, 1, _C, 1, 1 - _C, 2 * _C]])


def _transform_mistakes(context: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Wrong results of the toy transform on contexts ``(N, 6)``."""
    h, weight, bias = context[:, :3] / 10, _WEIGHTS["norm"], _BIASES["norm"]
    out = _WEIGHTS["out"].T
    centred = h - h.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    normed = centred / (variance + 1e-5).sqrt() * weight + bias
    positive = h.relu()
    behind = positive - positive.mean(1, keepdim=True)
    behind = behind / (behind.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight + bias
    batch = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt() * weight + bias
    return {
        "ReLU is missing between LayerNorm and W_v2": normed @ out,
        "ReLU stands before LayerNorm: normalise first": behind @ out,
        "ReLU stands behind W_v2: it belongs between LayerNorm and W_v2": (
            (normed @ out).relu(),
            (normed.relu() @ out).relu(),
        ),
        "LayerNorm is not called": (h.relu() @ out, h @ out),
        "the numbers are scaled and shifted, but not normalised": (h * weight + bias).relu() @ out,
        "the mean runs over the batch: LayerNorm treats each example alone": batch.relu() @ out,
        "the variance is divided by C' - 1": (
            (centred / (variance * 1.5 + 1e-5).sqrt() * weight + bias).relu() @ out,
            (centred / ((variance * 1.5).sqrt() + 1e-5) * weight + bias).relu() @ out,
        ),
        "one mean for all examples: each example has its own": (
            ((h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt() * weight + bias).relu() @ out
        ),
        "norm over the wrong axes: one mean over all C' numbers of an example": (
            bias.relu().expand(len(h), 3) @ out
        ),
        "the mean is not subtracted: LayerNorm is not RMSNorm": (
            (h / (h.square().mean(1, keepdim=True) + 1e-5).sqrt() * weight + bias).relu() @ out
        ),
        "LayerNorm is called twice": (F.layer_norm(normed, (3,), weight, bias).relu() @ out,),
        "always zero: the last layer starts at zero and forward multiplies by nothing": 0 * context,
        "the eps of the LayerNorm is not 1e-5": tuple(
            (centred / (variance + eps).sqrt() * weight + bias).relu() @ out
            for eps in (0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-4, 1e-3, 1e-2)
        ),
        "another activation than ReLU": (
            normed.sigmoid() @ out,
            normed.tanh() @ out,
            normed.abs() @ out,
            F.gelu(normed) @ out,
            F.silu(normed) @ out,
            F.leaky_relu(normed) @ out,
        ),
        "a sigmoid stands at the end: that is the gate of a scaling block": (
            (normed.relu() @ out).sigmoid()
        ),
        "the context is added inside of the transform: the block adds it once": (
            context + normed.relu() @ out
        ),
    }


def _randomise(report: Report, module: ModuleHandle, x: Tensor, assignment: Assignment) -> None:
    """Random weights, and a shift with which ReLU lets something through."""
    randomise(report, module, x)
    shift = assignment["norm"].bias
    module.load({shift: 1 + report.randn(*module.parameters()[shift]).abs()})


@exercise(
    "c05-e2",
    "the transform",
    needs="GCTransform",
    look="section 4, the table of shapes",
    points=(1, 2),
    minutes=15,
)
def e2(impl: Handle, report: Report) -> None:
    """Context ``(N, C)`` → ``(N, C)``: reduce, LayerNorm, ReLU, expand."""
    module = build(report, impl, 6, ratio=2)
    found = gc_layers(report, module, 6, 3, key=False)
    x = report.randn(3, 6)
    start = report.tensor("a fresh transform gives zero", module.forward(x), (3, 6))
    last, weights = found[0]["out"], module.weights()
    cause = "the last layer does not start at zero: set its weight and its bias to zero"
    if not any(weights[name].any() for name in (last.weight, last.bias) if name):
        cause = "the last layer starts at zero, so something behind it changes the result"
        if fits(start, x):
            cause = "the context is added inside of the transform: the block adds it once"
        elif fits(start, torch.full_like(x, 0.5)):
            cause = "a sigmoid stands at the end: that is the gate of a scaling block"
    report.true(
        "a fresh transform gives zero",
        not start.any(),
        expected="zeros",
        got=f"numbers up to {start.abs().max().item():.3g}",
        cause=cause,
    )
    assignment = forward_equals(
        report,
        "two contexts by hand",
        module,
        found,
        _WEIGHTS,
        _CONTEXTS,
        _TRANSFORMED,
        biases=_BIASES,
        mistakes=_transform_mistakes(_CONTEXTS),
    )
    _randomise(report, module, x, assignment)
    examples_apart(report, module.forward, x)
    every_weight_learns(report, module, x, assignment)
    same_in_eval_mode(report, module, x)
    fresh = build(report, impl, 6, ratio=2)
    learns_from_the_start(report, fresh, x, assignment)
    blocks_are_apart(report, impl, x, 6, ratio=2)
    module_keeps_float32(report, impl, x, 6, ratio=2)
    gc_layers(report, build(report, impl, 11, ratio=4), 11, 2, key=False)
    gc_layers(report, build(report, impl, 240), 240, 15, key=False)


# Three positions with weights 1/4, 1/2, 1/4: their context is (-1, 2, 5, ...), as the second above.
_POSITIONS = _numbers([[-4, 0, 4, 1, 0, 0], [0, 4, 4, 0, 1, log(2)], [0, 0, 8, 2, 0, 0]])
_ATTENTION = _numbers([1 / 4, 1 / 2, 1 / 4])


def _as_map(positions: Tensor) -> Tensor:
    """``(3, 6)`` → ``(1, 6, 1, 3)``."""
    return positions.T[None, :, None]


def _transformed(weights: Tensor) -> Tensor:
    """What the toy adds if positions are weighted like this."""
    return _transform_of(weights @ _POSITIONS)


def _transform_of(context: Tensor) -> Tensor:
    h = context[:3] / 10
    centred = h - h.mean()
    normed = centred / (centred.square().mean() + 1e-5).sqrt()
    return (normed * _WEIGHTS["norm"] + _BIASES["norm"]).relu() @ _WEIGHTS["out"].T


def _block_mistakes() -> dict[str, Tensor | tuple[Tensor, ...]]:
    logits = _numbers([0, log(2), 0])
    context = _ATTENTION @ _POSITIONS
    right = _TRANSFORMED[1]
    weights = {
        "softmax is never called: the logits themselves are the weights": logits,
        "softmax over an axis of size 1 gives weights of 1: it runs over the positions": (
            torch.ones(3).double()
        ),
        "the exponentials are not divided by their sum": logits.exp(),
        "this is average pooling: W_k is not used": torch.ones(3).double() / 3,
        "sigmoid weights: the positions must share a sum of 1 (softmax)": logits.sigmoid(),
        "the weights are divided by the number of positions as well": _ATTENTION / 3,
        "softmax of the negative logits": (-logits).softmax(0),
        "only the position with the largest logit is taken": _numbers([0, 1, 0]),
        "the logits are scaled: equation 5 has no scale": (logits / 6).softmax(0),
        "softmax twice": logits.softmax(0).softmax(0),
        "log_softmax gives logarithms of weights": logits.log_softmax(0),
        "sigmoids, divided by their sum: softmax has exponentials": (
            logits.sigmoid() / logits.sigmoid().sum()
        ),
        "the plain mean is added to the context": _ATTENTION + 1 / 3,
    }
    mistakes = {cause: _as_map(_POSITIONS + _transformed(w)) for cause, w in weights.items()}
    each = torch.stack([_transform_of(position) for position in _POSITIONS])
    mistakes |= {
        "the logits are divided by a root: equation 5 has no scale": tuple(
            _as_map(_POSITIONS + _transformed((logits / sqrt(size)).softmax(0))) for size in (3, 6)
        ),
        "the maximum over positions of each channel: the context is a weighted mean": _as_map(
            _POSITIONS + _transform_of(_POSITIONS.amax(0))
        ),
        "transformed first and pooled then: pool first, the order matters": _as_map(
            _POSITIONS + _ATTENTION @ each
        ),
        "every position is transformed by itself: the context is missing": _as_map(
            _POSITIONS + each
        ),
        "scaled by 2 · sigmoid: the GC block adds": _as_map(2 * _POSITIONS * right.sigmoid()),
        "scaled by a sigmoid: the GC block adds": _as_map(_POSITIONS * right.sigmoid()),
        "multiplied: the GC block adds": _as_map(_POSITIONS * right),
        "the input is not added": _as_map(right.expand(3, 6)),
        "added twice": _as_map(_POSITIONS + 2 * right),
        "the context is added as well": _as_map(_POSITIONS + right + context),
        "added to the context alone: each position keeps itself": _as_map(
            (context + right).expand(3, 6)
        ),
        "what is added is weighted by the attention again": _as_map(
            _POSITIONS + _ATTENTION[:, None] * right
        ),
    }
    mixed = _as_map(_POSITIONS).reshape(3, 6)
    mistakes["the map is cut with reshape: positions and channels are mixed"] = tuple(
        _as_map(_POSITIONS + _transform_of(w @ mixed))
        for w in (_ATTENTION, mixed[:, 5].softmax(0), torch.ones(3).double())
    )
    for cause, result in _transform_mistakes(context[None]).items():
        results = result if isinstance(result, tuple) else (result,)
        mistakes[cause] = tuple(_as_map(_POSITIONS + r) for r in results)
    return mistakes


def check_block(report: Report, impl: Handle, options: dict, narrow: dict) -> None:
    """The properties of a GC block on maps.

    Args:
        report: where properties are noted.
        impl: the class.
        options: arguments for which 6 channels have an inner width of 3.
        narrow: arguments for which 11 channels have an inner width of 2, rounded down.
    """
    module = build(report, impl, 6, **options)
    found = gc_layers(report, module, 6, 3, key=True)
    x = report.randn(2, 6, 3, 5)
    start = module.forward(x)
    if fits(start, x / 2):
        report.fail(
            "a fresh block is the identity",
            expected="z = x",
            got="z = x / 2",
            cause="scaled by a sigmoid, which is 1/2 at the start: the GC block adds",
        )
    if isinstance(start, Tensor) and start.shape == (2, 6, 1, 1):
        report.fail(
            "a fresh block is the identity",
            expected="z = x",
            got="shape (2, 6, 1, 1)",
            cause="the residual is forgotten: the input is not added back",
        )
    identity_at_start(report, module, x, found[0]["out"])
    assignment = forward_equals(
        report,
        "three positions by hand",
        module,
        found,
        _WEIGHTS,
        _as_map(_POSITIONS),
        _as_map(_POSITIONS + _TRANSFORMED[1]),
        biases=_BIASES,
        mistakes=_block_mistakes(),
    )
    _randomise(report, module, x, assignment)
    added = module.forward(x) - x
    report.close(
        "every position receives the same",
        added,
        added[:, :, :1, :1].expand_as(x),
        cause="the context must be one vector for each example, (N, C, 1, 1)",
    )
    positions_are_a_set(report, module, x)
    examples_apart(report, module.forward, x)
    every_weight_learns(report, module, x, assignment, dead=("key",))
    same_in_eval_mode(report, module, x)
    module.load({assignment["key"].weight: 100 * report.randn(1, 6)})
    large_inputs_stay_finite(report, module, x)
    fresh = build(report, impl, 6, **options)
    learns_from_the_start(report, fresh, x, assignment, dead=("key",))
    blocks_are_apart(report, impl, x, 6, **options)
    module_keeps_float32(report, impl, x, 6, **options)
    gc_layers(report, build(report, impl, 11, **narrow), 11, 2, key=True)
    gc_layers(report, build(report, impl, 240), 240, 15, key=True)


@exercise(
    "c05-e3",
    "the global context block",
    needs="GCBlock",
    look="section 5, the table of shapes",
    points=(2, 3),
    minutes=25,
)
def e3(impl: Handle, report: Report) -> None:
    """Attention pooling, transform, addition on maps ``(N, C, H, W)``."""
    check_block(report, impl, {"ratio": 2}, {"ratio": 4})


# C, ratio, C', and the sum written out: W_k, W_v1, LayerNorm, W_v2.
_COUNTS = (
    (12, 4, 3, 13 + 39 + 6 + 48),
    (512, 16, 32, 513 + 16_416 + 64 + 16_896),
    (1024, 16, 64, 1025 + 65_600 + 128 + 66_560),
    (2048, 16, 128, 2049 + 262_272 + 256 + 264_192),
    (2048, 4, 512, 2049 + 1_049_088 + 1024 + 1_050_624),
    (108, 16, 6, 109 + 654 + 12 + 756),
)


def _count_mistakes(c: int, r: int, p: int, right: int) -> dict[str, int]:
    return {
        "the biases are missing: W_k has 1, W_v1 has C', W_v2 has C": right - 1 - p - c,
        "the bias of W_k is missing": right - 1,
        "C' numbers are missing: the bias of W_v1, or one of the two of LayerNorm": right - p,
        "the bias of W_v2 is missing": right - c,
        "LayerNorm is missing: a scale and a shift for each of C'": right - 2 * p,
        "LayerNorm stands on the C' numbers, not on C": right - 2 * p + 2 * c,
        "W_k is missing": right - c - 1,
        "W_k gives one number, not C": right - c - 1 + c * c + c,
        "W_v2 is missing: the way back up counts too": right - p * c - c,
        "biases and LayerNorm are missing": 2 * c * p + c,
        "only the two layers of the bottleneck are counted": 2 * c * p,
        "this is the map without a bottleneck (the SNL block)": c + 1 + c * c + c,
        "the two biases of the bottleneck are missing": right - p - c,
        "r in place of C' = C // r": 2 * c * r + 2 * c + 3 * r + 1,
        "C' is rounded up: it is the whole part of C / r": right + 2 * c + 3,
        _WHOLE_PART: right - 2 * c * p + 2 * c * c // r,
        "the bias of W_k is one number, as its output": right - 1 + c,
    }


@exercise(
    "c05-e4",
    "parameters by hand",
    needs="count_parameters",
    look="section 6, the table of layers",
    points=(1, 1),
    minutes=10,
)
def e4(impl: Handle, report: Report) -> None:
    """Parameters of the GC block from C and r, biases included."""
    for c, r, p, right in _COUNTS:
        what = f"C = {c}, r = {r}"
        got = impl.call(c, r)
        if type(got) is not int:
            cause = "count numbers, as an int: C' is C // r, with two slashes"
            if got is None:
                cause = "the function ends without a return statement"
            kind = "nothing" if got is None else f"a {type(got).__name__}"
            report.fail(what, expected=f"{right:,}", got=kind, cause=cause)
        mistakes = _count_mistakes(c, r, p, right)
        cause = next((cause for cause, wrong in mistakes.items() if wrong == got), "")
        if not cause and (got > 4 * right or got < 0):
            cause = "C' is C // r: the ratio divides"
        cause = cause or (_WHOLE_PART if c % r else _ONE_BY_ONE)
        report.true(what, got == right, expected=f"{right:,}", got=f"{got:,}", cause=cause)


_ONE_BY_ONE = "count layer by layer with C = 12, r = 4: 13, 39, 6 and 48"
_WHOLE_PART = "C' is C // r: with C·C / r in one step, the rest of the division is lost"

KINDS = (
    "softmax never called",
    "softmax over the wrong axis",
    "norm over the wrong axes",
    "last layer not zero",
    "scaled, not added",
    "ratio not used",
)
_LINES = {"A": 10, "B": 9, "C": 9}
# Digests of the right pairs, so that the answer is not read here in passing.
_FOUND = {"A": "b69778ea3414", "B": "752b8aad7143", "C": "4c83b9e99457"}
_REASONS = {  # lines that look guilty
    "A3": "A3 only makes a layer, and makes it rightly: follow it into forward",
    "A9": "A9 is right if its weights sum to 1: look where they come from",
    "A4": "A4 is the transform of equation 5",
    "B2": "B2 is right: one logit for each position; look at what happens to the logits",
    "B8": "B8 is right if its weights sum to 1: print their sum over positions",
    "B3": "B3 is the transform of equation 5",
    "C7": "C7 is right: print the weights and their sum over positions",
    "C4": "C4 is right: the last layer must start at zero",
    "C5": "C5 is right: the last layer must start at zero",
}


def _digest(label: str, kind: str) -> str:
    return hashlib.sha256(f"gc {label} {kind}".encode()).hexdigest()[:12]


@exercise(
    "c05-e5",
    "find the bugs",
    needs="find_bugs",
    look="section 8, the three blocks and the three tests",
    points=(1, 2),
    minutes=20,
)
def e5(impl: Handle, report: Report) -> None:
    """Three pairs of a line's label and the name of its mistake."""
    pairs = impl.call()
    check_bugs(report, pairs)


def check_bugs(report: Report, pairs) -> None:
    """One right pair for each of the blocks A, B and C."""
    what = "three pairs (line, mistake)"
    cause = 'return [("A1", "..."), ("B1", "..."), ("C1", "...")], with your lines and mistakes'
    if pairs is None:
        cause = "the function ends without a return statement"
    right = (
        isinstance(pairs, (list, tuple))
        and len(pairs) == 3
        and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs)
        and all(type(part) is str for pair in pairs for part in pair)
    )
    report.true(
        what,
        right,
        expected="a list of three pairs of strings",
        got="nothing" if pairs is None else "something else",
        cause=cause,
    )
    for block, (label, kind) in zip("ABC", pairs, strict=True):
        label, kind = label.strip().upper(), kind.strip()
        what = f"block {block}"
        shown = f"({label!r}, {kind!r})"
        expected = f"the line of block {block} and its mistake"
        cause = f"block {block}: {_REASONS.get(label, 'this line is right')}"
        lines = [f"{block}{n}" for n in range(1, _LINES[block] + 1)]
        if kind.upper() in lines:
            cause = "a pair is (line, mistake): the line comes first"
        elif label not in lines:
            cause = f"block {block} has the lines {lines[0]} to {lines[-1]}; pairs go A, B, C"
        elif kind not in KINDS:
            cause = "this name is not in the list of mistakes above the exercise"
        elif any(_digest(label, other) == _FOUND[block] for other in KINDS):
            cause = f"block {block}: this is the line; its mistake has another name"
        report.true(
            what, _digest(label, kind) == _FOUND[block], expected=expected, got=shown, cause=cause
        )


@exercise(
    "c05-e6",
    "repair a block",
    needs="FixedBlock",
    look="section 9, the block and its four mistakes",
    points=(1, 2),
    minutes=20,
)
def e6(impl: Handle, report: Report) -> None:
    """A GC block whose ratio is a multiplier, as in the public code."""
    check_block(report, impl, {"ratio": 1 / 2}, {"ratio": 1 / 4})
    gc_layers(report, build(report, impl, 8, ratio=3 / 8), 8, 3, key=True)
