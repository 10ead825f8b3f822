"""Kinetics on disk: which videos can be read, and which cannot?

``gclib data kinetics`` prints what :func:`check_kinetics` finds. It changes no video; it writes
lists of the readable ones, which trainings then use, and of the others.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gclib.datasets.files import BrokenData
from gclib.datasets.image_folder import Progress
from gclib.datasets.kinetics import (
    Sampling,
    VideoList,
    Videos,
    clean_list,
    other_classes,
    part_of_kinetics,
    same_numbers,
)
from gclib.datasets.videos import BrokenVideo, Video

CLASSES = 400  # of Kinetics-400
_SHOWN = 5  # broken files in a report
_AT_ONCE = 1024  # videos on their way: a hundred thousand waiting tasks are a lot of memory

HOW_TO_GET = (
    "Kinetics-400 is a list of YouTube videos (deepmind.google, 'Kinetics'); the CVD Foundation "
    "keeps archives of them (github.com/cvdfoundation/kinetics-dataset). Unpack them so that DIR "
    "holds train/<class>/*.mp4 and val/<class>/*.mp4, or write train.csv and val.csv with a path "
    "and a label on each line"
)


@dataclass
class Report:
    """What :func:`check_kinetics` found; ``str(report)`` is for a person.

    Attributes:
        kinetics: there are as many classes as Kinetics-400 has.
        found: what is there, one sentence each.
        problems: what is missing or wrong and what to do, one sentence each.
        broken: videos that cannot be read, with the reason, by part.
        lists: files that were written.
    """

    kinetics: bool = False
    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    broken: dict[str, list[str]] = field(default_factory=dict)
    lists: list[Path] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether a training can start on it."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join(
            [f"ok  {line}" for line in self.found] + [f"no  {line}" for line in self.problems]
        )


def check_kinetics(
    folder: str | os.PathLike[str],
    *,
    lists: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> Report:
    """Open every video of ``folder``, and read its first, middle and last picture.

    So a file that is cut off is found without decoding it. One that is damaged between the three is
    not; a training reports it and takes another.

    Args:
        folder: where the data set is, see :func:`gclib.datasets.kinetics.kinetics`.
        lists: folder of the lists; the default is ``folder``. For each part, ``train_clean.csv``
            has path and label of what can be read, and ``train_broken.csv`` path and reason of what
            cannot.
        workers: threads; the default is one for each core.

    Returns:
        What is there, and what is missing; nothing is raised for it.

    Raises:
        MissingLibrary: PyAV is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return Report(problems=[f"{folder} is not a folder. {HOW_TO_GET}"])
    report, parts = Report(), {}
    for name in ("train", "val"):
        try:
            parts[name] = part_of_kinetics(folder, name)
        except BrokenData as error:
            report.problems.append(_explain(folder, name, str(error)))
    same_numbers(*parts.values())
    if len(parts) == 2 and (difference := other_classes(parts["train"], parts["val"])):
        report.problems.append(difference)
    _judge(report, parts)
    for name, videos in parts.items():
        states = list(_look_at(name, videos, workers))
        _tell(report, name, videos, states)
        _write(report, name, videos, states, Path(folder if lists is None else lists))
    return report


def _explain(folder: Path, name: str, error: str) -> str:
    """Why a part is not usable; the usual mistakes by name."""
    with contextlib.suppress(OSError):
        for inner in sorted(folder.iterdir()):
            if (inner / name).is_dir() or (inner / f"{name}.csv").is_file():
                return f"{folder} does not hold {name}/, but {inner} does: name that one instead"
        if any(path.name.endswith((".tar.gz", ".tgz", ".tar")) for path in folder.iterdir()):
            return f"{folder} holds archives that are not unpacked: {HOW_TO_GET}"
    if not (folder / name).exists() and not (folder / f"{name}.csv").exists():
        return f"{error}. {HOW_TO_GET}"
    return error


def _judge(report: Report, parts: dict[str, Videos]) -> None:
    """Compare the classes with Kinetics'. The videos of each copy differ: some are taken down."""
    if not parts:
        return
    classes = len(next(iter(parts.values())).classes)
    report.kinetics = classes == CLASSES
    if not report.kinetics:
        report.found.append(
            f"{classes:,} classes, and Kinetics-400 has {CLASSES}: fine for a training; its "
            "figures are not those of tables 1 and 5"
        )


