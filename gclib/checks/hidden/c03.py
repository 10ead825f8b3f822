"""Hidden checks of chapter 03: the simplified block of gclib on random inputs and weights."""

from __future__ import annotations

import torch
from torch import Tensor

from gclib.analysis.complexity import block_multiply_adds
from gclib.analysis.distances import average_cosine_distance
from gclib.blocks import SimplifiedNonLocalBlock
from gclib.checks import c03
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build, find_roles
from gclib.checks.report import Report, fits
from gclib.checks.roles import Assignment, weights_for


@hidden_check(c03.e1)
def e1(impl: Handle, report: Report) -> None:
    """Random maps of several sizes and sizes of number, and both gradients."""
    for n, channels, positions in ((1, 1, 1), (2, 3, 5), (4, 5, 2), (3, 4, 4)):
        for size in (1, 50, 1e5):
            x, key = size * report.randn(n, channels, positions), report.randn(channels)
            expected = (x * key[None, :, None]).sum(1).softmax(1)
            what = f"x ({n}, {channels}, {positions}), size {size:g}"
            report.close(what, impl.call(x, key), expected, atol=1e-7)
    x, key = report.randn(2, 3, 5).requires_grad_(), report.randn(3).requires_grad_()
    cotangent = report.randn(2, 5)
    ((x * key[None, :, None]).sum(1).softmax(1) * cotangent).sum().backward()
    found = impl.gradients(x.detach(), key.detach(), cotangent=cotangent).inputs
    report.gradient("gradient of the input", found[0], x.grad)
    report.gradient("gradient of W_k", found[1], key.grad)


def _context(impl: Handle, report: Report) -> None:
    for n, channels, width, positions in (
        (1, 1, 1, 1),
        (2, 3, 4, 5),
        (4, 5, 2, 3),
        (3, 4, 4, 4),
        (1, 2, 3, 40),
    ):
        leaves = [
            report.randn(n, channels, positions),
            report.randn(channels),
            report.randn(width, channels),
        ]
        x, key, value = (leaf.clone().requires_grad_() for leaf in leaves)
        weights = (x * key[None, :, None]).sum(1).softmax(1)
        expected = (weights[:, None] * (value @ x)).sum(2)
        cotangent = report.randn(n, width)
        (expected * cotangent).sum().backward()
        found = impl.gradients(*leaves, cotangent=cotangent)
        with report.group(f"x ({n}, {channels}, {positions}), W_v ({width}, {channels})"):
            report.close("the context", found.result, expected.detach())
            for name, got, leaf in zip(
                ("the input", "W_k", "W_v"), found.inputs, (x, key, value), strict=True
            ):
                report.gradient(f"gradient of {name}", got, leaf.grad)


@hidden_check(c03.e2)
def e2(impl: Handle, report: Report) -> None:
    """Random inputs of several sizes, and all gradients."""
    _context(impl, report)


@hidden_check(c03.e3)
def e3(impl: Handle, report: Report) -> None:
    """The same, and the sizes of what is made for a batch."""
    _context(impl, report)
    for n, channels, width, positions in ((3, 2, 50, 200), (2, 4, 128, 300)):
        call = impl.inspect(
            report.randn(n, channels, positions),
            report.randn(channels),
            report.randn(width, channels),
        )
        report.true(
            f"no transformed positions, {positions} of {width} channels",
            call.total < n * width * positions,
            expected=f"fewer than {n * width * positions} numbers in all",
            got=f"{call.total} numbers",
            cause="W_v is applied to every position: take the weighted sum of x first",
        )


@hidden_check(c03.e4)
def e4(impl: Handle, report: Report) -> None:
    """The counts of gclib.analysis.complexity."""
    for channels, positions in ((1, 1), (3, 7), (64, 49), (256, 1024), (2048, 1050)):
        counts = [
            sum(
                block_multiply_adds(
                    SimplifiedNonLocalBlock(channels, form=form, device="meta"), (positions, 1)
                ).values()
            )
            for form in ("eq2", "eq3")
        ]
        result = impl.call(channels, positions)
        what = f"{channels} channels, {positions} positions"
        whole = isinstance(result, (tuple, list)) and [float(n) for n in result] == counts
        report.true(what, whole, expected=str(tuple(counts)), got=str(result))


