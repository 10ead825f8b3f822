"""What the explorer shows is what the networks of the lab compute."""

import json
import re

import numpy as np
import pytest
import torch

from gclib import explorer
from gclib.blocks.non_local import INSTANTIATIONS
from gclib.datasets.files import BrokenData
from gclib.explorer import recording as module
from gclib.models.scene_net import SceneNet
from gclib.paper.ledger import read_runs, runs_folder
from gclib.training import scenes, snapshots


@pytest.mark.parametrize("task", explorer.TASKS)
def test_shapes_and_maps(task):
    seen = explorer.recorded(task, 1)
    blocks, steps = len(INSTANTIATIONS), len(snapshots.STEPS)
    assert (seen.blocks, seen.steps) == (INSTANTIATIONS, snapshots.STEPS)
    assert seen.input.shape == seen.output.shape == (blocks, steps, 64, 32)
    assert seen.attention.shape == (blocks, steps, 64, 64)
    for kind in ("gaussian", "embedded_gaussian"):
        rows = seen.attention[INSTANTIATIONS.index(kind)].sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))
    # Untrained, the last layer of a block is zero: it adds nothing.
    assert not seen.output[:, 0].any()
    assert seen.output[:, 1:].flatten(2).any(-1).all()
    data = scenes.make_scenes(task, module.SCENES, seed=module.SEED)
    assert np.array_equal(seen.image, data.images[1])
    assert list(seen.objects) == list(map(tuple, data.centres(SceneNet.stride)[1].tolist()))


def test_the_snapshots_end_where_the_shipped_runs_end():
    for task in snapshots.TASKS:
        for kind in INSTANTIATIONS:
            row = snapshots.row_of(task, kind)
            told, nets = module._networks(task, kind)
            (log,) = (log for log in read_runs(runs_folder(), row) if log["seed"] == told["seed"])
            assert told["losses"] == pytest.approx(log["first_losses"], rel=2e-3)
            test = scenes.scenes(task, "test")
            reached = scenes.accuracy(nets[max(nets)], test)  # in half precision
            assert reached == pytest.approx(told["accuracy"], abs=0.01)
            assert scenes.accuracy(nets[0], test) < 0.5


def test_a_snapshot_is_the_network_after_so_many_updates():
    row = snapshots.row_of("context", "embedded_gaussian")
    short = scenes.Recipe(steps=3, batch_size=8, lr=2e-3)
    kept = {}

    def keep(done, net):
        kept[done] = {name: value.clone() for name, value in net.state_dict().items()}

    net, _ = scenes.run(row, 1, recipe=short, on_update=keep)
    assert sorted(kept) == [0, 1, 2, 3]
    for name, value in net.state_dict().items():
        assert torch.equal(kept[3][name], value)
    fresh = scenes.build_net(scenes.find_lab_row(row), 1).state_dict()
    assert all(torch.equal(kept[0][name], value) for name, value in fresh.items())
    assert not torch.equal(kept[1]["features.0.weight"], kept[2]["features.0.weight"])


def test_arrays_travel_whole():
    seen = explorer.recorded("pairing", 0)
    about, data = seen.packed()
    assert json.loads(json.dumps(about)) == about
    numbers = np.frombuffer(data, "<f4")
    many = seen.input.numel()
    assert len(numbers) == 2 * many + seen.attention.numel()
    units = torch.from_numpy(numbers[:many].copy()).view_as(seen.input)
    torch.testing.assert_close(units, torch.nn.functional.normalize(seen.input, dim=-1))
    assert np.array_equal(numbers[2 * many :], seen.attention.flatten().numpy())


def test_figure_names_every_block():
    figure, alt = explorer.static_figure(explorer.recorded("pairing", 0))
    titles = {axis.get_title() for axis in figure.axes}
    assert {"gaussian", "embedded gaussian", "dot product", "concat"} <= titles
    assert alt.startswith("After 1600 updates.")


def test_the_page_asks_nobody():
    page = explorer.offline_page(scenes=1)
    assert not re.search(r"(src|href)=|https?://|import\s*\(|fetch\s*\(", page)
    assert page.count("</script>") == 2


@pytest.mark.parametrize("wrong", [{"task": "majority"}, {"scene": -1}, {"scene": 24}])
def test_what_is_not_there(wrong):
    with pytest.raises(ValueError, match="expected"):
        explorer.recorded(**wrong)


def test_missing_snapshots_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "folder", lambda: tmp_path)
    module._networks.cache_clear()
    try:
        with pytest.raises(BrokenData, match="python -m gclib"):
            explorer.recorded("pairing", 0)
    finally:
        module._networks.cache_clear()


def test_outside_of_a_notebook_nothing_happens(capsys):
    explorer.show("pairing")
    assert capsys.readouterr().out == ""
