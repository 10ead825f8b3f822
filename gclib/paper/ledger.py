"""The ledger: every number of the paper, ours beside it, and an honest verdict.

    gclib ledger [--table 2a] [--json | --markdown | --figure FILE]

==================================  ========================================================
verdict                             when
==================================  ========================================================
reproduced                          computed, and equal to a number that was read
computed; printed value             computed; the printed number is only recalled
unconfirmed
same direction in small             a difference over paired seeds, its interval without zero
equivalent in small                 the interval lies within the margin fixed beforehand
undecided                           not computed yet, or the interval leaves it open
not reproduced                      computed, and different
needs GPUs                          a full training
==================================  ========================================================

A number that was derived counts as recalled: a sum of rounded numbers leaves the last digit open.

``gclib ledger --runs DIR`` also reads the summaries of full trainings below a folder. A run counts
if it was the paper's recipe on the paper's data; figures within half a point of the printed ones
count as reproduced, a margin that was fixed before any full training was run.

The ledger imports no network. What it says of them comes from ``counts.json``, which
:mod:`gclib.models.counts` writes; ``gclib ledger --recount`` counts again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gclib.blocks import GCBlock, LinearTransform
from gclib.blocks.framework import BottleneckTransform
from gclib.chapters import repository
from gclib.later import NotReleased
from gclib.paper.claims import (
    CLAIMS,
    COMPARISONS,
    DISTANCE_CLAIMS,
    MARGIN,
    Claim,
    Comparison,
    DistanceClaim,
)
from gclib.paper.statistics import paired
from gclib.paper.tables import CELLS, Cell, printed

VERDICTS = (
    "reproduced",
    "computed; printed value unconfirmed",
    "same direction in small",
    "equivalent in small",
    "undecided",
    "not reproduced",
    "needs GPUs",
)
_TRAINED = ("ap", "top", "cosine", "jsd")  # columns that only a full training gives
# Columns whose figures have another name in the summaries of trainings.
_FIGURES = {f"ap{at}_{of}": f"ap_{of}_{at}" for of in ("box", "mask") for at in (50, 75)}
FULL_MARGIN = 0.5  # points of accuracy or AP, of a full training
SUMMARY = "summary.json"
_OTHERS = ("mmdetection", "fvcore")  # conventions, beside the paper's
# Claims that repeat a cell, and claims about what GC in all residual blocks adds.
_OF_CELLS = {
    "4.3/flops_before": ("4a/baseline", "gflops"),
    "4.3/flops_after": ("4a/gc_all", "gflops"),
    "4.3/params_before": ("4a/baseline", "params_m"),
}
# Columns whose digits are cut off and not rounded: so are table 5's other accuracies in table 1
# (75.95 became 75.9), and so all five numbers of this column come out.
_CUT_OFF = {("5", "params_m")}
_IMAGENET = "gclib train imagenet --row {row} --stage 2 --data DIR --weights STAGE_1/model.pt"
_COCO = "gclib train coco --row {row} --data DIR --weights {weights}"
_KINETICS = "gclib train kinetics --row {row} --data DIR --weights IMAGENET1K_V1"
_ANALYSIS = "gclib analyse {task} --checkpoint runs/{task}/{folder}/seed-0/best.pt --data DIR"
_SHARES = {
    "4.3/params_share": ("parameters", "ResNet-50"),
    "intro/flops": ("multiply_adds", "ResNet-50"),
    "intro/coco_flops": ("coco_multiply_adds", "Mask R-CNN"),
}
LATER = "not computed yet: needs the network, which a later chapter builds"


@dataclass(frozen=True)
class Entry:
    """One line of the ledger; the fields of its JSON.

    Attributes:
        id: of the cell, claim or comparison.
        table: for example ``"2a"``; the section for a claim of the text.
        row: row id; the claim in words where there is none.
        column: column, or unit.
        printed: the paper's number.
        mark: ``"read"``, ``"derived"`` or ``"recalled"``.
        value: ours, or None.
        interval: ``[low, high]``, or None.
        seeds: number of seeds, or None.
        method: how ours was found.
        verdict: one of :data:`VERDICTS`.
        command: what repeats it, or None.
    """

    id: str
    table: str
    row: str
    column: str
    printed: float | None
    mark: str
    value: float | None
    interval: list[float] | None
    seeds: int | None
    method: str
    verdict: str
    command: str | None


def ledger(
    runs: Path | None = None,
    counts: Mapping[str, Any] | None = None,
    trained: Sequence[Mapping[str, Any]] = (),
) -> list[Entry]:
    """All entries.

    Args:
        runs: folder of the logs; default: the shipped ones.
        counts: of the networks, from :func:`gclib.models.counts.recount`; default: those of
            :func:`read_counts`.
        trained: summaries of full trainings, from :func:`read_summaries`.
    """
    counts = read_counts() if counts is None else counts
    return [
        *(_cell(cell, counts, trained) for cell in CELLS),
        *(_claim(claim, counts) for claim in CLAIMS),
        *(_distance(claim, runs) for claim in DISTANCE_CLAIMS),
        *(_comparison(comparison, runs) for comparison in COMPARISONS),
    ]


def runs_folder(dataset: str = "scenes") -> Path:
    """The shipped logs of ``"scenes"`` (the lab) or ``"cifar10"``: in the repository."""
    root = repository()
    return (root / "data" if root else Path(str(files("gclib"))) / "data") / dataset / "runs"


def read_counts() -> dict[str, Any]:
    """The shipped counts of networks; empty in a copy of the course that has none."""
    path = files("gclib.paper") / "counts.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _logs(runs: Path | None, row: str) -> dict[int, dict[str, Any]]:
    """The logs of a row by seed."""
    shipped = runs_folder("scenes" if row.startswith("mini/") else "cifar10")
    return {log["seed"]: log for log in read_runs(runs or shipped, row)}


def _command(seeds: Sequence[int], *rows: str) -> str:
    seeds = f"{min(seeds)}-{max(seeds)}" if seeds else "1-5"
    dataset = "scenes" if rows[0].startswith("mini/") else "cifar10 --data DIR"
    return f"gclib train {dataset} --row {' '.join(rows)} --seeds {seeds}"


def read_summaries(folder: Path) -> list[dict[str, Any]]:
    """Summaries of finished trainings anywhere below a folder; files that are none are left out."""
    found = []
    for path in sorted(folder.rglob(SUMMARY)):
        try:
            summary = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(summary, dict) and {"row", "seed", "figures", "command"} <= summary.keys():
            found.append(summary)
    return found


def _entry(cell: Cell, **found: Any) -> Entry:
    """What is printed in a cell, and what was found."""
    printed_here = (cell.id, cell.table, cell.row, cell.column, cell.printed, cell.mark)
    return Entry(*printed_here, **found)


def _full(cell: Cell, trained: Sequence[Mapping[str, Any]]) -> Entry | None:
    """The entry of a column that full trainings of the paper's recipe give."""
    figure = _FIGURES.get(cell.column, cell.column)
    runs = {
        run["seed"]: run
        for run in trained
        if run["row"] == cell.row and run.get("as_in_paper") and figure in run["figures"]
    }
    if not runs:
        return None
    values = [run["figures"][figure] for run in runs.values()]
    value = sum(values) / len(values)
    verdict = "not reproduced"
    if abs(value - cell.printed) <= FULL_MARGIN:
        verdict = "reproduced" if cell.mark == "read" else "computed; printed value unconfirmed"
    return _entry(
        cell,
        value=round(value, cell.digits),
        interval=[round(min(values), 3), round(max(values), 3)] if len(values) > 1 else None,
        seeds=len(runs),
        method="full trainings with the paper's recipe, a mean over seeds (smallest and largest "
        f"beside it); within {FULL_MARGIN} points counts as reproduced",
        verdict=verdict,
        command=next(iter(runs.values()))["command"],
    )


