"""State dicts of networks made with the peers' own modules load, and outputs agree."""

import re
from collections import OrderedDict
from functools import partial

import pytest
import torch
import torchvision
from networks import randomise, wake
from torch import nn
from torchvision.models import get_model

from gclib import GCBlock, NonLocalBlock
from gclib.blocks import AddFusion, AttentionPooling, BottleneckTransform, ContextBlock
from gclib.models import (
    SlowOnly,
    build_resnet,
    convert_weights,
    insert_blocks,
    load_weights,
    make_deformable,
    read_weights,
)

IMAGES = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CLIPS = torch.randn(
    1, 3, 2, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
)


LAYERS = (1, 1, 2, 1)


def small(seed=0):
    """A ResNet with few bottlenecks, in evaluation mode."""
    torch.manual_seed(seed)
    bottleneck = torchvision.models.resnet.Bottleneck
    return torchvision.models.ResNet(bottleneck, LAYERS, num_classes=5).eval()


def peer(name):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[peers]'")


def with_peer_blocks(model, make, slot, stages=("layer2", "layer3", "layer4")):
    """``model`` with a peer's blocks behind the last norm, and its state dict by their names."""
    where = {}
    for stage in stages:
        for number, residual in enumerate(getattr(model, stage)):
            block = make(residual.bn3.num_features).double()
            residual.bn3 = nn.Sequential(residual.bn3, block)
            where[f"{stage}.{number}"] = residual
    wake(randomise(model))

    def rename(key):
        for name in where:
            if key.startswith(f"{name}.bn3.0."):
                return key.replace("bn3.0.", "bn3.")
            if key.startswith(f"{name}.bn3.1."):
                return key.replace("bn3.1.", f"{slot}.")
        return key

    return OrderedDict((rename(key), value) for key, value in model.state_dict().items())


@pytest.mark.full
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmdetection_and_official(prefix):
    context_block = peer("mmcv.cnn.bricks.context_block").ContextBlock
    theirs = small().double()
    make = partial(context_block, ratio=1 / 16)
    state_dict = with_peer_blocks(theirs, make, "context_block")
    given = {prefix + key: value for key, value in state_dict.items()}
    if prefix:  # a detector's
        given = {k: v for k, v in given.items() if not k.startswith("backbone.fc")}
        given |= {"neck.lateral_convs.0.conv.weight": torch.zeros(1)}
        given |= {"roi_head.bbox_head.fc_cls.weight": torch.zeros(1)}
    ours = small().double()
    insert_blocks(ours, GCBlock)
    left = load_weights(ours, given)
    assert left == (["fc.weight", "fc.bias"] if prefix else [])
    if prefix:
        ours.fc.load_state_dict(theirs.fc.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), theirs.eval()(IMAGES), rtol=1e-6, atol=1e-6)


@pytest.mark.full
def test_mmdetection_non_local():
    non_local = peer("mmcv.cnn.bricks.non_local").NonLocal2d
    theirs = small().double()
    make = partial(non_local, norm_cfg={"type": "BN"})
    state_dict = with_peer_blocks(theirs, make, "nonlocal_block", ["layer4"])
    ours = small()
    block = partial(NonLocalBlock, scale="sqrt", norm="batch")
    insert_blocks(ours, block, ("c5",))
    load_weights(ours.eval().double(), state_dict)
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), theirs.eval()(IMAGES), rtol=1e-6, atol=1e-6)


def timm_block(channels):
    """What timm's ``gca`` adds: ratio 1/8, LayerNorm with an epsilon of 1e-6."""
    transform = BottleneckTransform(channels, ratio=8, norm=True, norm_eps=1e-6)
    return ContextBlock(AttentionPooling(channels), transform, AddFusion())


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_timm(seed):
    timm = peer("timm")
    torch.manual_seed(seed)
    layer = partial(timm.layers.GlobalContext, fuse_add=True, fuse_scale=False)
    theirs = timm.models.ResNet(
        timm.models.resnet.Bottleneck, LAYERS, num_classes=5, block_args={"attn_layer": layer}
    ).double()
    wake(randomise(theirs, seed), seed)
    ours = small()
    insert_blocks(ours, timm_block, ("c2", "c3", "c4", "c5"))
    assert load_weights(ours.eval().double(), theirs.state_dict()) == []
    with torch.no_grad():
        # Far below the 1e-6 that a wrong epsilon costs, so that no choice of weights can hide it.
        torch.testing.assert_close(ours(IMAGES), theirs.eval()(IMAGES), rtol=1e-9, atol=1e-9)


