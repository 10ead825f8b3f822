"""Slow-only in small: generated videos whose class needs what is far away, several seeds.

.. code-block:: bash

    gclib data kinetics --out DIR                                       # the set, 5 MB
    python -m gclib.training.kinetics_small train --data DIR --seeds 1-5     # can be stopped
    python -m gclib.training.kinetics_small collect runs data/kinetics_small/runs    # and weights

The set is that of :mod:`gclib.datasets.clip_scenes`, the rows are those of
:mod:`gclib.models.mini_slow_only`. Every run is one of :mod:`gclib.training.kinetics`, the recipe
of Kinetics, with the values that it has for these rows: ``gclib train kinetics --row
mini/kinetics_gc``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gclib.datasets.clip_scenes import CLASSES, write_clip_scenes
from gclib.datasets.images import mixed
from gclib.paper.ledger import log_path, read_runs, read_summaries, runs_folder
from gclib.paper.statistics import Interval
from gclib.training import small_runs
from gclib.training.checkpoint import read
from gclib.training.progress import LOG, read_log
from gclib.training.runs import CHUNK, FIRST_LOSSES, write_json

ROWS = (
    "mini/kinetics_none",
    "mini/kinetics_nl",
    "mini/kinetics_snl",
    "mini/kinetics_se",
    "mini/kinetics_gc",
)
KEPT = ("mini/kinetics_nl", "mini/kinetics_gc")  # chapter 09 draws their maps
MACHINE = {
    "workers": 0,
    "threads": 1,
    "evaluate_every": 100,  # only at the end
    "log_every": 1,  # a test repeats the first losses
    "checkpoint_minutes": 3.0,
    "keep": 1,
    "device": "cpu",
}


def commands(data: Path, seed: int, rows: Iterable[str] = ROWS) -> Iterator[list[str]]:
    """Arguments of ``gclib train`` for every row with a seed."""
    for row in rows:
        found = ["kinetics", "--row", row, "--seed", str(seed), "--data", str(data)]
        for name, value in MACHINE.items():
            found += [f"--{name.replace('_', '-')}", str(value)]
        yield [*found, "--resume", "auto"]


def train(data: Path, seeds: Iterable[int], workers: int | None = None) -> int:
    """Train every row with every seed into ``runs/``, one thread each, all rows of a seed first.

    What is finished is not trained again, and what was stopped goes on.

    Returns:
        The exit status of the first run that failed, or 0.
    """
    jobs = [command for seed in seeds for command in commands(data, seed)]
    with ProcessPoolExecutor(workers) as pool:
        return next((status for status in pool.map(small_runs.run_one, jobs) if status), 0)


def collect(runs: Path) -> list[dict[str, Any]]:
    """What git keeps of the runs below a folder: figures, losses, and what repeats them.

    The control with pictures in another order is measured here, see :func:`shuffled`.
    """
    from gclib.training.kinetics import recipe_of

    chosen = []
    for summary in read_summaries(runs):
        row, recipe = summary["row"], summary["recipe"]
        if row in ROWS and recipe == recipe_of(row, {"seed": summary["seed"]}).as_dict():
            chosen.append(summary)
    if not chosen:
        return []
    found = []
    with tempfile.TemporaryDirectory(prefix="gclib-clips-") as folder:
        data = Path(folder, "set")
        write_clip_scenes(data)
        for summary in chosen:
            row, seed = summary["row"], summary["seed"]
            run = run_folder(runs, row, seed)
            losses = losses_of(run / LOG)
            found.append(
                {
                    "row": row,
                    "seed": seed,
                    "top1": round(summary["figures"]["top1"], 3),
                    "top1_shuffled": round(shuffled(_load(row, run / "model.pt"), data), 3),
                    "first_losses": [round(loss, 5) for loss in losses[:FIRST_LOSSES]],
                    "losses": [
                        round(sum(part) / len(part), 5)
                        for part in (losses[k : k + CHUNK] for k in range(0, len(losses), CHUNK))
                    ],
                    "updates": summary["updates"],
                    "seconds": summary["seconds"],
                    "parameters": summary["parameters"],
                    "hash": summary["hash"],
                    "commit": summary["commit"],
                    "versions": summary["versions"],
                    "command": small_runs.without_folder(summary["command"]),
                }
            )
    return sorted(found, key=lambda run: (ROWS.index(run["row"]), run["seed"]))


def run_folder(runs: Path, row: str, seed: int) -> Path:
    """Where a run lives below ``runs``."""
    return runs / "kinetics" / row.replace("/", "-") / f"seed-{seed}"


def losses_of(path: Path) -> list[float]:
    """The loss of every update, from the log of a run."""
    by_step = {line["step"]: line["loss"] for line in read_log(path) if line["event"] == "train"}
    return [by_step[step] for step in sorted(by_step)]


def median_seed(logs: Iterable[dict[str, Any]]) -> int:
    """The seed in the middle by top-1, so that the maps shown are neither luck nor failure."""
    ranked = sorted(logs, key=lambda log: log["top1"])
    return ranked[len(ranked) // 2]["seed"]


def weights_path(row: str, folder: Path | None = None) -> Path:
    """Where the weights that git keeps of a row are: in ``data/kinetics_small/checkpoints``."""
    folder = runs_folder("kinetics_small").parent / "checkpoints" if folder is None else folder
    return folder / f"{row.replace('/', '-')}.pt"


def trained(row: str) -> nn.Module:
    """The small network of a row with the weights of :func:`median_seed`, in evaluation mode.

    Args:
        row: one of :data:`KEPT`.

    Raises:
        CheckpointError: there are no such weights.
    """
    return _load(row, weights_path(row))


def _load(row: str, weights: Path) -> nn.Module:
    from gclib.models.mini_slow_only import build_mini_slow_only

    model = build_mini_slow_only(row, num_classes=len(CLASSES))
    model.load_state_dict(read(weights)["model"])
    return model.eval()


@torch.no_grad()
def shuffled(model: nn.Module, data: Path, seed: int = 0) -> float:
    """Top-1 in percent on the test videos, the pictures of each clip in a random order.

    Without their order, left looks like right and up like down.

    Args:
        model: of one of the rows.
        data: the generated set.
        seed: of the orders.
    """
    from gclib.training.kinetics import collate, open_task, prepare, recipe_of

    test = open_task(recipe_of(ROWS[0]), data).test_data
    right = 0
    for index in range(len(test)):
        batch = collate([test[index]])
        generator = torch.Generator().manual_seed(mixed(seed, index))
        order = torch.randperm(batch.clips.shape[3], generator=generator)
        right += int(model(prepare(batch.clips[:, 0, :, order])).argmax(1) == batch.labels)
    return 100 * right / len(test)


def read_logs() -> list[dict[str, Any]]:
    """The shipped logs, by row and seed; empty where there are none."""
    return [log for row in ROWS for log in read_runs(runs_folder("kinetics_small"), row)]


def by_row(logs: Iterable[dict[str, Any]], figure: str = "top1") -> dict[str, dict[int, float]]:
    """Row → seed → figure, ``"top1"`` or ``"top1_shuffled"``, in percent."""
    return small_runs.by_row(logs, figure)


def differences(
    logs: Iterable[dict[str, Any]], figure: str = "top1", baseline: str = ROWS[0]
) -> dict[str, Interval]:
    """Row → its figure over the baseline's, in points; see :mod:`.small_runs`."""
    return small_runs.differences(by_row(logs, figure), baseline)


