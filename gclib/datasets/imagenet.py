"""ImageNet on disk: is it all there, and if not, what is missing and where does it come from?

``gclib data imagenet`` prints what :func:`check_imagenet` finds; nothing is downloaded or
changed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gclib.datasets import check_report
from gclib.datasets.check_report import read_some, some
from gclib.datasets.files import BrokenData
from gclib.datasets.images import (
    SUFFIXES,
    ImageFolder,
    classes_differ,
    folders,
    part_of,
    read_image,
)

__all__ = ["IMAGENET", "Counts", "Report", "check_imagenet", "folders"]

_WNID = re.compile(r"n\d{8}")
_VAL_NAME = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG", re.IGNORECASE)

HOW_TO_GET = (
    "ImageNet may not be passed on: make an account at image-net.org, ask for access, and download "
    "ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into one "
    "folder DIR (about 155 GB; as much again for the unpacked images)"
)


def _unpack(part: str) -> str:
    return (
        "with the archives in DIR and SciPy installed (pip install scipy), torchvision unpacks and "
        f"sorts: python -c \"from torchvision.datasets import ImageNet; ImageNet('DIR', '{part}')\""
    )


@dataclass(frozen=True)
class Counts:
    """What a whole ImageNet holds; the defaults are those of ILSVRC 2012.

    Attributes:
        classes: number of classes.
        train: training images.
        val: images of the validation set.
        train_each: smallest and largest number of training images of a class.
        val_each: images of a class in the validation set.
    """

    classes: int = 1000
    train: int = 1_281_167
    val: int = 50_000
    train_each: tuple[int, int] = (732, 1300)
    val_each: int = 50


IMAGENET = Counts()


@dataclass
class Report(check_report.Report):
    """What :func:`check_imagenet` found.

    Attributes:
        imagenet: the folder holds the classes of ImageNet.
    """

    imagenet: bool = False


def check_imagenet(
    folder: str | os.PathLike[str],
    *,
    decode: int = 200,
    seed: int = 0,
    expected: Counts = IMAGENET,
) -> Report:
    """Look at ``folder/train`` and ``folder/val`` (or ``test``).

    Classes other than ImageNet's are fine for a training; then the report says what they are.

    Args:
        folder: where the data set is.
        decode: number of images to read, drawn at random from both parts.
        seed: of that draw.
        expected: what a whole ImageNet holds.

    Returns:
        What is there, and what is missing; nothing is raised for it.
    """
    report, parts = Report(), {}
    for names in (("train",), ("val", "test")):
        try:
            path = part_of(Path(folder), *names)
            parts[names[0]] = ImageFolder(path)
        except BrokenData as error:
            report.problems.append(_explain(Path(folder), names, str(error)))
    for name, part in parts.items():
        report.found.append(f"{name}: {len(part):,} images in {len(part.classes):,} classes")
    if len(parts) == 2 and (difference := classes_differ(parts["train"], parts["val"])):
        report.problems.append(f"{difference}: both need the same classes")
    if parts:
        _judge(report, parts, expected)
        first, *rest = parts.values()

        def read(at: int) -> None:
            inside = at < len(first)
            read_image(first.path(at) if inside else rest[0].path(at - len(first)))

        read_some(report, range(sum(map(len, parts.values()))), read, decode, seed)
    return report


def _explain(folder: Path, names: tuple[str, ...], error: str) -> str:
    """Why a part is not usable; the usual mistakes by name."""
    name = names[0]
    inner = folder / "ILSVRC" / "Data" / "CLS-LOC"
    if (inner / name).is_dir():
        return f"{folder} is laid out as on Kaggle: name {inner} instead"
    path = next((folder / n for n in names if (folder / n).is_dir()), None)
    if path is None:
        if not folder.is_dir() or any((folder / n).exists() for n in names):
            return error
        return f"{error}. For ImageNet: {HOW_TO_GET}; then, {_unpack(name)}"
    with os.scandir(path) as entries:
        files = [entry.name for entry in entries if entry.is_file()]
    images = sum(file.lower().endswith(SUFFIXES) for file in files)
    archives = sum(file.endswith(".tar") for file in files)
    if archives:
        return f"{path} holds {archives:,} .tar archives that are not unpacked: {_unpack(name)}"
    if images:
        whose = " of ImageNet" if any(map(_VAL_NAME.fullmatch, files)) else ""
        return (
            f"{path} is flat: {images:,} images{whose} and no class folder. The archive of the "
            "validation set is not sorted; the classes are in the development kit. Move the folder "
            f"away; then, {_unpack(name)}"
        )
    return error


def _judge(report: Report, parts: dict[str, ImageFolder], expected: Counts) -> None:
    """Compare classes and counts with ImageNet's."""
    classes = next(iter(parts.values())).classes
    named = all(_WNID.fullmatch(name) for name in classes)
    if not named or len(classes) != expected.classes:
        if named:
            told = (
                f"{len(classes):,} classes named as ImageNet's, which has {expected.classes:,}: "
                "fine for a training if a part of ImageNet is meant"
            )
        else:
            told = f"{len(classes):,} classes that are not ImageNet's: fine for a training"
        report.found.append(f"{told}; its figures are not those of table 4")
        return
    report.imagenet = True
    wanted = {
        "train": (expected.train, expected.train_each),
        "val": (expected.val, (expected.val_each, expected.val_each)),
    }
    for name, part in parts.items():
        total, (least, most) = wanted[name]
        counts = np.bincount(part.labels, minlength=len(part.classes))
        odd = [
            f"{part.classes[i]} has {counts[i]:,}"
            for i in np.flatnonzero((counts < least) | (counts > most))
        ]
        if len(part) == total and not odd:
            report.found.append(f"{name}: as many images as ImageNet has, in every class")
            continue
        each = f"{least}" if least == most else f"{least:,} to {most:,}"
        where = f" ({some(odd)}; expected {each})" if odd else ""
        report.problems.append(
            f"{name} holds {len(part):,} images and ImageNet {total:,}{where}. A training can "
            "start, but its figures are not those of table 4. To repair it, move the folder away; "
            f"then, {_unpack(name)}"
        )
