"""Images per second of whole trainings: what is timed, and what is refused."""

import sys
from pathlib import Path

import pytest

from gclib.bench import detection, report, training
from gclib.cli import main
from gclib.datasets.coco import CocoDataset, coco_folder, eval_transform

# Prints what torchvision's script prints for an epoch, an update every 50 ms.
SCRIPT = """
import sys, time
assert "--print-freq" in sys.argv and "--data-path" in sys.argv
for k in range(8):
    time.sleep(0.05)
    print(f"Epoch: [0]  [{k:2d}/8]  eta: 0:00:01  lr: 0.1  time: 0.05")
print("Test:   [0/3]  eta: 0:00:00")
"""


@pytest.fixture
def reference(tmp_path):
    folder = tmp_path / "classification"
    folder.mkdir()
    (folder / "presets.py").write_text("")
    (folder / "train.py").write_text(SCRIPT)
    return folder / "train.py"


@pytest.mark.full
def test_both_are_timed_without_their_first_updates(reference):
    records = training.run(reference, network="resnet18", batch=2, updates=8, rounds=2, workers=1)
    ours, theirs = records
    assert (ours["way"], theirs["way"]) == training.WAYS
    # Five updates of two images count; a sleep can only be longer.
    assert 15 < theirs["median"] <= 2 / 0.05
    assert 0 < ours["low"] <= ours["median"] <= ours["high"]
    assert ours["ratio_low"] <= ours["ratio"] <= ours["ratio_high"]
    text = "\n".join(report._training(records))
    assert "`torchvision's reference`" in text
    assert f"{ours['ratio']:.2f} times as fast" in text
    assert len(report.as_lines("training", records)) == 2


def test_a_process_that_fails_says_its_last_words(tmp_path):
    command = [sys.executable, "-c", "print('one'); raise SystemExit('no such thing')"]
    lines = training.lines(command, tmp_path)
    assert next(lines) == "one\n"
    with pytest.raises(RuntimeError, match="no such thing"):
        list(lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--reference P is missing"),
        (["--reference", "train.py"], "expected the path of torchvision's references"),
        (["--reference", "REFERENCE", "--updates", "4"], "--updates 4: expected at least 5"),
    ],
)
def test_what_is_refused(reference, capsys, arguments, message):
    arguments = [str(reference) if word == "REFERENCE" else word for word in arguments]
    assert main(["bench", "training", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.full
def test_detectors_are_timed_on_photographs_with_outlines(tmp_path, monkeypatch):
    folder = tmp_path / "detection"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    monkeypatch.setattr(detection, "SKIPPED", 1)
    seen = {}

    def small(command, where):
        """The run of gclib with images of 96 pixels; torchvision's script is the one above."""
        if "gclib.bench.detection" in command:
            seen["data"] = Path(command[3])
            code = (
                "import sys; from gclib.bench import detection; from gclib.training import coco\n"
            )
            code += "whole = coco.recipe_of\n"
            code += "coco.recipe_of = lambda row, v: whole(row, {**v, 'short': 64, 'long': 96})\n"
            code += "sys.exit(detection.main(sys.argv[1:]))"
            command = [command[0], "-c", code, *command[3:]]
        yield from training.lines(command, where)

    monkeypatch.setattr(detection, "lines", small)
    ours, theirs = detection.run(folder / "train.py", batch=1, updates=3, rounds=1, workers=0)
    assert (ours["way"], theirs["way"]) == detection.WAYS
    assert ours["ratio"] == pytest.approx(ours["median"] / theirs["median"])
    assert ours["network"] == "maskrcnn_resnet50_fpn"


def test_photographs_are_in_cocos_layout(tmp_path):
    detection.make_photographs(tmp_path / "data", 3)
    data = CocoDataset(*coco_folder(tmp_path / "data", "train"), eval_transform(120, 200))
    assert len(data) == 3
    target = data[0].target
    assert len(target["boxes"]) == detection.OBJECTS
    assert target["size"] == (480, 640)
    assert (target["masks"].sum((1, 2)) > 0).all()
