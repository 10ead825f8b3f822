"""Clips read by all ways that are installed: the same pictures, and what is reported."""

import json

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed")

from gclib.bench import loaders, report
from gclib.cli import main
from gclib.datasets.kinetics import Sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("videos")
    loaders.make_videos(made, 30, count=1, seconds=2.5)
    return made


NEEDED = [way for way in loaders.WAYS if way == loaders.OURS or way.startswith("PyAV")]


@pytest.mark.parametrize("task", loaders.TASKS)
def test_all_ways_give_the_same_views(folder, task):
    """A broken file is left out."""
    (folder / "broken.mp4").write_bytes(b"nothing")
    jobs = loaders.jobs_of(task, loaders.find_videos(folder))
    ours = [loaders.views(loaders.OURS, job) for job in jobs]
    assert len(jobs) == (loaders.CLIPS if task == loaders.TASKS[0] else 1)
    shape = (1, 3, 8, 224, 224) if task == loaders.TASKS[0] else (30, 3, 8, 256, 256)
    for way in NEEDED:
        assert loaders._agreement(way, jobs) is None
        for job, wanted in zip(jobs, ours, strict=True):
            found = loaders.views(way, job)
            assert found.shape == shape
            assert found.equal(wanted)


def test_another_picture_is_told(folder, monkeypatch, capsys):
    def late(path, clips, take):
        later = [[time + 0.2 for time in clip] for clip in clips]
        return loaders.WAYS["PyAV, whole file"](path, later, take)

    monkeypatch.setitem(loaders.WAYS, "late", late)
    (job, *_) = loaders.jobs_of(loaders.TASKS[0], [str(folder / "0.mp4")])
    assert loaders._agreement("late", [job]) < report.ALIKE
    assert "late gives another picture of" in capsys.readouterr().err


def test_pictures_by_number():
    number = loaders._numbering(30.0, 75.0)
    times = np.arange(75) / 30
    assert [number(time) for time in times] == list(range(75))
    assert number(99.0) == 74
    assert [number(time) for time in Sampling().times(0.0)] == list(range(0, 64, 8))


@pytest.mark.full
def test_the_command(folder, tmp_path, monkeypatch, capsys):
    def missing(path, clips, take):
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")

    def failing(path, clips, take):
        raise RuntimeError("no such picture")

    ways = {way: loaders.WAYS[way] for way in NEEDED}
    monkeypatch.setattr(loaders, "WAYS", ways | {"OpenCV, seeking": missing, "decord": failing})
    command = ["bench", "loaders", "--videos", str(folder), "--rounds", "2"]
    assert main([*command, "--save", str(tmp_path), "--json"]) == 0
    records = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert [record["way"] for record in records[: len(ways)]] == list(ways)
    for record in records:
        if "left_out" not in record:
            assert 0 < record["low"] <= record["median"] <= record["high"]
            assert record["psnr"] is None
    page = (tmp_path / "PERFORMANCE.md").read_text(encoding="utf-8")
    assert "## Videos, run `loaders-yours`" in page
    assert "30 views, 1 files, yours:" in page or "30 views, 2 files, yours:" in page
    assert "Not measured: OpenCV, seeking: OpenCV is not installed." in page
    assert "Not measured: decord: RuntimeError: no such picture." in page
    assert "the target of 1 is" in page
    assert len(report.as_lines("loaders", records)) == len(records)


def test_what_is_refused(tmp_path, capsys):
    assert main(["bench", "loaders", "--videos", str(tmp_path)]) == 2
    assert "no video there" in capsys.readouterr().err
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    assert main(["bench", "loaders", "--videos", str(tmp_path)]) == 2
    assert "none of the videos can be read" in capsys.readouterr().err
