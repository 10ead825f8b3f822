"""Which videos cannot be read is said and written down."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("av", reason="PyAV is not installed")

from made_videos import write_sound, write_video

from gclib import cli
from gclib.datasets import image_folder, kinetics_check
from gclib.datasets.kinetics import VideoList, kinetics
from gclib.datasets.kinetics_check import HOW_TO_GET, check_kinetics


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinetics")
    for part in ("train", "val"):
        for name in ("0", "1", "10", "2"):
            home = folder / part / name
            home.mkdir(parents=True)
            for number in range(2):
                write_video(home / f"é, {number}.mp4", 70 if number else 10, size=(32, 32))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "kinetics")


def spoil(folder):
    home = folder / "train" / "10"
    (home / "é, 0.mp4").write_bytes(b"")
    write_sound(folder / "train" / "2" / "b.mp4")
    path = write_video(home / "c.mp4", 70, container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-800])
    return 3


def test_all_is_well(folder):
    report = check_kinetics(folder)
    assert report.ok
    assert not report.kinetics
    assert report.broken == {"train": [], "val": []}
    lines = str(report).splitlines()
    assert lines[0].startswith("ok  4 classes, and Kinetics-400 has 400: fine for a training")
    assert lines[1] == "ok  train: 8 of 8 videos can be read, in 4 classes"
    assert lines[2].startswith("ok  train: 4 of them are shorter than a clip of 2.1 s")
    assert lines[3].startswith(f"ok  train: {folder}/train_clean.csv lists what can be read")
    assert len(lines) == 7


def test_the_clean_list_is_used_and_keeps_the_labels(folder):
    before = kinetics(folder)[0]
    labels = {before.path(at): before.label(at) for at in range(len(before))}
    broken = spoil(folder)
    report = check_kinetics(folder, workers=2)
    assert report.ok
    assert len(report.broken["train"]) == broken
    assert "ok  train: 3 cannot be read (" in str(report)
    for word in ("the file is empty", "sound alone", "cut off or damaged behind"):
        assert any(word in line for line in report.broken["train"])
    train, val = kinetics(folder)
    assert isinstance(train, VideoList)
    after = {train.path(at): train.label(at) for at in range(len(train))}
    assert len(after) == 7
    assert after.items() <= labels.items()
    assert len(val) == 8
    text = (folder / "train_broken.csv").read_text(encoding="utf-8")
    assert '"train/10/é, 0.mp4",the file is empty\n' in text
    assert not list(folder.glob(".*"))
    # The check looks at everything again, not at its own list.
    assert len(check_kinetics(folder).broken["train"]) == broken


def test_lists_somewhere_else(folder, tmp_path):
    lists = tmp_path / "lists" / "new"
    spoil(folder)
    report = check_kinetics(folder, lists=lists)
    assert report.ok
    assert not list(folder.glob("*.csv"))
    assert [len(part) for part in kinetics(folder)] == [10, 8]
    train, _ = kinetics(folder, clean=lists)
    assert len(train) == 7
    assert train.path(0) == str(folder / "train" / "0" / "é, 0.mp4")


def test_lists_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").touch()
    report = check_kinetics(folder, lists=tmp_path / "file")
    assert not report.ok
    assert "cannot be written" in str(report)
    assert "--lists" in str(report)


def test_a_class_without_a_readable_video(folder):
    for path in (folder / "val" / "1").iterdir():
        path.write_bytes(b"nothing")
    report = check_kinetics(folder)
    assert not report.ok
    assert "no  val: no video of 1 can be read" in str(report)
    assert not (folder / "val_clean.csv").exists()
    assert (folder / "train_clean.csv").exists()


def test_what_is_missing(folder, tmp_path):
    report = check_kinetics(tmp_path / "nowhere")
    assert str(report) == f"no  {tmp_path}/nowhere is not a folder. {HOW_TO_GET}"
    report = check_kinetics(tmp_path)
    assert f"{tmp_path} does not hold train/, but {folder} does: name that one" in str(report)
    shutil.rmtree(folder / "val")
    (folder / "part_0.tar.gz").touch()
    report = check_kinetics(folder)
    assert not report.ok
    assert "holds archives that are not unpacked" in str(report)
    assert "ok  train: 8 of 8" in str(report)


def test_progress_is_shown(folder, monkeypatch, capsys):
    monkeypatch.setattr(image_folder, "QUIET_SECONDS", 0.0)
    check_kinetics(folder)
    assert "3 of 8 videos of train checked\n" in capsys.readouterr().err


def test_interrupted(folder, monkeypatch, capsys):
    """One sentence, at once, and the lists of before."""
    check_kinetics(folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    spoil(folder)
    asked, state = [], kinetics_check._state

    def interrupted(path):
        asked.append(path)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return state(path)

    monkeypatch.setattr(kinetics_check, "_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_kinetics(folder, workers=1)
    error = capsys.readouterr().err
    assert error == "2 of 10 videos of train were checked; its lists are as they were before\n"
    assert {path.name: path.read_bytes() for path in folder.glob("*.csv")} == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_a_full_disk(folder, monkeypatch):
    """The list of before stays, and half a list is not left."""
    check_kinetics(folder)
    before = (folder / "train_clean.csv").read_bytes()
    spoil(folder)
    make = Path.open

    def full(self, *arguments, **options):
        written = self.name.startswith(".train_clean.csv")
        return make(Path("/dev/full") if written else self, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    report = check_kinetics(folder)
    assert not report.ok
    assert "train_clean.csv cannot be written (No space left on device): name another" in str(
        report
    )
    assert (folder / "train_clean.csv").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_the_command(folder, capsys, tmp_path):
    assert cli.main(["data", "kinetics", "--check", str(folder)]) == 0
    assert "train_clean.csv lists what can be read" in capsys.readouterr().out
    lists = tmp_path / "lists"
    assert cli.main(["data", "kinetics", "--check", str(folder), "--lists", str(lists)]) == 0
    assert len(list(lists.iterdir())) == 4
    assert cli.main(["data", "kinetics", "--check", str(tmp_path / "none")]) == 1
    assert cli.main(["data", "kinetics", "--out", str(lists)]) == 2
    assert "holds something already" in capsys.readouterr().err
