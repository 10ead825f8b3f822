"""COCO: photographs with boxes and masks of their objects.

=======================  ===========================================================================
:func:`coco_folder`      folder → its images and its file of annotations
:class:`CocoDataset`     both and a transform, for ``torch.utils.data.DataLoader``
:func:`train_transform`  resizing and mirror image of an image with its boxes and masks
:func:`collate`          examples → :class:`DetectionBatch`
=======================  ===========================================================================

Images are resized here and not in the detector, which must leave them as they are: bytes are
resized by the processes that read, and a batch holds them in a quarter of the memory. They stay
bytes of one size each; the device that trains makes numbers of them, and one batch.

Objects that the authors' library leaves out are left out (mmdetection: crowds, ``ignore``, an area
of 0, less than a pixel wide or high, outside of the image); boxes are cut off at the image's border
as torchvision's reference does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gclib.datasets.coco_annotations import Annotations
from gclib.datasets.files import BrokenData
from gclib.datasets.image_files import BrokenImage, read_image
from gclib.datasets.images import drawing_from, mixed

Target = dict[str, Any]

_LEAST = 0.01  # pixels inside of the image: mirrored, a narrower box may round to nothing
_TRIES = 20  # unreadable files in a row, behind which it is not the files that are broken

# Names of a part: its folder, and its file of annotations.
PARTS = {
    "train": ("train2017", "instances_train2017.json"),
    "val": ("val2017", "instances_val2017.json"),
    "test-dev": ("test2017", "image_info_test-dev2017.json"),
}
ARCHIVES = {
    "train": "train2017.zip (18 GB)",
    "val": "val2017.zip (1 GB)",
    "test-dev": "test2017.zip (6 GB)",
}
ANNOTATIONS = {
    "train": "annotations_trainval2017.zip (241 MB)",
    "val": "annotations_trainval2017.zip (241 MB)",
    "test-dev": "image_info_test2017.zip (1 MB)",
}


def coco_folder(root: str | os.PathLike[str], part: str) -> tuple[Path, Path]:
    """Where a part of COCO lies: ``root/train2017`` and ``root/annotations``, for example.

    A data set of one's own may leave the year out: ``root/train`` and
    ``root/annotations/instances_train.json``.

    Args:
        root: folder of the data set.
        part: ``"train"``, ``"val"`` or ``"test-dev"``.

    Returns:
        The folder of the images, and the file of the annotations.

    Raises:
        BrokenData: one of them is not there; the message says where it comes from.
    """
    root = Path(root)
    if part not in PARTS:
        raise ValueError(f"part={part!r}: expected one of {', '.join(PARTS)}")
    if not root.is_dir():
        raise BrokenData(
            f"{root} is not a folder: name the one that holds {PARTS[part][0]}/ and annotations/"
        )
    folder, file = PARTS[part]
    images = _first(root, folder, folder.replace("2017", ""))
    annotations = _first(root / "annotations", file, file.replace("2017", ""))
    missing, archives = [], []
    if images is None or not images.is_dir():
        missing.append(f"{folder}/")
        archives.append(ARCHIVES[part])
    if annotations is None or not annotations.is_file():
        missing.append(f"annotations/{file}")
        archives.append(ANNOTATIONS[part])
    if missing:
        raise BrokenData(
            f"{root} does not hold {' and '.join(missing)}: unpack {' and '.join(archives)} of "
            "cocodataset.org there"
        )
    return images, annotations


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


# -- the data set --------------------------------------------------------------------------------


class Example(NamedTuple):
    """What :class:`CocoDataset` gives.

    Attributes:
        image: uint8 ``(3, H, W)``; None if it cannot be read and none may take its place.
        target: what is on it, see :class:`CocoDataset`; None without an image.
        broken: paths that could not be read, with the reason.
    """

    image: Tensor | None
    target: Target | None
    broken: tuple[str, ...] = ()


class CocoDataset(Dataset[Example]):
    """Images of a folder with the objects that a file in COCO's format lists.

    ``data[(epoch, index)]`` gives an :class:`Example`. Its target holds

    ==========  ====================================================================================
    boxes       float32 ``(n, 4)``, left, top, right, bottom in pixels of the image as it is given
    labels      int64 ``(n,)``, from 1: place in :attr:`labels` plus one; 0 means background
    masks       uint8 ``(n, H, W)`` of 0 and 1
    image_id    int, of the file of annotations
    size        height and width of the image in its file
    ==========  ====================================================================================

    All that is random in an example is drawn from (seed, epoch, index) alone, see
    :class:`gclib.datasets.images.ImageDataset`.

    Args:
        images: folder of the images.
        annotations: the file that lists them.
        transform: ``(image, target)`` → both changed, see :func:`train_transform`; it draws from
            torch's generator.
        seed: of what is random.
        keep_empty: keep images without an object that counts: for evaluation, where what a detector
            finds on them is wrong.
        substitute: take the next readable image for one that is not readable (for training); else
            the example has no image and :func:`collate` leaves it out (for evaluation).
        masks: with ``masks``; evaluation needs none.

    Attributes:
        annotations: :class:`gclib.datasets.coco_annotations.Annotations`.
        labels: category ids in the order of the labels.
        names: of the categories, in the same order.
        image_ids: int64 ``(len,)``.
        aspect_ratios: float32 ``(len,)``, width over height, without opening a file.

    Raises:
        BrokenData: the file cannot be used, or no image is left.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        transform: Callable[[Tensor, Target], tuple[Tensor, Target]],
        *,
        seed: int = 0,
        keep_empty: bool = False,
        substitute: bool = True,
        masks: bool = True,
    ) -> None:
        self.root, self.transform = Path(images), transform
        self.seed, self.substitute, self.masks = seed, substitute, masks
        self.annotations = told = Annotations(annotations)
        self.labels, self.names = told.category_ids, told.names
        images_of, boxes, counted = usable(told)
        self._boxes = boxes[counted]
        self._objects = np.flatnonzero(counted).astype(np.int32)
        counts = np.bincount(images_of[counted], minlength=len(told))
        self._starts = np.concatenate((np.zeros(1, np.int64), counts.cumsum()))
        self._kept = np.arange(len(told)) if keep_empty else np.flatnonzero(counts)
        if not len(self._kept):
            missing = "no object that counts" if told.has_objects else "no list 'annotations'"
            raise BrokenData(f"{told.path} has {missing}: a training needs images with objects")
        self.image_ids = told.image_ids[self._kept]
        height, width = told.sizes[self._kept].T
        self.aspect_ratios = (width / height).astype(np.float32)

    def __len__(self) -> int:
        return len(self._kept)

    def path(self, index: int) -> str:
        """Path of an image."""
        return os.path.join(self.root, self.annotations.file_name(int(self._kept[index])))

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        """The example of ``(epoch, index)``; a bare index is of epoch 0.

        Raises:
            BrokenData: many files in a row cannot be read.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: the data set holds {len(self)} images")
        broken: list[str] = []
        for at in range(index, index + min(_TRIES, len(self))):
            at %= len(self)
            try:
                image = self._read(at)
            except BrokenImage as error:
                broken.append(str(error))
                if not self.substitute:
                    return Example(None, None, tuple(broken))
                continue
            target = self.target(at)
            with drawing_from(mixed(self.seed, epoch, index)):
                image, target = self.transform(image, target)
            return Example(image, target, tuple(broken))
        raise BrokenData(
            f"{len(broken)} images in a row cannot be read: is the disk still there? The last: "
            f"{broken[-1]}"
        )

    def _read(self, index: int) -> Tensor:
        size = self.annotations.sizes[self._kept[index]]
        return read_sized(self.path(index), size, self.annotations.path.name)

    def target(self, index: int) -> Target:
        """What is on an image, before the transform and without reading the image."""
        image = int(self._kept[index])
        size = tuple(map(int, self.annotations.sizes[image]))
        mine = slice(self._starts[image], self._starts[image + 1])
        objects = self._objects[mine]
        target: Target = {
            "boxes": torch.from_numpy(self._boxes[mine].copy()),
            "labels": torch.from_numpy(self.annotations.labels[objects].astype(np.int64)),
            "image_id": int(self.annotations.image_ids[image]),
            "size": size,
        }
        if self.masks:
            target["masks"] = torch.from_numpy(self.annotations.masks(objects.tolist(), size))
        return target


def read_sized(path: str, size: Sequence[int], file: str) -> Tensor:
    """Read an image that must have the size that a file of annotations says.

    Raises:
        BrokenImage: it cannot be read, or its boxes and masks would be in wrong places.
    """
    image = read_image(path)
    height, width = map(int, size)
    if image.shape[1:] != (height, width):
        pixels = f"{image.shape[2]}×{image.shape[1]}"
        raise BrokenImage(path, f"has {pixels} pixels, in {file} {width}×{height}")
    return image


def usable(told: Annotations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which objects count in a training.

    Returns:
        int32 ``(N,)``, index of the image of each object; float32 ``(N, 4)``, boxes by their
        corners inside of the image; bool ``(N,)``, whether it counts.
    """
    images = np.repeat(np.arange(len(told), dtype=np.int32), np.diff(told.starts))
    left, top, width, height = told.boxes.T
    high, wide = told.sizes[images].T
    boxes = np.stack(
        (
            left.clip(0, wide),
            top.clip(0, high),
            (left + width).clip(0, wide),
            (top + height).clip(0, high),
        ),
        axis=1,
    ).astype(np.float32)
    inside = (boxes[:, 2:] - boxes[:, :2] >= _LEAST).all(1)
    large = (told.areas > 0) & (width >= 1) & (height >= 1)
    return images, boxes, inside & large & ~told.crowd & ~told.ignored


