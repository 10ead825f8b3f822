"""The lab: rows that share their convolutions, runs that repeat, logs that survive."""

import json

import pytest
import torch

from gclib.blocks import GCBlock, NonLocalBlock
from gclib.cli import main
from gclib.datasets import make_scenes
from gclib.models import SceneNet
from gclib.paper.ledger import runs_folder
from gclib.training import runs
from gclib.training import scenes as lab
from gclib.training.loop import Recipe

SHORT = Recipe(steps=12, batch_size=16, lr=8e-3)


@pytest.fixture
def small(monkeypatch):
    """Sets of 100 scenes and a few updates: the same code on less."""
    monkeypatch.setattr(lab, "TRAIN_SCENES", 100)
    monkeypatch.setattr(lab, "TEST_SCENES", 70)
    monkeypatch.setattr(lab, "RECIPES", dict.fromkeys(lab.RECIPES, SHORT))
    lab.scenes.cache_clear()
    yield
    lab.scenes.cache_clear()


@pytest.mark.parametrize("row_id", lab.LAB_ROWS)
def test_all_rows_share_their_convolutions_and_keep_the_shape(row_id, small):
    row = lab.find_lab_row(row_id)
    none = "mini/resnet_none" if row.network == "resnet" else f"mini/{row.task}_none"
    net, plain = lab.build_net(row, 3), lab.build_net(lab.find_lab_row(none), 3)
    for name, value in plain.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)
    x = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert net(x).shape == (2, lab.scenes(row.task, "test").classes, 8, 8)


def test_without_a_block_a_label_depends_on_nine_pixels():
    net = SceneNet(4).eval()
    x = torch.full((1, 3, 32, 32), 100.0, requires_grad=True)
    net(x)[0, :, 4, 4].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero()
    assert seen.amin(0).tolist() == [12, 12]
    assert seen.amax(0).tolist() == [20, 20]


def test_a_run_repeats_and_its_log_says_what_it_was(small):
    first, again = (lab.run("mini/pairing_nl", 1)[1] for _ in range(2))
    other = lab.run("mini/pairing_nl", 2)[1]
    assert first["first_losses"] == again["first_losses"]
    assert first["accuracy"] == again["accuracy"]
    assert first["trained"] == again["trained"]
    assert first["first_losses"] != other["first_losses"]
    assert len(first["first_losses"]) == SHORT.steps
    assert first["command"] == "gclib train scenes --row mini/pairing_nl --seeds 1"
    assert set(first) >= {"commit", "versions", "threads", "seconds", "config", "parameters"}
    assert first["config"]["recipe"]["lr"] == SHORT.lr


def test_distances_of_a_block_whose_maps_are_known(small):
    data = make_scenes("pairing", 4)
    net = SceneNet(4, NonLocalBlock(32)).eval()
    for layer in (net.block.query, net.block.key):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.normal_(net.block.out.weight)
    found = lab.block_distances(net, data)
    assert found["all/cosine/attention"] == pytest.approx(0, abs=1e-6)  # uniform for every query
    assert found["objects/jsd/attention"] == pytest.approx(0, abs=1e-6)
    assert found["all/cosine/output"] == pytest.approx(0, abs=1e-6)
    assert found["all/cosine/input"] > 0.05
    dot = SceneNet(4, NonLocalBlock(32, instantiation="dot_product"))
    torch.nn.init.normal_(dot.block.out.weight)
    assert "all/jsd/attention" not in lab.block_distances(dot, data)


def test_a_run_in_the_residual_network(small):
    net, log = lab.run("mini/resnet_c4", 1)
    assert [name for name, m in net.named_modules() if isinstance(m, GCBlock)] == [
        "layer3.0.block",
        "layer3.1.block",
    ]
    assert log["command"] == "gclib train scenes --row mini/resnet_c4 --seeds 1"
    assert json.loads(json.dumps(log)) == log  # as it is read from a file
    assert log["config"]["stages"] == ["c4"]
    rows = [row for row in lab.LAB_ROWS.values() if row.network == "resnet"]
    assert len({lab.config_of(row, row.recipe)["hash"] for row in rows}) == len(rows) == 10


def test_what_is_done_stays_done(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Serial)
    lab.run_many(["mini/context_none"], [1, 2], tmp_path, checkpoints=tmp_path / "weights")
    said = capsys.readouterr().out
    assert "mini/context_none seed 1: accuracy" in said
    assert "2/2  mini/context_none" in said
    assert [log["seed"] for log in runs.read_runs(tmp_path, "mini/context_none")] == [1, 2]
    weights = torch.load(tmp_path / "weights/mini-context_none.pt", weights_only=True)
    SceneNet(16).load_state_dict(weights)
    lab.run_many(["mini/context_none"], [1, 2, 3], tmp_path)
    said = capsys.readouterr().out
    assert "1/1  mini/context_none seed 3" in said
    monkeypatch.setattr(lab, "RECIPES", dict.fromkeys(lab.RECIPES, Recipe(steps=2, batch_size=8)))
    lab.run_many(["mini/context_none"], [1], tmp_path)  # another recipe: the old runs do not count
    assert [log["seed"] for log in runs.read_runs(tmp_path, "mini/context_none")] == [1]


