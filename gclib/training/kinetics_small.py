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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gclib.datasets.clip_scenes import CLASSES, write_clip_scenes
from gclib.datasets.images import mixed
from gclib.training import small_runs
from gclib.training.checkpoint import read

ROWS = (
    "mini/kinetics_none",
    "mini/kinetics_nl",
    "mini/kinetics_snl",
    "mini/kinetics_se",
    "mini/kinetics_gc",
)
KEPT = ("mini/kinetics_nl", "mini/kinetics_gc")  # chapter 09 draws their maps
SMALL = small_runs.SmallTask("kinetics", ROWS, "top1", KEPT)
commands, train, read_logs = SMALL.commands, SMALL.train, SMALL.read_logs
by_row, differences = SMALL.by_row, SMALL.differences
median_seed, weights_path = SMALL.median_seed, SMALL.weights_path


def collect(runs: Path) -> list[dict[str, Any]]:
    """What git keeps of the runs below a folder; see :meth:`.small_runs.SmallTask.collect`.

    The control with pictures in another order is measured here, see :func:`shuffled`.
    """
    with tempfile.TemporaryDirectory(prefix="gclib-clips-") as folder:
        data = Path(folder, "set")

        def figures(summary: dict[str, Any], run: Path) -> dict[str, float]:
            if not data.exists():
                write_clip_scenes(data)
            control = shuffled(_load(summary["row"], run / "model.pt"), data)
            return {"top1": summary["figures"]["top1"], "top1_shuffled": control}

        return SMALL.collect(runs, figures)


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
    yield from SMALL.keep(runs, logs, out)
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
