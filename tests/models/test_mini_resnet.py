"""The residual network of the lab: what a label sees, and blocks in it as in a ResNet."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from gclib.blocks import GCBlock
from gclib.models.insertion import assert_identity, insert_blocks, remove_blocks
from gclib.models.mini_resnet import MiniResNet


def seen(net, row=4, column=4):
    """First and last pixel, on both axes, that one label depends on."""
    net.eval()
    x = 100 + torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    net(x)[0, :, row, column].square().sum().backward()
    pixels = x.grad[0].abs().sum(0).nonzero()
    return pixels.amin(0).tolist(), pixels.amax(0).tolist()


def test_a_label_depends_on_19_pixels_and_with_a_block_on_all():
    torch.manual_seed(0)
    net = MiniResNet(16)
    assert seen(net) == ([7, 7], [25, 25])
    (block,) = insert_blocks(net, GCBlock, stages="c5", index=0).values()
    assert seen(net) == ([7, 7], [25, 25])
    nn.init.normal_(block.transform.expand.weight)
    assert seen(net) == ([0, 0], [31, 31])
    assert seen(MiniResNet(16, local=False)) == ([0, 0], [31, 31])


def channels(blocks):
    return [block.in_channels for block in blocks.values()]


def test_it_takes_blocks_as_a_resnet_does():
    torch.manual_seed(0)
    net = MiniResNet(16).eval()
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    before, names = net(x), set(net.state_dict())
    assert before.shape == (2, 16, 8, 8)
    made = insert_blocks(net, partial(GCBlock, ratio=4))
    assert list(made) == [f"layer{k}.{i}" for k in (2, 3, 4) for i in (0, 1)]
    assert channels(made) == [32, 32, 64, 64, 128, 128]
    assert_identity(net, x)
    assert torch.equal(net(x), before)
    remove_blocks(net)
    assert set(net.state_dict()) == names
    inner = insert_blocks(net, partial(GCBlock, ratio=4), position="after_3x3")
    assert channels(inner) == [8, 8, 16, 16, 32, 32]


@pytest.mark.full
def test_the_lab_imports_no_torchvision():
    code = "import sys, gclib.training.scenes; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
