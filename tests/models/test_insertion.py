"""Blocks go into residual networks, stand where the paper says, and come out again."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from networks import randomise, wake
from torch import nn

from gclib import ContextBlock, GCBlock, NonLocalBlock, SEBlock, SimplifiedNonLocalBlock
from gclib.blocks import ROWS, reset_identity
from gclib.models import (
    SlowOnly,
    assert_identity,
    build_resnet,
    insert_blocks,
    insert_row,
    inserted_blocks,
    remove_blocks,
    without_blocks,
)

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLIPS = torch.randn(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    name: (partial(torchvision.models.get_model, name, weights=None), IMAGES)
    for name in ("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2")
}
NETWORKS["resnext101_32x4d"] = partial(build_resnet, "resnext101_32x4d"), IMAGES
NETWORKS |= {
    name: (partial(torchvision.models.get_model, name, weights=None), CLIPS)
    for name in ("r3d_18", "mc3_18", "r2plus1d_18")
}
NETWORKS["slow_only"] = SlowOnly, CLIPS
SMALL = ("resnet18", "r3d_18")
LARGE = [pytest.param(name, marks=pytest.mark.full) for name in NETWORKS if name not in SMALL]
ADDING = (GCBlock, SimplifiedNonLocalBlock, NonLocalBlock)


def small(seed=0):
    """A ResNet with one, two, three and two bottlenecks in its stages, of a quarter's width."""
    torch.manual_seed(seed)
    bottleneck = torchvision.models.resnet.Bottleneck
    return randomise(
        torchvision.models.ResNet(bottleneck, [1, 2, 3, 2], num_classes=5, width_per_group=16)
    )


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_a_network_keeps_its_function_its_names_and_its_weights(name):
    build, x = NETWORKS[name]
    torch.manual_seed(0)
    model = randomise(build())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    residuals, cls = dict(model.named_modules()), type(model)
    with torch.no_grad():
        y = model(x)
        made = insert_blocks(model, GCBlock)
        assert torch.equal(model(x), y)
        assert_identity(model, x)
    assert type(model) is cls
    assert all(residuals[name].block is block for name, block in made.items())
    after = model.state_dict()
    assert all(torch.equal(after.pop(key), value) for key, value in before.items())
    assert after
    assert all(".block." in key for key in after)
    wake(model)
    with torch.no_grad():
        changed = model(x)
        for block in made.values():
            block.eval()
        assert not torch.allclose(changed, y)
        assert list(remove_blocks(model).values()) == list(made.values())
    assert list(model.state_dict()) == list(before)


def by_hand(residual, block, position, x):
    """A bottleneck, step by step."""
    out = residual.bn1(residual.conv1(x)).relu()
    out = residual.bn2(residual.conv2(out)).relu()
    out = block(out) if position == "after_3x3" else out
    out = residual.bn3(residual.conv3(out))
    out = block(out) if position == "after_1x1" else out
    out = out + (residual.downsample(x) if residual.downsample else x)
    out = block(out) if position == "after_add" else out
    return out.relu()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("position", ["after_3x3", "after_1x1", "after_add"])
def test_the_block_stands_at_its_position(position, number):
    model = small()
    insert_blocks(model, partial(GCBlock, ratio=4), position=position)
    wake(model)
    residual = model.layer3[number]
    width = 16 * 4 if position == "after_3x3" else 1024
    assert residual.block.context_modelling.in_channels == width
    x = torch.randn(2, residual.conv1.in_channels, 8, 8)
    with torch.no_grad():
        expected = by_hand(residual, residual.block, position, x)
        torch.testing.assert_close(residual(x), expected)
        for other in {"after_3x3", "after_1x1", "after_add"} - {position}:
            if (other == "after_3x3") == (position == "after_3x3"):
                assert not torch.allclose(by_hand(residual, residual.block, other, x), expected)


@pytest.mark.parametrize("position", ["after_1x1", "after_add"])
@pytest.mark.parametrize(("name", "x"), [("resnet18", IMAGES), ("r3d_18", CLIPS)])
def test_basic_blocks_take_a_block_behind_their_last_convolution(name, x, position):
    torch.manual_seed(0)
    model = wake(randomise(torchvision.models.get_model(name, weights=None)))
    insert_blocks(model, partial(GCBlock, ratio=4), position=position)
    wake(model)
    residual = model.layer2[0]
    x = torch.randn(1, 64, *x.shape[2:])
    with torch.no_grad():
        if name == "r3d_18":
            out = residual.conv2(residual.conv1(x))
        else:
            out = residual.bn2(residual.conv2(residual.bn1(residual.conv1(x)).relu()))
        shortcut = residual.downsample(x)
        if position == "after_1x1":
            expected = (residual.block(out) + shortcut).relu()
        else:
            expected = residual.block(out + shortcut).relu()
        torch.testing.assert_close(residual(x), expected)


