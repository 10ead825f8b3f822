"""Hidden checks of chapter 01: the blocks of gclib on random inputs and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from gclib.blocks import NonLocalBlock
from gclib.blocks.non_local import INSTANTIATIONS
from gclib.checks import c01
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build, find_roles
from gclib.checks.report import Report, fits
from gclib.checks.roles import weights_for


@hidden_check(c01.e1)
def e1(impl: Handle, report: Report) -> None:
    """Random vectors of several sizes, and both gradients."""
    for n, rows, columns, width in ((1, 1, 1, 1), (2, 3, 5, 4), (4, 6, 2, 3), (1, 4, 4, 4)):
        query, key = 5 * report.randn(n, rows, width), 5 * report.randn(n, columns, width)
        what = f"query ({n}, {rows}, {width}), key ({n}, {columns}, {width})"
        report.close(what, impl.call(query, key), (query[:, :, None] * key[:, None]).sum(3))
    query, key, cotangent = report.randn(2, 3, 4), report.randn(2, 5, 4), report.randn(2, 3, 5)
    gradients = impl.gradients(query, key, cotangent=cotangent).inputs
    report.gradient("gradient of the query", gradients[0], cotangent @ key)
    report.gradient("gradient of the key", gradients[1], cotangent.transpose(1, 2) @ query)


@hidden_check(c01.e2)
def e2(impl: Handle, report: Report) -> None:
    """All four names on maps of several shapes and sizes of number."""
    for name in INSTANTIATIONS:
        with report.group(name):
            for shape in ((1, 1, 1), (2, 3, 5), (3, 4, 2), (2, 4, 4)):
                for size in (1, 50, 1e5):
                    similarity = size * report.randn(*shape)
                    expected = similarity / shape[2]
                    if "gaussian" in name:
                        expected = torch.softmax(similarity, dim=2)
                    what = f"shape {shape}, size {size:g}"
                    report.close(what, impl.call(similarity, name), expected, atol=1e-8 * size)
            leaf = report.randn(2, 3, 5).requires_grad_()
            cotangent = report.randn(2, 3, 5)
            attention = torch.softmax(leaf, dim=2) if "gaussian" in name else leaf / 5
            (attention * cotangent).sum().backward()
            found = impl.gradients(leaf.detach(), name, cotangent=cotangent)
            report.gradient("its gradient", found.inputs[0], leaf.grad)


@hidden_check(c01.e3)
def e3(impl: Handle, report: Report) -> None:
    """Random maps and values of several sizes, and both gradients."""
    for n, rows, columns, width in ((1, 1, 1, 1), (2, 3, 5, 4), (4, 6, 2, 3), (2, 4, 4, 4)):
        attention, value = report.randn(n, rows, columns), report.randn(n, columns, width)
        what = f"attention ({n}, {rows}, {columns}), value ({n}, {columns}, {width})"
        expected = (attention[:, :, :, None] * value[:, None]).sum(2)
        report.close(what, impl.call(attention, value), expected)
    attention, value = report.randn(2, 3, 4), report.randn(2, 4, 5)
    cotangent = report.randn(2, 3, 5)
    gradients = impl.gradients(attention, value, cotangent=cotangent).inputs
    report.gradient("gradient of the map", gradients[0], cotangent @ value.transpose(1, 2))
    report.gradient("gradient of the values", gradients[1], attention.transpose(1, 2) @ cotangent)


def _equals_reference(
    impl: Handle,
    report: Report,
    reference: NonLocalBlock,
    size: tuple[int, ...],
    *positional,
    **options,
) -> None:
    """Load the same random weights into both; compare results and all gradients."""
    channels, inner = reference.in_channels, reference.value.out_channels
    roles = {"value": (inner, channels), "out": (channels, inner)}
    if reference.instantiation != "gaussian":
        roles |= {"query": (inner, channels), "key": (inner, channels)}
    if reference.instantiation == "concat":
        roles["pair"] = (1, 2 * inner)
    module = build(report, impl, channels, *positional, **options)
    found = find_roles(report, module, roles, "layers")
    values = {role: 0.7 * report.randn(*shape) for role, shape in roles.items()}
    biases = {role: report.randn(shape[0]) for role, shape in roles.items()}
    x = report.randn(2, channels, *size)
    cotangent = report.randn(2, channels, *size)
    for last, assignment in ((a is found[-1], a) for a in found):
        module.load(weights_for(assignment, values, biases))
        _load_reference(reference, values, biases, assignment)
        leaf = x.clone().requires_grad_()
        reference.zero_grad()
        expected = reference(leaf)
        (expected * cotangent).sum().backward()
        result = module.gradients(x, cotangent=cotangent)
        if last or fits(result.result, expected.detach()):
            report.close("result", result.result, expected.detach())
            report.gradient("gradient of the input", result.inputs[0], leaf.grad)
            _same_gradients(report, result.parameters, reference, assignment)
            return


def _same_gradients(
    report: Report, found: dict[str, Tensor | None], reference: NonLocalBlock, assignment
) -> None:
    for role, slot in assignment.items():
        layer = getattr(reference, role)
        weight = layer.weight.grad.flatten(1)
        expected = weight.T if slot.transposed else weight
        got = found[slot.weight]
        got = got if got is None else got.reshape(expected.shape)
        report.gradient(f"gradient of the {role} weight", got, expected)
        if slot.bias and role != "pair":
            got = found[slot.bias]
            got = got if got is None else got.reshape(layer.bias.shape)
            report.gradient(f"gradient of the {role} bias", got, layer.bias.grad)


def _load_reference(reference: NonLocalBlock, values, biases, assignment) -> None:
    state = {}
    for role, value in values.items():
        state[f"{role}.weight"] = value
        if role != "pair":
            has_bias = assignment[role].bias is not None
            state[f"{role}.bias"] = biases[role] if has_bias else torch.zeros(len(value))
    if "pair" in values and assignment["pair"].bias:
        # The reference has no bias there; one that stands inside of the ReLU is the same as a
        # query bias of this projection.
        weight = values["pair"][0, : values["query"].shape[0]]
        shift = biases["pair"] * weight / weight.square().sum()
        state["query.bias"] = state["query.bias"] + shift
    target = reference.state_dict()
    reference.load_state_dict({k: v.reshape(target[k].shape) for k, v in state.items()})


@hidden_check(c01.e4)
def e4(impl: Handle, report: Report) -> None:
    """The reference block, with random weights and biases."""
    cases = ((4, 2, (3, 5)), (6, 3, (4, 2)), (6, 2, (1, 7)), (5, 2, (2, 3)), (4, 2, (1, 1)))
    for channels, reduction, size in cases:
        reference = NonLocalBlock(channels, reduction=reduction, dtype=torch.float64)
        with report.group(f"{channels} channels, reduction {reduction}, map {size}"):
            _equals_reference(impl, report, reference, size, reduction)


@hidden_check(c01.e5)
def e5(impl: Handle, report: Report) -> None:
    """The reference block in all four instantiations."""
    for name in INSTANTIATIONS:
        for channels, reduction, size in ((6, 2, (3, 5)), (8, 4, (4, 2))):
            options = {"instantiation": name, "reduction": reduction}
            reference = NonLocalBlock(channels, **options, dtype=torch.float64)
            with report.group(f"{name}, {channels} channels, reduction {reduction}, map {size}"):
                _equals_reference(impl, report, reference, size, name, reduction)


@hidden_check(c01.e6)
def e6(impl: Handle, report: Report) -> None:
    """The reference block on sequences, images and clips, in all four instantiations."""
    for ndim, size in ((1, (6,)), (2, (2, 5)), (3, (3, 2, 4))):
        for name in INSTANTIATIONS:
            reference = NonLocalBlock(
                12, ndim=ndim, instantiation=name, reduction=3, dtype=torch.float64
            )
            with report.group(f"ndim={ndim}, {name}"):
                _equals_reference(impl, report, reference, size, ndim, name, 3)


@hidden_check(c01.e7)
def e7(impl: Handle, report: Report) -> None:
    """Random inputs of several sizes."""
    for n, rows, columns, width, channels in ((1, 1, 1, 1, 1), (2, 3, 5, 4, 6), (3, 6, 2, 3, 2)):
        query, key = report.randn(n, rows, width), report.randn(n, columns, width)
        value = report.randn(n, columns, channels)
        leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        expected = leaves[0] @ leaves[1].transpose(1, 2) @ leaves[2] / columns
        cotangent = report.randn(*expected.shape)
        (expected * cotangent).sum().backward()
        found = impl.gradients(query, key, value, cotangent=cotangent)
        case = f"{rows} queries, {columns} keys"
        report.close(case, found.result, expected.detach())
        names = ("query", "key", "value")
        for name, gradient, leaf in zip(names, found.inputs, leaves, strict=True):
            report.gradient(f"{case}: gradient of the {name}", gradient, leaf.grad)