def mmaction_names(state_dict):
    """Keys of mmaction2: convolution and norm of a layer stand in one module."""
    found = {}
    for key, value in state_dict.items():
        parts = key.split(".")
        if key.startswith("fc."):
            key = f"cls_head.fc_cls.{parts[-1]}"
        elif "downsample" in parts:
            kind = "conv" if parts[-2] == "0" else "bn"
            key = ".".join(["backbone", *parts[:-2], kind, parts[-1]])
        elif parts[-2].startswith("bn"):
            key = ".".join(["backbone", *parts[:-2], f"conv{parts[-2][2:]}", "bn", parts[-1]])
        elif ".block." not in key:
            key = ".".join(["backbone", *parts[:-1], "conv", parts[-1]])
        else:
            continue
        found[key] = value
    return found


@pytest.mark.full
def test_mmaction2():
    bricks = peer("mmcv.cnn")
    torch.manual_seed(0)
    theirs = wake(randomise(SlowOnly(num_classes=5))).double()
    state_dict = mmaction_names(theirs.state_dict())
    # That these are the names is read off a layer built by mmcv itself.
    layer = bricks.ConvModule(3, 4, 1, norm_cfg={"type": "BN3d"}, conv_cfg={"type": "Conv3d"})
    built = {f"backbone.conv1.{key}" for key in layer.state_dict()}
    assert built <= set(state_dict)
    ours = SlowOnly(num_classes=5)
    assert load_weights(ours.eval().double(), state_dict) == []
    with torch.no_grad():
        torch.testing.assert_close(ours(CLIPS), theirs.eval()(CLIPS), rtol=1e-6, atol=1e-6)
    # Its non-local blocks stand behind the last ReLU: not a place here, so they are refused.
    block = peer("mmcv.cnn.bricks.non_local").NonLocal3d(512, norm_cfg={"type": "BN3d"})
    prefix = "backbone.layer2.1.non_local_block."
    state_dict |= {prefix + key: value for key, value in block.state_dict().items()}
    insert_blocks(ours, partial(NonLocalBlock, scale="sqrt", norm="batch"), ("c3",), index=1)
    with pytest.raises(ValueError, match="stands behind the last ReLU"):
        load_weights(ours, state_dict)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module."])
def test_weights_of_a_larger_network_are_refused_under_every_prefix(prefix):
    bottleneck = torchvision.models.resnet.Bottleneck
    larger = torchvision.models.ResNet(bottleneck, (1, 1, 3, 1), num_classes=5)
    with pytest.raises(ValueError, match=r"layer3\.2\.conv1\.weight has no place"):
        load_weights(small(), {prefix + k: v for k, v in larger.state_dict().items()})
    make_deformable(larger := small())
    with pytest.raises(ValueError, match=r"conv_offset\.weight has no place"):
        load_weights(small(), {prefix + k: v for k, v in larger.state_dict().items()})


def test_frozen_norms_have_no_counter():
    frozen = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck,
        LAYERS,
        num_classes=5,
        norm_layer=torchvision.ops.FrozenBatchNorm2d,
    )
    assert load_weights(frozen, small().state_dict()) == []


