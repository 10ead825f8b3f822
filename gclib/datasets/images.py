"""Folders of images: read fast, checked, and with the same random crops however they are read.

=====================  =============================================================================
:class:`ImageFolder`   paths and labels of ``root/<class>/*.jpg``
:func:`read_image`     a file → bytes ``(3, H, W)``
:class:`ImageDataset`  a folder and a transform, for ``torch.utils.data.DataLoader``
:func:`collate`        examples → :class:`Batch`
=====================  =============================================================================

Images stay bytes (uint8) until they are on the device that trains: that is a quarter of the traffic
between processes and to the GPU. So normalisation with :data:`MEAN` and :data:`STD` is not here.

The EXIF orientation is not applied: torchvision's reference training does not apply it either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gclib.datasets.files import BrokenData
from gclib.datasets.image_files import MAX_PIXELS, BrokenImage, read_image
from gclib.datasets.image_folder import (
    SUFFIXES,
    ImageFolder,
    Progress,
    classes_differ,
    folders,
    part_of,
)
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

_TRIES = 20  # unreadable files in a row, behind which it is not the files that are broken


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
            with drawing_from(mixed(self.seed, epoch, index)):
                image = self.transform(image)
            return Example(image, self.folder.label(at), index, tuple(broken))
        raise BrokenData(
            f"{len(broken)} images in a row cannot be read: is the disk still there? The last: "
            f"{reason}"
        )


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """With torch's generator on the CPU set to a seed, and put back behind it."""
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
