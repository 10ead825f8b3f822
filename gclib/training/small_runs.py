"""What the small real runs share: ``train`` and ``collect`` on a command line, and their tables.

:mod:`gclib.training.two_stage` and :mod:`gclib.training.coco_small` say what is trained.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gclib.paper.statistics import Interval, paired
from gclib.seeds import seed_range
from gclib.training.checkpoint import read, write

Log = dict[str, Any]
_DATA = re.compile(r"--data(?: |=)\S+")


def without_folder(command: str) -> str:
    """A command for git: where the data was is nobody's matter."""
    return _DATA.sub("--data DIR", command)


def by_row(logs: Iterable[Log], figure: str) -> dict[str, dict[int, float]]:
    """Row → seed → figure."""
    found: dict[str, dict[int, float]] = {}
    for log in logs:
        found.setdefault(log["row"], {})[log["seed"]] = log[figure]
    return found


def differences(values: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Interval]:
    """Row → its figure over the baseline's, paired over seeds, with 95 % intervals.

    Args:
        values: of :func:`by_row`.
        baseline: the row to compare with.

    Returns:
        Rows with fewer than two seeds in common are left out.
    """
    plain = values.get(baseline, {})
    found: dict[str, Interval] = {}
    for row, mine in values.items():
        seeds = sorted(set(mine) & set(plain))
        if row != baseline and len(seeds) >= 2:
            found[row] = paired([mine[seed] for seed in seeds], [plain[seed] for seed in seeds])
    return found


def keep_weights(model: Path, copy: Path) -> Path:
    """Write a small copy of a run's weights for git: half precision, no optimizer.

    Args:
        model: ``model.pt`` of the run.
        copy: the file to write; ``gclib analyse`` and ``gclib evaluate`` read it.

    Returns:
        ``copy``.
    """
    state = read(model)
    state["model"] = {
        key: value.half() if value.is_floating_point() else value
        for key, value in state["model"].items()
    }
    copy.parent.mkdir(parents=True, exist_ok=True)
    write(copy, state)
    return copy


def run_one(arguments: list[str]) -> int:
    """Train in this process; the exit status."""
    from gclib.training.command import main

    return main(arguments)


def main(
    program: str,
    arguments: list[str] | None,
    *,
    data: str,
    train: Callable[[Path, range, int | None], int],
    collect: Callable[[Path], list[Log]],
    keep: Callable[[Path, list[Log], Path], Iterable[str]],
) -> int:
    """``train --data DIR --seeds 1-5`` and ``collect RUNS OUT``; the exit status.

    Args:
        program: name of the module.
        arguments: of the command line; None: the process's own.
        data: what ``--data`` is, for the help.
        train: trains everything with these seeds, in so many processes.
        collect: what git keeps of finished runs below a folder.
        keep: writes it to a folder; gives lines to print.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="every row with every seed, into runs/")
    command.add_argument("--data", type=Path, required=True, help=data)
    command.add_argument("--seeds", type=seed_range, default="1-5", help="default: 1-5")
    command.add_argument("--workers", type=int, help="processes; default: the number of cores")
    command = commands.add_parser("collect", help="write what git keeps of finished runs")
    command.add_argument("runs", type=Path)
    command.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "train":
        return train(options.data, options.seeds, options.workers)
    found = collect(options.runs)
    if not found:
        print(f"{options.runs} holds no finished run of this recipe", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    lines = list(keep(options.runs, found, options.out))
    print("\n".join([*lines, f"{len(found)} runs: {options.out}"]))
    return 0
