"""Kinetics: what goes wrong where many processes, full disks and odd names come together."""

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_kinetics
import torch
from torch import nn

from gclib.cli import main
from gclib.datasets.clip_scenes import write_clip_scenes
from gclib.datasets.files import BrokenData
from gclib.datasets.kinetics import VideoList, kinetics
from gclib.datasets.kinetics_check import check_kinetics
from gclib.training import coco, imagenet
from gclib.training.checkpoint import write
from gclib.training.distributed import World
from gclib.training.kinetics import Kinetics, layout_of, recipe_of
from gclib.training.recipe import Machine
from gclib.training.runs import write_json
from gclib.training.scores import Scores, ScoresError
from gclib.training.trainer import build_optimizer

resource = pytest.importorskip("resource")  # not on Windows

ROW = "mini/kinetics_gc"
MACHINE = Machine(device="cpu", workers=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes") / "data"
    write_clip_scenes(folder, videos={"train": 8, "val": 8})
    return folder


@pytest.fixture
def task(data):
    return Kinetics(recipe_of(ROW), data)


@pytest.fixture
def model(task):
    torch.manual_seed(0)
    return task.build_model().eval()


@pytest.fixture
def figures(task, model):
    return task.evaluate(model, World(), MACHINE)


@pytest.fixture
def little_disk():
    """A function after which no file of this process may grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def evaluate(data, checkpoint, *more):
    given = ["--checkpoint", str(checkpoint), "--data", str(data), *map(str, more)]
    return main(["evaluate", "kinetics", "--device", "cpu", "--workers", "0", *given])


# -- scores of an evaluation ---------------------------------------------------------------------


def test_scores_that_another_process_has_written_meanwhile_count_once(
    task, model, figures, tmp_path
):
    """Process 0 reads what is on the disk while a quicker one evaluates its own videos."""
    task.scores = tmp_path / "scores"
    assert task.evaluate(model, World(), MACHINE) == figures
    mine = task.scores / "scores-00000.txt"
    head, *lines = mine.read_bytes().splitlines(keepends=True)
    mine.write_bytes(head + b"".join(lines[:3]))
    kept = Scores(task.scores, task._belongs(model), World())
    (task.scores / "scores-00001.txt").write_bytes(head + b"".join(lines[3:6]))
    # One process evaluates all that is left, so the other one's videos must not count as well.
    assert task._evaluate(model, World(), MACHINE, kept, kept.done) == figures


def test_a_full_disk_costs_a_training_scores_and_not_the_evaluation(
    task, model, figures, tmp_path, little_disk, capsys
):
    task.keep_scores(tmp_path / "scores")
    little_disk(500)
    assert task.evaluate(model, World(), MACHINE) == figures
    said = capsys.readouterr().err
    assert said.count("scores cannot be kept") == 1
    assert "goes on without them" in said


def test_a_full_disk_ends_an_evaluation_and_what_was_kept_is_good(
    task, model, figures, tmp_path, little_disk
):
    task.scores = tmp_path / "scores"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    little_disk(500)
    with pytest.raises(ScoresError, match=r"scores cannot be kept in .*make room"):
        task.evaluate(model, World(), MACHINE)
    little_disk(limit)
    kept = Scores(task.scores, task._belongs(model), World())
    assert 0 < len(kept.done) < figures["videos"]
    kept.close()
    assert task.evaluate(model, World(), MACHINE) == figures


def test_a_folder_that_cannot_be_made(task, model, figures, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    task.scores = tmp_path / "file" / "scores"
    with pytest.raises(ScoresError, match=r"Not a directory.*take another folder"):
        task.evaluate(model, World(), MACHINE)
    task.keep_scores(task.scores)
    assert task.evaluate(model, World(), MACHINE) == figures
    assert "goes on without them" in capsys.readouterr().out


def test_scores_of_something_else_on_another_machine_are_replaced(tmp_path):
    """Process 0 looks at its own disk, and a folder may be another one on another machine."""
    here, there = World(), World(rank=1)  # alone, both
    old = Scores(tmp_path, {"checkpoint": "old"}, there)
    old.add(0, 0, torch.rand(4))
    old.close()
    new = Scores(tmp_path, {"checkpoint": "new"}, there)
    new.add(1, 2, torch.rand(4))
    new.close()
    assert Scores(tmp_path, {"checkpoint": "new"}, here).done == {1: 2}


# -- names, lists and classes --------------------------------------------------------------------


def test_a_name_with_spaces_behind_a_tab(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("a b/1.mp4\tair drumming\nc.mp4\tyoga\t\n\n")
    videos = VideoList(file)
    assert videos.classes == ["air drumming", "yoga"]
    assert [Path(videos.path(at)).name for at in range(2)] == ["1.mp4", "c.mp4"]


def test_the_list_of_kinetics_authors_is_no_list_of_files(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    head = "label,youtube_id,time_start,time_end,split,is_cc"
    (tmp_path / "data" / "train.csv").write_text(f"{head}\nyoga,---QUuC4vJs,84,94,train,0\n")
    with pytest.raises(BrokenData, match=r"has no paths. Move it away"):
        kinetics(tmp_path / "data")


def test_numbers_of_a_list_are_not_the_order_of_folders(data, tmp_path):
    video = next((data / "train").rglob("*.mp4"))
    for part in ("train", "val"):
        for number in range(11):
            folder = tmp_path / part / str(number)
            folder.mkdir(parents=True)
            shutil.copy(video, folder / "0.mp4")
    train, val = kinetics(tmp_path)
    assert train.classes == val.classes
    lines = (f"train/{number}/0.mp4 {number}\n" for number in range(11))
    (tmp_path / "train.csv").write_text("".join(lines))
    with pytest.raises(BrokenData, match=r"another order.*both as folders, or both as lists"):
        kinetics(tmp_path)
    assert "another order" in str(check_kinetics(tmp_path, lists=tmp_path / "lists"))


def test_a_training_says_that_it_reads_the_clean_list(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "data")
    small = ["--batch-size", "4", "--micro-batch", "4", "--stop-after", "1", "--device", "cpu"]
    command = ["train", "kinetics", "--row", ROW, "--data", str(tmp_path / "data"), *small]
    command += ["--workers", "0", "--warmup-steps", "1", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    assert "videos of" not in capsys.readouterr().out
    videos = kinetics(tmp_path / "data")[0]
    lines = [f"{videos.path(index)},{videos.label(index)}\n" for index in range(len(videos) - 1)]
    for part in ("train", "val"):
        (tmp_path / "data" / f"{part}_clean.csv").write_text("".join(lines), encoding="utf-8")
    assert main([*command, str(tmp_path / "clean")]) == 0
    said = f"training on the 7 videos of {tmp_path / 'data' / 'train_clean.csv'}, which gclib data"
    assert said in capsys.readouterr().out


def odd_names(data, folder):
    """A class and a video whose names are not UTF-8."""
    shutil.copytree(data, folder)
    try:
        for part in ("train", "val"):
            inner = os.fsencode(folder / part)
            os.rename(inner + b"/up", inner + b"/\xfcp")
        video = os.fsencode(min((folder / "train" / "left").iterdir()))
        os.rename(video, os.path.dirname(video) + b"/\xff.mp4")
    except OSError:
        pytest.skip("this disk has no such names")
    return folder


def test_names_that_no_list_can_hold_are_said(data, tmp_path):
    report = check_kinetics(odd_names(data, tmp_path / "data"))
    assert [line.split(":")[0] for line in report.problems] == ["train", "val"]
    assert "not UTF-8: rename train/left/�.mp4; " in report.problems[0]
    assert not report.lists


def test_a_summary_holds_any_name(tmp_path):
    names = {"labels": [os.fsdecode(b"\xfcp"), "für"]}
    write_json(tmp_path / "summary.json", names)
    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert "für" in text
    assert json.loads(text) == names


@pytest.mark.full
def test_a_run_with_odd_names(data, tmp_path, capsys):
    odd, out = odd_names(data, tmp_path / "data"), tmp_path / "run"
    tiny_kinetics.run(odd, out, values={"epochs": 1, "warmup_steps": 0})
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["figures"]["videos"] == 8
    assert evaluate(odd, out / "model.pt", "--scores", tmp_path / "scores") == 0
    assert capsys.readouterr().out.endswith("videos 8\n")


# -- the engine ----------------------------------------------------------------------------------


def test_an_evaluation_has_the_layout_of_a_training(data, task, model, tmp_path, monkeypatch):
    recipe, seen = task.recipe, []
    state = {"model": model.state_dict(), "recipe": recipe.as_dict(), "step": 0, "about": {}}
    write(tmp_path / "model.pt", {"format": 1, **state})
    plain = Kinetics.evaluate

    def looked_at(task, model, *more):
        seen.append(layout_of(model))
        return plain(task, model, *more)

    monkeypatch.setattr(Kinetics, "evaluate", looked_at)
    for given in ((), ("--channels-last", "no")):
        assert evaluate(data, tmp_path / "model.pt", *given) == 0
    assert seen == [torch.channels_last_3d, torch.contiguous_format]


def test_a_plan_of_fewer_examples_than_a_batch_is_refused(data, capsys):
    options = ["--row", ROW, "--data", str(data), "--device", "cpu"]
    assert main(["train", "kinetics", "--plan", *options]) == 2
    assert "8 examples: expected at least one batch of 16" in capsys.readouterr().err


@pytest.mark.parametrize(("task", "row"), [(imagenet, "4a/gc_all"), (coco, "2a/gc_all")])
def test_checkpoints_from_before_there_were_groups_go_on(task, row):
    """One decay is one group, with the parameters in the order that they had without groups."""
    recipe = task.recipe_of(row, {})
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    model[0].weight.requires_grad_(False)
    plain = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=recipe.largest_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    model(torch.rand(2, 3, 4, 4)).sum().backward()
    plain.step()
    state = plain.state_dict()
    grouped = build_optimizer(model, recipe, torch.device("cpu"))
    grouped.load_state_dict(state)
    again = grouped.state_dict()
    assert [group["params"] for group in again["param_groups"]] == [[0, 1, 2, 3, 4]]
    assert again["param_groups"][0]["weight_decay"] == recipe.weight_decay
    for key, value in state["state"].items():
        assert torch.equal(again["state"][key]["momentum_buffer"], value["momentum_buffer"])