def _cell(
    cell: Cell, counts: Mapping[str, Any], trained: Sequence[Mapping[str, Any]] = ()
) -> Entry:
    found = _network(cell, counts)
    value, verdict, method = None, "undecided", LATER
    command = f"gclib ledger --table {cell.table} --recount" if found else None
    if cell.column.startswith(_TRAINED):
        if entry := _full(cell, trained):
            return entry
        method, verdict = "a full training", "needs GPUs"
        command = _training(cell)
    elif found:
        exact, method = found
        cut_off = (cell.table, cell.column) in _CUT_OFF
        value = _as_printed(exact, cell.printed, cell.digits, cut_off=cut_off)
        verdict = _compare(value, cell.printed, cell.mark)
        if cell.id in counts["notes"]:
            method += f"; {counts['notes'][cell.id]}"
    return _entry(
        cell,
        value=value,
        interval=None,
        seeds=None,
        method=method,
        verdict=verdict,
        command=command,
    )


def _training(cell: Cell) -> str | None:
    """The command of a full training, or of what is measured on its network."""
    if cell.column.startswith(("cosine", "jsd")):
        task = "kinetics" if cell.row.startswith("1/kinetics_") else "coco"
        return _ANALYSIS.format(task=task, folder=cell.row.replace("/", "-"))
    if cell.table in ("4a", "4b"):
        return _IMAGENET.format(row=cell.row)
    if cell.table[0] in "23" or cell.row.startswith("1/coco_"):
        # Torchvision has no ResNeXt-101 32x4d.
        weights = "FILE" if "/x101" in cell.row else "IMAGENET1K_V1"
        return _COCO.format(row=cell.row, weights=weights)
    if cell.table == "5" or cell.row.startswith("1/kinetics_"):
        return _KINETICS.format(row=cell.row)
    return None


