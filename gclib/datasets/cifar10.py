"""CIFAR-10 from a folder: the binary release, or folders of JPEG or PNG files.

=============================  ===================================================================
layout                         where it comes from
=============================  ===================================================================
``cifar-10-batches-py/``       the release for Python, unpacked; each file's MD5 is checked
``train/<class>/*.jpg``,       folders of images; JPEG makes them slightly different from the
``test/<class>/*.jpg``         release, so figures from them say so
=============================  ===================================================================

Nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gclib.datasets.files import BrokenData

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Photographs:
    """Images with a class each.

    Attributes:
        images: uint8 ``(N, 3, 32, 32)``.
        labels: int64 ``(N,)``, index into :data:`CLASSES`.
        layout: ``"release"`` or ``"files"``.
    """

    images: Tensor
    labels: Tensor
    layout: str

    def __len__(self) -> int:
        return len(self.images)


def read_cifar10(folder: Path, part: str) -> Photographs:
    """Read the ``"train"`` or ``"test"`` part of CIFAR-10.

    Args:
        folder: holds ``cifar-10-batches-py``, or ``train`` and ``test``.
        part: ``"train"`` or ``"test"``.

    Raises:
        BrokenData: the folder holds neither, a file cannot be read, an image is not 32×32, or a
            class has no image; the message says what to do.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part={part!r}: expected 'train' or 'test'")
    if (folder / "cifar-10-batches-py").is_dir():
        return _read_release(folder, part)
    if (folder / part).is_dir():
        return _read_files(folder / part)
    raise BrokenData(
        f"{folder} holds neither cifar-10-batches-py/ nor {part}/<class>/*.jpg: unpack CIFAR-10 "
        "(the release for Python) there, or name the folder that holds it"
    )


def _read_release(folder: Path, part: str) -> Photographs:
    from torchvision.datasets import CIFAR10

    try:
        data = CIFAR10(str(folder), train=part == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise BrokenData(
            f"{folder / 'cifar-10-batches-py'} is incomplete or damaged: unpack it again ({error})"
        ) from None
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Photographs(images, torch.tensor(data.targets), "release")


def _read_files(folder: Path) -> Photographs:
    images, labels = [], []
    for label, name in enumerate(CLASSES):
        paths = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in _SUFFIXES)
        if not paths:
            raise BrokenData(f"{folder / name} holds no image: every class needs some")
        images += _pixels(paths)
        labels += [label] * len(paths)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Photographs(stacked, torch.tensor(labels), "files")


def _pixels(paths: list[Path]) -> Iterator[np.ndarray]:
    from PIL import Image

    for path in paths:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise BrokenData(f"{path} cannot be read: replace or remove it ({error})") from None
        if pixels.shape != (32, 32, 3):
            raise BrokenData(f"{path} is {pixels.shape[1]}×{pixels.shape[0]}: expected 32×32")
        yield pixels
