"""What the small real runs share: ``train`` and ``collect`` on a command line, and their tables.

:mod:`gclib.training.two_stage`, :mod:`gclib.training.coco_small` and
:mod:`gclib.training.kinetics_small` say what is trained.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from gclib.paper.ledger import log_path, read_runs, read_summaries, runs_folder
from gclib.paper.statistics import Interval, paired
from gclib.seeds import seed_range
from gclib.training.checkpoint import read, write
from gclib.training.progress import LOG, read_log
from gclib.training.runs import CHUNK, FIRST_LOSSES, write_json

Log = dict[str, Any]
# How every run uses the machine.
MACHINE = {
    "workers": 0,
    "threads": 1,
    "evaluate_every": 100,  # only at the end
    "log_every": 1,  # a test repeats the first losses
    "checkpoint_minutes": 3.0,
    "keep": 1,
    "device": "cpu",
}
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


def losses_of(path: Path) -> list[float]:
    """The loss of every update, from the log of a run."""
    by_step = {line["step"]: line["loss"] for line in read_log(path) if line["event"] == "train"}
    return [by_step[step] for step in sorted(by_step)]


@dataclass(frozen=True)
class SmallTask:
    """Rows of one task on a generated set, each a run of the task's own command.

    Attributes:
        task: for example ``"coco"``; its runs are shipped in ``data/coco_small``.
        rows: their ids, the one without a block first.
        figure: what they are compared by.
        kept: rows whose weights are shipped, too.
    """

    task: str
    rows: tuple[str, ...]
    figure: str
    kept: tuple[str, ...] = ()

    def commands(
        self, data: Path, seed: int, rows: Iterable[str] | None = None
    ) -> Iterator[list[str]]:
        """Arguments of ``gclib train`` for every row with a seed."""
        for row in self.rows if rows is None else rows:
            found = [self.task, "--row", row, "--seed", str(seed), "--data", str(data)]
            for name, value in MACHINE.items():
                found += [f"--{name.replace('_', '-')}", str(value)]
            yield [*found, "--resume", "auto"]

    def train(self, data: Path, seeds: Iterable[int], workers: int | None = None) -> int:
        """Train every row with every seed into ``runs/``, one thread each, seed by seed.

        What is finished is not trained again, and what was stopped goes on.

        Returns:
            The exit status of the first run that failed, or 0.
        """
        jobs = [command for seed in seeds for command in self.commands(data, seed)]
        with ProcessPoolExecutor(workers) as pool:
            return next((status for status in pool.map(run_one, jobs) if status), 0)

    def run_folder(self, runs: Path, row: str, seed: int) -> Path:
        """Where a run lives below ``runs``."""
        return runs / self.task / row.replace("/", "-") / f"seed-{seed}"

    def collect(
        self, runs: Path, figures_of: Callable[[dict[str, Any], Path], dict[str, float]]
    ) -> list[Log]:
        """What git keeps of the finished runs below a folder: figures, losses, what repeats them.

        Args:
            runs: the folder; runs of another recipe than the task's own are left out.
            figures_of: from the summary of a run and its folder.
        """
        recipe_of = import_module(f"gclib.training.{self.task}").recipe_of
        found = []
        for summary in read_summaries(runs):
            row, seed, recipe = summary["row"], summary["seed"], summary["recipe"]
            if row not in self.rows or recipe != recipe_of(row, {"seed": seed}).as_dict():
                continue
            folder = self.run_folder(runs, row, seed)
            losses = losses_of(folder / LOG)
            parts = (losses[k : k + CHUNK] for k in range(0, len(losses), CHUNK))
            same = ("updates", "seconds", "parameters", "hash", "commit", "versions")
            found.append(
                {
                    "row": row,
                    "seed": seed,
                    **{name: round(v, 3) for name, v in figures_of(summary, folder).items()},
                    "first_losses": [round(loss, 5) for loss in losses[:FIRST_LOSSES]],
                    "losses": [round(sum(part) / len(part), 5) for part in parts],
                    **{name: summary[name] for name in same},
                    "command": without_folder(summary["command"]),
                }
            )
        return sorted(found, key=lambda run: (self.rows.index(run["row"]), run["seed"]))

    def keep(self, runs: Path, logs: Iterable[Log], out: Path) -> Iterator[str]:
        """Write the logs of each row to ``out``, and weights beside it; a line for each of these.

        The weights are those of :meth:`median_seed`.
        """
        logs = list(logs)
        for row in dict.fromkeys(log["row"] for log in logs):
            mine = [log for log in logs if log["row"] == row]
            write_json(log_path(out, row), mine)
            if row in self.kept:
                seed = self.median_seed(mine)
                model = self.run_folder(runs, row, seed) / "model.pt"
                path = keep_weights(model, self.weights_path(row, out.parent / "checkpoints"))
                yield f"weights of seed {seed}: {path}"

    def read_logs(self) -> list[Log]:
        """The shipped logs, by row and seed; empty where there are none."""
        folder = runs_folder(f"{self.task}_small")
        return [log for row in self.rows for log in read_runs(folder, row)]

    def median_seed(self, logs: Iterable[Log]) -> int:
        """The seed in the middle, so that the maps shown are neither luck nor failure."""
        ranked = sorted(logs, key=lambda log: log[self.figure])
        return ranked[len(ranked) // 2]["seed"]

    def weights_path(self, row: str, folder: Path | None = None) -> Path:
        """Where the shipped weights of a row are: in ``data/<task>_small/checkpoints``."""
        if folder is None:
            folder = runs_folder(f"{self.task}_small").parent / "checkpoints"
        return folder / f"{row.replace('/', '-')}.pt"

    def by_row(self, logs: Iterable[Log], figure: str | None = None) -> dict[str, dict[int, float]]:
        """Row → seed → figure, in percent; default: the one that rows are compared by."""
        return by_row(logs, figure or self.figure)

    def differences(
        self, logs: Iterable[Log], figure: str | None = None, baseline: str | None = None
    ) -> dict[str, Interval]:
        """Row → its figure over that of the first row (or ``baseline``), in points."""
        return differences(self.by_row(logs, figure), baseline or self.rows[0])


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