def test_a_notebook_reads_shipped_logs_or_trains(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Serial)
    monkeypatch.chdir(tmp_path)
    assert lab.logs_of("mini/context_nl") == runs.read_runs(runs_folder(), "mini/context_nl")
    assert not list(tmp_path.iterdir())
    made = lab.logs_of("mini/context_nl", retrain=True, seeds=[7])
    assert [log["seed"] for log in made] == [7]
    assert "seed 7: accuracy" in capsys.readouterr().out
    assert lab.logs_of("mini/context_nl", retrain=True, seeds=[7]) == made
    assert "seed 7" not in capsys.readouterr().out  # not trained twice
    monkeypatch.setattr(lab, "runs_folder", lambda: tmp_path)
    assert lab.logs_of("mini/context_se") == []
    assert "gclib train scenes --row mini/context_se" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'mini/context_nl'"):
        lab.logs_of("mini/context_n1")


class Serial:
    """An executor that runs jobs at once, so that monkeypatches hold."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future


def test_at_a_terminal(capsys, tmp_path):
    assert main(["train", "scenes", "--row", "?"]) == 0
    assert "mini/2f_avg_add" in capsys.readouterr().out
    assert main(["train", "scenes", "--row", "mini/pairing_n1", "--out", str(tmp_path)]) == 2
    assert "did you mean 'mini/pairing_nl'?" in capsys.readouterr().err
    assert main(["train", "scenes", "--row", "all", "--workers", "0"]) == 2
    with pytest.raises(SystemExit):
        main(["train", "scenes", "--row", "all", "--seeds", "5-1"])
    assert "the range is empty" in capsys.readouterr().err


def shipped(pytestconfig):
    return sorted((pytestconfig.rootpath / "data/scenes/runs").glob("*.json"))


def test_shipped_logs_are_of_the_rows_and_recipes_of_this_version(pytestconfig):
    for path in shipped(pytestconfig):
        for log in json.loads(path.read_text(encoding="utf-8")):
            row = lab.find_lab_row(log["row"])
            assert path.name == runs.log_path(path.parent, log["row"]).name
            assert log["config"] == lab.config_of(row, row.recipe)


@pytest.mark.parametrize("row_id", lab.LAB_ROWS)
def test_every_row_has_a_log_of_each_seed(row_id):
    logs = runs.read_runs(runs_folder(), row_id)
    seeds = range(1, 9) if "resnet" in row_id else range(1, 6)
    assert [log["seed"] for log in logs] == list(seeds)
    assert not any(log["commit"].endswith("+") for log in logs)  # from a clean checkout
    assert ("trained" in logs[0]) == ("_nl" in row_id)


@pytest.mark.parametrize("task", ["context", "pairing"])
def test_shipped_weights_are_those_of_the_log(task):
    row = f"mini/{task}_nl"
    net = lab.build_net(lab.find_lab_row(row), seed=1)
    path = runs_folder().parent / "checkpoints" / f"mini-{task}_nl.pt"
    net.load_state_dict(torch.load(path, weights_only=True))
    logged = runs.read_runs(runs_folder(), row)[0]
    assert lab.accuracy(net, lab.scenes(task, "test")) == pytest.approx(
        logged["accuracy"], abs=2e-3
    )
    found = lab.block_distances(net, lab.scenes(task, "test"))
    assert found == pytest.approx(logged["trained"], rel=0.02, abs=1e-4)


@pytest.mark.full
def test_first_losses_of_the_shipped_logs_come_again(pytestconfig):
    """Every shipped run, its first 20 updates once more."""
    for path in shipped(pytestconfig):
        logs = json.loads(path.read_text(encoding="utf-8"))
        log = logs[0]
        row = lab.find_lab_row(log["row"])
        recipe = row.recipe
        net = lab.build_net(row, log["seed"]).to(memory_format=torch.channels_last)
        train = lab.scenes(row.task, "train")
        tensors = (torch.from_numpy(train.images), torch.from_numpy(train.label_maps(net.stride)))
        losses = first_losses(net, tensors, recipe, log["seed"], len(log["first_losses"]))
        assert losses == pytest.approx(log["first_losses"], rel=0.02), log["row"]


def first_losses(net, tensors, recipe, seed, count):
    from itertools import islice

    from gclib.training.loop import batches, fit

    first = list(islice(batches(tensors, recipe, seed=seed), count))
    return fit(net, first, lab.loss_of, recipe)
