"""Wrong arguments and inputs get one sentence: the value, what was expected, the nearest choice."""

import numpy as np
import pytest
import torch

from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    LinearTransform,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    SimplifiedNonLocalBlock,
    build_block,
    find_row,
)


@pytest.mark.parametrize("block", [GCBlock, SEBlock, NonLocalBlock, SimplifiedNonLocalBlock])
@pytest.mark.parametrize(
    ("in_channels", "error"),
    [(0, ValueError), (-4, ValueError), (64.0, TypeError), ("64", TypeError), (True, TypeError)],
)
def test_in_channels(block, in_channels, error):
    with pytest.raises(error, match=f"in_channels={in_channels!r}: expected a positive integer"):
        block(in_channels)


def test_numpy_integers_are_integers():
    assert GCBlock(np.int64(32), ratio=np.int32(4)).transform.reduce.out_features == 8


@pytest.mark.parametrize("block", [GCBlock, SEBlock, BottleneckTransform])
@pytest.mark.parametrize(
    ("ratio", "error", "message"),
    [
        (1 / 16, TypeError, "ratio=0.0625: expected a positive integer; .* did you mean ratio=16?"),
        (1 / 4, TypeError, "did you mean ratio=4?"),
        (16.0, TypeError, "ratio=16.0: .* did you mean ratio=16?"),
        (2.5, TypeError, "ratio=2.5: expected a positive integer$"),
        (0, ValueError, "ratio=0: expected a positive integer"),
        (128, ValueError, "ratio=128: leaves no channels of in_channels=64; .* ratio=64"),
    ],
)
def test_ratio(block, ratio, error, message):
    with pytest.raises(error, match=message):
        block(64, ratio=ratio)


def test_smallest_bottleneck_has_one_channel():
    assert GCBlock(64, ratio=64).transform.reduce.out_features == 1
    assert NonLocalBlock(1, reduction=1).value.out_channels == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"instantiation": "embedded-gaussian"}, ValueError, "did you mean 'embedded_gaussian'?"),
        ({"instantiation": "Dot Product"}, ValueError, "did you mean 'dot_product'?"),
        ({"instantiation": "concatenation"}, ValueError, "did you mean 'concat'?"),
        ({"instantiation": 3}, ValueError, "instantiation=3: expected one of 'embedded_gaussian'"),
        ({"subsample": "befor"}, ValueError, "subsample='befor': .* did you mean 'before'?"),
        ({"subsample": True}, ValueError, "subsample=True: expected one of None"),
        ({"norm": "bacth"}, ValueError, "did you mean 'batch'?"),
        ({"scale": "sqr"}, ValueError, "scale='sqr': .* did you mean 'sqrt'?"),
        ({"scale": True}, TypeError, "scale=True: expected None, 'sqrt' or a positive number"),
        ({"scale": 0}, ValueError, "scale=0: expected"),
        ({"scale": float("inf")}, ValueError, "scale=inf: expected"),
        ({"ndim": 4}, ValueError, r"ndim=4: expected .* 2 for \(N, C, H, W\)"),
        ({"ndim": True}, TypeError, "ndim=True: expected a positive integer"),
        ({"ndim": [2]}, TypeError, r"ndim=\[2\]: expected"),
        ({"ndim": 2.0}, TypeError, "ndim=2.0: expected"),
        ({"bias": "none"}, TypeError, "bias='none': expected True or False"),
        ({"norm_eps": -1.0}, ValueError, "norm_eps=-1.0: expected a positive number"),
        ({"norm_eps": "1e-5"}, TypeError, "norm_eps='1e-5': expected a positive number"),
        ({"reduction": 128}, ValueError, "reduction=128: leaves no channels"),
        ({"reduction": 0.5}, TypeError, "did you mean reduction=2?"),
    ],
)
def test_non_local_options(options, error, message):
    with pytest.raises(error, match=message):
        NonLocalBlock(64, **options)


@pytest.mark.parametrize("scale", [np.float32(0.5), np.int64(2), 1])
def test_numpy_scales(scale):
    assert NonLocalBlock(64, scale=scale).scale == float(scale)


