"""COCO on disk: is it all there, and if not, what is missing and where does it come from?

``gclib data coco`` prints what :func:`check_coco` finds; nothing is downloaded or changed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gclib.datasets import check_report
from gclib.datasets.check_report import read_some, some
from gclib.datasets.coco import ANNOTATIONS, ARCHIVES, PARTS, coco_folder, read_sized, usable
from gclib.datasets.coco_annotations import Annotations
from gclib.datasets.files import BrokenData

HOW_TO_GET = (
    "cocodataset.org, Download, has train2017.zip (18 GB), val2017.zip (1 GB) and "
    "annotations_trainval2017.zip (241 MB): unpack all three in one folder"
)


@dataclass(frozen=True)
class Counts:
    """What a whole COCO holds.

    The defaults are those of 2017. The images are named on its site (118K, 5K) and counted by many;
    the objects are read from issue 117 of cocodataset/cocoapi, where they are counted in the two
    files, crowds among them.

    Attributes:
        categories: number of categories.
        images: of the part.
        objects: of the part.
    """

    categories: int = 80
    images: tuple[int, int] = (118_287, 5_000)
    objects: tuple[int, int] = (860_001, 36_781)


COCO = Counts()


@dataclass
class Report(check_report.Report):
    """What :func:`check_coco` found.

    Attributes:
        coco: the files list the categories of COCO.
    """

    coco: bool = False


def check_coco(
    folder: str | os.PathLike[str],
    *,
    decode: int = 200,
    seed: int = 0,
    expected: Counts = COCO,
) -> Report:
    """Look at ``folder/train2017``, ``folder/val2017`` and their files of annotations.

    Categories other than COCO's are fine for a training; then the report says what they are.

    Args:
        folder: where the data set is.
        decode: number of images to read, drawn at random from both parts.
        seed: of that draw.
        expected: what a whole COCO holds.

    Returns:
        What is there, and what is missing; nothing is raised for it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return Report(problems=[f"{folder} is not a folder. For COCO: {HOW_TO_GET}"])
    report, parts = Report(), {}
    for name in ("train", "val"):
        try:
            images, file = coco_folder(folder, name)
            parts[name] = images, Annotations(file)
        except BrokenData as error:
            report.problems.append(_explain(folder, name, str(error)))
    for name, (_, told) in parts.items():
        report.found.append(_summary(name, told))
    if len(parts) == 2:
        one, other = (told for _, told in parts.values())
        if one.category_ids != other.category_ids:
            only = sorted(set(one.category_ids) ^ set(other.category_ids))
            report.problems.append(
                f"the categories of train and val differ (ids {some(map(str, only))}): both need "
                "the same"
            )
    _judge(report, {name: told for name, (_, told) in parts.items()}, expected)
    there = [_on_disk(report, name, images, told) for name, (images, told) in parts.items()]
    if parts:
        read_some(
            report,
            [entry for part in there for entry in part],
            lambda entry: read_sized(*entry),
            decode,
            seed,
            good="can be read and have their listed size",
            bad="cannot be used",
        )
    return report


def _summary(name: str, told: Annotations) -> str:
    images, _, counted = usable(told)
    empty = len(told) - len(np.unique(images))
    crowds, left_out = int(told.crowd.sum()), int((~counted).sum())
    return (
        f"{name}: {len(told):,} images, {empty:,} of them without objects; {len(counted):,} "
        f"objects in {len(told.names):,} categories, of which a training leaves out {left_out:,} "
        f"({crowds:,} crowds)"
    )


def _explain(folder: Path, name: str, error: str) -> str:
    """Why a part is not usable; the usual mistakes by name."""
    images, file = PARTS[name]
    archives = ((ARCHIVES[name], folder / images), (ANNOTATIONS[name], folder / "annotations"))
    for archive, goal in archives:
        path = folder / archive.split()[0]
        if path.is_file() and not goal.exists():
            return f"{path} is not unpacked: unzip it in {folder}"
    if (folder / "images" / images).is_dir() and not (folder / images).exists():
        return f"{folder} holds images/{images}/: move it up, to {images}/"
    if (folder / file).is_file() and not (folder / "annotations" / file).exists():
        return f"{folder} holds {file} itself: move it to annotations/"
    for inner in sorted(folder.iterdir()):
        if (inner / images).is_dir() and (inner / "annotations").is_dir():
            return f"{folder} does not hold {images}/, but {inner} does: name that one instead"
    return error


def _judge(report: Report, parts: dict[str, Annotations], expected: Counts) -> None:
    """Compare categories and counts with COCO's."""
    if not parts:
        return
    categories = len(next(iter(parts.values())).names)
    if categories != expected.categories:
        report.found.append(
            f"{categories:,} categories, and COCO has {expected.categories:,}: fine for a training;"
            " its figures are not those of tables 1 to 3"
        )
        return
    report.coco = True
    wanted = dict(
        zip(("train", "val"), zip(expected.images, expected.objects, strict=True), strict=True)
    )
    for name, told in parts.items():
        images, objects = wanted[name]
        if (len(told), len(told.labels)) == (images, objects):
            report.found.append(f"{name}: as many images and objects as COCO has")
            continue
        report.problems.append(
            f"{told.path} lists {len(told):,} images and {len(told.labels):,} objects, and COCO's "
            f"{images:,} and {objects:,}. A training can start, but its figures are not those of "
            f"tables 1 to 3. To repair it, unpack {ANNOTATIONS[name]} of cocodataset.org again"
        )


def _on_disk(
    report: Report, name: str, folder: Path, told: Annotations
) -> list[tuple[str, tuple[int, int], str]]:
    """Path, size and file of annotations of each listed image that is there."""
    names = [told.file_name(at) for at in range(len(told))]
    try:
        with os.scandir(folder) as entries:
            here = {entry.name for entry in entries}
    except OSError as error:
        report.problems.append(f"{folder} cannot be read: {error.strerror or error}")
        return []
    there, missing = [], []
    for at, file in enumerate(names):
        if file in here or (os.path.dirname(file) and (folder / file).is_file()):
            size = tuple(map(int, told.sizes[at]))
            there.append((os.path.join(folder, file), size, told.path.name))
        else:
            missing.append(file)
    if not missing:
        report.found.append(f"{name}: all listed images are in {folder}")
    elif (folder / folder.name).is_dir():
        report.problems.append(f"{folder} holds {folder.name}/ once more: move its images up")
    else:
        report.problems.append(
            f"{folder} lacks {len(missing):,} of {len(names):,} listed images ({some(missing)}): "
            f"unpack {ARCHIVES[name]} of cocodataset.org again"
        )
    return there