@pytest.mark.parametrize(
    ("stages", "index", "expected"),
    [
        (("c3", "c4", "c5"), None, "2.0 2.1 3.0 3.1 3.2 4.0 4.1"),
        (("c4",), -2, "3.1"),
        ("c4", -2, "3.1"),
        (("c3", "c5"), 0, "2.0 4.0"),
        (("c4",), (0, -1), "3.0 3.2"),
        (("c3", "c4"), {"c3": 1, "c4": (0, 2)}, "2.1 3.0 3.2"),
        (("c2",), None, "1.0"),
        (("c4",), np.int64(-2), "3.1"),
        (("c4",), np.array([0, 2]), "3.0 3.2"),
        (("c4",), torch.tensor(1), "3.1"),
    ],
)
def test_stages_and_indices(stages, index, expected):
    model = small()
    made = insert_blocks(model, GCBlock, stages, index=index)
    assert list(made) == [f"layer{name}" for name in expected.split()]
    assert list(inserted_blocks(model)) == list(made)


@pytest.mark.parametrize("row", [r for r in ROWS if r.startswith(("2a", "2b", "2c", "4b", "5"))])
def test_every_row_stands_in_its_network(row):
    with torch.device("meta"):
        model = SlowOnly() if row.startswith("5/") else torchvision.models.resnet50()
        made = insert_row(model, row)
    spec = ROWS[row]
    assert bool(made) == (spec.block is not None)
    assert {name.split(".")[0] for name in made} == {f"layer{int(s[1]) - 1}" for s in spec.stages}
    if row == "5/nl_5":
        assert list(made) == ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
    if row == "2a/nl_1":
        assert list(made) == ["layer3.4"]


def test_blocks_have_the_device_the_dtype_and_the_mode_of_their_residual_block():
    model = small().double()
    made = insert_blocks(model, GCBlock)
    assert all(p.dtype == torch.float64 for block in made.values() for p in block.parameters())
    assert not any(block.training for block in made.values())
    model = torchvision.models.resnet18().to("meta").train()
    made = insert_blocks(model, GCBlock)
    assert all(p.device.type == "meta" for block in made.values() for p in block.parameters())
    assert all(block.training for block in made.values())


def test_a_model_level_initialisation_is_noticed_and_undone():
    model = small()
    insert_blocks(model, GCBlock)
    for module in model.modules():  # what the official ResNet does without a checkpoint
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    with pytest.raises(AssertionError, match=r"7 of 7 blocks change their input, first layer2\.0"):
        assert_identity(model, IMAGES)
    assert reset_identity(model) == 7
    assert_identity(model, IMAGES)


def test_scaling_is_no_identity():
    model = small()
    insert_blocks(model, SEBlock)
    with pytest.raises(AssertionError, match="sigmoid halves"):
        assert_identity(model, IMAGES)
    with pytest.raises(ValueError, match="holds no inserted block"):
        assert_identity(small(), IMAGES)


def test_what_is_no_proof_of_the_identity_is_no_proof():
    model = small()
    insert_blocks(model, GCBlock)
    wake(model)
    with pytest.raises(AssertionError, match="7 of 7 blocks change"):
        assert_identity(torch.compile(model, backend="eager"), IMAGES)
    model = small()
    insert_blocks(model, lambda channels: nn.ReLU(inplace=True))
    with pytest.raises(AssertionError, match="blocks change their input"):
        assert_identity(model, IMAGES)
    model = small()
    insert_blocks(model, GCBlock)
    model.layer3[1].forward = nn.Identity().forward
    with pytest.raises(AssertionError, match=r"layer3\.1\.block did not run"):
        assert_identity(model, IMAGES)


