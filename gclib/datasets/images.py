"""Folders of images: read fast, checked, and with the same random crops however they are read.

=====================  =============================================================================
:class:`ImageFolder`   paths and labels of ``root/<class>/*.jpg``
:func:`read_image`     a file → bytes ``(3, H, W)``
:class:`ImageDataset`  a folder and a transform, for ``torch.utils.data.DataLoader``
:func:`collate`        examples → :class:`Batch`
=====================  =============================================================================

Images stay bytes (uint8) until they are on the device that trains: that is a quarter of the traffic
between processes and to the GPU. So normalisation with :data:`MEAN` and :data:`STD` is not here.

EXIF orientation is not applied, as it is not in torchvision's reference and was not when ImageNet's
figures were made.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, get_worker_info

from gclib.datasets.files import BrokenData
from gclib.datasets.pictures import make_images

__all__ = [
    "MAX_PIXELS",
    "MEAN",
    "STD",
    "SUFFIXES",
    "Batch",
    "BrokenImage",
    "Example",
    "ImageDataset",
    "ImageFolder",
    "Progress",
    "classes_differ",
    "collate",
    "eval_transform",
    "folders",
    "make_images",
    "mixed",
    "part_of",
    "read_image",
    "train_transform",
]

# Of ImageNet's training images, red, green and blue; torchvision's figures for pixels of 0 to 255.
MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

# The same as torchvision's ImageFolder reads.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Where Pillow, too, suspects an attack on memory.
MAX_PIXELS = 89_478_485

QUIET_SECONDS = 5.0  # before the first line about progress, and between two lines
_TRIES = 20  # unreadable files in a row, behind which it is not the files that are broken


class BrokenImage(BrokenData):
    """A file that is not a readable image.

    Attributes:
        path: of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def mixed(*numbers: int) -> int:
    """One seed of 63 bits from several numbers (SplitMix64's mixing, once for each number).

    A sum would give image 1 of epoch 0 the crop of image 0 of epoch 1; here close numbers give
    unrelated seeds. torch's generator on the CPU takes the lower 32 bits of a seed.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


class Progress:
    """A line on stderr now and then, for work that takes longer than 5 s.

    Args:
        what: the end of the line, for example ``"classes of train/ listed"``.
        total: how many there are.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.count = what, total, 0
        self._last = time.monotonic()

    def step(self) -> None:
        """One more is done."""
        self.count += 1
        now = time.monotonic()
        if now - self._last >= QUIET_SECONDS:
            self._last = now
            print(f"{self.count:,} of {self.total:,} {self.what}", file=sys.stderr, flush=True)


# -- a folder ------------------------------------------------------------------------------------


class ImageFolder:
    """Paths and labels of ``root/<class>/*.jpg``; folders in class folders are fine.

    Classes are sorted by name, and images as torchvision's ``ImageFolder`` sorts them, so indices
    are the same. Hidden files and folders are left out. All names stand in one ``bytes`` and two
    arrays: a list of 1.28 million strings would be copied, page by page, into the memory of every
    worker process that counts references to them.

    Args:
        root: folder of the class folders; links to folders are followed.

    Attributes:
        classes: names of the class folders.
        labels: int32 ``(N,)``, index into ``classes``.

    Raises:
        BrokenData: there is no such folder, it holds no class folder, a class is empty, or
            something cannot be read; the message says what to do.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.classes = _class_names(self.root)
        progress = Progress(f"classes of {self.root} listed", len(self.classes))
        names, counts = [], []
        for name in self.classes:
            found = [os.fsencode(f"{name}/{path}") for path in _images_below(self.root / name)]
            if not found:
                raise BrokenData(
                    f"class {name} of {self.root} holds no image ({', '.join(SUFFIXES)}): add some "
                    "or remove the folder"
                )
            counts.append(len(found))
            names.append((b"".join(found), np.fromiter(map(len, found), np.int64, len(found))))
            progress.step()
        self._names = b"".join(joined for joined, _ in names)
        lengths = np.concatenate([lengths for _, lengths in names])
        self._ends = np.concatenate((np.zeros(1, np.int64), lengths.cumsum()))
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path of an image, below ``root``."""
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: the folder holds {len(self)} images")
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return os.path.join(self.root, os.fsdecode(name))

    def label(self, index: int) -> int:
        """Class of an image, index into ``classes``."""
        return int(self.labels[index])