@pytest.mark.parametrize("option", ["norm", "relu", "bias"])
def test_bottleneck_options_are_bools(option):
    with pytest.raises(TypeError, match=f"{option}='batch': expected True or False"):
        BottleneckTransform(64, **{option: "batch"})


def test_the_parts_of_a_block_are_modules():
    with pytest.raises(
        TypeError, match=r"expected a module; for mmcv's ContextBlock.* use GCBlock"
    ):
        ContextBlock(64, 1 / 16, "add")
    with pytest.raises(TypeError, match=r"fusion=<class .*: expected a module"):
        ContextBlock(AttentionPooling(8), LinearTransform(8), AddFusion)


def test_reset_parameters_draws_anew():
    block = GCBlock(64)
    before = block.context_modelling.key.weight.clone()
    torch.nn.init.ones_(block.transform.expand.weight)
    block.reset_parameters()
    assert not torch.equal(block.context_modelling.key.weight, before)
    assert not block.transform.expand.weight.any()


def test_other_choices():
    with pytest.raises(ValueError, match=r"form='eq1': expected one of 'eq3', 'eq2'"):
        SimplifiedNonLocalBlock(8, form="eq1")
    with pytest.raises(ValueError, match=r"gate='sigmoids': .* did you mean 'sigmoid'"):
        ScaleFusion("sigmoids")
    with pytest.raises(ValueError, match=r"row_id='2a/gc_1all': .* did you mean '2a/gc_all'"):
        find_row("2a/gc_1all")
    with pytest.raises(ValueError, match=r"row_id='gc': expected one of '<table>/<row>'"):
        build_block("gc", 8)
    with pytest.raises(ValueError, match="context_modelling has in_channels=8, transform has"):
        ContextBlock(AttentionPooling(8), LinearTransform(16), AddFusion())
    with pytest.raises(TypeError):
        GCBlock(64, 16)  # ratio and ndim are too easily confused: keywords only


@pytest.mark.parametrize("block", [GCBlock, SEBlock, NonLocalBlock, SimplifiedNonLocalBlock])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(64, 14, 14), ValueError, "got 3 .* axis of the examples .* x.None"),
        (torch.zeros(2, 64, 14), ValueError, r"expected 4 axes \(N, C, H, W\), got 3 .* ndim=1"),
        (torch.zeros(2, 14, 14), ValueError, r"got 3 axes \(2, 14, 14\)$"),
        (torch.zeros(2, 64, 8, 14, 14), ValueError, "got 5 axes .* pass ndim=3"),
        (torch.zeros(2, 64), ValueError, r"got 2 axes \(2, 64\)$"),
        (torch.zeros(2, 32, 14, 14), ValueError, "expected in_channels=64 on axis 1 .*, got 32"),
        (torch.zeros(2, 14, 14, 64), ValueError, "expected in_channels=64 on axis 1 .*, got 14"),
        (torch.zeros(2, 64, 0, 14), ValueError, "expected at least one position"),
        (torch.zeros(2, 64, 2, 2, dtype=torch.int32), TypeError, "torch.int32; did you mean x.flo"),
        ([[1.0]], TypeError, "expected a tensor .*, got list"),
        (np.zeros((2, 64, 2, 2)), TypeError, "got ndarray"),
    ],
)
def test_input(block, x, error, message):
    with pytest.raises(error, match=message):
        block(64)(x)


def test_eq2_checks_its_input_too():
    with pytest.raises(ValueError, match="expected 4 axes"):
        SimplifiedNonLocalBlock(64, form="eq2")(torch.zeros(2, 64))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_subsample_needs_two_positions(ndim):
    block = NonLocalBlock(4, ndim=ndim, subsample="before")
    with pytest.raises(ValueError, match=r"at least 2 positions .*subsample=None"):
        block(torch.zeros(1, 4, *[3] * (ndim - 1), 1))
    shape = {1: (2,), 2: (2, 2), 3: (1, 2, 2)}[ndim]  # one frame is enough: time is not pooled
    assert block(torch.zeros(1, 4, *shape)).shape == (1, 4, *shape)
