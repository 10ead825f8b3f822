"""Files out of zips and folders that students filled, whatever they put in.

No name from a zip is ever used as a path, so nothing can be written anywhere else. Only notebooks
and zips in zips are unpacked; their bytes are counted while they come, because headers lie.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

NOTEBOOK = re.compile(r"\.ipynb(\.json|\.txt)?$", re.IGNORECASE)  # some browsers add an ending
_OF_SYSTEMS = re.compile(
    r"(^|/)(__MACOSX|\.ipynb_checkpoints)/|(^|/)(\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini)$",
    re.IGNORECASE,
)
_UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)


class Refused(Exception):
    """A file is not taken; ``str()`` says why, after its name and a colon."""


class TooMuch(Refused):
    """Nothing of this student is taken, for nobody knows what was left out."""


@dataclass(frozen=True)
class Limits:
    """How much a student may hand in.

    Attributes:
        file: bytes of one file, unpacked.
        student: bytes of all files of one student, unpacked.
        ratio: how many times its packed size a file may have, once it is larger than 4 MiB.
        entries: files in one zip or folder.
        depth: zips in zips, counted from the file that the LMS made.
    """

    file: int = 64 * 2**20
    student: int = 256 * 2**20
    ratio: int = 200
    entries: int = 20_000
    depth: int = 3


@dataclass(frozen=True)
class Item:
    """A file in a zip or folder; nothing of it has been read yet.

    Attributes:
        name: its path in there, with ``/``, in Unicode's composed form.
        packed: its size in the zip; None where it is not packed.
        open: opens it for reading.
        problem: why it is never opened, or "".
        owner: user name of whom the file belongs to, in a folder.
    """

    name: str
    packed: int | None
    open: Callable[[], BinaryIO]
    problem: str = ""
    owner: str = ""

    @property
    def is_of_a_system(self) -> bool:
        """Whether an operating system or Jupyter put it there, not the student."""
        return bool(_OF_SYSTEMS.search(self.name))


@dataclass
class Unpacked:
    """What one student's files come to.

    Attributes:
        notebooks: name in the source and where the bytes are now.
        refused: name and reason.
        others: names of files that are no notebooks.
    """

    notebooks: list[tuple[str, Path]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def shown(name: str, longest: int = 90) -> str:
    """A name as it may be printed: no control characters, not too long."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= longest else f"{name[: longest // 2]}...{name[-longest // 2 + 3 :]}"


@contextlib.contextmanager
def open_zip(path: Path, limits: Limits) -> Iterator[list[Item]]:
    """List a zip; its items can be opened while the context lasts.

    Raises:
        Refused: it is no zip, damaged, or has too many entries.
    """
    try:
        # Before Python reads the list into memory: what a small file can make it do.
        if _signatures(path) > limits.entries:
            raise Refused(f"a zip of more than {limits.entries} entries")
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise Refused(f"not a zip that can be opened ({_said(error)})") from None
    with archive:
        if len(archive.infolist()) > limits.entries:
            raise Refused(f"a zip of more than {limits.entries} entries")
        yield [_item(archive, info) for info in archive.infolist() if not info.is_dir()]


def _signatures(path: Path) -> int:
    """How many entries a zip can have at most."""
    mark, count, rest = b"PK\x01\x02", 0, b""
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            count += (rest + chunk).count(mark)
            rest = chunk[-3:]
    return count


def _item(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Item:
    return Item(
        name=unicodedata.normalize("NFC", _name(info)),
        packed=info.compress_size,
        open=lambda: archive.open(info),
        problem=_problem(info),
    )


def _name(info: zipfile.ZipInfo) -> str:
    """The name; macOS and others write UTF-8 without saying so, which Python reads as CP437."""
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            return info.filename.encode("cp437").decode("utf-8")
    return info.filename


def _problem(info: zipfile.ZipInfo) -> str:
    name = info.filename
    mode = info.external_attr >> 16
    if "\\" in name or "\0" in info.orig_filename:
        return "its name holds a backslash or a null character"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "its name is an absolute path"
    if ".." in name.split("/"):
        return "its name leads out of the zip"
    if stat.S_ISLNK(mode):
        return "it is a symbolic link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is no ordinary file"
    if info.flag_bits & 1:
        return "it is encrypted; hand it in without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is packed in an unusual way; make an ordinary zip"
    return ""


def list_folder(folder: Path, limits: Limits) -> list[Item]:
    """List the files of a folder and of those below it; links are not followed.

    Raises:
        Refused: it has too many files.
    """
    items: list[Item] = []
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            items.append(_file(place, prefix, f"it cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            name = unicodedata.normalize("NFC", f"{prefix}{entry.name}")
            if entry.is_dir(follow_symlinks=False):
                waiting.append((Path(entry.path), f"{name}/"))
                continue
            problem = ""
            if entry.is_symlink():
                problem = "it is a symbolic link"
            elif not entry.is_file(follow_symlinks=False):
                problem = "it is no ordinary file"
            items.append(_file(Path(entry.path), name, problem))
            if len(items) > limits.entries:
                raise Refused(f"a folder of more than {limits.entries} files")
    return items


def file_item(path: Path) -> Item:
    """A single file."""
    return _file(path, unicodedata.normalize("NFC", path.name))


def _file(path: Path, name: str, problem: str = "") -> Item:
    return Item(name, None, lambda: _open(path), problem, _owner(path))


def _open(path: Path) -> BinaryIO:
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # it may have been swapped
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Refused("it is no ordinary file")
    return open(number, "rb")


def _owner(path: Path) -> str:
    import pwd

    try:
        return pwd.getpwuid(path.lstat().st_uid).pw_name
    except (KeyError, OSError):
        return "nobody known"


class Unpacker:
    """Unpacks what one student handed in, into a folder that is the caller's to remove."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.result = Unpacked()
        self._bytes = self._files = 0

    def add(self, item: Item, name: str, depth: int = 1) -> None:
        """Unpack a file; zips in zips are opened.

        Args:
            item: the file.
            name: how to call it.
            depth: 1 in the file that the LMS made.

        Raises:
            TooMuch: it is more than one student may hand in.
            OSError: it cannot be written, for example because the disk is full.
        """
        is_zip = name.lower().endswith(".zip")
        if item.is_of_a_system:
            return
        if not (NOTEBOOK.search(name) or is_zip):
            if item.problem:
                self.result.refused.append((name, item.problem))
            else:
                self.result.others.append(name)
            return
        try:
            path = self._copy(item, ".zip" if is_zip else ".ipynb")
            if is_zip:
                self._open_zip(path, name, depth)
            else:
                self.result.notebooks.append((name, path))
        except TooMuch:
            raise
        except Refused as error:
            self.result.refused.append((name, str(error)))

    def _open_zip(self, path: Path, name: str, depth: int) -> None:
        if depth >= self.limits.depth:
            raise Refused("too many zips in zips; hand in the notebook itself")
        with open_zip(path, self.limits) as items:
            for item in items:
                self.add(item, f"{name}/{item.name}", depth + 1)
        path.unlink()

    def _copy(self, item: Item, ending: str) -> Path:
        if item.problem:
            raise Refused(item.problem)
        self._files += 1
        if self._files > 200:
            raise TooMuch("more than 200 notebooks and zips from one student")
        path = self.folder / f"{self._files}{ending}"
        try:
            with open(path, "xb") as file:
                for chunk in self._read(item):
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _read(self, item: Item) -> Iterator[bytes]:
        size = 0
        try:
            source = item.open()
        except _UNREADABLE as error:
            raise Refused(f"it cannot be read ({_said(error)})") from None
        with source:
            while True:
                try:
                    chunk = source.read(2**16)
                except _UNREADABLE as error:
                    raise Refused(f"it cannot be unpacked ({_said(error)})") from None
                if not chunk:
                    return
                size += len(chunk)
                self._bytes += len(chunk)
                if size > self.limits.file:
                    raise Refused(f"more than {self.limits.file // 2**20} MiB; clear its outputs")
                if self._bytes > self.limits.student:
                    mib = self.limits.student // 2**20
                    raise TooMuch(f"more than {mib} MiB from one student")
                packed = item.packed
                if packed is not None and size > max(4 * 2**20, self.limits.ratio * packed):
                    raise Refused(f"it unpacks to more than {self.limits.ratio} times its size")
                yield chunk


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return shown(text, 120)