def _class_names(root: Path) -> list[str]:
    if not root.exists() and not root.is_symlink():
        raise BrokenData(
            f"{root} is not there: name the folder that holds one folder for each class"
        )
    with _readable(root), os.scandir(root) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        classes = sorted(entry.name for entry in shown if entry.is_dir())
    if classes:
        return classes
    flat = sum(entry.name.lower().endswith(SUFFIXES) for entry in shown)
    held = f"{flat:,} images and no folder" if flat else "no folder"
    raise BrokenData(f"{root} holds {held}: every class needs a folder of its own, with its images")


def _images_below(folder: Path) -> list[str]:
    """Paths below a class folder, sorted as torchvision does: by folder, then by name."""
    found = []

    def walk(path: str, below: str, above: tuple[tuple[int, int], ...]) -> None:
        with _readable(path), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    status = entry.stat()
                    here = (status.st_dev, status.st_ino)
                    if here not in above:  # a link to a folder above would never end
                        walk(entry.path, f"{below}{entry.name}/", (*above, here))
                elif entry.name.lower().endswith(SUFFIXES):
                    found.append((below, entry.name))

    with _readable(folder):
        status = os.stat(folder)
    walk(os.fspath(folder), "", ((status.st_dev, status.st_ino),))
    return [below + name for below, name in sorted(found)]


@contextlib.contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError:
        raise BrokenData(
            f"{path} is a file: name the folder that holds the class folders"
        ) from None
    except PermissionError:
        raise BrokenData(f"{path} may not be read: ask its owner for permission") from None
    except OSError as error:
        raise BrokenData(f"{path} cannot be read: {error.strerror or error}") from None


def folders(root: str | os.PathLike[str]) -> tuple[ImageFolder, ImageFolder]:
    """The two parts of a data set, ``root/train`` and ``root/val`` (or ``root/test``).

    Raises:
        BrokenData: a part is missing or broken, or their classes differ.
    """
    root = Path(root)
    parts = [part_of(root, "train"), part_of(root, "val", "test")]
    train, test = (ImageFolder(part) for part in parts)
    if difference := classes_differ(train, test):
        raise BrokenData(f"{difference}: both need the same classes")
    return train, test


def part_of(root: Path, *names: str) -> Path:
    """The first of the folders that is there.

    Raises:
        BrokenData: none is.
    """
    for name in names:
        if (root / name).exists():
            return root / name
    wanted = " or ".join(f"{name}/" for name in names)
    there = "does not hold" if root.is_dir() else "is not a folder that holds"
    raise BrokenData(
        f"{root} {there} {wanted}: name the folder that holds train/ and val/, each with one "
        "folder for each class"
    )


def classes_differ(train: ImageFolder, test: ImageFolder) -> str:
    """The first class that only one of two folders has, in words; empty if there is none."""
    for here, other in ((train, test), (test, train)):
        only = sorted(set(here.classes) - set(other.classes))
        if only:
            more = f" and {len(only) - 1} more classes are" if len(only) > 1 else " is"
            return f"{only[0]}{more} in {here.root} and not in {other.root}"
    return ""


# -- a file --------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image as red, green and blue, whatever its colours are in the file.

    JPEG is decoded by torchvision (libjpeg-turbo), everything else and what torchvision refuses by
    Pillow. Of 16 bits, the upper 8 are kept; transparency is left out; of
    an animation, the first picture is taken.

    Args:
        path: of the file; the kind of image is found from its content, not from its name.

    Returns:
        uint8 ``(3, H, W)``, in channels-last order of memory.

    Raises:
        BrokenImage: the file is not there, empty, cut off, no image, or larger than
            :data:`MAX_PIXELS`.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = bytearray(file.read())
    except OSError as error:
        raise BrokenImage(path, f"cannot be opened ({error.strerror or error})") from None
    if not data:
        raise BrokenImage(path, "the file is empty")
    size = _jpeg_size(data)
    if size is not None:
        if size[0] * size[1] > MAX_PIXELS:
            raise BrokenImage(path, _too_large(size))
        image = _decode_jpeg(data)
        if image is not None:
            return image
    return _decode_with_pillow(path, data)


