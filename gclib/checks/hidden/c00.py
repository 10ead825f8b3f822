"""Hidden checks of chapter 00: torch's own functions on random inputs."""

from __future__ import annotations

import torch

from gclib.checks import c00
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build, find_roles, forward_equals
from gclib.checks.report import Report


@hidden_check(c00.e1)
def e1(impl: Handle, report: Report) -> None:
    """Maps of several shapes, contiguous or not."""
    for shape in ((1, 1, 1, 1), (2, 3, 1, 4), (2, 3, 4, 1), (3, 5, 4, 6)):
        x = report.randn(*shape)
        expected = torch.einsum("nchw->nhwc", x).reshape(shape[0], -1, shape[1])
        report.close(f"a map of shape {shape}", impl.call(x), expected)
    x = report.randn(5, 3, 4, 2)
    report.close("a map whose memory is not contiguous", impl.call(x.permute(3, 0, 1, 2)), _flat(x))
    cotangent = report.randn(3, 20, 4)
    gradient = impl.gradients(report.randn(3, 4, 4, 5), cotangent=cotangent).inputs[0]
    expected = cotangent.transpose(1, 2).reshape(3, 4, 4, 5)
    report.gradient("gradients go back to where they came from", gradient, expected)


def _flat(x: torch.Tensor) -> torch.Tensor:
    x = x.permute(3, 0, 1, 2)
    return torch.stack([example.reshape(x.shape[1], -1).T for example in x])


@hidden_check(c00.e2)
def e2(impl: Handle, report: Report) -> None:
    """Random weights and values of several shapes."""
    for n, rows, columns, channels in ((1, 1, 1, 1), (2, 3, 5, 4), (4, 6, 2, 3), (1, 1, 7, 2)):
        weights, values = report.randn(n, rows, columns), report.randn(n, columns, channels)
        expected = (weights[:, :, :, None] * values[:, None]).sum(2)
        what = f"weights ({n}, {rows}, {columns}), values ({n}, {columns}, {channels})"
        report.close(what, impl.call(weights, values), expected)
    weights, values, cotangent = report.randn(2, 3, 4), report.randn(2, 4, 5), report.randn(2, 3, 5)
    gradients = impl.gradients(weights, values, cotangent=cotangent).inputs
    report.gradient("gradient of the weights", gradients[0], cotangent @ values.transpose(1, 2))
    report.gradient("gradient of the values", gradients[1], weights.transpose(1, 2) @ cotangent)


@hidden_check(c00.e3)
def e3(impl: Handle, report: Report) -> None:
    """torch.softmax on random inputs of every size and axis."""
    for shape in ((4,), (3, 1), (2, 3, 4), (2, 1, 3, 2)):
        with report.group(f"shape {shape}"):
            for dim in range(-len(shape), len(shape)):
                x = report.randn(*shape)
                report.close(f"dim={dim}", impl.call(x, dim), torch.softmax(x, dim))
    for size in (1e2, 1e3, 1e6):
        x = size * report.randn(3, 5)
        report.close(f"numbers of size {size:g}", impl.call(x, 1), torch.softmax(x, 1))
    x, cotangent = report.randn(3, 4), report.randn(3, 4)
    y = torch.softmax(x, 1)
    expected = y * (cotangent - (y * cotangent).sum(1, keepdim=True))
    report.gradient("its gradient", impl.gradients(x, 1, cotangent=cotangent).inputs[0], expected)


@hidden_check(c00.e4)
def e4(impl: Handle, report: Report) -> None:
    """Random weights, other sizes, and both gradients."""
    for channels, height, width in ((2, 1, 3), (5, 4, 2)):
        module = build(report, impl, channels)
        roles = {"out": (channels, channels)}
        found = find_roles(report, module, roles, f"{channels} channels: one convolution")
        weight, bias = report.randn(channels, channels), report.randn(channels)
        if found[0]["out"].bias is None:
            bias = torch.zeros_like(bias)
        x, cotangent = (report.randn(2, channels, height, width) for _ in range(2))
        expected = x + torch.einsum("oc,nchw->nohw", weight, x) + bias.view(-1, 1, 1)
        what = f"{channels} channels, {height}×{width}"
        values, biases = {"out": weight}, {"out": bias}
        slot = forward_equals(report, what, module, found, values, x, expected, biases=biases)[
            "out"
        ]
        found = module.gradients(x, cotangent=cotangent)
        expected = cotangent + torch.einsum("oc,nohw->nchw", weight, cotangent)
        report.gradient("gradient of the input", found.inputs[0], expected)
        expected = torch.einsum("nohw,nchw->oc", cotangent, x)
        gradient = found.parameters[slot.weight]
        gradient = gradient if gradient is None else gradient.reshape(channels, channels)
        expected = expected.T if slot.transposed else expected
        report.gradient("gradient of the weight", gradient, expected)
        if slot.bias:
            gradient = found.parameters[slot.bias]
            gradient = gradient if gradient is None else gradient.reshape(channels)
            report.gradient("gradient of the bias", gradient, cotangent.sum((0, 2, 3)))
