"""Mask R-CNN in small: a generated set whose labels need context, one block, several seeds.

.. code-block:: bash

    gclib data coco --out DIR                                           # the set, 2 MB
    python -m gclib.training.coco_small train --data DIR --seeds 1-5    # into runs/; can be stopped
    python -m gclib.training.coco_small collect runs data/coco_small/runs   # logs, and some weights

The set is that of :mod:`gclib.datasets.detection_scenes`, the rows are those of
:mod:`gclib.models.mini_detector`. Every run is one of :mod:`gclib.training.coco`, the recipe of
COCO, with the values that it has for these rows: ``gclib train coco --row mini/coco_gc``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from torch import nn

from gclib.datasets.detection_scenes import CLASSES, SIDE
from gclib.paper.ledger import log_path, read_runs, read_summaries, runs_folder
from gclib.paper.statistics import Interval
from gclib.training import small_runs
from gclib.training.checkpoint import read
from gclib.training.progress import LOG, read_log
from gclib.training.runs import CHUNK, FIRST_LOSSES, write_json

ROWS = ("mini/coco_none", "mini/coco_nl", "mini/coco_snl", "mini/coco_se", "mini/coco_gc")
KEPT = ("mini/coco_nl", "mini/coco_gc")  # chapter 08 draws their maps
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
        found = ["coco", "--row", row, "--seed", str(seed), "--data", str(data)]
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
    """What git keeps of the runs below a folder: figures, losses, and what repeats them."""
    from gclib.training.coco import recipe_of

    found = []
    for summary in read_summaries(runs):
        row, seed, recipe = summary["row"], summary["seed"], summary["recipe"]
        if row not in ROWS or recipe != recipe_of(row, {"seed": seed}).as_dict():
            continue
        folder = runs / "coco" / row.replace("/", "-") / f"seed-{seed}"
        losses = losses_of(folder / LOG)
        # -1 stands for objects of a size that the set does not have.
        figures = {
            k: round(v, 3) for k, v in summary["figures"].items() if k.startswith("ap_") and v >= 0
        }
        found.append(
            {
                "row": row,
                "seed": seed,
                **figures,
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


def losses_of(path: Path) -> list[float]:
    """The loss of every update, from the log of a run."""
    by_step = {line["step"]: line["loss"] for line in read_log(path) if line["event"] == "train"}
    return [by_step[step] for step in sorted(by_step)]


def read_logs() -> list[dict[str, Any]]:
    """The shipped logs, by row and seed; empty where there are none."""
    return [log for row in ROWS for log in read_runs(runs_folder("coco_small"), row)]


def median_seed(logs: Iterable[dict[str, Any]]) -> int:
    """The seed in the middle by mask AP, so that the maps shown are neither luck nor failure."""
    ranked = sorted(logs, key=lambda log: log["ap_mask"])
    return ranked[len(ranked) // 2]["seed"]


def weights_path(row: str, folder: Path | None = None) -> Path:
    """Where the weights that git keeps of a row are: in ``data/coco_small/checkpoints``."""
    folder = runs_folder("coco_small").parent / "checkpoints" if folder is None else folder
    return folder / f"{row.replace('/', '-')}.pt"


def trained(row: str) -> nn.Module:
    """The small detector of a row with the weights of :func:`median_seed`, in evaluation mode.

    Args:
        row: one of :data:`KEPT`.

    Raises:
        CheckpointError: there are no such weights.
    """
    from gclib.models.mini_detector import build_mini_detector

    state = read(weights_path(row))
    model = build_mini_detector(row, num_classes=1 + len(CLASSES), side=SIDE, long=SIDE)
    model.load_state_dict(state["model"])
    return model.eval()


def by_row(logs: Iterable[dict[str, Any]], figure: str = "ap_mask") -> dict[str, dict[int, float]]:
    """Row → seed → figure, for example ``"ap_mask"`` or ``"ap_box_50"``, in percent."""
    return small_runs.by_row(logs, figure)


def differences(
    logs: Iterable[dict[str, Any]], figure: str = "ap_mask", baseline: str = ROWS[0]
) -> dict[str, Interval]:
    """Row → its figure over the baseline's, in points; see :mod:`.small_runs`."""
    return small_runs.differences(by_row(logs, figure), baseline)


def as_lines(logs: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown: means over seeds, and differences to the network without a block."""
    gains = differences(logs)
    lines = [
        "| row | parameters | seeds | mask AP | box AP | mask AP over the baseline's, paired |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        runs = [log for log in logs if log["row"] == row]
        if not runs:
            continue
        mask, box = (sum(run[key] for run in runs) / len(runs) for key in ("ap_mask", "ap_box"))
        gain = "-"
        if row in gains:
            mean, low, high = gains[row]
            gain = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
        weights = f"{runs[0]['parameters']:,}"
        lines.append(f"| `{row}` | {weights} | {len(runs)} | {mask:.1f} | {box:.1f} | {gain} |")
    return lines


def _keep(runs: Path, logs: list[dict[str, Any]], out: Path) -> Iterator[str]:
    for row in dict.fromkeys(log["row"] for log in logs):
        mine = [log for log in logs if log["row"] == row]
        write_json(log_path(out, row), mine)
        if row in KEPT:
            seed = median_seed(mine)
            model = runs / "coco" / row.replace("/", "-") / f"seed-{seed}" / "model.pt"
            path = small_runs.keep_weights(model, weights_path(row, out.parent / "checkpoints"))
            yield f"weights of seed {seed}: {path}"
    yield from as_lines(logs)


def main(arguments: list[str] | None = None) -> int:
    """The command above; its exit status."""
    return small_runs.main(
        "gclib.training.coco_small",
        arguments,
        data="made by gclib data coco --out",
        train=train,
        collect=collect,
        keep=_keep,
    )


if __name__ == "__main__":
    sys.exit(main())
