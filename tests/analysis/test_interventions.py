"""What is changed inside of a block acts, and is gone afterwards."""

import pytest
import torch
from torch import nn

from gclib.analysis.capture import capture
from gclib.analysis.distances import average_cosine_distance
from gclib.analysis.interventions import CHANGES, non_local_blocks, untrained, with_maps
from gclib.blocks import GCBlock, NonLocalBlock

KINDS = ("embedded_gaussian", "gaussian", "dot_product", "concat")


def network(kind="embedded_gaussian", **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), NonLocalBlock(8, instantiation=kind, **options))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net.eval()


def maps_of(net, x):
    with torch.no_grad(), capture(net) as captured:
        net(x)
    return captured["1"].attention


@pytest.mark.parametrize("kind", KINDS)
def test_changes_act_on_the_output_and_end(kind):
    net, x = network(kind), torch.randn(2, 3, 3, 4)
    with torch.no_grad():
        before = net(x)
        results = {}
        for name, change in CHANGES.items():
            with with_maps(net, change):
                results[name] = net(x)
        after = net(x)
    assert torch.equal(before, after)
    assert torch.equal(results["as they are"], before)
    for name in ("queries permuted", "the mean of all maps"):
        assert (results[name] - before).abs().max() > 1e-3, name


def test_permuted_maps_have_the_same_distance_and_the_mean_has_none():
    net, x = network(), torch.randn(2, 3, 3, 4)
    own = average_cosine_distance(maps_of(net, x))
    with with_maps(net, CHANGES["queries permuted"]):
        permuted = maps_of(net, x)
    with with_maps(net, CHANGES["the mean of all maps"]):
        mean = maps_of(net, x)
    torch.testing.assert_close(average_cosine_distance(permuted), own)
    assert not torch.equal(permuted, maps_of(net, x))
    assert average_cosine_distance(mean).max() < 1e-12 < own.min()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [None, "batch"])
def test_an_untrained_block_has_other_weights_an_output_and_gives_them_back(kind, norm):
    net, x = network(kind, norm=norm), torch.randn(2, 3, 3, 4)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad(), untrained(net):
        changed = {k for k, v in net.state_dict().items() if not torch.equal(v, state[k])}
        with capture(net) as captured:
            net(x)
        first = captured["1"]
    assert "1.out.weight" in changed
    assert not any(name.startswith("0.") for name in changed)
    assert first.output.abs().max() > 0
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    with torch.no_grad(), untrained(net), capture(net) as captured:
        net(x)
    assert torch.equal(captured["1"].attention, first.attention)


def test_the_scale_of_the_untrained_block_decides_how_far_its_maps_are_apart():
    net, x = network(), torch.randn(1, 3, 3, 4)
    found = []
    for scale in (None, 1000.0):
        with untrained(net, scale=scale):
            found.append(average_cosine_distance(maps_of(net, x)).item())
    assert found[0] < 1e-4 < found[1]
    assert net[1].scale == 1.0


def test_blocks_with_one_map_are_left_out_of_the_changes():
    net = nn.Sequential(GCBlock(8, ratio=2), NonLocalBlock(8))
    assert list(non_local_blocks(net)) == ["1"]


def test_an_error_inside_leaves_the_network_as_it_was():
    net = network()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    with (
        pytest.raises(RuntimeError, match="stop"),
        untrained(net),
        with_maps(net, CHANGES["queries permuted"]),
    ):
        raise RuntimeError("stop")
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert "attention" not in vars(net[1])
