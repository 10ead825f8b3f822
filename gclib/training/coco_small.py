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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from gclib.datasets.detection_scenes import CLASSES, SIDE
from gclib.training import small_runs
from gclib.training.checkpoint import read

ROWS = ("mini/coco_none", "mini/coco_nl", "mini/coco_snl", "mini/coco_se", "mini/coco_gc")
KEPT = ("mini/coco_nl", "mini/coco_gc")  # chapter 08 draws their maps
SMALL = small_runs.SmallTask("coco", ROWS, "ap_mask", KEPT)
commands, train, read_logs = SMALL.commands, SMALL.train, SMALL.read_logs
by_row, differences = SMALL.by_row, SMALL.differences
median_seed, weights_path = SMALL.median_seed, SMALL.weights_path


def collect(runs: Path) -> list[dict[str, Any]]:
    """What git keeps of the runs below a folder; see :meth:`.small_runs.SmallTask.collect`."""

    def figures(summary: dict[str, Any], _: Path) -> dict[str, float]:
        # -1 stands for objects of a size that the set does not have.
        found = summary["figures"].items()
        return {name: value for name, value in found if name.startswith("ap_") and value >= 0}

    return SMALL.collect(runs, figures)


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
    yield from SMALL.keep(runs, logs, out)
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
