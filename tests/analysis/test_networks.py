"""Counts of networks: by hand, against formulas, against the counters of mmcv and fvcore."""

import contextlib
import dataclasses
import io
import json
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from gclib.analysis.complexity import block_multiply_adds
from gclib.analysis.networks import (
    CONVENTIONS,
    as_table,
    layer_counts,
    multiply_adds,
    operations,
)
from gclib.bench.roofline import step_work
from gclib.blocks import (
    AddFusion,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    NonLocalBlock,
    SEBlock,
    SimplifiedNonLocalBlock,
)
from gclib.models import SlowOnly, build_resnet, insert_blocks, make_deformable


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def by_name(model, *inputs, **how):
    return {layer.name: layer for layer in layer_counts(model, *inputs, **how)}


def run(function, *inputs):
    """The operations of a function of tensors."""

    class Module(nn.Module):
        def forward(self, *args):
            return function(*args)

    return operations(layer_counts(Module(), *inputs))


def test_layers_by_hand():
    layers = by_name(small(), torch.empty(2, 3, 16, 16))
    found = {name: (x.kind, x.parameters, x.operations) for name, x in layers.items()}
    assert found == {
        "0": ("Conv2d", 216, {"convolution": 2 * 64 * 216}),
        "1": ("BatchNorm2d", 16, {"norm": 1024, "affine": 1024}),
        "2": ("ReLU", 0, {"activation": 1024}),
        "3": ("MaxPool2d", 0, {"max pooling": 1024}),
        "4": ("Conv2d", 152, {"convolution": 2 * 16 * 144, "bias": 256}),
        "5": ("AdaptiveAvgPool2d", 0, {"average pooling": 256}),
        "7": ("Linear", 45, {"linear": 80, "bias": 10}),
    }
    assert layers["0"].bytes == 4 * (2 * 3 * 16 * 16 + 216 + 2 * 8 * 8 * 8)
    assert layers["1"].bytes == 4 * (1024 + 4 * 8 + 1024)
    assert layers["2"].bytes == 4 * 2 * 1024
    assert layers["7"].bytes == 4 * (16 + 45 + 10)
    total = list(layers.values())
    assert multiply_adds(total, "paper") == 2 * 64 * 216 + 2 * 16 * 144 + 256 + 80
    assert multiply_adds(total, "mmdetection") == 2 * 64 * 216 + 4 * 1024 + 2 * 16 * 144 + 512 + 80
    assert multiply_adds(total, "fvcore") == 2 * 64 * 216 + 2 * 1024 + 2 * 16 * 144 + 256 + 80
    with pytest.raises(ValueError, match="convention='facebook': expected one of 'paper'"):
        multiply_adds(total, "facebook")


def test_counts_are_those_of_the_meta_device_and_of_every_mode():
    model, x = small(), torch.randn(2, 3, 16, 16)
    expected = layer_counts(model, x)
    with torch.device("meta"):
        assert layer_counts(small(), torch.empty(2, 3, 16, 16)) == expected
    with torch.inference_mode():
        assert layer_counts(model, x) == expected
    half = by_name(small().bfloat16(), x.bfloat16())
    for layer in expected:
        assert half[layer.name].operations == layer.operations
        indices = 8 * 2 * 8 * 4 * 4 if layer.kind == "MaxPool2d" else 0  # 64-bit in any dtype
        assert 2 * (half[layer.name].bytes - indices) == layer.bytes - indices


def test_the_model_is_as_it_was():
    model = small().train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer_counts(model, torch.randn(2, 3, 16, 16))
    with pytest.raises(RuntimeError, match="channels"):
        layer_counts(model, torch.randn(2, 4, 16, 16))
    assert [module.training for module in model] == [True, False, *[True] * 6]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_shared_modules_run_twice_and_have_their_parameters_once():
    layer = nn.Linear(4, 4, bias=False)
    tied = nn.Linear(4, 4, bias=False)
    tied.weight = layer.weight
    unused = nn.Linear(4, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer, tied)
    model.extra = nn.ModuleList([unused])
    model.forward = lambda x: tied(layer(torch.relu(layer(x))))
    layers = by_name(model, torch.empty(1, 4))
    assert layers["0"].operations == {"linear": 32}
    assert layers["0"].parameters == 16
    assert layers["3"].operations == {"linear": 16}
    assert layers["3"].parameters == 0
    assert layers[""].operations == {"activation": 4}  # not in a module of its own
    unused = layers["extra.0"]
    assert (unused.parameters, unused.operations, unused.bytes) == (15, {}, 0)


