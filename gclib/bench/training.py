"""``gclib bench training``: images per second of a whole training, beside torchvision's script.

Both read the same generated JPEGs of ImageNet's size with as many processes, train the same network
with the same batch, and take turns. Torchvision's reference does not come with its package: clone
its repository and name ``references/classification/train.py``.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gclib.bench.measure import OtherLoad, median_interval
from gclib.datasets.images import make_images
from gclib.training.progress import read_log

WAYS = ("gclib train imagenet", "torchvision's reference")
CLASSES, SKIPPED = 8, 3  # the first updates set up kernels and memory
_LINE = re.compile(r"Epoch: \[0\]\s+\[\s*(\d+)/\d+\]")


def run(
    reference: Path,
    *,
    network: str = "resnet50",
    batch: int = 16,
    updates: int = 12,
    workers: int = 2,
    rounds: int = 5,
    device: str = "cpu",
    half: bool = False,
) -> list[dict[str, Any]]:
    """Time both in turns.

    Args:
        reference: torchvision's ``references/classification/train.py``.
        network: a name that both know.
        batch: images of an update.
        updates: of one run; the first few do not count.
        workers: processes that read images.
        rounds: runs of each.
        device: ``"cpu"`` or ``"cuda"``.
        half: bf16 here, ``--amp`` (fp16) there; else float32 in both.

    Returns:
        A record for each way: images per second (median, interval), and the ratio of the rounds.

    Raises:
        ValueError: ``reference`` is not that script, or too few updates.
        RuntimeError: a process failed; the message has its last words.
    """
    if reference.name != "train.py" or not (reference.parent / "presets.py").is_file():
        raise ValueError(
            f"--reference {reference}: expected the path of torchvision's "
            "references/classification/train.py, from a clone of its repository"
        )
    if updates <= SKIPPED + 1:
        raise ValueError(f"--updates {updates}: expected at least {SKIPPED + 2}")
    if batch * updates % CLASSES:
        raise ValueError(f"--batch {batch} --updates {updates}: expected a product of {CLASSES}·n")
    with tempfile.TemporaryDirectory(prefix="gclib-bench-") as scratch:
        data = Path(scratch, "images")
        make_images(data, classes=CLASSES, per_class=-(-batch * updates // CLASSES))
        common = (data, network, batch, workers, device, half)
        ways = {
            WAYS[0]: lambda number: _ours(Path(scratch, f"run-{number}"), *common),
            WAYS[1]: lambda number: _theirs(reference, Path(scratch), *common),
        }
        speeds, load = in_turns(ways, batch * (updates - SKIPPED), rounds)
    about = {"network": network, "batch": batch, "workers": workers, "other_load": load}
    return as_records(speeds, about, half)


def in_turns(
    ways: dict[str, Callable[[int], float]], images: int, rounds: int
) -> tuple[dict[str, list[float]], float]:
    """Run every way once a round, in changing order.

    Args:
        ways: name → function of the round that gives the seconds of a run.
        images: that are read in these seconds.
        rounds: runs of each.

    Returns:
        Name → images per second of each run, and the largest load of other processes.
    """
    others = OtherLoad()
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    loads = []
    for number in range(rounds):
        others()
        for way in list(ways) if number % 2 else list(ways)[::-1]:
            print(f"round {number + 1} of {rounds}: {way}", file=sys.stderr, flush=True)
            speeds[way].append(images / ways[way](number))
        loads.append(others())
    return speeds, max(loads)


def as_records(
    speeds: dict[str, list[float]], about: dict[str, Any], half: bool
) -> list[dict[str, Any]]:
    """A record for each of two ways; the first one's ratio is that of the rounds."""
    ours, theirs = speeds.values()
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = median_interval(ratios)
    records = []
    for first, (way, found) in zip((True, False), speeds.items(), strict=True):
        slowest, fastest = median_interval(found)
        records.append(
            {
                "way": way,
                **about,
                "dtype": ("bf16" if first else "fp16") if half else "fp32",
                "rounds": len(found),
                "median": statistics.median(found),
                "low": slowest,
                "high": fastest,
                "ratio": statistics.median(ratios) if first else 1.0,
                "ratio_low": low if first else 1.0,
                "ratio_high": high if first else 1.0,
            }
        )
    return records


def _ours(
    out: Path, data: Path, network: str, batch: int, workers: int, device: str, half: bool
) -> float:
    """Seconds of the updates that count, of a run of one epoch here."""
    command = [sys.executable, "-m", "gclib.training", "imagenet", "--row", "4a/baseline"]
    command += ["--stage", "1", "--network", network, "--stride-in", "3x3", "--epochs", "1"]
    command += ["--warmup-epochs", "0", "--lr", "0.1", "--lr-batch", str(batch)]
    command += ["--batch-size", str(batch), "--micro-batch", str(batch), "--log-every", "1"]
    command += ["--workers", str(workers), "--device", device, "--data", str(data)]
    command += ["--precision", "bf16" if half else "fp32", "--out", str(out)]
    for _ in lines(command, Path.cwd()):
        pass
    return seconds_in(out, batch, SKIPPED)


def seconds_in(out: Path, batch: int, skipped: int) -> float:
    """Seconds of the updates of a run here, but for its first ones."""
    speeds = [
        line["images_per_s"]
        for line in read_log(out / "log.jsonl")
        if line["event"] == "train" and line["step"] > skipped
    ]
    return sum(batch / speed for speed in speeds)


def _theirs(
    reference: Path,
    scratch: Path,
    data: Path,
    network: str,
    batch: int,
    workers: int,
    device: str,
    half: bool,
) -> float:
    """Seconds of the same updates of torchvision's script, by the lines that it prints."""
    command = [sys.executable, "-u", reference.name, "--data-path", str(data), "--model", network]
    command += ["--device", device, "-b", str(batch), "-j", str(workers), "--epochs", "1"]
    command += ["--print-freq", "1", "--output-dir", str(scratch / "reference")]
    command += ["--amp"] if half else []
    return seconds_printed(command, reference, SKIPPED)


def seconds_printed(command: list[str], reference: Path, skipped: int) -> float:
    """Run a script of torchvision's: seconds between the lines that it prints for its updates."""
    moments: list[float] = []
    for line in lines(command, reference.parent):
        if _LINE.match(line):
            moments.append(time.perf_counter())
    if len(moments) <= skipped:
        raise RuntimeError(f"{reference} printed {len(moments)} updates: is it torchvision's?")
    return moments[-1] - moments[skipped - 1]


def lines(command: list[str], folder: Path) -> Iterator[str]:
    """What a process prints, as it prints it; RuntimeError with its last words if it fails."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last: list[str] = []
    try:
        for line in process.stdout:
            last = [*last[-9:], line.rstrip()]
            yield line
    except BaseException:
        process.kill()
        raise
    finally:
        process.stdout.close()
        status = process.wait()
    if status:
        raise RuntimeError(f"{command[1:4]} failed: " + "\n".join(last))
