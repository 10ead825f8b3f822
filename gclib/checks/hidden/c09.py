"""Hidden checks of chapter 09: random networks, rates, videos and clips of other sizes."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from gclib.checks import c09
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.properties import build, find_roles, forward_equals
from gclib.checks.report import Report


@hidden_check(c09.e1)
def e1(impl: Handle, report: Report) -> None:
    """Other weights, other numbers of classes, longer constant clips."""
    for how, given, classes in (("average", 4, 9), ("centre", 9, 9), ("average", 3, 6)):
        weights = c09.photo_weights(report, given)
        with report.group(f"{how}, {given} and {classes} classes"):
            network = c09.built(report, impl, weights, how, classes)
            c09.check_inflated(report, network, weights, how)
            c09.check_rest(report, network, weights, classes)
    for frames in (7, 10):
        with report.group(f"a constant clip of {frames} frames"):
            c09.check_constant_clip(report, impl, c09.photo_weights(report), frames)


def _reached(frames: int, kernels: list[int]) -> list[int]:
    """The frames that zeros reach, one convolution after another."""
    changed = set()
    for size in kernels:
        seen = range(-(size // 2), size // 2 + 1)
        changed = {
            t
            for t in range(frames)
            if any(t + step in changed or not 0 <= t + step < frames for step in seen)
        }
    return sorted(changed)


@hidden_check(c09.e2)
def e2(impl: Handle, report: Report) -> None:
    """Other lists; the nine kernels of the slow-only ResNet-50 among them."""
    for frames, kernels in (
        (8, [3] * 9),
        (16, [3] * 3),
        (11, [5, 3, 7]),
        (7, [3, 5]),
        (1, [3]),
        (9, [1, 7, 1]),
        (6, []),
    ):
        with report.group(f"{frames} frames, kernels {kernels}"):
            right = _reached(frames, kernels)
            c09.check_changed(report, impl, "average", (frames, kernels, "average"), right)
            c09.check_changed(report, impl, "centre", (frames, kernels, "centre"), [])


def _pictures(count: int, fps: Fraction, place: Fraction) -> list[Fraction]:
    """Exact times a rate, before floor."""
    room = max(count / fps - Fraction(64, 30), Fraction(0))
    return [(place * room + Fraction(8 * j, 30)) * fps for j in range(8)]


@hidden_check(c09.e3)
def e3(impl: Handle, report: Report) -> None:
    """Random lengths at many rates; rates that are no whole number."""
    ntsc = Fraction(30000, 1001)
    for fps in (Fraction(30), Fraction(24), Fraction(12), Fraction(60), ntsc, Fraction(50)):
        length = math.ceil(fps * Fraction(64, 30))
        with report.group(f"{float(fps):.5g} pictures per second"):
            for spare, clips in ((0, 3), (37, 10), (211, 4), (-length // 3, 5)):
                _check_rows(report, impl, length + spare, fps, clips)
    for count, fps in ((250, 25), (901, 60), (90, 12)):
        with report.group(f"random clips of {count} pictures, {fps} per second"):
            c09.check_random(report, impl, count, fps, 0)


def _check_rows(report: Report, impl: Handle, count: int, fps: Fraction, clips: int) -> None:
    arguments = (count, float(fps), clips)
    got = c09.clips_result(report, impl, "numbers of pictures", arguments)
    for row in range(clips):
        exact = _pictures(count, fps, Fraction(row, clips))
        right = [min(math.floor(value), count - 1) for value in exact]
        # Within 0.002 of the next picture, rounding decides: either is right.
        close = [value % 1 > Fraction(998, 1000) for value in exact]
        wrong = [
            j
            for j, (a, b) in enumerate(zip(got[row].tolist(), right, strict=True))
            if a != b and not (close[j] and a == min(b + 1, count - 1))
        ]
        report.true(
            f"clip {row} of {clips}, {count} pictures",
            not wrong,
            expected=str(right),
            got=str(got[row].tolist()),
            cause="start = room · k/n; times start + j · 8/30; picture floor(time · fps), at most "
            "count - 1",
        )


@hidden_check(c09.e4)
def e4(impl: Handle, report: Report) -> None:
    """Random clips, wide, high and square, with several numbers of clips."""
    for clips, frames, height, width in ((10, 4, 6, 10), (3, 1, 9, 5), (1, 2, 4, 4), (4, 3, 5, 15)):
        size = min(height, width)
        x = 8 * report.randn(clips, 3, frames, height, width)
        rest = max(height, width) - size
        logits = []
        for start in (0, rest // 2, rest):
            part = x.narrow(3 if height > width else 4, start, size)
            logits.append(part.flatten(2).sum(2) / (frames * size * size))
        with report.group(f"{clips} clips of {frames} frames, {height} × {width}"):
            c09.check_views(report, impl, "probabilities", x, size, torch.cat(logits))


def _pooled(x: Tensor) -> Tensor:
    """The largest of 2×2 places; an odd last row or column has none."""
    height, width = x.shape[3] // 2, x.shape[4] // 2
    corners = [
        x[..., down : down + 2 * height : 2, across : across + 2 * width : 2]
        for down in (0, 1)
        for across in (0, 1)
    ]
    return torch.stack(corners).amax(0)


def _non_local(x: Tensor, weights: dict[str, Tensor], biases: dict[str, Tensor]) -> Tensor:
    def project(role: str, positions: Tensor) -> Tensor:
        return torch.einsum("dc,nlc->nld", weights[role], positions) + biases[role]

    positions = x.flatten(2).mT
    small = _pooled(x).flatten(2).mT
    query, key, value = (
        project("query", positions),
        project("key", small),
        project("value", small),
    )
    exponentials = (torch.einsum("nld,nmd->nlm", query, key) / query.shape[2] ** 0.5).exp()
    read = torch.einsum("nlm,nmd->nld", exponentials, value) / exponentials.sum(2, keepdim=True)
    return x + project("out", read).mT.reshape(x.shape)


@hidden_check(c09.e5)
def e5(impl: Handle, report: Report) -> None:
    """Random numbers with biases; odd sizes; other channels."""
    for channels, shape in ((4, (2, 3, 4, 6)), (6, (1, 2, 5, 7)), (10, (2, 1, 2, 3))):
        inner = channels // 2
        shapes = dict.fromkeys(("query", "key", "value"), (inner, channels))
        shapes["out"] = (channels, inner)
        x = report.randn(shape[0], channels, *shape[1:])
        weights = {role: 0.6 * report.randn(*sizes) for role, sizes in shapes.items()}
        biases = {role: 0.5 * report.randn(sizes[0]) for role, sizes in shapes.items()}
        with report.group(f"C = {channels}, clips of {shape[1:]}"):
            module = build(report, impl, channels)
            found = find_roles(report, module, shapes, "four 1×1×1 maps")
            used = {r: biases[r] if found[0][r].bias else 0 * biases[r] for r in shapes}
            expected = _non_local(x, weights, used)
            forward_equals(report, "the result", module, found, weights, x, expected, biases=biases)
            keys = shape[1] * (shape[2] // 2) * (shape[3] // 2)
            z, _ = c09.check_map(report, module, x, (shape[1] * shape[2] * shape[3], keys))
            report.close("the result beside the map", z, expected)
    with report.group("properties"):
        c09.check_block_properties(report, impl, report.randn(1, 8, 4, 2, 5))


@hidden_check(c09.e6)
def e6(impl: Handle, report: Report) -> None:
    """Random clips and keys of other sizes."""
    for shape in ((2, 5, 3, 4, 2), (1, 2, 1, 3, 3), (3, 4, 6, 1, 2)):
        x, key = report.randn(*shape), report.randn(shape[1])
        exponentials = (x.movedim(1, 4) @ key).exp()
        weights = exponentials / exponentials.flatten(1).sum(1).reshape(-1, 1, 1, 1)
        with report.group(f"clips {shape}"):
            context, shares = c09.frame_result(report, impl, "the result", x, key)
            report.close("the context", context, torch.einsum("nthw,ncthw->nc", weights, x))
            report.close("the shares", shares, weights.flatten(2).sum(2))
            c09.check_still_and_frames(report, impl, x, key)