def test_categories():
    x, row, column = torch.empty(2, 3, 8), torch.empty(2, 1, 8), torch.empty(2, 3, 1)
    assert run(lambda x: x + x, x) == {"addition": 48}
    assert run(lambda x, y: x * y, x, row) == {"broadcast": 48}
    assert run(lambda x, y: x + y, row, column) == {"broadcast": 48}
    assert run(lambda x: 2 * x + 1, x) == {"scaling": 48, "bias": 48}
    assert run(lambda x: x.flatten(1).transpose(0, 1), x) == {}
    assert run(lambda x: x.transpose(1, 2).contiguous(), x) == {"copy": 48}
    assert run(lambda x: x.softmax(1), x) == {"softmax": 48}
    assert run(lambda x: x.mean(2), x) == {"average pooling": 48}
    assert run(lambda x: x @ x.transpose(1, 2), x) == {"matrix product": 2 * 3 * 8 * 3}
    assert run(torch.erfinv, x) == {"other": 48}
    square = torch.empty(1, 2, 4, 4)
    assert run(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), square) == {
        "interpolation": 4 * 2 * 64
    }
    assert run(lambda x: F.group_norm(x, 2), square) == {"norm": 32, "statistics": 32}
    heads = torch.randn(2, 4, 5, 8)
    assert run(F.scaled_dot_product_attention, heads, heads, heads) == {
        "matrix product": 2 * 4 * 5 * 5 * 16,
        "softmax": 2 * 4 * 5 * 5,
    }
    transposed = operations(layer_counts(nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False), square))
    assert transposed == {"transposed convolution": 16 * 2 * 3 * 4}


def test_a_product_with_a_parameter_is_a_linear_map_under_autocast_too():
    block, x = GCBlock(16, ratio=4), torch.randn(1, 16, 4, 4)
    expected = {"linear": 16 * 16 + 2 * 16 * 4, "matrix product": 16 * 16}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = operations(layer_counts(block, x))
        assert {name: found[name] for name in expected} == expected


BLOCKS = {
    "nl": lambda n: NonLocalBlock(16, ndim=n),
    "nl dot product": lambda n: NonLocalBlock(16, ndim=n, instantiation="dot_product"),
    "nl concat": lambda n: NonLocalBlock(16, ndim=n, instantiation="concat"),
    "nl pooled": lambda n: NonLocalBlock(16, ndim=n, subsample="before", norm="batch"),
    "snl": lambda n: SimplifiedNonLocalBlock(16, ndim=n),
    "snl eq2": lambda n: SimplifiedNonLocalBlock(16, ndim=n, form="eq2"),
    "se": lambda n: SEBlock(16, ndim=n, ratio=4),
    "gc": lambda n: GCBlock(16, ndim=n, ratio=4),
    "average and addition": lambda n: ContextBlock(
        AveragePooling(), BottleneckTransform(16, ratio=4), AddFusion(), ndim=n
    ),
}


@pytest.mark.parametrize("sizes", [(12,), (4, 6), (3, 4, 6)], ids=len)
@pytest.mark.parametrize("name", BLOCKS)
def test_products_are_those_of_the_formulas(name, sizes):
    block = BLOCKS[name](len(sizes))
    found = operations(layer_counts(block, torch.empty(1, 16, *sizes)))
    products = [found.get(kind, 0) for kind in ("convolution", "linear", "matrix product")]
    assert sum(products) == sum(block_multiply_adds(block, sizes).values())


def test_the_papers_convention_counts_pooling_and_fusion_of_context_blocks():
    numbers = 16 * 4 * 6
    for name, passes in (("gc", 1), ("snl", 1), ("se", 2), ("average and addition", 2)):
        block = BLOCKS[name](2)
        formula = sum(block_multiply_adds(block, (4, 6)).values())
        found = multiply_adds(layer_counts(block, torch.empty(1, 16, 4, 6)))
        assert found == formula + passes * numbers