def _network(cell: Cell, counts: Mapping[str, Any]) -> tuple[float, str] | None:
    """Our number for a network, in millions of parameters or 10⁹ multiply-adds, and its method."""
    row = counts.get("rows", {}).get(cell.row)
    if row is None:
        return None
    network = counts["networks"][cell.table]
    if cell.column == "params_m":
        return row["parameters"] / 1e6, f"{network}: {row['parameters']:,} parameters"
    if cell.column == "gflops":
        others = " and ".join(f"{row[name] / 1e9:.3f} by {name}'s" for name in _OTHERS)
        found = row["detection" if "detection" in row else "paper"]
        method = f"{network}: {found:,} multiply-adds; {others} convention"
        if "as_built" in row:
            method += (
                f"; with stride in the 3×3, as it is trained, and the transposed convolution as it "
                f"computes, {row['as_built'] / 1e9:.3f}"
            )
        return found / 1e9, method
    return None


def _as_printed(exact: float, printed: float, digits: int, *, cut_off: bool = False) -> float:
    """Rounded (or cut off) as the printed number is; where they differ, with one digit more."""
    value = math.floor(exact * 10**digits) / 10**digits if cut_off else round(exact, digits)
    return value if value == printed else round(exact, digits + 1)


def _compare(value: float, printed: float, mark: str) -> str:
    """The verdict on a number that was computed."""
    if value != printed:
        return "not reproduced"
    return "reproduced" if mark == "read" else "computed; printed value unconfirmed"


def _counted(claim: Claim, counts: Mapping[str, Any]) -> tuple[float, str, str] | None:
    """Our number for a claim, how it was found, and the command."""
    if claim.id == "4.3/transform":
        wide = LinearTransform(1024).value.weight.numel()
        bottleneck = BottleneckTransform(1024, ratio=16)
        narrow = bottleneck.reduce.weight.numel() + bottleneck.expand.weight.numel()
        return narrow / wide, "weights of two transforms of 1024 channels", "gclib ledger"
    if claim.id == "4.3/params_added":
        blocks = {512: 4, 1024: 6, 2048: 3}  # channels → residual blocks of c3, c4, c5
        total = sum(
            count * sum(p.numel() for p in GCBlock(channels).parameters())
            for channels, count in blocks.items()
        )
        method = "parameters of the 13 blocks, biases and LayerNorm included"
        return total / 1e6, method, "gclib ledger"
    command = f"gclib ledger --table {claim.place} --recount"
    if counts and claim.id in _OF_CELLS:
        found = _network(printed(*_OF_CELLS[claim.id]), counts)
        return (*found, command) if found else None
    if counts and claim.id in _SHARES:
        share, network = _SHARES[claim.id]
        method = f"GC in all residual blocks over {network}, from unrounded numbers"
        return counts["shares"][share], method, command
    return None


