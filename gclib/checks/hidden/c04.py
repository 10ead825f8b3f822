"""Hidden checks of chapter 04: the framework of gclib on random inputs and weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    LinearTransform,
    ScaleFusion,
)
from gclib.checks import c04
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build, find_roles
from gclib.checks.report import Report, distance, fits
from gclib.checks.roles import weights_for

_SIZES = ((1, 1, 1), (2, 3, 7), (3, 2, 4, 5), (2, 5, 1, 6), (2, 3, 2, 3, 4), (1, 4, 3, 1, 1))


@hidden_check(c04.e1)
def e1(impl: Handle, report: Report) -> None:
    """Sequences, images and clips of several sizes, and the gradient."""
    pooling = AveragePooling()
    for size in _SIZES:
        x = 5 * report.randn(*size) + 3
        report.close(f"shape {size}", impl.call(x), pooling(x)[0])
    cotangent = report.randn(2, 3)
    found = impl.gradients(report.randn(2, 3, 4, 5), cotangent=cotangent)
    expected = cotangent.view(2, 3, 1, 1).expand(2, 3, 4, 5) / 20
    report.gradient("gradient of the input", found.inputs[0], expected)


@hidden_check(c04.e2)
def e2(impl: Handle, report: Report) -> None:
    """Sequences, images and clips with logits of several sizes, and both gradients."""
    for size in _SIZES:
        with report.group(f"shape {size}"):
            pooling = AttentionPooling(size[1], bias=False, dtype=torch.float64)
            for scale in (0.1, 1, 100):
                x, key = report.randn(*size), scale * report.randn(size[1])
                with torch.no_grad():
                    pooling.key.weight.copy_(key[None])
                report.close(f"logits of size {scale:g}", impl.call(x, key), pooling(x)[0].detach())
    pooling = AttentionPooling(3, bias=False, dtype=torch.float64)
    leaf, cotangent = report.randn(2, 3, 4, 5).requires_grad_(), report.randn(2, 3)
    (pooling(leaf)[0] * cotangent).sum().backward()
    key = pooling.key.weight.detach()[0]
    found = impl.gradients(leaf.detach(), key, cotangent=cotangent).inputs
    report.gradient("gradient of the input", found[0], leaf.grad)
    report.gradient("gradient of the key", found[1], pooling.key.weight.grad[0])


@hidden_check(c04.e3)
def e3(impl: Handle, report: Report) -> None:
    """The reference transform, with random weights and biases."""
    for channels, ratio in ((4, 2), (12, 4), (9, 2), (40, 16), (6, 3)):
        with report.group(f"{channels} channels, ratio {ratio}"):
            reference = BottleneckTransform(channels, ratio=ratio, dtype=torch.float64)
            layers = {"reduce": reference.reduce, "out": reference.expand}
            x = 20 * report.randn(5, channels)
            _equals_reference(impl, report, reference, layers, x, channels, ratio=ratio)


@hidden_check(c04.e4)
def e4(impl: Handle, report: Report) -> None:
    """Random maps and vectors in all three ways, and both gradients."""
    fusions = {"add": AddFusion(), "scale": ScaleFusion(), "2scale": ScaleFusion("2sigmoid")}
    for how, fusion in fusions.items():
        with report.group(how):
            for size in (*_SIZES, (3, 3, 3, 3), (2, 2, 2)):
                x, t = 3 * report.randn(*size), 5 * report.randn(*size[:2])
                wide = t.reshape(*size[:2], *[1] * (len(size) - 2))
                report.close(f"shape {size}", impl.call(x, t, how), fusion(x, wide))
            x, t = report.randn(2, 3, 4, 5).requires_grad_(), report.randn(2, 3).requires_grad_()
            cotangent = report.randn(2, 3, 4, 5)
            (fusion(x, t[:, :, None, None]) * cotangent).sum().backward()
            found = impl.gradients(x.detach(), t.detach(), how, cotangent=cotangent).inputs
            report.gradient("gradient of the map", found[0], x.grad)
            report.gradient("gradient of the vector", found[1], t.grad)


@hidden_check(c04.e5)
def e5(impl: Handle, report: Report) -> None:
    """The reference framework: all twelve blocks on sequences, images and clips."""
    fusions = {"add": AddFusion, "scale": ScaleFusion, "2scale": lambda: ScaleFusion("2sigmoid")}
    sizes = ((6,), (4, 5), (2, 3, 4))
    number = 0
    for pooling in ("average", "attention"):
        for transform in ("linear", "bottleneck"):
            for fusion, make in fusions.items():
                size = sizes[number % 3]
                number += 1 if fusion != "2scale" else 2
                with report.group(f"{pooling}, {transform}, {fusion}, positions {size}"):
                    reference = ContextBlock(
                        AveragePooling() if pooling == "average" else AttentionPooling(9),
                        LinearTransform(9)
                        if transform == "linear"
                        else BottleneckTransform(9, ratio=4),
                        make(),
                        ndim=len(size),
                    ).double()
                    layers = {}
                    if pooling == "attention":
                        layers["key"] = reference.context_modelling.key
                    if transform == "linear":
                        layers["out"] = reference.transform.value
                    else:
                        layers["reduce"] = reference.transform.reduce
                        layers["out"] = reference.transform.expand
                    options = {"pooling": pooling, "transform": transform, "fusion": fusion}
                    x = report.randn(2, 9, *size) + 30 * report.randn(2, 9, *[1] * len(size))
                    _equals_reference(impl, report, reference, layers, x, 9, ratio=4, **options)


def _equals_reference(
    impl: Handle,
    report: Report,
    reference: nn.Module,
    layers: dict[str, nn.Linear],
    x: Tensor,
    *arguments,
    **options,
) -> None:
    """Load the same random weights into both; compare results and all gradients."""
    module = build(report, impl, *arguments, **options)
    roles = {role: tuple(layer.weight.shape) for role, layer in layers.items()}
    found = find_roles(report, module, roles, "layers")
    values = {role: 0.7 * report.randn(*shape) for role, shape in roles.items()}
    biases = {role: report.randn(shape[0]) for role, shape in roles.items()}
    cotangent = report.randn(*x.shape)
    tried = []
    for assignment in found:
        module.load(weights_for(assignment, values, biases))
        with torch.no_grad():
            for role, layer in layers.items():
                layer.weight.copy_(values[role])
                layer.bias.copy_(biases[role] if assignment[role].bias else 0 * biases[role])
        leaf = x.clone().requires_grad_()
        reference.zero_grad()
        expected = reference(leaf)
        (expected * cotangent).sum().backward()
        result = module.gradients(x, cotangent=cotangent)
        tried.append((distance(result.result, expected.detach()), result.result, expected.detach()))
        if fits(result.result, expected.detach()):
            report.close("result", result.result, expected.detach())
            report.gradient("gradient of the input", result.inputs[0], leaf.grad)
            for role, slot in assignment.items():
                weight = layers[role].weight.grad
                weight = weight.T if slot.transposed else weight
                got = result.parameters[slot.weight]
                got = got if got is None else got.reshape(weight.shape)
                report.gradient(f"gradient of the {role} weight", got, weight)
                if slot.bias and role != "key":  # softmax cancels the bias of the key
                    got = result.parameters[slot.bias]
                    got = got if got is None else got.reshape(layers[role].bias.shape)
                    report.gradient(f"gradient of the {role} bias", got, layers[role].bias.grad)
            return
    _, got, expected = min(tried, key=lambda one: one[0])  # the roles that come nearest
    report.close("result", got, expected)
