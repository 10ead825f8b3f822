"""What a full run will take, before it is started: ``gclib train ... --plan``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gclib.analysis.networks import layer_counts, multiply_adds
from gclib.paper.tables import CELLS
from gclib.training.distributed import World
from gclib.training.loop import set_rate, update
from gclib.training.order import parts_of
from gclib.training.progress import duration, memory_mib
from gclib.training.recipe import Machine, TrainingRecipe
from gclib.training.trainer import (
    build_optimizer,
    device_name,
    explain,
    in_layout,
    prepared,
    with_norms,
    without_random,
)

PROBE_SECONDS = 20.0  # for the timed updates, after the first one
PROBE_UPDATES = 8
_TRAINED = ("top", "ap")


def plan(module: Any, recipe: TrainingRecipe, machine: Machine, world: World, examples: int | None):
    """Lines about a run of this recipe on this machine.

    Args:
        module: of the task: ``build``, ``random_batch``, ``example_input`` (or lines of its own,
            ``counts``), ``data_size``, ``open_task``.
        recipe: what would be trained.
        machine: how.
        world: the processes; each probes its own device.
        examples: of the training data at hand; None: of the paper's data set.

    Yields:
        A line at a time, since the probe takes a while.
    """
    count, source = (examples, "the data given") if examples else module.data_size(recipe)
    parts = parts_of(recipe.batch_size, recipe.micro_batch, world.size)
    per_epoch = count // recipe.batch_size
    if not per_epoch:
        raise ValueError(
            f"{count} examples: expected at least one batch of {recipe.batch_size}; lower "
            "batch_size"
        )
    steps = per_epoch * recipe.epochs
    yield f"{recipe.row}, {count:,} examples ({source}), {recipe.epochs} epochs"
    yield from (module.counts(recipe) if hasattr(module, "counts") else counts(module, recipe))
    yield from explain(recipe, world, parts)
    yield f"updates: {per_epoch:,} an epoch, {steps:,} in all"
    yield f"device: {device_name(world.device)}" + (
        f", {world.size} processes" if world.size > 1 else ""
    )
    probed = probe(module, recipe, machine, world)
    seconds = max(world.gather(probed["seconds"])) * parts * steps
    speed = recipe.batch_size / (max(world.gather(probed["seconds"])) * parts)
    yield f"memory: {probed['memory_mib'] / 1024:.2f} GiB " + (
        "of the GPU" if world.device.type == "cuda" else "of the process"
    )
    unit = module.open_task.unit
    yield (
        f"time: {duration(seconds)} for the updates ({speed:.3g} {unit}/s from "
        f"{probed['updates']} probed forward and backward passes of {recipe.micro_batch}; reading "
        "data and evaluation not counted)"
    )
    if world.device.type == "cpu" and recipe.precision == "bf16":  # not every CPU has it
        plain = probe(module, replace(recipe, precision="fp32"), machine, world)["seconds"]
        yield f"with --precision fp32: {recipe.batch_size / (plain * parts):.3g} {unit}/s"
    yield from expected(recipe.row)


def counts(module: Any, recipe: TrainingRecipe) -> Iterator[str]:
    """Parameters and multiply-adds of the network, beside what is printed."""
    with torch.device("meta"):
        model = module.build(recipe)
    layers = layer_counts(model, torch.empty(module.example_input(recipe), device="meta"))
    ours = sum(layer.parameters for layer in layers)
    yield f"parameters: {ours:,}{beside(recipe.row, 'params_m', 'M')}"
    paper, fvcore = (multiply_adds(layers, name) / 1e9 for name in ("paper", "fvcore"))
    size = "×".join(map(str, module.example_input(recipe)[2:]))
    yield (
        f"multiply-adds at {size}: {paper:.3f} G by the paper's convention"
        f"{beside(recipe.row, 'gflops', 'G')}, {fvcore:.3f} G with norms as fvcore counts them"
    )


def expected(row: str) -> Iterator[str]:
    """What the paper has for the row after the full training."""
    found = [c for c in CELLS if c.row == row and c.column.startswith(_TRAINED)]
    if found:
        shown = ", ".join(f"{c.column} {c.printed:g} ({c.mark})" for c in found)
        yield f"expected: {shown}"


def beside(row: str, column: str, unit: str) -> str:
    """What the paper prints for a cell, in brackets, with how far it can be trusted."""
    for cell in CELLS:
        if cell.row == row and cell.column == column:
            return f" (printed: {cell.printed:g} {unit}, {cell.mark})"
    return ""


def probe(
    module: Any,
    recipe: TrainingRecipe,
    machine: Machine,
    world: World,
    *,
    build: Callable[[], nn.Module] | None = None,
) -> dict[str, float]:
    """Time and memory of a forward and backward pass of one part, on random data.

    Args:
        module: of the task.
        recipe: what would be trained.
        machine: how.
        world: the processes, which all must call this.
        build: makes the network; default: that of the recipe with its classes.

    Returns:
        ``seconds`` of a part with its update, the median; ``memory_mib``; ``updates`` probed.
    """
    one_size = getattr(module.open_task, "one_size", True)
    with prepared(machine, world.device, one_size=one_size), without_random():
        core, _ = with_norms((build or (lambda: module.build(recipe)))(), recipe.norm, world)
        core = in_layout(core.to(world.device).train(), machine)
        optimizer = build_optimizer(core, recipe, world.device)
        set_rate(optimizer, 0.0)
        run = torch.compile(core) if machine.compile else core
        batch = module.random_batch(recipe, world.device)
        loss_of = module.loss_of(recipe)
        times: list[float] = []
        begun = time.perf_counter()
        for number in range(PROBE_UPDATES + 1):
            start = time.perf_counter()
            update(
                run,
                optimizer,
                [batch],
                1,
                loss_of,
                clip=recipe.clip,
                precision=recipe.precision,
                device=world.device.type,
            ).item()
            if world.device.type == "cuda":
                torch.cuda.synchronize(world.device)
            if number:  # the first one sets up kernels and memory
                times.append(time.perf_counter() - start)
            # All stop together: synchronised norms of the others would wait for this process.
            (late,) = world.largest(bool(times) and time.perf_counter() - begun > PROBE_SECONDS)
            if late:
                break
    times.sort()
    return {
        "seconds": times[len(times) // 2],
        "memory_mib": memory_mib(world.device),
        "updates": len(times),
    }
