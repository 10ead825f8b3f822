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


def test_on_the_way_to_deformable_nothing_is_half_done():
    from torch.nn.utils import parametrize, prune

    class Twice(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    def plain():
        bottleneck = torchvision.models.resnet.Bottleneck
        return torchvision.models.ResNet(bottleneck, [1, 2, 1, 1], width_per_group=16)

    class Own(torch.nn.Conv2d):
        pass

    pruned, computed, own, padded = plain(), plain(), plain(), plain()
    prune.l1_unstructured(pruned.layer4[0].conv2, "weight", 0.5)
    parametrize.register_parametrization(computed.layer4[0].conv2, "weight", Twice())
    own.layer4[0].conv2.__class__ = Own
    padded.layer4[0].conv2.padding_mode = "reflect"
    for model, error, said in (
        (pruned, TypeError, r"layer4\.0\.conv2 has a weight that is computed"),
        (computed, TypeError, r"layer4\.0\.conv2 has a weight that is computed"),
        (own, TypeError, r"layer4\.0\.conv2 is a Own: expected an nn\.Conv2d"),
        (padded, ValueError, "pads with zeros"),
    ):
        keys = list(model.state_dict())
        with pytest.raises(error, match=said):
            make_deformable(model)
        assert list(model.state_dict()) == keys
        assert type(model.layer2[0].conv2) is torch.nn.Conv2d
    for stages, error in (("c6", ValueError), (None, TypeError)):
        with pytest.raises(error, match="stages="):
            make_deformable(plain(), stages)
    assert make_deformable(plain(), []) == []


def test_hooks_and_parameters_stay():
    model = torchvision.models.resnet50()
    seen, weight = [], model.layer4[1].conv2.weight
    model.layer4[1].conv2.register_forward_hook(lambda *_: seen.append(True))
    make_deformable(model, "c5")
    assert model.layer4[1].conv2.weight is weight
    with torch.no_grad():
        model.eval()(IMAGES)
    assert seen == [True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(dtype):
    layer = DeformableConv2d(8, 8, 3, padding=1)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    x = torch.randn(2, 8, 9, 9)
    y = layer(x)
    half = DeformableConv2d(8, 8, 3, padding=1)
    half.load_state_dict(layer.state_dict())
    z = half.to(dtype)(x.to(dtype))
    assert z.dtype == dtype
    assert (z - y).norm() < 0.05 * y.norm()
    z.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in half.parameters())
    with torch.autocast("cpu", dtype):
        for given in (x, x.to(dtype)):
            z = layer(given)
            assert z.dtype == given.dtype
            assert (z - y).norm() < 0.05 * y.norm()


def test_a_symbolic_trace_keeps_the_check():
    layer = DeformableConv2d(4, 4, 3, padding=1)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    traced = torch.fx.symbolic_trace(layer)
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(traced(x), layer(x))
    with pytest.raises(FloatingPointError, match="has diverged"):
        traced(torch.full((1, 4, 8, 8), float("nan")))
