"""Mask R-CNN in small: its commands, what is kept of its runs, and a shipped log made again."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from gclib.datasets.detection_scenes import make_detection_scene, write_detection_scenes
from gclib.models.mini_detector import MINI_ROWS
from gclib.paper.ledger import read_runs
from gclib.paper.statistics import paired
from gclib.training import coco, coco_small, command, small_runs
from gclib.training.checkpoint import read, write
from gclib.training.loop import config_hash
from gclib.training.options import parse
from gclib.training.progress import LOG
from gclib.training.recipe import Machine
from gclib.training.runs import FIRST_LOSSES


def test_every_row_is_trained_by_the_recipe_of_its_row():
    assert set(coco_small.ROWS) == set(MINI_ROWS)
    found = []
    for name, *arguments in coco_small.commands(Path("DIR"), 3):
        assert name == "coco"
        values, machine, wanted = parse(arguments, coco.Recipe, Machine, command.Wanted)
        assert (wanted["data"], wanted["resume"]) == ("DIR", "auto")
        assert (machine["threads"], machine["workers"]) == (1, 0)
        recipe = coco.recipe_of(values.pop("row"), values)
        assert recipe == coco.recipe_of(recipe.row, {"seed": 3})
        found.append(recipe.row)
    assert found == list(coco_small.ROWS)


def write_run(runs, recipe, figure):
    folder = runs / command.default_out("coco", recipe).relative_to("runs")
    folder.mkdir(parents=True)
    weights = {"w": torch.full((2,), figure), "n": torch.tensor(3)}
    write(folder / "model.pt", {"format": 1, "model": weights, "recipe": recipe.as_dict()})
    summary = {
        "row": recipe.row,
        "seed": recipe.seed,
        "figures": {"ap_mask": figure, "ap_box": figure + 1, "ap_box_l": -1.0, "images": 200},
        "recipe": recipe.as_dict(),
        "command": "gclib train coco --data /some/where --seed 1",
    }
    summary |= dict.fromkeys(("updates", "seconds", "parameters", "hash", "commit", "versions"), 0)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    lines = [{"step": k, "event": "train", "loss": 1 + k / 1000, "lr": 0.1} for k in range(1, 61)]
    lines.insert(30, lines[29])  # said twice by a run that went on from a checkpoint
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / LOG).write_text(text, encoding="utf-8")


def test_what_is_kept_and_how_it_is_compared(tmp_path, capsys):
    gains = {"mini/coco_none": 0.0, "mini/coco_gc": 10.0}
    for seed in (1, 2, 3):
        for row, gain in gains.items():
            figure = 20 + seed + gain * (1 + seed / 10)
            write_run(tmp_path / "runs", coco.recipe_of(row, {"seed": seed}), figure)
    other = coco.recipe_of("mini/coco_se", {"epochs": 20})
    write_run(tmp_path / "runs", other, 99.0)  # another recipe: left out
    arguments = ["collect", str(tmp_path / "runs"), str(tmp_path / "out" / "runs")]
    assert coco_small.main(arguments) == 0
    out = capsys.readouterr().out
    assert "6 runs" in out
    assert "| `mini/coco_gc` | 0 | 3 | 34.0 | 35.0 | +12.0 (+9.5 to +14.5) |" in out
    assert len(list((tmp_path / "out" / "runs").iterdir())) == len(gains)
    logs = [log for row in gains for log in read_runs(tmp_path / "out" / "runs", row)]
    assert [(log["row"], log["seed"]) for log in logs] == [
        (row, seed) for row in gains for seed in (1, 2, 3)
    ]
    assert logs[0]["first_losses"][:2] == [1.001, 1.002]
    assert logs[0]["losses"] == [1.0255, 1.0555]  # of 50 updates, and of what is left
    assert not {"images", "ap_box_l"} & logs[0].keys()
    assert logs[0]["command"] == "gclib train coco --data DIR --seed 1"
    (kept,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert kept.name == "mini-coco_gc.pt"
    weights = read(kept)["model"]
    assert weights["w"].tolist() == [34.0, 34.0]  # of the seed in the middle
    assert (weights["w"].dtype, weights["n"].dtype) == (torch.float16, torch.int64)
    (found,) = coco_small.differences(logs, "ap_box").items()
    assert found == ("mini/coco_gc", pytest.approx(paired([11, 12, 13], [0, 0, 0])))


def test_nothing_to_collect(tmp_path, capsys):
    assert coco_small.main(["collect", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        coco_small.main(["train", "--data", "DIR", "--seeds", "one"])


LOGS = coco_small.read_logs()


def test_the_shipped_logs_are_of_the_recipe_as_it_is():
    for log in LOGS:
        recipe = coco.recipe_of(log["row"], {"seed": log["seed"]})
        assert log["hash"] == config_hash(recipe.as_dict())
    seeds = {row: set(values) for row, values in coco_small.by_row(LOGS).items()}
    assert set(seeds) == set(coco_small.ROWS)
    guide = (Path(__file__).parents[2] / "docs" / "TRAINING.md").read_text("utf-8")
    assert "\n".join(coco_small.as_lines(LOGS)) in guide
    assert all(found == {1, 2, 3, 4, 5} for found in seeds.values())


@pytest.mark.parametrize("row", coco_small.KEPT)
def test_the_shipped_weights_name_the_objects(row):
    model = coco_small.trained(row)
    scene = make_detection_scene("val2017", 3)
    with torch.no_grad():
        (found,) = model([torch.from_numpy(scene.image).permute(2, 0, 1) / 255])
    best = found["labels"][: len(scene.labels)]
    assert sorted(best.tolist()) == sorted((scene.labels + 1).tolist())


@pytest.mark.full
def test_the_shipped_weights_reach_what_the_log_says(generated, capsys):
    row = "mini/coco_gc"
    logs = {log["seed"]: log for log in LOGS if log["row"] == row}
    log = logs[coco_small.median_seed(logs.values())]
    arguments = ["coco", "--checkpoint", str(coco_small.weights_path(row))]
    assert command.evaluate([*arguments, "--data", str(generated), "--workers", "0"]) == 0
    said = dict(part.split(" ") for part in capsys.readouterr().out.strip().split("  "))
    for figure in ("ap_mask", "ap_box"):
        assert float(said[figure]) == pytest.approx(log[figure], abs=0.5)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "data"
    write_detection_scenes(folder)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("row", coco_small.ROWS)
def test_the_first_updates_of_a_shipped_log_are_made_again(row, generated, tmp_path):
    log = next(log for log in LOGS if log["row"] == row)
    arguments = next(coco_small.commands(generated, log["seed"], [row]))
    arguments += ["--out", str(tmp_path / "run"), "--stop-after", str(FIRST_LOSSES)]
    assert command.main(arguments) == 0
    losses = small_runs.losses_of(tmp_path / "run" / LOG)
    assert len(losses) == FIRST_LOSSES
    assert same_start(losses, log["first_losses"])


def same_start(losses, others):
    """Whether two runs are the same one: rounding differs between processors, and which proposals
    are taken follows it within a few updates, so the first three tell, and the others roughly."""
    return losses[:3] == pytest.approx(others[:3], rel=2e-3) and losses == pytest.approx(
        others, rel=0.25
    )


def test_another_row_or_seed_has_another_start():
    starts = [log["first_losses"] for log in LOGS]
    assert len(starts) == 25
    for one, other in itertools.combinations(starts, 2):
        assert not same_start(one, other)
