"""Networks of the lab on their way from untrained to trained, for the explorer of attention maps.

.. code-block:: bash

    python -m gclib.training.snapshots data/scenes/snapshots

The runs are those of ``gclib train scenes`` with seed 1, row by row and update by update; only the
weights on the way are kept as well, in half precision: before the first update and after
:data:`STEPS`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gclib.blocks.fast import plain_formulas
from gclib.blocks.non_local import INSTANTIATIONS
from gclib.training import scenes
from gclib.training.checkpoint import write

TASKS = ("context", "pairing")
SEED = 1
STEPS = (0, 25, 50, 100, 200, 400, 800, 1600)  # updates behind which weights are kept


def row_of(task: str, instantiation: str) -> str:
    """The lab's row of a task and an instantiation of the non-local block."""
    more = "" if instantiation == "embedded_gaussian" else f"_{instantiation}"
    return f"mini/{task}_nl{more}"


def file_of(row_id: str, folder: Path) -> Path:
    """Where the snapshots of a row are."""
    return folder / f"{row_id.replace('/', '-')}.pt"


def record(row_id: str, seed: int = SEED, steps: Iterable[int] = STEPS) -> dict[str, Any]:
    """Train a row and keep its weights on the way.

    Returns:
        ``{"row", "seed", "accuracy", "losses", "states"}``; ``states`` is update → state dict in
        half precision.
    """
    wanted, states = set(steps), {}

    def keep(done: int, net: torch.nn.Module) -> None:
        if done in wanted:
            states[done] = {name: _half(value) for name, value in net.state_dict().items()}

    _, log = scenes.run(row_id, seed, on_update=keep)
    return {
        "row": row_id,
        "seed": seed,
        "accuracy": log["accuracy"],
        "losses": log["first_losses"],
        "states": states,
    }


def _half(value: Tensor) -> Tensor:
    value = value.detach().clone(memory_format=torch.contiguous_format)
    return value.half() if value.is_floating_point() else value


def _one(row_id: str, folder: Path) -> str:
    torch.set_num_threads(1)
    with plain_formulas():  # as the logs were made
        found = record(row_id)
    write(file_of(row_id, folder), {"format": 1, **found})
    return f"{row_id}: accuracy {found['accuracy']:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """The command above; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m gclib.training.snapshots")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = [row_of(task, kind) for task in TASKS for kind in INSTANTIATIONS]
    rows = [row for row in rows if not file_of(row, options.folder).exists()]
    with ProcessPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(partial(_one, row, options.folder)) for row in rows]
        for count, job in enumerate(as_completed(jobs), start=1):
            print(f"{count}/{len(rows)}  {job.result()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
