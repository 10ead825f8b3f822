"""The two-stage recipe of ImageNet in small, on photographs of 32×32 pixels (CIFAR-10).

.. code-block:: bash

    python -m gclib.training.two_stage train --data DIR --seeds 1-5     # into runs/; can be stopped
    python -m gclib.training.two_stage collect runs data/cifar10        # two_stage.json, for git

Stage 1 trains the plain network once for each seed; stage 2 inserts the blocks of a row and trains
on, as the paper does with ImageNet. The baseline gets the same second stage without blocks. Every
run is one of :mod:`gclib.training.imagenet`, with the values of :data:`VALUES`: what differs from
the paper's recipe is there, and nothing else does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from gclib.paper.ledger import read_summaries, runs_folder
from gclib.paper.statistics import Interval
from gclib.training import small_runs
from gclib.training.progress import LOG, read_log
from gclib.training.runs import write_json

NAME = "two_stage.json"
ROWS = ("4a/baseline", "4a/nl_1", "4a/snl_1", "4a/gc_1", "4a/gc_all", "4b/avg_scale")
VALUES = {
    "network": "mini_resnet",
    "stride_in": "3x3",
    "image_size": 32,
    "resize": 32,
    "area": (0.36, 1.0),
    "batch_size": 128,
    "micro_batch": 128,
}
KEPT = ("4a/baseline", "4a/nl_1", "4a/gc_all")  # rows whose weights are kept
STAGES = {1: {"epochs": 5, "warmup_epochs": 1.0}, 2: {"epochs": 3}}
MACHINE = {"workers": 1, "threads": 1, "checkpoint_minutes": 3.0, "keep": 1}


def commands(data: Path, seed: int) -> Iterator[list[str]]:
    """Arguments of ``gclib train`` for a seed: stage 1, then stage 2 of every row."""

    def arguments(row: str, stage: int) -> list[str]:
        values = {"row": row, "stage": stage, "seed": seed, **VALUES, **STAGES[stage], **MACHINE}
        found = ["imagenet", "--data", str(data), "--resume", "auto"]
        for name, value in values.items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            found += [f"--{name.replace('_', '-')}", text]
        return found

    yield arguments(ROWS[0], 1)
    weights = f"runs/imagenet/4a-baseline/stage-1/seed-{seed}/model.pt"
    for row in ROWS:
        yield [*arguments(row, 2), "--weights", weights]


def train(data: Path, seeds: Iterable[int], workers: int | None = None) -> int:
    """Train every row with every seed into ``runs/``, a process for each seed.

    What is finished is not trained again, and what was stopped goes on.

    Returns:
        The exit status of the first run that failed, or 0.
    """
    seeds = list(seeds)
    with ProcessPoolExecutor(workers) as pool:
        statuses = list(pool.map(_train_seed, [data] * len(seeds), seeds))
    return next((status for status in statuses if status), 0)


def _train_seed(data: Path, seed: int) -> int:
    return next((s for s in map(small_runs.run_one, commands(data, seed)) if s), 0)


def collect(runs: Path) -> list[dict[str, Any]]:
    """What git keeps of the runs below a folder: figures, losses, and what repeats them."""
    found = []
    for summary in read_summaries(runs):
        recipe = summary["recipe"]
        if any(recipe.get(name) != _plain(value) for name, value in VALUES.items()):
            continue
        folder = runs / "imagenet" / summary["row"].replace("/", "-")
        folder = folder / f"stage-{recipe['stage']}" / f"seed-{summary['seed']}"
        log = [line for line in read_log(folder / LOG) if line["event"] == "train"]
        found.append(
            {
                "row": summary["row"],
                "stage": recipe["stage"],
                "seed": summary["seed"],
                "top1": summary["figures"]["top1"],
                "evaluations": [[e["epoch"], e["top1"]] for e in summary["evaluations"]],
                "losses": [[line["step"], round(line["loss"], 4)] for line in log],
                "rates": [[line["step"], line["lr"]] for line in log],
                "updates": summary["updates"],
                "seconds": summary["seconds"],
                "parameters": summary["parameters"],
                "started_from": summary["about"]["started_from"],
                "hash": summary["hash"],
                "commit": summary["commit"],
                "versions": summary["versions"],
                "command": small_runs.without_folder(summary["command"]),
            }
        )
    return sorted(found, key=lambda run: (run["stage"], ROWS.index(run["row"]), run["seed"]))


def keep_weights(runs: Path, logs: Iterable[dict[str, Any]], folder: Path) -> list[Path]:
    """Write small copies of the first seed's networks, ``two_stage-4a-nl_1.pt`` and so on."""
    second = [log for log in logs if log["stage"] == 2]
    written = []
    for row in KEPT:
        seeds = [log["seed"] for log in second if log["row"] == row]
        if seeds:
            name = row.replace("/", "-")
            model = runs / "imagenet" / name / "stage-2" / f"seed-{min(seeds)}" / "model.pt"
            written.append(small_runs.keep_weights(model, folder / f"two_stage-{name}.pt"))
    return written


def read_logs() -> list[dict[str, Any]]:
    """What :func:`collect` left in ``data/`` for the notebook; empty where there is nothing."""
    path = runs_folder("cifar10").parent / NAME
    return json.loads(path.read_text("utf-8")) if path.is_file() else []


def differences(logs: Iterable[dict[str, Any]], baseline: str = ROWS[0]) -> dict[str, Interval]:
    """Row → top-1 over the baseline's second stage, in points; see :mod:`.small_runs`."""
    second = [log for log in logs if log["stage"] == 2]
    return small_runs.differences(small_runs.by_row(second, "top1"), baseline)


def as_markdown(logs: Iterable[dict[str, Any]]) -> list[str]:
    """The table of docs/TRAINING.md: top-1 of each row, and its distance to the baseline."""
    logs = list(logs)
    found = differences(logs)
    lines = [
        "| row | stage | top-1, % | seeds | over the baseline's stage 2, points |",
        "|---|---|---|---|---|",
    ]
    for stage in STAGES:
        for row in ROWS:
            values = [log["top1"] for log in logs if (log["row"], log["stage"]) == (row, stage)]
            if not values:
                continue
            over = "-"
            if stage == 2 and row in found:
                d = found[row]
                over = f"{d.mean:+.2f} ({d.low:+.2f} to {d.high:+.2f})"
            mean = sum(values) / len(values)
            lines.append(f"| `{row}` | {stage} | {mean:.2f} | {len(values)} | {over} |")
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _keep(runs: Path, logs: list[dict[str, Any]], out: Path) -> Iterator[str]:
    write_json(out / NAME, logs)
    yield from as_markdown(logs)
    for path in keep_weights(runs, logs, out / "checkpoints"):
        yield f"weights of the first seed: {path}"


def main(arguments: list[str] | None = None) -> int:
    """The command above; its exit status."""
    return small_runs.main(
        "gclib.training.two_stage",
        arguments,
        data="CIFAR-10 as folders of images",
        train=train,
        collect=collect,
        keep=_keep,
    )


if __name__ == "__main__":
    sys.exit(main())
