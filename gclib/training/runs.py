"""Runs over rows and seeds: what a log says of a run, and many runs side by side.

A row is a line of a table; the same row and seed give the same run. The module of a data set
(``scenes``, ``cifar10``) brings the rows and the training of one of them; all else is here.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gclib.analysis.capture import Captured
from gclib.analysis.distances import average_cosine_distance, average_jsd
from gclib.blocks.fast import plain_formulas
from gclib.paper.ledger import log_path, read_runs
from gclib.training.loop import Recipe, fit

FIRST_LOSSES = 20  # kept one by one, so that a test can repeat them
CHUNK = 50  # losses whose mean is kept

Train = Callable[[str, int], tuple[nn.Module, dict[str, Any]]]


def fit_and_log(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    loss_of: Callable[[nn.Module, tuple[Tensor, ...]], Tensor],
    recipe: Recipe,
    *,
    command: str,
    label: str | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train with :func:`~gclib.training.loop.fit` and say what a log must say of it."""
    start = time.perf_counter()
    losses = fit(model, batches, loss_of, recipe, on_step=on_step, label=label)
    seconds = time.perf_counter() - start
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_losses": [round(loss, 5) for loss in losses[:FIRST_LOSSES]],
        "losses": [round(sum(part) / len(part), 5) for part in _chunks(losses, CHUNK)],
        "seconds": round(seconds, 1),
        "command": command,
        "commit": commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }


def distances_of(block: Captured, where: str, chosen: Tensor | None = None) -> dict[str, float]:
    """The distances of table 1 for one block, each a mean over its examples.

    Args:
        block: what was captured.
        where: first part of the keys, for example ``"all"``.
        chosen: ``(N, K)``, the positions of each example to average over; default: all.

    Returns:
        ``{"all/cosine/input": ..., "all/cosine/output": ..., "all/cosine/attention": ...,
        "all/jsd/attention": ...}``; JSD only where the rows of the map are distributions.
    """
    sums = block.attention.sum(-1)
    probabilities = bool((block.attention >= 0).all()) and bool(((sums - 1).abs() < 1e-4).all())
    kinds = [("cosine", what) for what in ("input", "output", "attention")]
    distances = {}
    for kind, what in [*kinds, ("jsd", "attention")] if probabilities else kinds:
        vectors = block.vectors(what)
        if chosen is not None:
            vectors = vectors.gather(1, chosen[:, :, None].expand(-1, -1, vectors.shape[2]))
        measure = average_cosine_distance if kind == "cosine" else average_jsd
        distances[f"{where}/{kind}/{what}"] = measure(vectors).mean().item()
    return distances


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Six significant digits, enough to compare and short to read."""
    return {key: float(f"{value:.6g}") for key, value in values.items()}


def run_many(
    train: Train,
    wanted: Mapping[str, str],
    seeds: Iterable[int],
    folder: Path,
    *,
    workers: int | None = None,
    checkpoints: Path | None = None,
) -> None:
    """Train rows with seeds, one thread each, and write their logs; what is done stays done.

    Args:
        train: trains one row with one seed; returns the network and its log. Sent to other
            processes, so it must be importable.
        wanted: row ids with the hash of their configuration; logs of another hash are made anew.
        seeds: the seeds.
        folder: where logs are written, one file for a row.
        workers: processes at a time; default: the number of cores.
        checkpoints: where the weights of the smallest seed are written; None for nowhere.
    """
    seeds = sorted(seeds)
    jobs = []
    for row_id, config in wanted.items():
        done = {log["seed"] for log in read_runs(folder, row_id) if log["config"]["hash"] == config}
        jobs += [(row_id, seed) for seed in seeds if seed not in done]
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        futures = {}
        for row_id, seed in jobs:
            keep = checkpoints and seed == seeds[0]
            path = checkpoints / f"{row_id.replace('/', '-')}.pt" if keep else None
            futures[pool.submit(_one, train, row_id, seed, path)] = row_id
        for count, future in enumerate(as_completed(futures), start=1):
            log, row_id = future.result(), futures[future]
            logs = read_runs(folder, row_id)
            logs = [old for old in logs if old["config"]["hash"] == wanted[row_id]]
            logs = [old for old in logs if old["seed"] != log["seed"]] + [log]
            write_json(log_path(folder, row_id), sorted(logs, key=lambda log: log["seed"]))
            left = (time.perf_counter() - start) / count * (len(jobs) - count)
            print(
                f"{count}/{len(jobs)}  {row_id} seed {log['seed']}: accuracy "
                f"{log['accuracy']:.3f} in {log['seconds']:.0f} s · about {left / 60:.0f} min left",
                flush=True,
            )


def _one(train: Train, row_id: str, seed: int, checkpoint: Path | None) -> dict[str, Any]:
    torch.set_num_threads(1)
    with plain_formulas():  # a log is repeated digit for digit: rounding must stay what it was
        net, log = train(row_id, seed)
    if checkpoint:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), checkpoint)
    return log


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    # A name that is not UTF-8 becomes an escape of JSON, which is read as the same name.
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)


def _chunks(values: list[float], size: int) -> Iterator[list[float]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def commit() -> str:
    """The version of the code, with a + where files were changed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return done.stdout.strip() or "unknown"