def _look_at(name: str, videos: Videos, workers: int | None) -> Iterator[tuple[str, float]]:
    """For each video, what is wrong with it (empty if nothing), and its seconds."""
    progress = Progress(f"videos of {name} checked", len(videos))
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        for first in range(0, len(videos), _AT_ONCE):
            some = range(first, min(first + _AT_ONCE, len(videos)))
            for state in pool.map(_state, map(videos.path, some)):
                progress.step()
                yield state
    except KeyboardInterrupt:
        print(
            f"{progress.count:,} of {len(videos):,} videos of {name} were checked; its lists are "
            "as they were before",
            file=sys.stderr,
        )
        raise
    finally:
        pool.shutdown(cancel_futures=True)  # those that have not begun


def _state(path: str) -> tuple[str, float]:
    try:
        with Video(path) as video:
            end = video.duration
            video.read([0.0, end / 2, end], lambda picture: None)
            return "", end
    except BrokenVideo as error:
        return error.reason, 0.0


def _tell(report: Report, name: str, videos: Videos, states: list[tuple[str, float]]) -> None:
    report.broken[name] = broken = [
        f"{videos.path(at)}: {reason}" for at, (reason, _) in enumerate(states) if reason
    ]
    seconds = np.array([length for reason, length in states if not reason])
    report.found.append(
        f"{name}: {len(seconds):,} of {len(videos):,} videos can be read, in "
        f"{len(videos.classes):,} classes"
    )
    clip = Sampling().seconds
    if short := int((seconds < clip).sum()):
        report.found.append(
            f"{name}: {short:,} of them are shorter than a clip of {clip:.1f} s; their last "
            "picture is repeated"
        )
    if broken:
        report.found.append(f"{name}: {len(broken):,} cannot be read ({_some(broken)})")


def _write(
    report: Report, name: str, videos: Videos, states: list[tuple[str, float]], lists: Path
) -> None:
    """The lists, each whole or not at all."""
    good = [at for at, (reason, _) in enumerate(states) if not reason]
    counts = np.bincount(videos.labels[good], minlength=len(videos.classes))
    before = np.bincount(videos.labels, minlength=len(videos.classes))
    lost = [videos.classes[at] for at in np.flatnonzero((counts == 0) & (before > 0))]
    if lost:
        report.problems.append(
            f"{name}: no video of {_some(lost)} can be read: put them in again (no list is written,"
            " as the classes would get other numbers)"
        )
        return
    clean, other = clean_list(lists, name), lists / f"{name}_broken.csv"
    # Folders named 0, 1, 10, 2 are in the order of text, and a list of numbers is not.
    numbers = not isinstance(videos, VideoList) and all(map(str.isdecimal, videos.classes))
    names = list(map(str, range(len(videos.classes)))) if numbers else videos.classes
    # Below the folder of the list if they are there, so that a data set can move.
    paths = [_below(lists, videos.path(at)) for at in range(len(videos))]
    if odd := [text for text in (*paths, *names) if not _is_utf8(text)]:
        shown = _some([os.fsencode(text).decode("utf-8", "replace") for text in odd])
        report.problems.append(
            f"{name}: no list is written, since some names are not UTF-8: rename {shown}"
        )
        return
    try:
        lists.mkdir(parents=True, exist_ok=True)
        rows = ((paths[at], names[videos.label(at)]) for at in good)
        _write_csv(clean, ("path", "label"), rows)
        bad = ((paths[at], reason) for at, (reason, _) in enumerate(states) if reason)
        _write_csv(other, ("path", "reason"), bad)
    except OSError as error:
        told = error.strerror or error
        report.problems.append(
            f"{clean} cannot be written ({told}): name another folder with --lists"
        )
        return
    report.lists += [clean, other]
    report.found.append(f"{name}: {clean} lists what can be read; trainings on {lists} use it")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _below(folder: Path, path: str) -> str:
    path, folder = os.path.abspath(path), Path(os.path.abspath(folder))
    return os.path.relpath(path, folder) if folder in Path(path).parents else path


def _write_csv(path: Path, head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _some(items: list[str]) -> str:
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
