"""Hidden checks of chapter 08: random boxes and weights, other sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gclib.checks import c08
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.report import Report


def _boxes(report: Report, count: int, size: float = 30.0) -> Tensor:
    """Random boxes, some of which overlap."""
    corners = size * torch.special.expit(report.randn(count, 2))
    return torch.cat([corners, corners + 4 + 8 * report.randn(count, 2).abs()], dim=1)


def _overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(sizes) - width * height)


@hidden_check(c08.e1)
def e1(impl: Handle, report: Report) -> None:
    """Random boxes around random objects, at several thresholds."""
    for count, objects, threshold in ((12, 4, 0.3), (7, 7, 0.5), (1, 3, 0.2), (9, 1, 0.6)):
        truth = _boxes(report, objects)
        boxes = truth[torch.arange(count) % objects] + 1.5 * report.randn(count, 4)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = report.randn(count)
        right, taken = [-1] * count, set()
        for one in sorted(range(count), key=lambda k: -scores[k].item()):
            table = [_overlap(boxes[one].tolist(), other) for other in truth.tolist()]
            left = [k for k in range(objects) if k not in taken and table[k] >= threshold]
            if left:
                right[one] = max(left, key=lambda k: table[k])
                taken.add(right[one])
        with report.group(f"{count} detections, {objects} objects, threshold {threshold}"):
            arguments = (boxes, scores, truth, threshold)
            c08.check_match(report, impl, "the objects found", arguments, right, {})


@hidden_check(c08.e2)
def e2(impl: Handle, report: Report) -> None:
    """Random lists; numbers of objects that no point of the recall meets exactly, but for one."""
    for count, objects, share in ((40, 13, 0.3), (9, 9, 0.8), (60, 31, 0.5), (25, 7, 0.2)):
        flags = report.randn(count) < 2 * share - 1
        scores = report.randn(count)
        flags[scores.argsort(descending=True)[: count // 4]] = True
        flags &= flags.cumsum(0) <= objects
        order = sorted(range(count), key=lambda k: -scores[k].item())
        pairs, hits = [], 0
        for rank, one in enumerate(order, start=1):
            hits += bool(flags[one])
            pairs.append((hits, hits / rank))
        right = sum(
            max((precision for hits, precision in pairs if 100 * hits >= k * objects), default=0.0)
            for k in range(101)
        )
        with report.group(f"{count} detections, {objects} objects"):
            c08.check_ap(report, impl, "AP", (flags, scores, objects), right / 101, {})
    with report.group("two objects, exactly half of them found"):
        arguments = (torch.tensor([True]), torch.tensor([0.5], dtype=torch.float64), 2)
        c08.check_ap(report, impl, "AP", arguments, 51 / 101, {})


@hidden_check(c08.e3)
def e3(impl: Handle, report: Report) -> None:
    """Other weights; single places; blocks at odd sizes."""
    for stages, index, places in (
        (("c4", "c5"), 1, ("c4.1", "c5.1")),
        (("c5", "c3"), None, ("c3.0", "c3.1", "c5.0", "c5.1")),
        (("c3", "c4", "c5"), -1, ("c3.1", "c4.2", "c5.1")),
    ):
        weights = c08.classifier(report)
        with report.group(f"stages={stages}, index={index}"):
            network = c08.built(report, impl, weights, stages, index)
            c08.check_places(report, network, stages, index, places)
            c08.check_loaded(report, network, weights, "backbone.")
            c08.check_blocks(report, impl, weights, stages, index, places, size=13)


@hidden_check(c08.e4)
def e4(impl: Handle, report: Report) -> None:
    """Random weights, small variances, several numbers of processes."""
    weights = c08.detector_weights(report)
    for name in ("backbone.stem.1", "backbone.c2.0.bn1", "backbone.c2.0.bn2"):
        weights[f"{name}.running_var"] *= 1e-5  # as small as epsilon
        weights[f"{name}.weight"] *= 1e-2
        weights[f"{name}.weight"][::2] *= -1
    network = c08.built(report, impl, weights, 1)
    with report.group("random weights"):
        c08.check_trained(report, network)
        c08.check_kinds(report, network, "BatchNorm2d")
        c08.check_loaded(report, network, weights, "")
        images = report.randn(2, 3, 12, 12)
        got = c08.check_frozen_modes(report, network, images)
        report.close("frozen norms", got, _early(weights, images), atol=1e-6)
    for processes in (2, 3):
        with report.group(f"{processes} processes"):
            c08.check_several(report, impl, weights, processes)


def _early(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """The map of c2."""
    weights = {name.removeprefix("backbone."): value.double() for name, value in weights.items()}

    def conv(x: Tensor, name: str) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return torch.nn.functional.conv2d(x, kernel, padding=kernel.shape[2] // 2)

    def norm(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(weights[f"{name}.{key}"] for key in keys))

    x = norm(conv(images, "stem.0"), "stem.1").relu()
    out = norm(conv(x, "c2.0.conv1"), "c2.0.bn1").relu()
    out = norm(conv(out, "c2.0.conv2"), "c2.0.bn2")
    return (conv(x, "c2.0.shortcut") + out).relu()


def _decode(box: list[float], deltas: list[float], stds: tuple, size: tuple) -> list[float]:
    result = []
    for axis in (0, 1):
        length = box[axis + 2] - box[axis]
        middle = box[axis] + length / 2 + deltas[axis] * stds[axis] * length
        half = length * math.exp(deltas[axis + 2] * stds[axis + 2]) / 2
        edge = size[1 - axis]
        result.append([min(max(0.0, middle + sign * half), edge) for sign in (-1, 1)])
    return [result[0][0], result[1][0], result[0][1], result[1][1]]


@hidden_check(c08.e5)
def e5(impl: Handle, report: Report) -> None:
    """Random boxes, deltas, stds and sizes."""
    for count, size in ((6, (100, 200)), (1, (30, 20)), (9, (17, 33))):
        boxes, deltas = _boxes(report, count), 2 * report.randn(count, 4)
        stds = tuple((0.05 + 0.2 * report.randn(4).abs()).tolist())
        pairs = zip(boxes.tolist(), deltas.tolist(), strict=True)
        rows = [_decode(box, delta, stds, size) for box, delta in pairs]
        right = torch.tensor(rows, dtype=torch.float64)
        with report.group(f"{count} boxes in an image of {size}"):
            c08.check_decode(report, impl, "boxes", (boxes, deltas, stds, size), right, {})


@hidden_check(c08.e6)
def e6(impl: Handle, report: Report) -> None:
    """Random proposals near random objects; the image cuts some."""
    for count, size in ((5, (60, 60)), (1, (40, 30)), (8, (34, 36))):
        truth = _boxes(report, count)
        boxes = truth + 2 * report.randn(count, 4)
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 2)
        rows, votes = boxes.tolist(), [0.0] * count
        for stage in range(3):
            for k, goal in enumerate(truth.tolist()):
                votes[k] += (6 * _overlap(rows[k], goal) - stage) / 3
                rows[k] = _halfway(rows[k], goal, size)
        with report.group(f"{count} boxes in an image of {size}"):
            found = c08.cascade_result(report, impl, "returns a pair", (boxes, truth, size))
            report.close("boxes", found[0], torch.tensor(rows, dtype=torch.float64))
            right = c08.chances(torch.tensor(votes, dtype=torch.float64))
            report.close("probabilities", found[1], right)


def _halfway(box: list[float], goal: list[float], size: tuple) -> list[float]:
    """Half of the way, by deltas: the centre on a line, the size by a root."""
    deltas = []
    for axis in (0, 1):
        length, other = box[axis + 2] - box[axis], goal[axis + 2] - goal[axis]
        ahead = (goal[axis] + other / 2 - box[axis] - length / 2) / length
        deltas.append((ahead / 2, math.log(other / length) / 2))
    flat = [deltas[0][0], deltas[1][0], deltas[0][1], deltas[1][1]]
    return _decode(box, flat, (1, 1, 1, 1), size)