def _jpeg_size(data: bytearray) -> tuple[int, int] | None:
    """Width and height from a JPEG's header; None if it is none.

    Known before decoding: a few kilobytes can ask for 13 GB of memory.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # start of frame
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _too_large(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]} is more than {MAX_PIXELS:,} pixels"


@functools.cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """Of torchvision: faster than Pillow's; version 0.29 announces that it will be removed."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    return functools.partial(decode_jpeg, mode=ImageReadMode.RGB)


def _decode_jpeg(data: bytearray) -> Tensor | None:
    """None where Pillow must say what is wrong, or do it in its stead."""
    decode = _jpeg_decoder()
    if decode is None:
        return None
    with _no_stderr() if get_worker_info() else contextlib.nullcontext():
        try:
            return decode(torch.frombuffer(data, dtype=torch.uint8))
        except RuntimeError:
            return None


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Without what libjpeg prints about damaged data, a line in every epoch.

    It writes to the file descriptor itself, so Python cannot filter it. Only for worker processes,
    where nothing else writes there meanwhile.
    """
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # stderr is closed
        yield
        return
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# Filters of warnings belong to the process, so one thread at a time may change them.
_ONE_AT_A_TIME = threading.Lock()


def _decode_with_pillow(path: str, data: bytearray) -> Tensor:
    from PIL import Image

    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BrokenImage(path, _too_large(image.size))
                if image.mode.startswith(
                    "I"
                ):  # 16 bits of grey; convert() would cut them off at 255
                    grey = (np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8)
                    image = Image.fromarray(grey)
                pixels = np.array(image.convert("RGB"))
        except BrokenImage:
            raise
        except Image.UnidentifiedImageError:
            raise BrokenImage(path, "it is not an image") from None
        except Image.DecompressionBombError:
            raise BrokenImage(path, f"more than {MAX_PIXELS:,} pixels") from None
        except Exception as error:  # Pillow's readers raise what their parsing happens to raise
            raise BrokenImage(path, f"{error}" or type(error).__name__) from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


# -- examples and batches ------------------------------------------------------------------------


class Example(NamedTuple):
    """What :class:`ImageDataset` gives.

    Attributes:
        image: uint8 ``(3, H, W)``; None if it cannot be read and none may take its place.
        label: its class; -1 without an image.
        index: the one that was asked for.
        broken: paths that could not be read.
    """

    image: Tensor | None
    label: int
    index: int
    broken: tuple[str, ...] = ()


class ImageDataset(Dataset[Example]):
    """Images of a folder, with a transform.

    All that is random in an example is drawn from (seed, epoch, index) alone: torch's generator on
    the CPU is set for the example, and put back behind it. So a batch is the same for any number of
    workers and processes, and for a run that goes on after a stop. A transform must draw from
    torch, as torchvision's do, and not from Python's or NumPy's generators.

    Args:
        folder: where the images are.
        transform: uint8 ``(3, H, W)`` → uint8, of one size for all.
        seed: of what is random.
        substitute: take the next readable image of the folder for one that is not readable (for
            training); else the example has no image and :func:`collate` leaves it out (for tests).
    """

    def __init__(
        self,
        folder: ImageFolder,
        transform: Callable[[Tensor], Tensor],
        *,
        seed: int = 0,
        substitute: bool = True,
    ) -> None:
        self.folder, self.transform = folder, transform
        self.seed, self.substitute = seed, substitute

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        """The example of ``(epoch, index)``; a bare index is of epoch 0.

        Raises:
            BrokenData: many files in a row cannot be read.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):  # also ends a loop over the data set
            raise IndexError(f"index={index}: the folder holds {len(self)} images")
        broken: list[str] = []
        for at in range(index, index + min(_TRIES, len(self))):
            at %= len(self)
            try:
                image = read_image(self.folder.path(at))
            except BrokenImage as error:
                broken.append(error.path)
                reason = error
                if not self.substitute:
                    return Example(None, -1, index, tuple(broken))
                continue
            with _drawing_from(mixed(self.seed, epoch, index)):
                image = self.transform(image)
            return Example(image, self.folder.label(at), index, tuple(broken))
        raise BrokenData(
            f"{len(broken)} images in a row cannot be read: is the disk still there? The last: "
            f"{reason}"
        )


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@dataclass(frozen=True)
class Batch:
    """Examples on their way to a network.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, in channels-last order of memory; ``(0, 3, 0, 0)`` if none
            could be read.
        labels: int64 ``(N,)``.
        indices: int64 ``(N,)``, of the images in the folder.
        broken: paths that could not be read.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    broken: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """In memory that a GPU can fetch from by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """On a device; from pinned memory, without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(change(self.images), change(self.labels), change(self.indices), self.broken)


def collate(examples: Iterable[Example]) -> Batch:
    """Make a batch; examples without an image are left out, and their paths reported."""
    examples = list(examples)
    good = [example for example in examples if example.image is not None]
    images = [example.image for example in good]
    return Batch(
        _stack(images) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        torch.tensor([example.label for example in good], dtype=torch.int64),
        torch.tensor([example.index for example in good], dtype=torch.int64),
        [path for example in examples for path in example.broken],
    )


def _stack(images: list[Tensor]) -> Tensor:
    """In channels-last order, which is the one that decoding and resizing leave images in."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


