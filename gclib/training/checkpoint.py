"""Checkpoints that are whole or not there, and that hold nothing but tensors and plain values.

A file is written beside its place, flushed to the disk, and then renamed. A process that is killed
at any moment leaves the old file, or the new one. What is read cannot run code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gclib.training.options import differing

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{8})\.pt")
_TEMPORARY = ".partial"


class CheckpointError(Exception):
    """A checkpoint cannot be written, read or used here; ``str()`` says what to do."""


class Checkpoints:
    """The checkpoints of one run: the last few, and the best.

    Args:
        folder: of the run; made if it is not there.
        keep: how many of the last checkpoints stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    @property
    def best(self) -> Path:
        """The weights of the best evaluation."""
        return self.folder / "best.pt"

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        if self.folder.is_dir():
            for path in self.folder.glob(f"*.pt{_TEMPORARY}"):
                path.unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any], step: int) -> Path:
        """Write the checkpoint of an update and remove those that are too old.

        Raises:
            CheckpointError: it cannot be written; all earlier ones are still there.
        """
        path = self.folder / f"checkpoint-{step:08d}.pt"
        write(path, {"format": FORMAT, **state})
        for old in self.paths()[: -self.keep]:
            if old != path:
                old.unlink(missing_ok=True)
        return path

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write the weights of the best evaluation; raises as :meth:`save`."""
        write(self.best, {"format": FORMAT, **state})

    def newest(self, recipe: Mapping[str, Any]) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest checkpoint that can be read; newer ones that cannot are put aside.

        Args:
            recipe: of the run that goes on.

        Returns:
            Its path, its content, and one text for each newer one that is damaged; None if there is
            no checkpoint.

        Raises:
            CheckpointError: none of them can be read, or it belongs to another recipe.
        """
        damaged = []
        for path in reversed(self.paths()):
            try:
                state = read(path)
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            check_recipe(path, state, recipe)
            for newer in self.paths():
                if newer.name > path.name:  # else it would count as one of the last
                    newer.rename(newer.with_suffix(".damaged"))
            return path, state, damaged
        if damaged:
            raise CheckpointError(f"{'; '.join(damaged)}. Start again in another folder: --out DIR")
        return None


def check_recipe(path: Path, state: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Raise CheckpointError naming every field in which the recipes differ."""
    if lines := differing(state["recipe"], recipe):
        raise CheckpointError(
            f"{path} belongs to another recipe ({'; '.join(lines)}: there and here). Give the same "
            "options as then, or another folder with --out DIR"
        )


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values with ``torch.save``, whole or not at all.

    Raises:
        CheckpointError: the disk is full, or the place cannot be written; what was there stays.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            watched = _Watched(file)
            try:
                torch.save(dict(value), watched)
            except Exception:
                if watched.error:  # torch hides what the disk said
                    raise watched.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or type(error).__name__
        raise CheckpointError(f"{path} was not written: {reason}") from None


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it can run code.

    Raises:
        CheckpointError: no such file, damaged, or no checkpoint of a training here.
    """
    try:
        with _zip_checked(path):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not there") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged file makes torch raise almost anything
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or no checkpoint ({said[:100]})") from None
    if not isinstance(state, dict) or "recipe" not in state or "model" not in state:
        raise CheckpointError(f"{path} is no checkpoint of a training here")
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {state.get('format')!r}, this version of gclib reads {FORMAT}"
        )
    return state


@contextlib.contextmanager
def _zip_checked(path: Path):
    """Compare the checksums in the file: torch reads a flipped bit as another weight."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"{bad} has a wrong checksum")
    yield


def _flush_folder(folder: Path) -> None:
    """Flush the new name, so that it outlives a power cut."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class _Watched(io.RawIOBase):
    """A file that remembers why a write failed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file, self.error = file, None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        if not self.closed:
            self.file.flush()


def origin_of(weights: str | None) -> str | None:
    """What a summary says of the weights that a run started from: a name, or a file's checksum."""
    if weights is None or not Path(weights).is_file():
        return weights
    digest = hashlib.sha256()
    with Path(weights).open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return f"{Path(weights).name}, sha256 {digest.hexdigest()[:16]}"
