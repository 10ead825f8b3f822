"""Hidden checks of chapter 02: random maps and vectors against gclib and against loops."""

from __future__ import annotations

import torch
from torch import Tensor

from gclib.analysis import distances
from gclib.checks import c02
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.report import Report, fits

_SHAPES = ((1, 1, 1), (2, 3, 5), (4, 6, 2), (2, 7, 7), (1, 12, 3))


@hidden_check(c02.e1)
def e1(impl: Handle, report: Report) -> None:
    """Every query of maps of several sizes."""
    for height, width in ((1, 1), (2, 5), (5, 2), (4, 4), (1, 6)):
        attention = report.randn(height * width, height * width).softmax(1)
        with report.group(f"{height}×{width}, every query"):
            for index in range(height * width):
                query = (index // width, index % width)
                found = impl.call(attention, (height, width), query)
                report.close(f"query {query}", found, attention[index].view(height, width))
            outside = ((height, 0), (0, width), (-1, 0), (0, -1), (height, width))
            for query in outside:
                got = c02._refused(
                    lambda query=query, attention=attention, size=(height, width): impl.call(
                        attention, size, query
                    )
                )
                report.true(f"{query} refused", not got, expected="a ValueError", got=got)


def _of_rows(gradient: Tensor | None, leaf: Tensor) -> Tensor | None:
    """A gradient by distributions that were divided by their sum again, as if they were not.

    It is right to divide again (``torch.distributions`` does); it takes a constant off each row.
    """
    if gradient is None or gradient.shape != leaf.shape:
        return gradient
    again = leaf.grad - (leaf.grad * leaf.detach()).sum(-1, keepdim=True)
    return leaf.grad if fits(gradient, again) else gradient


def _against(
    impl: Handle, report: Report, cases: list[Tensor], reference, distributions: bool = False
) -> None:
    """Results and gradients of every case."""
    for vectors in cases:
        leaf = vectors.clone().requires_grad_()
        expected = reference(leaf)
        cotangent = report.randn(*expected.shape)
        (expected * cotangent).sum().backward()
        found = impl.gradients(vectors, cotangent=cotangent)
        shape = tuple(vectors.shape)
        report.close(f"shape {shape}", found.result, expected.detach())
        gradient = _of_rows(found.inputs[0], leaf) if distributions else found.inputs[0]
        report.gradient(f"shape {shape}: its gradient", gradient, leaf.grad)


def _cosine(vectors: Tensor) -> Tensor:
    """Average over pairs, by the formula."""
    cosine = torch.cosine_similarity(vectors[:, :, None], vectors[:, None], dim=3)
    return ((1 - cosine) / 2).mean((1, 2))


def _is_cosine_distance(impl: Handle, report: Report) -> None:
    cases = [5 * report.randn(*shape) for shape in _SHAPES]
    cases.append(report.randn(2, 6, 4) + 3)  # nearly one direction
    _against(impl, report, cases, _cosine)
    vectors = report.randn(3, 40, 8)
    expected = distances.average_cosine_distance(vectors)
    report.close("40 positions, as gclib computes it", impl.call(vectors), expected)


@hidden_check(c02.e2)
def e2(impl: Handle, report: Report) -> None:
    """Random vectors, and the gradient."""
    _is_cosine_distance(impl, report)


@hidden_check(c02.e3)
def e3(impl: Handle, report: Report) -> None:
    """The same, and no tensor of pairs for any number of channels."""
    _is_cosine_distance(impl, report)
    for positions, width in ((200, 1), (400, 16)):
        vectors = report.randn(1, positions, width)
        wide = impl.inspect(vectors)
        expected = distances.average_cosine_distance(vectors)
        report.close(
            f"{positions} positions, {width} channels",
            wide.result,
            expected,
            cause="some positions are left out: the mean runs over all of them",
        )
        report.true(
            f"{positions} positions, {width} channels: no pairs",
            wide.largest < positions * positions and wide.total < positions * positions,
            expected=f"fewer than {positions * positions} numbers",
            got=f"{wide.total} numbers in all, {wide.largest} in one tensor",
            cause="all cosines are computed first: the mean of the unit vectors is enough",
        )


def _jsd(p: Tensor, q: Tensor) -> Tensor:
    middle = (p + q) / 2
    return ((p * (p / middle).log() + q * (q / middle).log()) / 2).sum(-1)


@hidden_check(c02.e4)
def e4(impl: Handle, report: Report) -> None:
    """Random distributions, sharp ones, zeros, and both gradients."""
    for shape in ((1,), (3,), (2, 4), (2, 3, 5), (4, 1, 1)):
        with report.group(f"shape {shape}"):
            for sharp in (0.1, 1, 30):
                p, q = (sharp * report.randn(2, *shape)).softmax(-1)
                report.close(f"sharpness {sharp}", impl.call(p, q), _jsd(p, q))
    p, q = report.randn(2, 3, 8).softmax(-1)
    p[:, :3], q[:, 2:5] = 0, 0
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    expected = 2 * distances.average_jsd(torch.stack([p, q], 1))
    report.close("zeros on either side and on both", impl.call(p, q), expected)
    p, q = report.randn(2, 4, 5).softmax(-1)
    leaves = [p.clone().requires_grad_(), q.clone().requires_grad_()]
    cotangent = report.randn(4)
    (_jsd(*leaves) * cotangent).sum().backward()
    gradients = impl.gradients(p, q, cotangent=cotangent).inputs
    for name, gradient, leaf in zip("pq", gradients, leaves, strict=True):
        report.gradient(f"gradient of {name}", _of_rows(gradient, leaf), leaf.grad)
    same = impl.gradients(p, p, cotangent=cotangent).inputs
    what = "p = q is the smallest value: no gradient"
    with report.group(what):
        for name, gradient in zip("pq", same, strict=True):
            report.gradient(f"gradient of {name}", gradient, torch.zeros_like(p))
    p, q = report.randn(2, 1, 5).softmax(-1), report.randn(3, 5).softmax(-1)
    report.close("(2, 1, 5) and (3, 5) broadcast", impl.call(p, q), _jsd(p, q))


@hidden_check(c02.e5)
def e5(impl: Handle, report: Report) -> None:
    """Random maps, square and not, sharp ones, and the gradient."""
    cases = [report.randn(*shape).softmax(2) for shape in _SHAPES]
    _against(impl, report, cases, lambda a: _jsd(a[:, :, None], a[:, None]).mean((1, 2)), True)
    maps = (8 * report.randn(2, 20, 9)).softmax(2)
    report.close("20 queries, as gclib computes it", impl.call(maps), distances.average_jsd(maps))
    hard = torch.eye(6).double()[report.randn(2, 10, 6).argmax(2)]
    report.close("one key for each query", impl.call(hard), distances.average_jsd(hard))