@pytest.mark.parametrize(
    "block", [lambda c: nn.Conv2d(c, c // 2, 1), lambda c: nn.AdaptiveAvgPool2d(1)]
)
def test_a_block_that_changes_the_shape_is_refused(block):
    model = small()
    with pytest.raises(ValueError, match="a block keeps the shape of its input"):
        insert_blocks(model, block)
    assert not inserted_blocks(model)


def test_without_blocks_is_the_network_before():
    model = small()
    before = model(IMAGES)
    insert_blocks(model, GCBlock, position="after_add")
    wake(model)
    reference = small()
    wake_like = {k: v for k, v in model.state_dict().items() if ".block." not in k}
    reference.load_state_dict(wake_like)
    with torch.no_grad():
        after = model(IMAGES)
        with without_blocks(model):
            assert torch.equal(model(IMAGES), reference(IMAGES))
        assert torch.equal(model(IMAGES), after)
    assert not torch.allclose(after, before)
    with pytest.raises(ZeroDivisionError), without_blocks(model):
        _ = 1 / 0
    assert {r.position for r in (model.layer2[0], model.layer4[1])} == {"after_add"}


@pytest.mark.parametrize("block", ADDING)
def test_it_trains_copies_and_pickles(block):
    model = small()
    insert_blocks(model, block, ("c4",), index=-2)
    wake(model)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    with torch.no_grad():
        assert torch.equal(twin(IMAGES), model(IMAGES))
    model.train()
    model(IMAGES).square().sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None]
    assert not dead
    twin.load_state_dict(model.state_dict())


@pytest.mark.full
def test_a_network_compiles_without_graph_breaks_and_exports():
    model = small()
    insert_blocks(model, GCBlock)
    wake(model)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(IMAGES), model(IMAGES))
        program = torch.export.export(model, (IMAGES,))
        torch.testing.assert_close(program.module()(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stages": ("c6",)}, ValueError, r"stages='c6': expected one of 'c2', 'c3', 'c4', 'c5'"),
        ({"stages": ()}, ValueError, "stages is empty"),
        ({"position": "after1x1"}, ValueError, "did you mean 'after_1x1'"),
        ({"index": 5}, ValueError, "index 5 of c3: it has 2 residual blocks"),
        ({"index": -3}, ValueError, "index -3 of c3"),
        ({"index": "all"}, TypeError, "index 'a' of c3: expected an integer"),
        ({"index": True}, TypeError, "index True of c3"),
        ({"index": ()}, ValueError, "index of c3 is empty: leave c3 out of stages"),
        ({"index": {"c3": 0, "c4": [], "c5": 0}}, ValueError, "index of c4 is empty"),
        ({"index": 1.0}, TypeError, r"index 1\.0 of c3: expected an integer"),
        ({"stages": None}, TypeError, "stages=None: expected some of c2, c3, c4, c5"),
        ({"index": {"c2": 0}}, ValueError, "index names 'c2'"),
        ({"index": {"c3": 0}}, ValueError, "index has no entry for 'c4'"),
        ({"block": lambda channels: None}, TypeError, r"block\(512\) returned a NoneType"),
    ],
)
def test_wrong_arguments_leave_the_model_as_it_was(arguments, error, message):
    model = small()
    keys = list(model.state_dict())
    with pytest.raises(error, match=message):
        insert_blocks(model, arguments.pop("block", GCBlock), **arguments)
    assert list(model.state_dict()) == keys


def test_a_second_insertion_is_refused_and_nothing_of_it_stays():
    model = small()
    insert_blocks(model, GCBlock, ("c4",))
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r"layer3\.0, layer3\.1, layer3\.2: there is a block"):
        insert_blocks(model, SEBlock)
    assert list(model.state_dict()) == keys
    assert set(insert_blocks(model, SEBlock, ("c5",))) == {"layer4.0", "layer4.1"}
    assert isinstance(model.layer4[0].block, ContextBlock)


def test_networks_of_other_kinds_are_refused():
    class Own(torchvision.models.resnet.Bottleneck):
        def forward(self, x):
            return super().forward(x) * 2

    with pytest.raises(TypeError, match="has no stage layer2"):
        insert_blocks(nn.Sequential(nn.Conv2d(3, 3, 1)), GCBlock)
    with pytest.raises(TypeError, match=r"has no stage layer2.*model\.backbone has one"):
        insert_blocks(nn.ModuleDict({"backbone": small()}), GCBlock)
    with pytest.raises(TypeError, match=r"layer2\.0 is a .*Own: blocks go into torchvision"):
        insert_blocks(torchvision.models.ResNet(Own, [1, 1, 1, 1]), GCBlock)
    with pytest.raises(ValueError, match=r"layer2\.0 has two 3×3 convolutions"):
        insert_blocks(torchvision.models.resnet18(), GCBlock, position="after_3x3")


def test_the_backbone_of_a_detector():
    with torch.device("meta"):
        detector = torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None
        )
        made = insert_row(detector.backbone.body, "2a/gc_all")
    assert len(made) == 13
    assert sum(p.numel() for b in made.values() for p in b.parameters()) == 2_521_741


def exchanged(residual):
    """What a parametrization and FSDP do: a class of its own, derived from that of the module."""
    residual.__class__ = type(f"Own{type(residual).__name__}", (type(residual),), {})