def test_faster_forms_are_counted_when_asked_for():
    block, x = NonLocalBlock(64, instantiation="dot_product"), torch.randn(1, 64, 32, 32)
    plain, fast = (layer_counts(block, x, plain=form) for form in (True, False))
    # Q (K^T V) in place of (Q K^T) V: 32 channels inside, 1024 positions.
    assert operations(plain)["matrix product"] == 2 * 1024 * 1024 * 32
    assert operations(fast)["matrix product"] == 2 * 1024 * 32 * 32
    assert sum(layer.bytes for layer in fast) < sum(layer.bytes for layer in plain) / 2


@pytest.mark.parametrize("name", ["gc", "snl", "se", "average and addition", "nl dot product"])
def test_with_plain_off_a_block_runs_as_it_does_without_a_counter(name):
    model, x = nn.Sequential(nn.ReLU(), BLOCKS[name](2)).eval(), torch.randn(2, 16, 24, 24)
    layers = by_name(model, x, plain=False)
    assert [n for n, layer in layers.items() if layer.operations] == ["0", "1"]
    assert sum(layer.parameters for layer in layers.values()) == sum(
        p.numel() for p in model.parameters()
    )
    with torch.no_grad():
        work = step_work(lambda: model(x))
    # LayerNorm's mean and deviation of each image are in the second figure alone.
    total = sum(layer.bytes for layer in layers.values())
    assert 0 <= sum(moved for _, moved in work) - total <= 2 * 2 * 4


def test_the_faster_form_of_a_gc_block_is_counted_as_one():
    block, x = GCBlock(16, ratio=4), torch.randn(2, 16, 24, 24)
    fast, *parameters = layer_counts(block, x, plain=False)
    assert (fast.name, fast.kind) == ("", "GCBlock")
    assert not any(layer.operations or layer.bytes for layer in parameters)
    # The key is a product of matrices there, and its bias, which softmax cancels, is not added.
    plain = operations(layer_counts(block, x))
    assert plain["bias"] - fast.operations.get("bias", 0) == 2 * 24 * 24
    same = ("linear", "matrix product", "softmax", "broadcast")
    assert {kind: fast.operations[kind] for kind in same} == {kind: plain[kind] for kind in same}


def test_what_is_overwritten_or_gives_a_shape_alone_is_not_read():
    class Module(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, *inputs):
            self.function(*inputs)

    def moved(function, *inputs):
        return sum(layer.bytes for layer in layer_counts(Module(function), *inputs))

    x, y = torch.randn(5, 7), torch.randn(5, 7)
    one = 4 * 35
    assert moved(lambda x: torch.zeros_like(x), x) == one
    assert moved(lambda x: torch.full_like(x, 2.0), x) == one
    assert moved(lambda x: x.new_full((2,), 1.0), x) == 8
    assert moved(lambda x: x.zero_(), x) == one
    assert moved(lambda x: x.fill_(3.0), x) == one
    assert moved(lambda x, y: x.copy_(y), x, y) == 2 * one
    assert moved(lambda x, y: torch.sin(x, out=y), x, y) == 2 * one
    assert moved(lambda x: x.relu_(), x) == 2 * one


def test_deformable_convolution():
    with torch.device("meta"):
        plain, model = build_resnet("resnet50"), build_resnet("resnet50")
        make_deformable(model, ("c5",))
        x = torch.empty(1, 3, 64, 64)
        before, after = operations(layer_counts(plain, x)), by_name(model, x)
    total = operations(after.values())
    inside = sum(
        layer.operations["convolution"]
        for name, layer in after.items()
        if name.endswith("conv_offset")
    )
    assert inside == 3 * 4 * 512 * 18 * 9
    moved = total["deformable convolution"]
    assert moved == 3 * 4 * 512 * 512 * 9
    assert total["convolution"] + moved - inside == before["convolution"]
    layer = after["layer4.1.conv2"]
    assert layer.kind == "DeformableConv2d"
    assert layer.operations["deformable convolution"] == 4 * 512 * 512 * 9
    assert layer.operations["sampling"] == 4 * 512 * 9 * 4
    assert "bias" not in layer.operations
    layers = list(after.values())
    assert multiply_adds(layers) == total["convolution"] + moved + total["linear"] + 2048 * 4


def fvcore_total(model, x):
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    model = model.eval().to_empty(device="cpu")  # the tracer wants numbers, zeros will do
    for tensor in model.state_dict().values():
        tensor.zero_()
    analysis = FlopCountAnalysis(model, torch.zeros(x.shape))
    return analysis.unsupported_ops_warnings(False).tracer_warnings("none").total()


