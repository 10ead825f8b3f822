"""Hidden checks of chapter 05: the GC block of gclib on random inputs and weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclib.blocks import BottleneckTransform, GCBlock
from gclib.checks import c05
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build
from gclib.checks.report import Report, distance, fits
from gclib.checks.roles import Assignment, weights_for


@hidden_check(c05.e1)
def e1(impl: Handle, report: Report) -> None:
    """Random inputs of several sizes, several eps, and all gradients."""
    for n, width, size, eps in ((1, 2, 1, 1e-5), (3, 5, 50, 1e-3), (4, 3, 1e-3, 1e-6)):
        x = size * report.randn(n, width)
        weight, bias = 30 * report.randn(width), 30 * report.randn(width)
        expected = F.layer_norm(x, (width,), weight, bias, eps)
        report.close(f"x ({n}, {width}), eps {eps:g}", impl.call(x, weight, bias, eps), expected)
    tensors = [report.randn(3, 5), report.randn(5), report.randn(5)]
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    cotangent = report.randn(3, 5)
    (F.layer_norm(leaves[0], (5,), leaves[1], leaves[2]) * cotangent).sum().backward()
    found = impl.gradients(*tensors, cotangent=cotangent).inputs
    for name, gradient, leaf in zip(("x", "weight", "bias"), found, leaves, strict=True):
        report.gradient(f"gradient of {name}", gradient, leaf.grad)


def _equals_reference(
    impl: Handle, report: Report, reference: nn.Module, x: Tensor, inner: int, ratio: float
) -> None:
    """Load the same random weights into both; compare results and all gradients."""
    key = isinstance(reference, GCBlock)
    channels = x.shape[1]
    transform = reference.transform if key else reference
    layers = {"reduce": transform.reduce, "norm": transform.norm, "out": transform.expand}
    if key:
        layers["key"] = reference.context_modelling.key
    module = build(report, impl, channels, ratio)
    found = c05.gc_layers(report, module, channels, inner, key=key)
    values = {role: 0.7 * report.randn(*layer.weight.shape) for role, layer in layers.items()}
    values["norm"] = 20 * values["norm"]  # large enough for a clamp to show
    biases = {role: report.randn(*layer.bias.shape) for role, layer in layers.items()}
    tried = []
    cotangent = report.randn(*x.shape)
    for assignment in found:
        module.load(weights_for(assignment, values, biases))
        with torch.no_grad():
            for role, layer in layers.items():
                layer.weight.copy_(values[role])
                layer.bias.copy_(biases[role] if assignment[role].bias else torch.zeros(()))
        leaf = x.clone().requires_grad_()
        reference.zero_grad()
        expected = reference(leaf)
        (expected * cotangent).sum().backward()
        result = module.gradients(x, cotangent=cotangent)
        tried.append((distance(result.result, expected.detach()), result.result, expected.detach()))
        if fits(result.result, expected.detach()):
            report.close("result", result.result, expected.detach())
            report.gradient("gradient of the input", result.inputs[0], leaf.grad)
            _same_gradients(report, result.parameters, layers, assignment)
            return
    _, got, right = min(tried, key=lambda one: one[0])  # the roles that come nearest
    report.close("result", got, right)


def _same_gradients(
    report: Report,
    found: dict[str, Tensor | None],
    layers: dict[str, nn.Module],
    assignment: Assignment,
) -> None:
    for role, slot in assignment.items():
        weight, bias = layers[role].weight.grad, layers[role].bias.grad
        weight = weight.T if slot.transposed else weight
        got = found[slot.weight]
        got = got if got is None else got.reshape(weight.shape)
        report.gradient(f"gradient of the weight of {role}", got, weight)
        if slot.bias and role != "key":  # softmax cancels the bias of the key
            got = found[slot.bias]
            got = got if got is None else got.reshape(bias.shape)
            report.gradient(f"gradient of the bias of {role}", got, bias)


@hidden_check(c05.e2)
def e2(impl: Handle, report: Report) -> None:
    """The reference transform, with random weights and biases."""
    for channels, ratio, examples in ((6, 2, 3), (12, 3, 1), (10, 4, 5), (7, 2, 2), (18, 3, 4)):
        reference = BottleneckTransform(channels, ratio=ratio, norm=True, dtype=torch.float64)
        with report.group(f"{channels} channels, ratio {ratio}"):
            x = 3 * report.randn(examples, channels)
            _equals_reference(impl, report, reference, x, channels // ratio, ratio)


def _blocks(impl: Handle, report: Report, *, multiplier: bool) -> None:
    cases = (
        (6, 2, (3, 5)),
        (12, 4, (4, 2)),
        (8, 2, (1, 7)),
        (11, 4, (2, 3)),
        (16, 8, (1, 1)),
        (18, 2, (2, 2)),
    )
    for channels, ratio, size in cases:
        reference = GCBlock(channels, ratio=ratio, dtype=torch.float64)
        with report.group(f"{channels} channels, r = {ratio}, map {size}"):
            x = report.randn(2, channels, *size)
            given = 1 / ratio if multiplier else ratio
            _equals_reference(impl, report, reference, x, channels // ratio, given)


@hidden_check(c05.e3)
def e3(impl: Handle, report: Report) -> None:
    """The reference block, with random weights and biases."""
    _blocks(impl, report, multiplier=False)


@hidden_check(c05.e4)
def e4(impl: Handle, report: Report) -> None:
    """The parameters of real blocks."""
    for channels, ratio in ((2, 1), (48, 3), (33, 8), (64, 16), (256, 7), (256, 256), (49, 49)):
        reference = GCBlock(channels, ratio=ratio, device="meta")
        right = sum(parameter.numel() for parameter in reference.parameters())
        got = impl.call(channels, ratio)
        what = f"C = {channels}, r = {ratio}"
        cause = "C' is C // r, in whole numbers: C · (1 / r) may be rounded down by one"
        report.true(what, got == right, expected=f"{right:,}", got=f"{got}", cause=cause)


@hidden_check(c05.e5)
def e5(impl: Handle, report: Report) -> None:
    """The same three pairs, a second time: nothing may change between two calls."""
    first = impl.call()
    c05.check_bugs(report, first)
    again = impl.call()
    same = [tuple(pair) for pair in first] == [tuple(pair) for pair in again]
    report.true("the same twice", same, expected="the same pairs", got="others")


@hidden_check(c05.e6)
def e6(impl: Handle, report: Report) -> None:
    """The reference block; here ratio is the inverse of r."""
    _blocks(impl, report, multiplier=True)