def test_wrong_weights_leave_the_network_as_it_was():
    model = build_resnet("resnet18", partial(GCBlock, ratio=4), num_classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    good = {key: value + 1 for key, value in before.items()}

    def without(*parts):
        return {k: v for k, v in good.items() if not any(part in k for part in parts)}

    cases = {
        "nothing for layer1.0.conv1.weight": without("layer1.0.conv1"),
        "layer2.0: weights under": without("layer2.0.block.transform.expand"),
        "nothing for layer2.0.block": without("layer2.0.block."),
        "layer1.0.block.*: there is no block in layer1.0": good
        | {"layer1.0.block.x": good["bn1.bias"]},
        "layer1.0.conv9.weight has no place": good
        | {"layer1.0.conv9.weight": good["conv1.weight"]},
        "conv1.weight: (1, 3, 7, 7) does not fit (64, 3, 7, 7)": good
        | {"conv1.weight": good["conv1.weight"][:1]},
        "no conv1.weight among the weights": {"a": good["conv1.weight"]},
    }
    for message, weights in cases.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            load_weights(model, weights)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert load_weights(model, without(".block.")) != []
    assert load_weights(model, good) == []
    assert load_weights(model, {f"module.{k}": v for k, v in good.items()}) == []


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_torchvisions_3d_networks_take_their_own(name):
    torch.manual_seed(1)
    theirs = wake(get_model(name, weights=None, num_classes=5))
    ours = get_model(name, weights=None, num_classes=5)
    assert load_weights(ours, theirs.state_dict()) == []
    assert same(ours, theirs)
    left = insert_blocks(ours, GCBlock)
    missing = load_weights(ours, theirs.state_dict())
    assert missing
    assert all(key.split(".block.")[0] in left for key in missing)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight has no place in VideoResNet"):
        load_weights(ours, small().state_dict())


@pytest.mark.parametrize(
    "prefix",
    [
        *("_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "model.backbone."),
        *("backbone.body.", "module.backbone.body.", "_orig_mod.backbone.body."),
    ],
)
def test_what_wraps_a_network_is_taken_off(prefix):
    theirs = small(1)
    insert_blocks(theirs, GCBlock)
    wake(theirs)
    ours = small()
    insert_blocks(ours, GCBlock)
    given = {prefix + key: value for key, value in theirs.state_dict().items()}
    given["rpn.head.conv.weight"] = given["fpn.layer_blocks.0.0.weight"] = torch.zeros(1)
    assert load_weights(ours, given) == []
    assert same(ours, theirs)


def test_compiled_networks_and_layers():
    theirs = wake(small(1))
    ours = small()
    assert load_weights(torch.compile(ours), torch.compile(theirs).state_dict()) == []
    assert same(ours, theirs)
    theirs = wake(small(2))
    plain = {k: v.clone() for k, v in theirs.state_dict().items()}
    theirs.layer3[1] = torch.compile(theirs.layer3[1])
    assert any(key.startswith("layer3.1._orig_mod.") for key in theirs.state_dict())
    assert load_weights(ours, theirs.state_dict()) == []
    assert all(torch.equal(value, plain[key]) for key, value in ours.state_dict().items())


def test_into_a_network_of_several_processes():
    theirs, ours = wake(small(1)), small()
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(ours)
        assert load_weights(wrapped, nn.parallel.DistributedDataParallel(theirs).state_dict()) == []
    finally:
        torch.distributed.destroy_process_group()
    assert same(ours, theirs)


def test_residual_blocks_that_share_weights():
    def shared(seed):
        model = small(seed)
        model.layer3 = nn.Sequential(model.layer3[0], model.layer3[1], model.layer3[1])
        insert_blocks(model, GCBlock)
        return wake(model)

    theirs, ours = shared(1), shared(2)
    assert "layer3.2.block.transform.reduce.weight" in theirs.state_dict()
    assert not same(ours, theirs)
    assert load_weights(ours, theirs.state_dict()) == []
    assert same(ours, theirs)


def test_a_checkpoint_says_where_blocks_and_strides_are(tmp_path):
    model = small()
    insert_blocks(model, GCBlock, position="after_add")
    model.stride_in = "3x3"
    checkpoint = {"model": model.state_dict(), "position": "after_add", "stride_in": "3x3"}
    assert load_weights(model, checkpoint) == []
    assert load_weights(model, {**model.state_dict(), "position": "after_add"}) == []
    for key, value, said in [
        ("position", "after_1x1", "its blocks stood at position='after_1x1', not 'after_add'"),
        ("stride_in", "1x1", "its weights belong to stride_in='1x1', not '3x3'"),
    ]:
        with pytest.raises(ValueError, match=said):
            convert_weights(model, checkpoint | {key: value})
    torch.save(checkpoint, tmp_path / "add.pth")
    assert (
        read_weights(tmp_path / "add.pth", position="after_add").keys()
        == checkpoint["model"].keys()
    )
    with pytest.raises(ValueError, match="stood at position='after_add', not 'after_1x1'"):
        read_weights(tmp_path / "add.pth", position="after_1x1")


def test_what_is_no_state_dict_is_refused_in_a_sentence():
    model = small()
    insert_blocks(model, GCBlock)
    good = model.state_dict()
    block = "layer2.0.block.context_modelling.key.weight"
    assert block in good
    for wrong, said in [
        ({"layer1.0.conv1.weight": 3}, "layer1.0.conv1.weight: expected a tensor, got int"),
        ({block: [1.0]}, f"{block}: expected a tensor, got list"),
        ({7: torch.zeros(1)}, "got a key 7"),
        (
            {"layer3.0.block.x": torch.zeros(1), "layer3.0.se.y": torch.zeros(1)},
            "two blocks in lay",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(said)):
            load_weights(model, good | wrong)
    with pytest.raises(TypeError, match="or a checkpoint, got bool"):
        load_weights(model, True)
    two = {f"layer3.0.{slot}.x": torch.zeros(1) for slot in ("context_block", "nonlocal_block")}
    with pytest.raises(ValueError, match=r"two blocks in layer3\.0, which holds one here"):
        load_weights(model, good | two)
    counted = good | {"epoch": 3}  # of no layer
    assert load_weights(model, counted) == []
