"""Checkpoints: whole or not there, checked when they are read, of one recipe."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gclib.training import checkpoint
from gclib.training.checkpoint import CheckpointError, Checkpoints, read, write

RECIPE = {"lr": 0.1, "drops": [8, 11]}


def state(step=1):
    return {"model": {"w": torch.full((1000,), float(step))}, "recipe": RECIPE, "step": step}


def test_the_last_ones_stay(tmp_path):
    kept = Checkpoints(tmp_path / "run", keep=2)
    assert kept.newest(RECIPE) is None
    for step in (3, 20, 100):
        kept.save(state(step), step)
    assert [p.name for p in kept.paths()] == ["checkpoint-00000020.pt", "checkpoint-00000100.pt"]
    path, found, damaged = kept.newest(RECIPE)
    assert (path, found["step"], damaged) == (kept.paths()[-1], 100, [])
    assert torch.equal(found["model"]["w"], torch.full((1000,), 100.0))
    kept.save_best(state(20))
    assert read(kept.best)["step"] == 20


def flip(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\xc8\x42" * 50) + 41] ^= 1  # a bit of a weight
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [flip, lambda p: p.write_bytes(p.read_bytes()[:900]), lambda p: p.write_bytes(b"")],
    ids=["a bit", "cut short", "empty"],
)
def test_a_damaged_one_is_said_and_the_one_before_taken(tmp_path, damage):
    kept = Checkpoints(tmp_path, keep=2)
    for step in (50, 100):
        kept.save(state(step), step)
    damage(kept.paths()[1])
    path, found, damaged = kept.newest(RECIPE)
    assert found["step"] == 50
    assert path == kept.paths()[0]
    assert "checkpoint-00000100.pt is damaged" in damaged[0]
    damage(kept.paths()[0]) if damage is not flip else kept.paths()[0].write_bytes(b"x")
    with pytest.raises(CheckpointError, match="Start again in another folder"):
        kept.newest(RECIPE)


def test_another_recipe_is_refused_by_field(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(state(), 1)
    with pytest.raises(CheckpointError, match=r"another recipe \(lr: 0.1 and 0.2; clip: nothing"):
        kept.newest({**RECIPE, "lr": 0.2, "clip": 35})
    assert kept.newest({"lr": 0.1, "drops": (8, 11)})  # a tuple and a list are the same


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "damaged or no checkpoint"),
        ({"w": torch.zeros(1)}, "no checkpoint of a training here"),
        ({"model": {}, "recipe": {}, "format": 99}, "has format 99, this version"),
    ],
    ids=["code", "weights", "format"],
)
def test_what_is_no_checkpoint(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x.pt")
    assert not (tmp_path / "evil").exists()
    with pytest.raises(CheckpointError, match="is not there"):
        read(tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path)


class Full:
    """A file on a disk that is full behind its first bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 100, 2000])
def test_a_full_disk_keeps_the_one_before(tmp_path, monkeypatch, room):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(state(1), 1)
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Full(real(self, *a, **k), room))
    with pytest.raises(CheckpointError, match="was not written: the disk is full"):
        kept.save(state(2), 2)
    monkeypatch.undo()
    assert kept.newest(RECIPE)[1]["step"] == 1
    assert os.listdir(tmp_path) == ["checkpoint-00000001.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_really_full():
    """What the kernel says, in the place of what a test invents."""
    with open("/dev/full", "wb", buffering=0) as file:
        watched = checkpoint._Watched(file)
        with pytest.raises(Exception):  # noqa: B017, PT011 torch's own
            torch.save(state(), watched)
        assert watched.error.errno == errno.ENOSPC


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_a_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match="was not written: Permission denied"):
            write(tmp_path / "x.pt", state())
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(CheckpointError, match="was not written"):
        Checkpoints(tmp_path / "run").save(state(), 1)


# Ends a process by SIGKILL at a moment inside of a write.
_KILLED = """
import os, signal, sys, torch
from pathlib import Path
from gclib.training import checkpoint
moment, folder = sys.argv[1], Path(sys.argv[2])
kept = checkpoint.Checkpoints(folder, keep=1)
state = lambda n: {"model": {"w": torch.full((1000,), float(n))}, "recipe": {}, "step": n}
kept.save(state(1), 1)
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "half written":
    first = checkpoint._Watched.write
    def write(self, data):
        done = first(self, data)
        self.flush()
        die()
    checkpoint._Watched.write = write
elif moment == "before fsync":
    os.fsync = die
elif moment == "before rename":
    os.replace = die
else:
    Path.unlink = die
kept.save(state(2), 2)
"""


@pytest.mark.full
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize(
    ("moment", "step"),
    [("half written", 1), ("before fsync", 1), ("before rename", 1), ("old ones", 2)],
)
def test_a_kill_inside_of_a_write(tmp_path, moment, step):
    done = subprocess.run([sys.executable, "-c", _KILLED, moment, str(tmp_path)], check=False)
    assert done.returncode == -9
    kept = Checkpoints(tmp_path)
    assert kept.newest({})[1]["step"] == step
    kept.clean()
    assert not list(tmp_path.glob("*.partial"))
    assert kept.newest({})[1]["step"] == step