@hidden_check(c03.e5)
def e5(impl: Handle, report: Report) -> None:
    """The reference block, with random weights and biases, on all numbers of axes."""
    for channels, size in (
        (4, (3, 5)),
        (5, (7,)),
        (3, (2, 3, 4)),
        (6, (4, 2)),
        (2, (1, 1)),
        (3, (1,)),
    ):
        ndim = len(size)
        with report.group(f"ndim={ndim}, {channels} channels, map {size}"):
            _equals_reference(impl, report, channels, size)
    module = build(report, impl, 4, 1)  # the order of the arguments is that of the stub
    report.tensor("ndim is the second argument", module.forward(report.randn(2, 4, 5)), (2, 4, 5))
    report.ok("ndim is the second argument")


def _equals_reference(impl: Handle, report: Report, channels: int, size: tuple[int, ...]) -> None:
    reference = SimplifiedNonLocalBlock(channels, ndim=len(size), dtype=torch.float64)
    roles = {"key": (1, channels), "value": (channels, channels)}
    module = build(report, impl, channels, ndim=len(size))
    found = find_roles(report, module, roles, "layers")
    values = {role: 0.7 * report.randn(*shape) for role, shape in roles.items()}
    biases = {role: report.randn(shape[0]) for role, shape in roles.items()}
    x, cotangent = report.randn(2, channels, *size), report.randn(2, channels, *size)
    for assignment in found:
        module.load(weights_for(assignment, values, biases))
        _load(reference, values, biases, assignment)
        leaf = x.clone().requires_grad_()
        reference.zero_grad()
        expected = reference(leaf)
        (expected * cotangent).sum().backward()
        result = module.gradients(x, cotangent=cotangent)
        if assignment is found[-1] or fits(result.result, expected.detach()):
            report.close("result", result.result, expected.detach())
            report.gradient("gradient of the input", result.inputs[0], leaf.grad)
            _same_gradients(report, result.parameters, reference, assignment)
            return


def _layers(reference: SimplifiedNonLocalBlock) -> dict[str, torch.nn.Module]:
    return {"key": reference.context_modelling.key, "value": reference.transform.value}


def _load(
    reference: SimplifiedNonLocalBlock,
    values: dict[str, Tensor],
    biases: dict[str, Tensor],
    assignment: Assignment,
) -> None:
    with torch.no_grad():
        for role, layer in _layers(reference).items():
            layer.weight.copy_(values[role].reshape(layer.weight.shape))
            bias = biases[role] if assignment[role].bias else torch.zeros_like(biases[role])
            layer.bias.copy_(bias)


def _same_gradients(
    report: Report,
    found: dict[str, Tensor | None],
    reference: SimplifiedNonLocalBlock,
    assignment: Assignment,
) -> None:
    for role, layer in _layers(reference).items():
        slot = assignment[role]
        expected = layer.weight.grad.flatten(1)
        expected = expected.T if slot.transposed else expected
        got = found[slot.weight]
        got = got if got is None else got.reshape(expected.shape)
        report.gradient(f"gradient of the {role} weight", got, expected)
        if slot.bias and role != "key":  # a shift of all scores changes nothing
            got = found[slot.bias]
            got = got if got is None else got.reshape(layer.bias.shape)
            report.gradient(f"gradient of the {role} bias", got, layer.bias.grad)


@hidden_check(c03.e6)
def e6(impl: Handle, report: Report) -> None:
    """Random maps against the pairs, against gclib, and the gradient."""
    for n, rows, columns in ((1, 1, 1), (2, 3, 5), (4, 6, 2), (3, 4, 4)):
        for name in ("any sign", "softmax"):
            attention = report.randn(n, rows, columns)
            attention = attention.softmax(2) if name == "softmax" else attention
            for chosen in (list(range(rows)), list(range(rows))[::-2]):
                unit = attention[:, chosen] / attention[:, chosen].norm(dim=2, keepdim=True)
                pairs = (1 - unit @ unit.transpose(1, 2)).mean((1, 2)) / 2
                what = f"{n} maps of {rows} by {columns}, {name}, {len(chosen)} queries"
                report.close(what, impl.call(attention, chosen), pairs)
    attention = report.randn(2, 40, 30).mul(0.01).softmax(2)  # rows that are nearly the same
    chosen = [39, 7, 20, 3]
    expected = average_cosine_distance(attention, positions=torch.tensor(chosen))
    report.close("nearly equal rows", impl.call(attention, chosen), expected, atol=1e-12)
    leaf = report.randn(2, 4, 5).requires_grad_()
    cotangent = report.randn(2)
    unit = leaf[:, [0, 2, 3]] / leaf[:, [0, 2, 3]].norm(dim=2, keepdim=True)
    ((1 - unit @ unit.transpose(1, 2)).mean((1, 2)) / 2 * cotangent).sum().backward()
    found = impl.gradients(leaf.detach(), [0, 2, 3], cotangent=cotangent)
    report.gradient("its gradient", found.inputs[0], leaf.grad)
