"""Hidden checks of chapter 07: other sizes, random numbers, more updates."""

from __future__ import annotations

import math

import torch

from gclib.checks import c07
from gclib.checks.exercise import hidden_check
from gclib.checks.handle import Handle
from gclib.checks.report import Report


@hidden_check(c07.e1)
def e1(impl: Handle, report: Report) -> None:
    """Random lengths and rates, on both sides of the warm-up's end."""
    for steps, warmup in ((30, 7), (1000, 1), (11, 10), (50, 0)):
        lr = 0.1 + report.randn(1).abs().item()
        with report.group(f"{steps} updates, {warmup} of warm-up"):
            for step in sorted({0, warmup // 2, max(0, warmup - 1), warmup, steps // 2, steps - 1}):
                right = lr * (step + 1) / max(1, warmup)
                if step >= warmup:
                    angle = math.pi * (step - warmup) / (steps - warmup)
                    right = lr * (1 + math.cos(angle)) / 2
                c07.check_rate(report, impl, (step, steps, lr, warmup), right)


@hidden_check(c07.e2)
def e2(impl: Handle, report: Report) -> None:
    """Random logits; the rank of the right class is counted."""
    for count, classes, k in (
        (40, 10, 1),
        (40, 10, 5),
        (7, 7, 3),
        (1, 9, 4),
        (5, 3, 5),
        (64, 2, 1),
    ):
        logits = report.randn(count, classes)
        labels = report.randn(count, classes).argmax(1)
        larger = (logits > logits.gather(1, labels[:, None])).sum(1)
        right = 100 * (larger < k).double().mean().item()
        c07.check_topk(report, impl, logits, labels, larger, k, right)


@hidden_check(c07.e3)
def e3(impl: Handle, report: Report) -> None:
    """Three updates on batches of different sizes, with momentum, at two learning rates."""
    for lr in (0.05, 0.3):
        weights = c07.stage_one(report)
        batches = [c07.stage_batch(report, count) for count in (4, 6, 5)]
        with report.group(f"three updates, lr {lr}"):
            c07.stage_updates(report, impl, weights, batches, lr)
    weights = c07.stage_one(report)
    c07.stage_updates(report, impl, weights, [c07.stage_batch(report)], 0.0)
    with report.group("gains in front of the classifier alone"):
        silent = dict(weights) | {"fc.weight": torch.zeros(3, 4, dtype=torch.float64)}
        c07.stage_updates(report, impl, silent, [c07.stage_batch(report)] * 2, 0.2)


@hidden_check(c07.e4)
def e4(impl: Handle, report: Report) -> None:
    """Every small batch, with the sizes that fit and those that do not."""
    for processes, micro in ((1, 1), (2, 3), (3, 4), (5, 2)):
        lr = 0.1 + report.randn(1).abs().item()
        with report.group(f"{processes} processes, micro-batch {micro}"):
            for batch in range(1, 4 * processes * micro, max(1, processes * micro // 4)):
                parts, rest = divmod(batch, processes * micro)
                if rest or not parts:
                    c07.check_refused(report, impl, (batch, processes, micro))
                else:
                    right = lr * batch / 24
                    c07.check_split(report, impl, (batch, processes, micro, lr, 24), parts, right)
            each = processes * micro
            c07.check_split(report, impl, (each, processes, micro, lr, 7), 1, lr * each / 7)


@hidden_check(c07.e5)
def e5(impl: Handle, report: Report) -> None:
    """Stops at other moments, in runs of other seeds."""
    for seeds, done in (((1, 2, 3), 1), ((4, 4, 9), 13)):
        c07.run_resumes(report, impl, seeds, done)


@hidden_check(c07.e6)
def e6(impl: Handle, report: Report) -> None:
    """Random trainings, that of the paper among them."""
    for gpus, epochs in ((8, 120), (1, 40), (3, 7)):
        speed, watts, price = (50 + 300 * report.randn(3).abs()).tolist()
        examples = 1_281_167 if gpus > 1 else 50_000
        hours = examples * epochs / speed / gpus / 3600
        right = (hours, hours * gpus * watts / 1000, hours * gpus * price)
        c07.check_cost(report, impl, (examples, epochs, speed, gpus, watts, price), right)
