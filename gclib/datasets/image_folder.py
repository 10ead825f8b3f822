"""Folders of images: paths and labels, for millions of files."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gclib.datasets.files import BrokenData

# The same as torchvision's ImageFolder reads.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

QUIET_SECONDS = 5.0  # before the first line about progress, and between two lines


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
        suffixes: of the files that count, in lower case.
        kind: what such a file is called in messages.

    Raises:
        BrokenData: there is no such folder, it holds no class folder, a class is empty, or
            something cannot be read; the message says what to do.
    """

    suffixes: tuple[str, ...] = SUFFIXES
    kind = "image"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.classes = _class_names(self.root, self.suffixes, self.kind)
        progress = Progress(f"classes of {self.root} listed", len(self.classes))
        names, counts = [], []
        for name in self.classes:
            below = _files_below(self.root / name, self.suffixes)
            found = [os.fsencode(f"{name}/{path}") for path in below]
            if not found:
                raise BrokenData(
                    f"class {name} of {self.root} holds no {self.kind} ({', '.join(self.suffixes)})"
                    ": add some or remove the folder"
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
        """Path of a file, below ``root``."""
        if not 0 <= index < len(self):
            raise IndexError(f"index={index}: the folder holds {len(self)} {self.kind}s")
        name = self._names[self._ends[index] : self._ends[index + 1]]
        return os.path.join(self.root, os.fsdecode(name))

    def label(self, index: int) -> int:
        """Class of a file, index into ``classes``."""
        return int(self.labels[index])


def _class_names(root: Path, suffixes: tuple[str, ...], kind: str) -> list[str]:
    if not root.exists() and not root.is_symlink():
        raise BrokenData(
            f"{root} is not there: name the folder that holds one folder for each class"
        )
    with _readable(root), os.scandir(root) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        classes = sorted(entry.name for entry in shown if entry.is_dir())
    if classes:
        return classes
    flat = sum(entry.name.lower().endswith(suffixes) for entry in shown)
    held = f"{flat:,} {kind}s and no folder" if flat else "no folder"
    raise BrokenData(
        f"{root} holds {held}: every class needs a folder of its own, with its {kind}s"
    )


def _files_below(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
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
                elif entry.name.lower().endswith(suffixes):
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