def test_a_class_that_was_exchanged_stops_the_removal_before_it_starts():
    model = small()
    made = insert_blocks(model, GCBlock)
    exchanged(model.layer3[1])
    keys = list(model.state_dict())
    with pytest.raises(TypeError, match=r"layer3\.1 has become a OwnBottleneckWithBlock"):
        remove_blocks(model)
    with pytest.raises(TypeError, match=r"layer3\.1 has become a"), without_blocks(model):
        pytest.fail("the network has blocks")
    assert list(model.state_dict()) == keys
    assert list(inserted_blocks(model)) == list(made)


def test_blocks_come_back_in_the_mode_and_place_of_their_residual_block():
    model = small().train()
    made = insert_blocks(model, GCBlock)
    made["layer2.0"].eval()
    with without_blocks(model):
        pass
    assert not made["layer2.0"].training  # nothing has changed, so nothing changes
    assert made["layer2.1"].training
    with without_blocks(model):
        model.eval().double()
    assert inserted_blocks(model) == made
    for block in made.values():
        assert not any(m.training for m in block.modules())
        assert all(p.dtype == torch.float64 for p in block.parameters())


def test_what_happens_without_blocks_does_not_lose_them():
    model = small()
    made = insert_blocks(model, GCBlock, ("c3", "c4"))
    keys = list(model.state_dict())
    with (
        pytest.raises(RuntimeError, match=r"layer2\.0, layer2\.1: a block was inserted while"),
        without_blocks(model),
    ):
        insert_blocks(model, SEBlock, ("c3",))
    assert inserted_blocks(model) == made
    assert list(model.state_dict()) == keys

    def fails():
        insert_blocks(model, SEBlock, ("c3",))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), without_blocks(model):
        fails()
    assert inserted_blocks(model) == made
    with (
        pytest.raises(RuntimeError, match=r"layer3\.1: the class was exchanged") as caught,
        without_blocks(model),
    ):
        exchanged(model.layer3[1])
    assert caught.value.blocks == {"layer3.1": made["layer3.1"]}
    assert inserted_blocks(model) == {n: b for n, b in made.items() if n != "layer3.1"}


def test_the_proof_of_the_identity_leaves_no_trace():
    model = small().train()
    insert_blocks(model, partial(NonLocalBlock, norm="batch"), ("c4",))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    buffers = dict(model.named_buffers())
    assert_identity(model, IMAGES)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    wake(model)
    after = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(AssertionError, match="blocks change their input"):
        assert_identity(model, IMAGES)
    assert all(torch.equal(after[key], value) for key, value in model.state_dict().items())


def video():
    """A 3D network of torchvision's bottlenecks, a quarter as wide."""
    from torchvision.models.video.resnet import BasicStem, Bottleneck, Conv3DSimple, VideoResNet

    return VideoResNet(Bottleneck, [Conv3DSimple] * 4, [1, 1, 2, 1], BasicStem, num_classes=3)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("position", ["after_3x3", "after_1x1", "after_add"])
@pytest.mark.parametrize("kind", ["slow_only", "video"])
def test_3d_bottlenecks_have_the_block_at_its_position(kind, position, number):
    with torch.device("meta"):
        model = SlowOnly() if kind == "slow_only" else video()
    residual = model.layer3[number]
    model = nn.Module()
    model.layer3 = nn.Sequential(residual.to_empty(device="cpu"))
    for parameter in residual.parameters():
        nn.init.normal_(parameter, std=0.05)
    for buffer in residual.buffers():
        buffer.fill_(1)
    residual.eval()
    insert_blocks(model, partial(GCBlock, ratio=4), "c4", position)
    wake(model)
    block = residual.block
    assert block.context_modelling.in_channels == (256 if position == "after_3x3" else 1024)
    x = torch.randn(1, 1024 if number else 512, 2, 6, 6)
    if kind == "slow_only":
        steps = [
            lambda t: residual.bn1(residual.conv1(t)).relu(),
            lambda t: residual.bn2(residual.conv2(t)).relu(),
            lambda t: residual.bn3(residual.conv3(t)),
        ]
    else:
        steps = [residual.conv1, residual.conv2, residual.conv3]
    with torch.no_grad():
        out = steps[1](steps[0](x))
        out = steps[2](block(out) if position == "after_3x3" else out)
        out = block(out) if position == "after_1x1" else out
        out = out + (x if residual.downsample is None else residual.downsample(x))
        out = block(out) if position == "after_add" else out
        torch.testing.assert_close(residual(x), out.relu())
