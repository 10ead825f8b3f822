"""Deformable convolution: the plain one at first, and sampling where the offsets say."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import randomise

from gclib import GCBlock
from gclib.models import (
    DeformableConv2d,
    build_resnet,
    insert_blocks,
    make_deformable,
    set_stride,
)

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_offsets_move_the_samples(groups, stride, dilation):
    torch.manual_seed(0)
    options = {"stride": stride, "padding": dilation, "dilation": dilation, "groups": groups}
    layer = DeformableConv2d(8, 8, 3, **options).double()
    x = torch.randn(2, 8, 9, 11, dtype=torch.float64)
    plain = F.conv2d(x, layer.weight, layer.bias, stride, dilation, dilation, groups)
    torch.testing.assert_close(layer(x), plain)
    # One row down and two columns right, at every tap: the convolution of the shifted map.
    with torch.no_grad():
        layer.conv_offset.bias.copy_(torch.tensor([1.0, 2.0]).repeat(9))
    shifted = F.pad(x, (0, 2, 0, 1))[:, :, 1:, 2:]
    expected = F.conv2d(
        F.pad(shifted, [2 * dilation] * 4), layer.weight, layer.bias, 1, 0,
        dilation, groups,
    )  # fmt: skip
    inner = expected[:, :, dilation:-dilation, dilation:-dilation][:, :, ::stride, ::stride]
    got = layer(x)
    # At the upper and left edge the shifted map has lost what stood before it.
    torch.testing.assert_close(got[:, :, 2:-3, 2:-3], inner[:, :, 2:-3, 2:-3])
    with torch.no_grad():  # half a row: the mean of two rows, because sampling is bilinear
        layer.conv_offset.bias.copy_(torch.tensor([0.5, 0.0]).repeat(9))
    constant = torch.arange(9.0, dtype=torch.float64)[:, None].expand(2, 8, 9, 11)
    moved = layer(constant) - F.conv2d(
        constant, layer.weight, layer.bias, stride, dilation, dilation, groups
    )
    half = 0.5 * layer.weight.sum((1, 2, 3))[:, None, None].expand_as(moved[0])
    torch.testing.assert_close(moved[:, :, 2:-3, 2:-3], half.expand_as(moved)[:, :, 2:-3, 2:-3])


def test_offsets_learn():
    torch.manual_seed(0)
    layer = DeformableConv2d(4, 4, 3, padding=1)
    layer(torch.randn(1, 4, 8, 8)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def test_nan_is_an_error_and_does_not_end_the_process():
    layer = DeformableConv2d(4, 4, 3, padding=1)
    with pytest.raises(FloatingPointError, match="has diverged"):
        layer(torch.full((1, 4, 8, 8), float("nan")))
    assert (
        torch.export.export(layer, (torch.randn(1, 4, 8, 8),))
        .module()(torch.randn(1, 4, 8, 8))
        .isfinite()
        .all()
    )


def test_a_network_keeps_its_function_and_its_weights():
    torch.manual_seed(0)
    model = randomise(build_resnet("resnext50_32x4d"))
    with torch.no_grad():
        y = model(IMAGES)
        names = make_deformable(model)
        assert len(names) == 13
        torch.testing.assert_close(model(IMAGES), y, rtol=1e-4, atol=1e-4)
    with torch.device("meta"):
        direct = build_resnet("resnext50_32x4d", GCBlock, deformable=("c3", "c4", "c5"))
    insert_blocks(model, GCBlock)
    assert {k: v.shape for k, v in direct.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert model.layer2[0].conv2.groups == 32
    assert model.layer2[0].conv2.conv_offset.weight.shape == (18, 256, 3, 3)


def test_a_block_behind_a_deformable_convolution():
    with torch.device("meta"):
        model = build_resnet("resnet50", GCBlock, position="after_3x3", deformable="c5")
    assert model.layer4[0].block.context_modelling.in_channels == 512


def test_a_stride_that_moves_takes_the_offsets_along():
    model = build_resnet("resnet50", deformable="c5").eval()
    set_stride(model, "1x1")
    with torch.no_grad():
        assert model(IMAGES).isfinite().all()


def test_what_cannot_be_deformable():
    with pytest.raises(TypeError, match=r"layer2\.0: expected a bottleneck"):
        make_deformable(torchvision.models.resnet18())
    model = torchvision.models.resnet50()
    make_deformable(model, ("c5",))
    with pytest.raises(ValueError, match=r"layer4\.0\.conv2 is deformable already"):
        make_deformable(model)
    assert not isinstance(model.layer2[0].conv2, DeformableConv2d)
    with pytest.raises(ValueError, match="pads with zeros"):
        DeformableConv2d(4, 4, 3, padding_mode="reflect")