# -- transforms ----------------------------------------------------------------------------------


def train_transform(
    size: int = 224,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    rotation: float = 0.0,
    jitter: float = 0.0,
) -> nn.Module:
    """Random crop, mirror, rotation, and change of colour of a training image.

    Crop and mirror are those of the SENet paper, which the GCNet paper names. SENet's release has a
    rotation of ±10° and a "pixel jitter" of ±20 as well, without code: here, an image is rotated
    behind the crop, with :data:`MEAN` in the corners, and one random number is added to each of its
    three channels.

    Args:
        size: pixels of a side.
        area: smallest and largest share of the image.
        aspect: smallest and largest width over height.
        flip: share of mirrored images.
        rotation: largest angle in degrees.
        jitter: largest change of a channel, of 255.

    Returns:
        uint8 ``(3, H, W)`` → uint8 ``(3, size, size)``.
    """
    from torchvision.transforms import v2

    steps: list[nn.Module] = [_RandomCrop(size, area, aspect)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if rotation:
        steps.append(
            v2.RandomRotation(
                rotation,
                interpolation=v2.InterpolationMode.BILINEAR,
                fill=[float(round(value)) for value in MEAN],
            )
        )
    if jitter:
        steps.append(_Jitter(jitter))
    return steps[0] if len(steps) == 1 else v2.Compose(steps)


class _RandomCrop(nn.Module):
    """The same bytes as torchvision's ``RandomResizedCrop``, in less time.

    Its crop is a view, for which resizing takes a slower path than for an image of its own in
    channels-last order.
    """

    def __init__(self, size: int, area: tuple[float, float], aspect: tuple[float, float]) -> None:
        super().__init__()
        self.size, self.area, self.aspect = size, list(area), list(aspect)

    def forward(self, image: Tensor) -> Tensor:
        from torchvision.transforms import RandomResizedCrop
        from torchvision.transforms.v2.functional import resize

        top, left, height, width = RandomResizedCrop.get_params(image, self.area, self.aspect)
        crop = image[:, top : top + height, left : left + width]
        crop = crop.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        return resize(crop, [self.size, self.size], antialias=True)


class _Jitter(nn.Module):
    """Adds one number to each channel of an image."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, image: Tensor) -> Tensor:
        change = (2 * torch.rand(3, 1, 1) - 1) * self.largest
        return (image + change.round().to(torch.int16)).clamp(0, 255).to(torch.uint8)


def eval_transform(resize: int = 256, size: int = 224) -> nn.Module:
    """Crop of the centre, for the single-crop figures of table 4.

    Args:
        resize: pixels of the short side before the crop.
        size: pixels of a side of the crop.

    Returns:
        uint8 ``(3, H, W)`` → uint8 ``(3, size, size)``.
    """
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])
