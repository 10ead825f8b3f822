"""Files of scenes: what is shipped is what the generator makes; broken ones are named."""

import json

import numpy as np
import pytest

from gclib.cli import main
from gclib.datasets import TASKS, BrokenData, make_scenes, read_scenes, write_scenes


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_scenes_are_those_of_the_generator(task, pytestconfig):
    shipped = read_scenes(pytestconfig.rootpath / "data/scenes", task)
    assert shipped.digest() == make_scenes(task, 100).digest()
    assert shipped.classes == make_scenes(task, 1).classes


def test_there_and_back(tmp_path, capsys):
    assert main(["data", "scenes", "--out", str(tmp_path / "new"), "--count", "5"]) == 0
    assert "ok  pairing: 5 scenes" in capsys.readouterr().out
    assert main(["data", "scenes", "--check", str(tmp_path / "new")]) == 0
    scenes = read_scenes(tmp_path / "new", "pairing")
    expected = make_scenes("pairing", 5)
    for name in ("images", "boxes", "shapes", "colours", "labels"):
        found = getattr(scenes, name)
        assert (found == getattr(expected, name)).all()
        assert found.dtype == getattr(expected, name).dtype
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        *("context.npz", "majority.npz", "manifest.json", "pairing.npz")
    ]


def broken(folder, how):
    write_scenes(folder, count=3)
    path = folder / "pairing.npz"
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif how == "changed":
        with np.load(path) as file:
            arrays = dict(file)
        arrays["labels"][0, 0] += 1
        np.savez_compressed(path, **arrays)
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    elif how == "odd manifest":
        (folder / "manifest.json").write_text(json.dumps({"pairing": 3}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "pairing.npz is not there; run: gclib data scenes --out"),
        ("cut", "pairing.npz or manifest.json cannot be read"),
        ("changed", "pairing.npz is not what manifest.json says"),
        ("no manifest", "manifest.json is not there"),
        ("odd manifest", "cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path, how, message, capsys):
    broken(tmp_path, how)
    with pytest.raises(BrokenData, match=message):
        read_scenes(tmp_path, "pairing")
    assert main(["data", "scenes", "--check", str(tmp_path)]) == 2
    assert str(tmp_path) not in capsys.readouterr().err


def test_bad_numbers_at_a_terminal(tmp_path, capsys):
    assert main(["data", "scenes", "--out", str(tmp_path / "x"), "--count", "0"]) == 2
    assert "count=0: expected an integer of at least 1" in capsys.readouterr().err
