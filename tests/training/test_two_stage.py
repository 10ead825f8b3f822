"""The two-stage recipe in small: its commands, and what is kept of its runs."""

import json
from pathlib import Path

import pytest
import torch

from gclib.paper.statistics import paired
from gclib.training import checkpoint, command, imagenet, two_stage
from gclib.training.options import parse
from gclib.training.recipe import Machine


def recipes(seed=3):
    for name, *arguments in two_stage.commands(Path("DIR"), seed):
        assert name == "imagenet"
        values, machine, wanted = parse(arguments, imagenet.Recipe, Machine, command.Wanted)
        yield imagenet.recipe_of(values.pop("row"), values), machine, wanted


def test_every_row_starts_from_the_network_of_its_seed():
    first, *second = recipes()
    assert (first[0].row, first[0].stage, "weights" in first[2]) == ("4a/baseline", 1, False)
    place = command.default_out("imagenet", first[0])
    assert [recipe.row for recipe, _, _ in second] == list(two_stage.ROWS)
    for recipe, machine, wanted in second:
        assert wanted["weights"] == str(place / "model.pt")
        assert (recipe.stage, recipe.seed, recipe.epochs, machine["threads"]) == (2, 3, 3, 1)
        # In proportion as in the paper: a tenth of the first stage's rate.
        assert recipe.largest_lr == pytest.approx(first[0].largest_lr / 10)


def write_run(runs, recipe, top1):
    folder = runs / command.default_out("imagenet", recipe).relative_to("runs")
    folder.mkdir(parents=True)
    summary = {
        "row": recipe.row,
        "seed": recipe.seed,
        "figures": {"top1": top1},
        "evaluations": [{"epoch": 1, "top1": top1}],
        "recipe": recipe.as_dict(),
        "about": {"started_from": None},
        "command": "gclib train imagenet --data /some/where --seed 1",
    }
    summary |= dict.fromkeys(("updates", "seconds", "parameters", "hash", "commit", "versions"), 0)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    model = {"fc.weight": torch.full((3, 2), 0.1), "count": torch.tensor(7)}
    checkpoint.write(folder / "model.pt", {"format": 1, "model": model, "recipe": {}})
    line = {"step": 50, "event": "train", "loss": 1.23456, "lr": 0.1}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")


def test_what_is_kept_and_how_it_is_compared(tmp_path, capsys):
    gains = {"4a/baseline": 0.0, "4a/gc_all": 1.0}
    for seed in (1, 2, 3):
        for recipe, _, _ in recipes(seed):
            if recipe.row in gains:
                top1 = 60 + seed + gains[recipe.row] * (1 + seed / 10)
                write_run(tmp_path / "runs", recipe, top1)
    other = imagenet.recipe_of("4a/gc_1", two_stage.VALUES | {"stage": 1, "image_size": 28})
    write_run(tmp_path / "runs", other, 99.0)  # another recipe: left out
    arguments = ["collect", str(tmp_path / "runs"), str(tmp_path / "out")]
    assert two_stage.main(arguments) == 0
    said = capsys.readouterr().out
    assert "9 runs" in said
    kept = sorted((tmp_path / "out" / "checkpoints").iterdir())
    assert [path.name for path in kept] == [
        "two_stage-4a-baseline.pt",
        "two_stage-4a-gc_all.pt",
    ]
    assert all(str(path) in said for path in kept)
    weights = checkpoint.read(kept[0])["model"]
    assert weights["fc.weight"].dtype == torch.float16
    assert weights["count"] == 7
    logs = json.loads((tmp_path / "out" / two_stage.NAME).read_text("utf-8"))
    assert [(log["stage"], log["seed"]) for log in logs[:4]] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert logs[0]["losses"] == [[50, 1.2346]]
    assert "/some/where" not in json.dumps(logs)
    assert logs[0]["command"] == "gclib train imagenet --data DIR --seed 1"
    (found,) = two_stage.differences(logs).items()
    assert found == ("4a/gc_all", pytest.approx(paired([1.1, 1.2, 1.3], [0, 0, 0])))


def test_the_table_of_the_guide_is_that_of_the_logs():
    logs = two_stage.read_logs()
    assert {log["seed"] for log in logs} >= {1, 2, 3}
    assert {(log["row"], log["stage"]) for log in logs} == {
        ("4a/baseline", 1),
        *((row, 2) for row in two_stage.ROWS),
    }
    guide = (Path(__file__).parents[2] / "docs" / "TRAINING.md").read_text("utf-8")
    assert "\n".join(two_stage.as_markdown(logs)) in guide


def test_nothing_to_collect(tmp_path, capsys):
    assert two_stage.main(["collect", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        two_stage.main(["train", "--data", "DIR", "--seeds", "one"])