@dataclass(frozen=True)
class DetectionBatch:
    """Examples on their way to a detector; images that cannot be read are not among them.

    Attributes:
        images: uint8 ``(3, H, W)``, each of its own size.
        targets: what is on them, see :class:`CocoDataset`.
        broken: paths that could not be read, with the reason.
    """

    images: list[Tensor]
    targets: list[Target]
    broken: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def pin_memory(self) -> DetectionBatch:
        """In memory that a GPU can fetch from by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> DetectionBatch:
        """On a device; from pinned memory, without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> DetectionBatch:
        targets = [
            {key: change(value) if isinstance(value, Tensor) else value for key, value in t.items()}
            for t in self.targets
        ]
        return DetectionBatch([change(image) for image in self.images], targets, self.broken)


def collate(examples: Iterable[Example]) -> DetectionBatch:
    """Make a batch; examples without an image are left out, and their paths reported."""
    examples = list(examples)
    good = [example for example in examples if example.image is not None]
    return DetectionBatch(
        [example.image for example in good],
        [example.target for example in good],
        [path for example in examples for path in example.broken],
    )


# -- transforms ----------------------------------------------------------------------------------


def train_transform(short: int = 800, long: int = 1333, flip: float = 0.5) -> nn.Module:
    """Resizing and mirror image, with boxes and masks.

    Args:
        short: pixels of the short side.
        long: most pixels of the long side; then the short side gets fewer.
        flip: share of mirrored images.

    Returns:
        ``(image, target)`` → both; the image stays uint8.
    """
    return _Transform(short, long, flip)