def _claim(claim: Claim, counts: Mapping[str, Any]) -> Entry:
    try:
        counted = _counted(claim, counts)
    except NotReleased:  # a class's copy, without the block
        counted = None
    needs_training = claim.unit in ("AP", "points")
    method, verdict, value, command = LATER, "undecided", None, None
    if needs_training:
        method, verdict = "a full training", "needs GPUs"
    if counted:
        exact, method, command = counted
        digits = len(str(claim.printed).partition(".")[2])
        value = _as_printed(exact, claim.printed, digits)
        verdict = _compare(value, claim.printed, "read")
        if note := counts.get("notes", {}).get(claim.id):
            method += f"; {note}"
    return Entry(
        claim.id,
        f"section {claim.place}",
        claim.text,
        claim.unit,
        claim.printed,
        "read",
        value,
        None,
        None,
        method,
        verdict,
        command,
    )


def _comparison(comparison: Comparison, runs: Path | None) -> Entry:
    first, second, column = comparison.printed
    cells = printed(first, column), printed(second, column)
    marks = {cell.mark for cell in cells}
    mark = next(mark for mark in ("recalled", "derived", "read") if mark in marks)
    logs = [_logs(runs, row) for row in (comparison.first, comparison.second)]
    seeds = sorted(set(logs[0]) & set(logs[1]))
    value, bounds = None, None
    verdict = "undecided"
    if len(seeds) >= 5:
        found = paired(*[[log[seed]["accuracy"] for seed in seeds] for log in logs])
        value, bounds = round(found.mean, 4), [round(found.low, 4), round(found.high, 4)]
        verdict = judge(found.low, found.high, same=comparison.same)
    names = " and ".join(row.removeprefix("mini/") for row in (comparison.first, comparison.second))
    return Entry(
        comparison.id,
        comparison.table,
        comparison.text,
        "accuracy",
        round(cells[0].printed - cells[1].printed, 2),
        mark,
        value,
        bounds,
        len(seeds) or None,
        f"the lab, {names}, paired over seeds; printed: difference in {column} on COCO",
        verdict,
        _command(seeds, comparison.first, comparison.second),
    )


def _distance(claim: DistanceClaim, runs: Path | None) -> Entry:
    cells = [printed(claim.printed, f"cosine_{what}") for what in ("input", "attention")]
    logs = {seed: log for seed, log in _logs(runs, claim.row).items() if "trained" in log}
    value, bounds, verdict = None, None, "undecided"
    place = "CIFAR-10" if claim.row.startswith("cifar10/") else "the lab"
    method = f"{place}, {claim.row.split('/')[1]}; printed: the difference on COCO"
    if len(logs) >= 2:
        inputs, maps = ([log["trained"][key] for log in logs.values()] for key in _keys(claim))
        found = paired(inputs, maps)
        value, bounds = round(found.mean, 4), [round(found.low, 4), round(found.high, 4)]
        if len(logs) >= 5:
            verdict = judge(found.low, found.high, same=False)
        before = [log["untrained"][_keys(claim)[1]] for log in logs.values() if "untrained" in log]
        method += f"; between maps {sum(maps) / len(maps):.2g}"
        if before:
            # What the initial weights alone give: a small distance is no finding without it.
            method += f", before training {sum(before) / len(before):.2g}"
    return Entry(
        claim.id,
        "1",
        claim.text,
        "cosine input - attention",
        round(cells[0].printed - cells[1].printed, 3),
        "read",
        value,
        bounds,
        len(logs) or None,
        method,
        verdict,
        _command(sorted(logs), claim.row),
    )


def _keys(claim: DistanceClaim) -> tuple[str, str]:
    return f"{claim.where}/cosine/input", f"{claim.where}/cosine/attention"


def judge(low: float, high: float, *, same: bool) -> str:
    """The verdict on a difference with a 95 % interval.

    Args:
        low: lower end.
        high: upper end.
        same: the claim is that there is no difference; otherwise, that it is positive.
    """
    if same:
        if low >= -MARGIN and high <= MARGIN:
            return "equivalent in small"
        return "not reproduced" if low > MARGIN or high < -MARGIN else "undecided"
    if low > 0:
        return "same direction in small"
    return "not reproduced" if high < 0 else "undecided"


def log_path(folder: Path, row_id: str) -> Path:
    """Where the log of a lab row is."""
    return folder / f"{row_id.replace('/', '-')}.json"


def read_runs(folder: Path, row_id: str) -> list[dict[str, Any]]:
    """The logged runs of a lab row, by seed; an empty list if there are none."""
    path = log_path(folder, row_id)
    return json.loads(path.read_text("utf-8")) if path.is_file() else []


