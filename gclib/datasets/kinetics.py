"""Kinetics: short videos of human actions, and the clips that a network sees of them.

=========================  =========================================================================
:func:`kinetics`           folder → the videos of its two parts
:class:`VideoFolder`       paths and labels of ``root/<class>/*.mp4``
:class:`VideoList`         paths and labels of a file, a line each
:class:`KineticsDataset`   one of them and a transform, for ``torch.utils.data.DataLoader``
:func:`train_transform`    random size, crop and mirror image of a clip
:func:`eval_transform`     three crops of a clip
:func:`collate`            examples → :class:`VideoBatch`
=========================  =========================================================================

A clip is 8 pictures, 8 frames of 1/30 s apart, as in the public SlowFast code, whose settings the
paper follows: videos of other frame rates are read at the times of one with 30 frames per second.
Two differences from that code, which spreads the 8 pictures over 64 frames with both ends, so that
they are 9 frames apart: here they are 8 apart, as its paper says. And pictures that are made
smaller are smoothed (``antialias``), as everywhere in this library.

Pictures stay bytes (uint8) until they are on the device that trains.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gclib.datasets.files import BrokenData
from gclib.datasets.image_folder import ImageFolder, classes_differ
from gclib.datasets.images import drawing_from, mixed
from gclib.datasets.videos import BrokenVideo, Video

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")

# Names of a part's folder: plain, and as in the public libraries.
FOLDERS = {
    "train": ("train", "videos_train", "train_256"),
    "val": ("val", "videos_val", "val_256", "validation", "test"),
}

_TRIES = 20  # unreadable files in a row, behind which it is not the files that are broken
_CLASSES = 100_000  # more is a mistake in a list of numbers
_THIN = 16  # times as long as wide: resizing the short side to 256 would need gigabytes


# -- which videos there are ----------------------------------------------------------------------


class VideoFolder(ImageFolder):
    """Paths and labels of ``root/<class>/*.mp4``, as :class:`ImageFolder` has those of images."""

    suffixes = SUFFIXES
    kind = "video"


class VideoList:
    """Paths and labels from a file: ``path,label`` or ``path label`` on each line.

    A label is a number from 0, or the name of a class. A path is one below the folder of the file,
    or a whole one. A first line ``path,label`` is left out. Memory: one ``bytes`` for all paths, as
    in :class:`ImageFolder`.

    Args:
        file: the list. With a comma on its first line it is read as CSV, so that paths with commas
            stand in quotation marks; else the label stands behind the last tab, or, on a line
            without one, behind the last space.

    Attributes:
        root: the file.
        classes: names; of numbers, the numbers from 0 to the largest.
        labels: int32 ``(N,)``, index into ``classes``.
        numbered: the file has numbers and not names.

    Raises:
        BrokenData: it cannot be read, or a line is not a path and a label.
    """

    kind = "video"

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.root = Path(file)
        paths, labels = _rows(self.root)
        self.numbered = all(label.isdecimal() for label in labels)
        if self.numbered:
            numbers = [int(label) for label in labels]
            if max(numbers) >= _CLASSES:
                raise BrokenData(f"{file} has a label {max(numbers)}: number the classes from 0")
            self.classes = [str(number) for number in range(max(numbers) + 1)]
        else:
            self.classes = sorted(set(labels))
            places = {name: place for place, name in enumerate(self.classes)}
            numbers = [places[label] for label in labels]
        self.labels = np.array(numbers, np.int32)
        names = [os.fsencode(path) for path in paths]
        self._names = b"".join(names)
        self._ends = np.concatenate(([0], np.cumsum([len(name) for name in names]))).astype(int)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path of a video."""
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: the list holds {len(self)} videos")
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return os.path.join(self.root.parent, os.fsdecode(name))

    def label(self, index: int) -> int:
        """Class of a video, index into ``classes``."""
        return int(self.labels[index])


def _rows(file: Path) -> tuple[list[str], list[str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BrokenData(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BrokenData(f"{file} is not text in UTF-8: write it again as UTF-8") from None
    first = text.lstrip().split("\n", 1)[0]
    rows: Iterable[list[str]]
    if "," in first:
        rows = csv.reader(io.StringIO(text, newline=""))
    else:
        # Behind a tab, a label may be the name of a class with spaces.
        lines = (line.strip() for line in text.splitlines())
        rows = (line.rsplit("\t" if "\t" in line else None, 1) for line in lines)
    paths, labels = [], []
    try:
        for number, row in enumerate(rows, start=1):
            row = [part.strip() for part in row]
            if not any(row) or (number == 1 and row[-1].lower() in ("label", "class")):
                continue
            if number == 1 and "youtube_id" in row:
                raise BrokenData(
                    f"line 1 of {file} is not a path and a label: the list of Kinetics' authors "
                    "has no paths. Move it away if each class has a folder of its own, else write "
                    "a path and a label on each line"
                )
            if len(row) != 2 or not all(row):
                raise BrokenData(
                    f"line {number} of {file} is not a path and a label: {','.join(row)[:80]!r}"
                )
            paths.append(row[0])
            labels.append(row[1])
    except csv.Error as error:
        raise BrokenData(f"{file} is not CSV ({error})") from None
    if not paths:
        raise BrokenData(f"{file} lists no video: write a path and a label on each line")
    return paths, labels


Videos = VideoFolder | VideoList


def clean_list(folder: str | os.PathLike[str], part: str) -> Path:
    """Where ``gclib data kinetics --check`` lists the videos of a part that can be read."""
    return Path(folder) / f"{part}_clean.csv"


def part_of_kinetics(
    root: str | os.PathLike[str], part: str, *, clean: str | os.PathLike[str] | None = None
) -> Videos:
    """The videos of a part: of its clean list, of ``root/train.csv``, or of ``root/train``.

    Args:
        root: folder of the data set.
        part: ``"train"`` or ``"val"``.
        clean: folder of the clean lists; None: do not look for one.

    Raises:
        BrokenData: nothing of this is there, or it cannot be used.
    """
    root = Path(root)
    if part not in FOLDERS:
        raise ValueError(f"part={part!r}: expected one of {', '.join(FOLDERS)}")
    if clean is not None and clean_list(clean, part).exists():
        return VideoList(clean_list(clean, part))
    for file in (root / f"{part}.csv", root / f"{part}.txt"):
        if file.exists():
            return VideoList(file)
    for name in FOLDERS[part]:
        if (root / name).exists():
            return VideoFolder(root / name)
    there = "does not hold" if root.is_dir() else "is not a folder that holds"
    raise BrokenData(
        f"{root} {there} {part}/ or {part}.csv: name the folder that holds train/ and val/, each "
        "with one folder for each class, or train.csv and val.csv, with a path and a label on each "
        "line"
    )


def kinetics(
    root: str | os.PathLike[str], *, clean: str | os.PathLike[str] | None = None
) -> tuple[Videos, Videos]:
    """The two parts of a data set, with the same classes.

    Args:
        root: folder with ``train/`` and ``val/``, or ``train.csv`` and ``val.csv``.
        clean: folder of the clean lists of ``gclib data kinetics --check``, which go first; the
            default is ``root``.

    Raises:
        BrokenData: a part is missing or broken, or their classes differ.
    """
    clean = root if clean is None else clean
    train, val = (part_of_kinetics(root, part, clean=clean) for part in ("train", "val"))
    same_numbers(train, val)
    if difference := other_classes(train, val):
        raise BrokenData(difference)
    return train, val


def other_classes(train: Videos, val: Videos) -> str:
    """How the classes of two parts differ, and what to do; empty if they are the same."""
    if difference := classes_differ(train, val):
        return f"{difference}: both need the same classes"
    if train.classes != val.classes:  # folders 0, 1, 10, 2 are in the order of text
        return (
            f"{train.root} and {val.root} have the classes in another order, as numbers and as "
            "names: give both as folders, or both as lists"
        )
    return ""


def same_numbers(*parts: Videos) -> None:
    """Give numbered lists the same classes: a part need not have videos of the last ones."""
    if parts and all(isinstance(part, VideoList) and part.numbered for part in parts):
        longest = max((part.classes for part in parts), key=len)
        for part in parts:
            part.classes = longest


# -- clips ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """Which times of a video a clip shows.

    Of a video that is shorter than a clip, the last picture is repeated, as in the SlowFast code
    (others begin again from the first).

    Attributes:
        frames: pictures of a clip.
        stride: frames from one to the next.
        fps: frames per second that ``stride`` counts, whatever the video has.
    """

    frames: int = 8
    stride: int = 8
    fps: float = 30.0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.stride < 1 or not self.fps > 0:
            raise ValueError(f"{self}: expected at least 1 frame, a stride of 1, and a rate over 0")

    @property
    def seconds(self) -> float:
        """Length of a clip."""
        return self.frames * self.stride / self.fps

    def times(self, start: float) -> list[float]:
        """Seconds of the pictures of a clip."""
        return [start + number * self.stride / self.fps for number in range(self.frames)]

    def at(self, duration: float, share: float) -> list[float]:
        """A clip that begins behind a share (0 to 1) of what a clip leaves of the video."""
        return self.times(share * max(duration - self.seconds, 0.0))

    def spread(self, duration: float, clips: int) -> list[list[float]]:
        """Clips at even distances from the start on, for evaluation.

        As in the SlowFast code: the last one does not reach the end.
        """
        return [self.at(duration, number / clips) for number in range(clips)]


class Example(NamedTuple):
    """What :class:`KineticsDataset` gives.

    Attributes:
        views: uint8 ``(V, 3, T, H, W)``; None if the video cannot be read and none may take its
            place. Crop c of clip k is view ``k × crops + c``.
        label: its class; -1 without views.
        index: the one that was asked for.
        broken: paths that could not be read, with the reason.
    """

    views: Tensor | None
    label: int
    index: int
    broken: tuple[str, ...] = ()


Crops = Callable[[Tensor], Sequence[Tensor]]


class KineticsDataset(Dataset[Example]):
    """Clips of videos.

    ``data[(epoch, index)]`` gives an :class:`Example`: one clip at a random place for training, or
    several at even distances for evaluation. All that is random in it is drawn from (seed, epoch,
    index) alone, see :class:`gclib.datasets.images.ImageDataset`.

    Args:
        videos: paths and labels.
        transform: called once for each example, it draws from torch's generator and gives a
            function from a picture, uint8 ``(3, H, W)``, to its crops, uint8 ``(3, h, w)``, as many
            and as large for all; see :func:`train_transform` and :func:`eval_transform`.
        sampling: of a clip.
        clips: number of clips for evaluation; 0: one at random.
        seed: of what is random.
        substitute: take the next readable video for one that is not readable (for training); else
            the example has no views and :func:`collate` leaves it out (for evaluation).
    """

    def __init__(
        self,
        videos: Videos,
        transform: Callable[[], Crops],
        *,
        sampling: Sampling | None = None,
        clips: int = 0,
        seed: int = 0,
        substitute: bool = True,
    ) -> None:
        if clips < 0:
            raise ValueError(f"clips={clips}: expected 0 (one at random) or more")
        self.videos, self.transform = videos, transform
        self.sampling, self.clips = sampling or Sampling(), clips
        self.seed, self.substitute = seed, substitute

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        """The example of ``(epoch, index)``; a bare index is of epoch 0.

        Raises:
            BrokenData: many files in a row cannot be read.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):  # also ends a loop over the data set
            raise IndexError(f"index={index}: the data set holds {len(self)} videos")
        with drawing_from(mixed(self.seed, epoch, index)):
            share = float(torch.rand(()))
            crops = self.transform()
        broken: list[str] = []
        for at in range(index, index + min(_TRIES, len(self))):
            at %= len(self)
            try:
                views = self._read(self.videos.path(at), share, crops)
            except BrokenVideo as error:
                broken.append(str(error))
                if not self.substitute:
                    return Example(None, -1, index, tuple(broken))
                continue
            return Example(views, self.videos.label(at), index, tuple(broken))
        raise BrokenData(
            f"{len(broken)} videos in a row cannot be read: is the disk still there? The last: "
            f"{broken[-1]}"
        )

    def _read(self, path: str, share: float, crops: Crops) -> Tensor:
        with Video(path) as video:
            if self.clips:
                clips = self.sampling.spread(video.duration, self.clips)
            else:
                clips = [self.sampling.at(video.duration, share)]
            return read_views(video, clips, crops)


def read_views(video: Video, clips: Sequence[Sequence[float]], crops: Crops) -> Tensor:
    """The crops of clips of a video.

    Args:
        video: an open one.
        clips: seconds of the pictures of each clip, as many for all.
        crops: from a picture to its crops, see :class:`KineticsDataset`.

    Returns:
        uint8 ``(V, 3, T, H, W)``; crop c of clip k is view ``k × crops + c``.

    Raises:
        BrokenVideo: it cannot be read, changes its size, or is too thin to crop.
    """

    def change(picture: Tensor) -> Sequence[Tensor]:
        short, long = sorted(picture.shape[1:])
        if long > _THIN * short:
            raise BrokenVideo(video.path, f"{long}×{short} pixels are no picture to crop")
        return crops(picture)

    pictures, _ = video.read([time for clip in clips for time in clip], change)
    shape = pictures[0][0].shape
    if any(crop.shape != shape for picture in pictures for crop in picture):
        raise BrokenVideo(video.path, "its pictures change their size")
    return as_views(pictures, len(clips))


def as_views(pictures: list[Sequence[Tensor]], clips: int) -> Tensor:
    """Crops of pictures of all clips, one clip behind the other, as :func:`read_views` gives them.

    The list is emptied on the way, so that little memory is needed twice.
    """
    frames, shape = len(pictures) // clips, pictures[0][0].shape
    # As (views, T, h, w, 3): the order that decoding and resizing leave pictures in.
    views = torch.empty(clips, len(pictures[0]), frames, *shape[1:], 3, dtype=torch.uint8)
    for place in reversed(range(len(pictures))):
        clip, time = divmod(place, frames)
        for number, crop in enumerate(pictures.pop()):
            views[clip, number, time] = crop.permute(1, 2, 0)
    return views.flatten(0, 1).permute(0, 4, 1, 2, 3)


@dataclass(frozen=True)
class VideoBatch:
    """Examples on their way to a network; videos that cannot be read are not among them.

    Attributes:
        clips: uint8 ``(N, V, 3, T, H, W)``, in channels-last order of memory; V is 1 in training.
            ``(0, 1, 3, 0, 0, 0)`` if none could be read.
        labels: int64 ``(N,)``.
        indices: int64 ``(N,)``, of the videos in the data set.
        broken: paths that could not be read, with the reason.
    """

    clips: Tensor
    labels: Tensor
    indices: Tensor
    broken: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def views(self) -> list[Tensor]:
        """The views one by one, each uint8 ``(N, 3, T, H, W)``: 30 at once may be too many."""
        return list(self.clips.unbind(1))

    def pin_memory(self) -> VideoBatch:
        """In memory that a GPU can fetch from by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> VideoBatch:
        """On a device; from pinned memory, without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> VideoBatch:
        return VideoBatch(
            change(self.clips), change(self.labels), change(self.indices), self.broken
        )


def collate(examples: Iterable[Example]) -> VideoBatch:
    """Make a batch; examples without views are left out, and their paths reported."""
    examples = list(examples)
    good = [example for example in examples if example.views is not None]
    if good:
        clips = torch.stack([example.views.permute(0, 2, 3, 4, 1) for example in good])
        clips = clips.permute(0, 1, 5, 2, 3, 4)
    else:
        clips = torch.empty(0, 1, 3, 0, 0, 0, dtype=torch.uint8)
    return VideoBatch(
        clips,
        torch.tensor([example.label for example in good], dtype=torch.int64),
        torch.tensor([example.index for example in good], dtype=torch.int64),
        [path for example in examples for path in example.broken],
    )


# -- transforms ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Resized:
    """Resizes a picture and cuts crops out of it; the numbers are fixed for a clip.

    Attributes:
        short: pixels of the short side.
        size: pixels of a side of a crop.
        places: from top and from left, as shares of what a crop leaves; None for three along the
            long side.
        mirrored: give mirror images.
    """

    short: int
    size: int
    places: tuple[float, float] | None
    mirrored: bool = False

    def __call__(self, picture: Tensor) -> list[Tensor]:
        from torchvision.transforms.v2.functional import resize

        height, width = picture.shape[1:]
        if min(height, width) != self.short:
            height, width = resized((height, width), self.short)
            picture = resize(picture, [height, width], antialias=True)
        down, across = height - self.size, width - self.size
        if self.places is not None:
            corners = [(int(self.places[0] * (down + 1)), int(self.places[1] * (across + 1)))]
        elif height > width:
            corners = [(top, -(-across // 2)) for top in (0, -(-down // 2), down)]
        else:
            corners = [(-(-down // 2), left) for left in (0, -(-across // 2), across)]
        crops = [
            picture[:, top : top + self.size, left : left + self.size] for top, left in corners
        ]
        # A copy, so that the rest of the picture need not be kept.
        return [
            (crop.flip(2) if self.mirrored else crop).permute(1, 2, 0).clone().permute(2, 0, 1)
            for crop in crops
        ]


def resized(size: Sequence[int], short: int) -> tuple[int, int]:
    """Height and width with a given short side, rounded down as in the SlowFast code."""
    height, width = size
    if height < width:
        return short, int(width / height * short)
    return int(height / width * short), short


@dataclass(frozen=True)
class _Train:
    short: tuple[int, int]
    size: int
    flip: float

    def __call__(self) -> _Resized:
        short, top, left, mirror = torch.rand(4, dtype=torch.float64).tolist()
        least, most = self.short
        return _Resized(
            round(least + short * (most - least)), self.size, (top, left), mirror < self.flip
        )


@dataclass(frozen=True)
class _Eval:
    short: int
    size: int

    def __call__(self) -> _Resized:
        return _Resized(self.short, self.size, None)


def train_transform(
    size: int = 224, *, short: tuple[int, int] = (256, 320), flip: float = 0.5
) -> Callable[[], Crops]:
    """Random size, crop and mirror image, the same for all pictures of a clip.

    As in the configurations of the SlowFast code for ImageNet weights.

    Args:
        size: pixels of a side of the crop.
        short: smallest and largest number of pixels of the short side before the crop.
        flip: share of mirrored clips.

    Returns:
        What :class:`KineticsDataset` wants; one crop.
    """
    if not 1 <= size <= short[0] <= short[1]:
        raise ValueError(f"size={size}, short={short}: expected 1 <= size <= short[0] <= short[1]")
    return _Train(tuple(short), size, flip)


def eval_transform(size: int = 256, *, short: int | None = None) -> Callable[[], Crops]:
    """Three crops along the long side: at its start, in its middle, at its end.

    Args:
        size: pixels of a side of a crop; 256 in the SlowFast code.
        short: pixels of the short side before the crop; default: ``size``.

    Returns:
        What :class:`KineticsDataset` wants; three crops.
    """
    short = size if short is None else short
    if not 1 <= size <= short:
        raise ValueError(f"size={size}, short={short}: expected 1 <= size <= short")
    return _Eval(short, size)