def eval_transform(short: int = 800, long: int = 1333) -> nn.Module:
    """Resizing alone, with boxes and masks; see :func:`train_transform`."""
    return _Transform(short, long, 0.0)


def resized(size: Sequence[int], short: int, long: int) -> tuple[int, int]:
    """Height and width after resizing, rounded as the authors' library does.

    torchvision's detectors round down, so theirs may be a pixel smaller.
    """
    scale = min(short / min(size), long / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


class _Transform(nn.Module):
    def __init__(self, short: int, long: int, flip: float) -> None:
        super().__init__()
        if not 1 <= short <= long:
            raise ValueError(f"short={short}, long={long}: expected 1 <= short <= long")
        self.short, self.long, self.flip = short, long, flip

    def forward(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        if self.flip and float(torch.rand(())) < self.flip:
            image, target = _mirrored(image, target)  # first: there are fewer pixels yet
        return _resize(image, target, resized(image.shape[1:], self.short, self.long))


def _resize(image: Tensor, target: Target, size: tuple[int, int]) -> tuple[Tensor, Target]:
    from torchvision.transforms.v2.functional import resize

    height, width = image.shape[1:]
    if size == (height, width):
        return image, target
    image = resize(image, list(size), antialias=True)
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    most = torch.tensor([size[1], size[0]] * 2)
    target = target | {"boxes": torch.minimum(target["boxes"] * scale, most)}
    if "masks" in target:
        target["masks"] = torch.from_numpy(_nearest(target["masks"].numpy(), size))
    return image, target


def _nearest(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks of another size: each pixel takes the nearest one's value.

    The same as torch's ``interpolate`` gives, which takes eight times as long: an object covers a
    small part of most images, and the rest is zero anyway.
    """
    rows, columns = (_sources(*sides) for sides in zip(masks.shape[1:], size, strict=True))
    found = np.zeros((len(masks), *size), np.uint8)
    for new, old in zip(found, masks, strict=True):
        across = np.flatnonzero(old.any(0))
        if not len(across):
            continue
        left, right = across[0], across[-1] + 1
        down = np.flatnonzero(old[:, left:right].any(1))
        top, bottom = down[0], down[-1] + 1
        first, last = np.searchsorted(rows, (top, bottom))
        begin, end = np.searchsorted(columns, (left, right))
        part = np.ascontiguousarray(old[top:bottom, left:right]).take(rows[first:last] - top, 0)
        new[first:last, begin:end] = part.take(columns[begin:end] - left, 1)
    return found


def _sources(old: int, new: int) -> np.ndarray:
    """For each pixel of a side, the one that it takes; in float32, as torch does."""
    scale = np.float32(old) / np.float32(new)
    return (np.arange(new, dtype=np.float32) * scale).astype(np.int64).clip(max=old - 1)


def _mirrored(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[2]
    target = target | {"boxes": torch.stack((width - right, top, width - left, bottom), 1)}
    if "masks" in target:
        target["masks"] = target["masks"].flip(2)
    return image.flip(2), target
