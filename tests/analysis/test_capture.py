"""Capture takes the map out of the call that the model makes, and leaves nothing behind."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from gclib.analysis.capture import capture
from gclib.blocks import GCBlock, NonLocalBlock, SimplifiedNonLocalBlock

close = torch.testing.assert_close


class Net(nn.Module):
    """Two blocks deep inside of a model, one of them called for its map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stage = nn.Sequential(NonLocalBlock(8), nn.ReLU())
        self.last = GCBlock(8, ratio=2)

    def forward(self, x):
        z, self.seen = self.last(self.stage(self.stem(x)), return_attention=True)
        return z


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4)
    return net


@pytest.fixture
def x():
    return torch.randn(2, 3, 4, 5, dtype=torch.float64)


def test_input_output_and_map_of_every_block(net, x):
    expected = net(x)
    with capture(net) as captured:
        assert torch.equal(net(x), expected)
    assert list(captured) == ["stage.0", "last"]
    first, last = captured["stage.0"], captured["last"]
    assert torch.equal(first.input, net.stem(x))
    z, attention = net.stage[0](first.input, return_attention=True)
    close(first.output, z - first.input)
    assert torch.equal(first.attention, attention)
    assert first.attention.shape == (2, 20, 20)
    assert last.attention.shape == (2, 1, 20)
    assert torch.equal(last.attention, net.seen)
    assert first.positions == (4, 5)
    assert first.vectors("input").shape == (2, 20, 8)
    assert torch.equal(first.vectors("output")[0, 7], first.output[0, :, 1, 2])
    assert torch.equal(first.vectors("attention"), attention)


def test_gradients_are_those_without_capture(net, x):
    net(x).square().mean().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with capture(net) as captured:
        net(x).square().mean().backward()
    close([p.grad for p in net.parameters()], expected)
    assert not captured["last"].attention.requires_grad


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_before_and_holds_nothing(net, x, fails):
    before = copy.deepcopy(net.state_dict())
    try:
        with capture(net) as captured:
            net(x)
            if fails:
                raise KeyError("stop")
    except KeyError:
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert list(net.state_dict()) == list(before)
    assert isinstance(net.stage(net.stem(x)), torch.Tensor)
    held = weakref.ref(captured["stage.0"].attention)
    del captured
    gc.collect()
    assert held() is None


def test_the_last_call_counts_and_a_block_may_be_the_model(x):
    block = SimplifiedNonLocalBlock(3).double()
    with capture(block) as captured:
        block(torch.zeros_like(x))
        block(x)
    assert torch.equal(captured[""].input, x)
    assert not captured[""].output.any()  # a fresh block is the identity


def test_in_place_changes_behind_the_block_do_not_reach_what_was_captured(x):
    net = nn.Sequential(NonLocalBlock(3).double(), nn.ReLU(inplace=True))
    with capture(net) as captured:
        net(x)
    assert not captured["0"].output.any()


def test_a_model_without_blocks_is_refused():
    with (
        pytest.raises(ValueError, match="Conv2d holds no attention block"),
        capture(nn.Conv2d(3, 3, 1)),
    ):
        pass
    block = NonLocalBlock(3)
    with capture(block) as captured:
        block(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="what='maps': expected 'input'"):
        captured[""].vectors("maps")


def test_a_block_of_ones_own(x):
    class Mine(nn.Module):
        def forward(self, x):
            return 2 * x

    def knows(module):
        if isinstance(module, Mine):
            return lambda module, x: torch.ones(len(x), 20, 20)
        return None

    net = nn.Sequential(nn.Identity(), Mine())
    with capture(net, attention_of=knows) as captured:
        net(x)
    assert torch.equal(captured["1"].output, x)
    assert captured["1"].attention.shape == (2, 20, 20)


MODES = {
    "embedded_gaussian": "embedded_gaussian",
    "gaussian": "gaussian",
    "dot_product": "dot_product",
    "concat": "concatenation",
}


@pytest.mark.full
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), MODES.items())
def test_blocks_of_mmcv(ours, theirs, sub_sample):
    cnn = pytest.importorskip("mmcv.cnn", reason="mmcv-lite is not installed")
    from gclib.blocks import load_peer_state_dict

    peer = cnn.NonLocal2d(8, mode=theirs, use_scale=False, sub_sample=sub_sample).double()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.4)
    block = NonLocalBlock(8, instantiation=ours, subsample="after" if sub_sample else None).double()
    load_peer_state_dict(block, peer.state_dict(), "mmcv")
    x = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    with capture(nn.Sequential(peer)) as captured:
        peer(x)
    close(captured["0"].attention, block(x, return_attention=True)[1])


@pytest.mark.full
def test_blocks_of_timm():
    layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    peer = layers.NonLocalAttn(16).eval()
    x = torch.randn(2, 16, 4, 5)
    with capture(peer) as captured:
        z = peer(x)
    found = captured[""]
    close(found.attention.sum(2), torch.ones(2, 20))
    value = peer.g(x).flatten(2)
    context = torch.bmm(value, found.attention.mT).unflatten(2, (4, 5))
    close(z, peer.norm(peer.z(context)) + x)
