"""The slow-only network: its sizes, and inflation that keeps a function."""

from functools import partial

import pytest
import torch
import torchvision
from networks import randomise

from gclib import GCBlock, NonLocalBlock
from gclib.models import SlowOnly, assert_identity, inflate_state_dict, insert_blocks
from gclib.models.slow_only import SlowBottleneck

IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_it_has_the_parameters_and_the_shapes_of_the_slow_pathway():
    with torch.device("meta"):
        model = SlowOnly()
        x = torch.empty(1, 3, 8, 224, 224)
        assert sum(p.numel() for p in model.parameters()) == 32_454_096
        shapes = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            getattr(model, name).register_forward_hook(
                lambda module, args, out: shapes.append(tuple(out.shape[1:]))
            )
        assert model(x).shape == (1, 400)
    assert shapes == [(256, 8, 56, 56), (512, 8, 28, 28), (1024, 8, 14, 14), (2048, 8, 7, 7)]
    temporal = {n: m.kernel_size for n, m in model.named_modules() if hasattr(m, "kernel_size")}
    three = {
        name for name, kernel in temporal.items() if isinstance(kernel, tuple) and kernel[0] == 3
    }
    blocks = [("layer3", 6), ("layer4", 3)]
    assert three == {f"{layer}.{i}.conv1" for layer, count in blocks for i in range(count)}


def test_time_enters_in_res4_and_res5_alone():
    torch.manual_seed(0)
    model = randomise(SlowOnly(num_classes=3))
    clip = torch.randn(1, 3, 8, 32, 32)
    other = clip.clone()
    other[:, :, 7] += 1
    maps = []
    for layer in (model.layer2, model.layer3):
        layer.register_forward_hook(lambda module, args, out: maps.append(out))
    with torch.no_grad():
        model(clip), model(other)
    changed = [
        ((a - b).abs().amax((0, 1, 3, 4)) > 0).tolist()
        for a, b in zip(maps[:2], maps[2:], strict=True)
    ]
    assert changed[0] == [False] * 7 + [True]
    assert changed[1] == [False] + [True] * 7  # six kernels of 3 reach six frames


@pytest.mark.full
@pytest.mark.parametrize("stride_in", ["3x3", "1x1"])
@pytest.mark.parametrize(
    ("inflation", "padding", "keeps"),
    [
        ("centre", "zeros", True),
        ("centre", "replicate", True),
        ("average", "replicate", True),
        ("average", "zeros", False),  # the first and the last frame miss a third
    ],
)
def test_constant_clips_keep_their_function(inflation, padding, keeps, stride_in):
    from gclib.models import set_stride

    torch.manual_seed(0)
    flat = randomise(torchvision.models.resnet50(num_classes=5))
    set_stride(flat, stride_in)
    model = SlowOnly(num_classes=5, time_padding=padding, stride_in=stride_in).eval()
    weights = inflate_state_dict(flat.state_dict(), model, inflation=inflation, stride_in=stride_in)
    model.load_state_dict(weights, strict=True)
    clips = IMAGES[:, :, None].expand(-1, -1, 4, -1, -1)
    with torch.no_grad():
        y, z = flat(IMAGES), model(clips)
    error = (z - y).norm() / y.norm()
    assert error < 1e-5 if keeps else error > 0.05


def test_centre_inflation_treats_every_frame_by_itself():
    torch.manual_seed(0)
    flat = randomise(torchvision.models.resnet50(num_classes=5))
    model = SlowOnly(num_classes=5).eval()
    model.load_state_dict(inflate_state_dict(flat.state_dict(), model))
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        frames = flat(clip[0].transpose(0, 1))
        torch.testing.assert_close(model(clip), frames.mean(0, keepdim=True), rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_blocks_and_other_classes_stay_fresh():
    flat = torchvision.models.resnet50()
    model = SlowOnly()
    insert_blocks(model, GCBlock)
    found = inflate_state_dict(flat.state_dict(), model)
    left = model.load_state_dict(found, strict=False)
    assert not left.unexpected_keys
    assert {"fc.weight", "fc.bias"} <= set(left.missing_keys)
    assert all(".block." in key or key.startswith("fc.") for key in left.missing_keys)


def test_what_cannot_be_inflated():
    with torch.device("meta"):
        model = SlowOnly()
        flat, small, wide = (
            getattr(torchvision.models, name)().state_dict()
            for name in ("resnet50", "resnet18", "wide_resnet50_2")
        )
    with pytest.raises(ValueError, match=r"layer1\.0\.conv3\.weight is missing.*and \d+ more"):
        inflate_state_dict(small, model)
    with pytest.raises(ValueError, match="does not fit"):
        inflate_state_dict(wide, model)
    with pytest.raises(ValueError, match="inflation='mean': expected one of 'centre', 'average'"):
        inflate_state_dict({}, model, inflation="mean")
    for key in ("bn1.running_mean", "layer3.5.bn2.weight", "layer2.0.downsample.1.running_var"):
        with pytest.raises(ValueError, match=f"{key} is missing"):
            inflate_state_dict({k: v for k, v in flat.items() if k != key}, model)
    old = {k: v for k, v in flat.items() if not k.endswith("num_batches_tracked")}
    assert inflate_state_dict(old, model)
    with pytest.raises(ValueError, match="stride_in='2x2'"):
        SlowBottleneck(64, 64, stride_in="2x2")
    with pytest.raises(ValueError, match="depth=18"):
        SlowOnly(18)
    with pytest.raises(ValueError, match="time_padding='same'"):
        SlowOnly(time_padding="same")


def test_weights_of_another_stride_are_not_inflated():
    with torch.device("meta"):
        flat = torchvision.models.resnet50().state_dict()
        first, second = SlowOnly(stride_in="1x1"), SlowOnly()
    inflate_state_dict(flat, first, stride_in="1x1")
    inflate_state_dict(flat, second)
    with pytest.raises(ValueError, match="nothing says where the 2D network strides"):
        inflate_state_dict(flat, first)
    for model, theirs in ((first, "3x3"), (second, "1x1")):
        for given, option in (
            (flat, {"stride_in": theirs}),
            ({"model": flat, "stride_in": theirs}, {}),
        ):
            with pytest.raises(ValueError, match=f"belong to stride_in='{theirs}', the 3D"):
                inflate_state_dict(given, model, **option)


@pytest.mark.full
def test_a_reset_leaves_inserted_blocks_the_identity():
    model = SlowOnly()
    insert_blocks(model, partial(NonLocalBlock, norm="batch"), stages="c4", index=-2)
    insert_blocks(model, GCBlock, stages="c3")
    before = model.layer3[4].block.query.weight.clone()
    with torch.no_grad():
        model.layer3[4].block.norm.weight.fill_(1)
    model.reset_parameters()
    assert_identity(model.eval(), IMAGES[:, :, None].expand(-1, -1, 2, -1, -1))
    assert not torch.equal(model.layer3[4].block.query.weight, before)