def as_lines(logs: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown: means over seeds, and differences to the network without a block."""
    gains = differences(logs)
    lines = [
        "| row | parameters | seeds | top-1, % | lowest to highest | pictures shuffled, % | top-1 "
        "over the baseline's, paired |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        runs = [log for log in logs if log["row"] == row]
        if not runs:
            continue
        values = [run["top1"] for run in runs]
        mean, other = (
            sum(run[key] for run in runs) / len(runs) for key in ("top1", "top1_shuffled")
        )
        gain = "-"
        if row in gains:
            middle, low, high = gains[row]
            gain = f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append(
            f"| `{row}` | {runs[0]['parameters']:,} | {len(runs)} | {mean:.1f} | "
            f"{min(values):.1f} to {max(values):.1f} | {other:.1f} | {gain} |"
        )
    return lines


def _keep(runs: Path, logs: list[dict[str, Any]], out: Path) -> Iterator[str]:
    for row in dict.fromkeys(log["row"] for log in logs):
        mine = [log for log in logs if log["row"] == row]
        write_json(log_path(out, row), mine)
        if row in KEPT:
            seed = median_seed(mine)
            model = run_folder(runs, row, seed) / "model.pt"
            path = small_runs.keep_weights(model, weights_path(row, out.parent / "checkpoints"))
            yield f"weights of seed {seed}: {path}"
    yield from as_lines(logs)


def main(arguments: list[str] | None = None) -> int:
    """The command above; its exit status."""
    return small_runs.main(
        "gclib.training.kinetics_small",
        arguments,
        data="made by gclib data kinetics --out",
        train=train,
        collect=collect,
        keep=_keep,
    )


if __name__ == "__main__":
    sys.exit(main())