def find_entry(entry_id: str, entries: list[Entry] | None = None) -> Entry:
    """The entry of that id; KeyError otherwise."""
    for entry in entries or ledger():
        if entry.id == entry_id:
            return entry
    raise KeyError(f"the ledger has no entry {entry_id!r}")


def as_json(entries: list[Entry]) -> str:
    """The entries as a JSON list."""
    return json.dumps([asdict(entry) for entry in entries], indent=1, ensure_ascii=False)


def as_markdown(entries: list[Entry]) -> str:
    """The page ``docs/LEDGER.md``."""
    counts = {verdict: sum(e.verdict == verdict for e in entries) for verdict in VERDICTS}
    lines = [
        "# Ledger",
        "",
        "Every number of the paper's tables and text, ours beside it. Written by `gclib ledger "
        "--markdown`; a test checks that it is current.",
        "",
        "The mark says how far the printed number can be trusted: *read* off the paper, *derived* "
        "from a number that was read, or *recalled* (written down from memory and not yet compared "
        "with the paper, so ours is never called a reproduction of it). "
        "Differences in small come from the lab of generated scenes, and from CIFAR-10 where it is "
        "named: at least 5 seeds for a verdict, paired, 95 % t-intervals; equivalent means within "
        f"{MARGIN} of accuracy. Distances are those of trained networks; `gclib ledger --table 1 "
        "--json` also says what they were before training.",
        "",
        "Two things to know of the lab. Its blocks have 32 channels (in the residual network: "
        "those of c3), so at ratio 16 two numbers are left, of which LayerNorm keeps the order "
        "alone; the paper's narrowest bottleneck has 16. And *objects* of `context` include the "
        "disc that is the cue: most of the distance between their maps is the disc's "
        "(chapter 02).",
        "",
        *_about_counts(),
        "![Measured in small: differences with intervals and verdicts](figures/ledger.svg)",
        "",
        "| verdict | entries |",
        "|---|---|",
        *(f"| {verdict} | {count} |" for verdict, count in counts.items()),
    ]
    for table in dict.fromkeys(entry.table for entry in entries):
        name = table if table.startswith("section") else f"table {table}"
        lines += ["", f"## {name[0].upper()}{name[1:]}", ""]
        lines += [
            "| what | column | printed | mark | ours | verdict |",
            "|---|---|---|---|---|---|",
        ]
        here = [entry for entry in entries if entry.table == table]
        lines += [_line(entry) for entry in here]
        computed = [entry for entry in here if entry.value is not None and not entry.interval]
        different = [entry for entry in computed if entry.verdict == "not reproduced"]
        if different:
            lines += ["", "Computed, and different:", ""]
            lines += [f"- {entry.row}, {entry.column}: {entry.method}." for entry in different]
    return "\n".join(lines) + "\n"


def _about_counts() -> list[str]:
    convention = read_counts().get("convention")
    if convention is None:
        return []
    text = "Parameters and multiply-adds of networks are counted from the operations that run. "
    text += f"{convention} Parameters of table 5 are compared with their digits cut off, by which "
    text += "all five come out. `gclib ledger --layers 4a/gc_all` shows a network layer by layer."
    detectors = "Tables 2 and 3, and the share of multiply-adds on COCO: one image of 800×1344, "
    detectors += "1000 proposals and 100 masks, stride in the 1×1 convolutions. "
    detectors += read_counts()["detection"]
    return [text, "", detectors, ""]


def _line(entry: Entry) -> str:
    ours = "" if entry.value is None else f"{entry.value:g}"
    if entry.interval:
        ours += f" ({entry.interval[0]:g} to {entry.interval[1]:g}, {entry.seeds} seeds)"
    shown = "" if entry.printed is None else f"{entry.printed:g}"
    return f"| {entry.row} | {entry.column} | {shown} | {entry.mark} | {ours} | {entry.verdict} |"


def as_text(entries: list[Entry]) -> Iterator[str]:
    """Lines for a terminal."""
    for entry in entries:
        ours = "-" if entry.value is None else f"{entry.value:g}"
        if entry.interval:
            ours += f" [{entry.interval[0]:g}, {entry.interval[1]:g}]"
        shown = "-" if entry.printed is None else f"{entry.printed:g}"
        yield (
            f"{entry.table:<12} {entry.row:<58} {entry.column:<16} {shown:>7} "
            f"{entry.mark:<9} {ours:<24} {entry.verdict}"
        )
