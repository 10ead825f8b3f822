r"""What a network said of each test example, on disk while an evaluation runs.

An evaluation of Kinetics takes hours on few GPUs. Each process appends the scores of an example to
a file of its own as soon as it has them, so an evaluation that was killed goes on where it stood,
with any number of processes. A line has the checksum of its text in front:

.. code-block:: text

    5f1c2a90 {"index": 17, "label": 3, "scores": "..."}

``scores`` are float32, little-endian, in base64. A line whose checksum is wrong (cut off by a kill,
a full disk or a power cut) counts as not there. The first line says what the scores belong to.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gclib.training.distributed import World
from gclib.training.locks import lock

FORMAT = 1
_NAME = "scores-{:05d}.txt"
_FILES = "scores-*.txt"


class ScoresError(ValueError):
    """Scores cannot be used here; ``str()`` says what to do."""


class Scores:
    """The scores of one evaluation in a folder; opened by all processes together.

    Args:
        folder: made if it is not there.
        belongs: name → text, of what they are scores of; see :func:`digest_of`.
        world: the processes.
        replace: they are of a training, which goes on without them: scores of something else are
            removed, and so is what cannot be written. Else both are errors.

    Attributes:
        done: index of each example that has scores → its label.

    Raises:
        ScoresError: the folder has scores of something else, another evaluation writes there, or
            it cannot be written; the same in all processes.
    """

    def __init__(
        self, folder: Path, belongs: Mapping[str, str], world: World, *, replace: bool = False
    ) -> None:
        self.folder, self.belongs = folder, {"format": str(FORMAT), **belongs}
        self.replace, self._full = replace, False
        self._path, self._file = folder / _NAME.format(world.rank), None
        self._lock = error = None
        done: dict[int, int] = {}
        if world.leads:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                busy = ScoresError(
                    f"another evaluation is at work in {folder}: wait for it, or give another "
                    "--scores DIR"
                )
                self._lock = lock(folder, busy)
                self._prepare(replace)
                done = {index: label for index, label, _ in self}
            except OSError as problem:
                error = _not_kept(folder, problem)
            except ScoresError as problem:
                error = problem
        if error := world.from_leader(error):
            self.close()
            raise error
        self.done: dict[int, int] = world.from_leader(done)

    def _prepare(self, replace: bool) -> None:
        for path in sorted(self.folder.glob(_FILES)):
            first = next(_lines(path), None)
            found = None if first is None else first.get("belongs")
            if found == self.belongs:
                continue
            # Without its first line, nothing of a file can be trusted: it was killed before it.
            if found is None or replace:
                path.unlink()
                continue
            names = [name for name in self.belongs if found.get(name) != self.belongs[name]]
            raise ScoresError(
                f"the scores in {self.folder} belong to another {' and another '.join(names)}: "
                "give another folder with --scores, or remove this one"
            )

    def __iter__(self) -> Iterator[tuple[int, int, Tensor]]:
        """Index, label and scores ``(classes,)`` of each example that is on the disk, once."""
        seen = set()
        for path in sorted(self.folder.glob(_FILES)):
            for line in _lines(path):
                if "scores" in line and line["index"] not in seen:
                    seen.add(line["index"])
                    numbers = np.frombuffer(base64.b64decode(line["scores"]), "<f4")
                    yield line["index"], line["label"], torch.from_numpy(numbers.copy())

    def add(self, index: int, label: int, scores: Tensor) -> None:
        """Write the scores of an example, ``(classes,)``; they outlive a kill from here on.

        Raises:
            ScoresError: they cannot be written, and are not those of a training.
        """
        if self._full:
            return
        numbers = scores.detach().cpu().float().numpy().astype("<f4").tobytes()
        text = base64.b64encode(numbers).decode()
        try:
            if self._file is None:
                self._open()
            self._file.write(_line({"index": index, "label": label, "scores": text}))
            self._file.flush()
        except OSError as problem:
            error = _not_kept(self.folder, problem)
            if not self.replace:
                raise error from None
            self._full = True
            print(f"{error}; the evaluation goes on without them", file=sys.stderr, flush=True)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)  # on another machine
        cut = False
        if self._path.exists():
            first = next(_lines(self._path), None)
            if first is None or first.get("belongs") != self.belongs:  # on another machine
                self._path.unlink()
            else:
                cut = not self._path.read_bytes().endswith(b"\n")
        new = not self._path.exists()
        self._file = self._path.open("ab")
        if cut:  # so that what comes next has a line of its own
            self._file.write(b"\n")
        if new:
            self._file.write(_line({"belongs": self.belongs}))

    def close(self) -> None:
        """Close the files; the scores stay."""
        for file in (self._file, self._lock):
            if file is not None:
                with contextlib.suppress(OSError):  # what could not be written has been said
                    file.close()
        self._file = self._lock = None

    def remove(self) -> None:
        """Remove the scores: their figures are known. Called in process 0 alone."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def digest_of(model: nn.Module) -> str:
    """A checksum of all weights of a network, wherever they are."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        value = value.detach().cpu().contiguous()
        digest.update(str((value.dtype, tuple(value.shape))).encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _not_kept(folder: Path, problem: OSError) -> ScoresError:
    said = problem.strerror or type(problem).__name__
    return ScoresError(
        f"scores cannot be kept in {folder} ({said}): make room, or take another folder"
    )


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """What the whole lines of a file say."""
    with path.open("rb") as file:
        for line in file:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text):
                yield json.loads(text)