def mmcv_total(model, x):
    cnn = pytest.importorskip("mmcv.cnn", reason="mmcv is not installed (make test-full)")
    with contextlib.redirect_stdout(io.StringIO()):
        flops, parameters = cnn.get_model_complexity_info(
            model.eval(),
            tuple(x.shape[1:]),
            print_per_layer_stat=False,
            as_strings=False,
            input_constructor=lambda shape: {"x": x},  # its own is memory that nobody has written
        )
    return int(flops), parameters


NETWORKS = {
    "ResNet-50": lambda: build_resnet("resnet50"),
    "GC-ResNet-50": lambda: build_resnet("resnet50", "4a/gc_all"),
    "NL": lambda: build_resnet("resnet50", "4a/nl_1"),
    "SE and deformable": lambda: build_resnet("resnet50", SEBlock, deformable=("c5",)),
    "MobileNet V3": models.mobilenet_v3_small,
    "ConvNeXt": models.convnext_tiny,
    "GroupNorm": lambda: models.resnet18(norm_layer=lambda channels: nn.GroupNorm(8, channels)),
}


def on_meta(name):
    with torch.device("meta"):
        return NETWORKS[name](), torch.empty(1, 3, 64, 64)


def slow_but(*quick):
    slow = pytest.mark.full
    return [name if name in quick else pytest.param(name, marks=slow) for name in NETWORKS]


@pytest.mark.parametrize("name", slow_but("GroupNorm"))
@pytest.mark.filterwarnings("ignore")
def test_fvcore_counts_the_same(name):
    model, x = on_meta(name)
    ours = multiply_adds(layer_counts(model, x), "fvcore")
    assert fvcore_total(model, x) == ours


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_fvcore_counts_the_same_in_3d_and_where_maps_are_resized():
    with torch.device("meta"):
        model, clip = SlowOnly(), torch.empty(1, 3, 2, 32, 32)
        insert_blocks(model, GCBlock)
        pyramid = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Upsample(scale_factor=2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.InstanceNorm2d(4, affine=True),
            nn.ConvTranspose2d(4, 2, 2, stride=2),
            nn.AvgPool2d(2),
        )
        x = torch.empty(1, 3, 8, 8)
    for network, given in ((model, clip), (pyramid, x)):
        ours = multiply_adds(layer_counts(network, given), "fvcore")
        assert fvcore_total(network, given) == ours


@pytest.mark.full
@pytest.mark.parametrize("name", slow_but("ResNet-50", "GC-ResNet-50"))
@pytest.mark.filterwarnings("ignore")
def test_mmcv_counts_the_same(name):
    model, x = on_meta(name)
    layers = layer_counts(model, x)
    flops, parameters = mmcv_total(model, x)
    assert parameters == sum(layer.parameters for layer in layers)
    assert flops == multiply_adds(layers, "mmdetection")


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_mmcvs_own_block_costs_more_by_its_counter():
    # There the key is a convolution and the two maps have counted biases: modules, not functions.
    cnn = pytest.importorskip("mmcv.cnn", reason="mmcv is not installed (make test-full)")
    theirs = cnn.bricks.ContextBlock(32, ratio=1 / 4)
    flops, _ = mmcv_total(theirs, torch.randn(1, 32, 6, 6))
    ours = layer_counts(GCBlock(32, ratio=4), torch.randn(1, 32, 6, 6))
    key, biases = 36 * (32 + 1), 8 + 32
    assert flops == multiply_adds(ours, "mmdetection") + key + biases
    assert flops == multiply_adds(layer_counts(theirs, torch.randn(1, 32, 6, 6)), "mmdetection")


def test_for_people():
    layers = layer_counts(small(), torch.empty(1, 3, 16, 16))
    lines = list(as_table(layers))
    assert len(lines) == len(layers) + 2
    assert lines[0].split() == ["layer", "class", "parameters", "multiply-adds", "MB", "moved"]
    assert lines[1].split()[:4] == ["0", "Conv2d", "216", "13,824"]
    assert lines[-1].split()[:3] == ["total", "429", f"{multiply_adds(layers):,}"]
    with pytest.raises(ValueError, match="convention='': expected one of"):
        list(as_table(layers, ""))
    assert json.loads(json.dumps([dataclasses.asdict(layer) for layer in layers]))[0] == vars(
        layers[0]
    )
    for convention in CONVENTIONS.values():
        assert "multiply-add" in convention.text.lower()
