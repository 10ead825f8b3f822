"""Converters for peers that no package index carries, and what the converters refuse.

AlexHex7 and SlowFast are sources to copy, not packages. Their modules are written again here from
their formulas, with their parameter names, so that values can be compared.
"""

import pytest
import torch
import torch.nn.functional as F
from cases import feature_map, randomise
from torch import nn

from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    convert_state_dict,
    load_peer_state_dict,
)
from gclib.blocks.non_local import INSTANTIATIONS

C = 8
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: (nn.MaxPool1d, 2), 2: (nn.MaxPool2d, 2), 3: (nn.MaxPool3d, (1, 2, 2))}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class AlexHex7(nn.Module):
    """One class for the four files of Non-local_pytorch: same names, same formulas."""

    def __init__(self, instantiation, ndim, sub_sample, bn_layer):
        super().__init__()
        self.instantiation = instantiation
        inner, conv = C // 2, CONV[ndim]
        pool, kernel = POOL[ndim]
        self.g = conv(C, inner, 1)
        self.W = conv(inner, C, 1)
        if bn_layer:
            self.W = nn.Sequential(self.W, NORM[ndim](C))
        if instantiation != "gaussian":
            self.theta, self.phi = conv(C, inner, 1), conv(C, inner, 1)
        if instantiation == "concat":
            self.concat_project = nn.Sequential(nn.Conv2d(2 * inner, 1, 1, bias=False), nn.ReLU())
        if sub_sample:
            self.g = nn.Sequential(self.g, pool(kernel))
            if instantiation == "gaussian":
                self.phi = pool(kernel)
            else:
                self.phi = nn.Sequential(self.phi, pool(kernel))

    def forward(self, x):
        identity = nn.Identity()
        theta = getattr(self, "theta", identity)(x).flatten(2)
        phi = getattr(self, "phi", identity)(x).flatten(2)
        g = self.g(x).flatten(2)
        if self.instantiation == "concat":
            n, c, rows = theta.shape
            columns = phi.shape[2]
            pairs = torch.cat(
                [
                    theta[..., None].expand(n, c, rows, columns),
                    phi[:, :, None].expand(n, c, rows, columns),
                ],
                dim=1,
            )
            f = self.concat_project(pairs)[:, 0]
        else:
            f = theta.transpose(1, 2) @ phi
        f = f.softmax(-1) if "gaussian" in self.instantiation else f / f.shape[-1]
        y = (f @ g.transpose(1, 2)).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])
        return self.W(y) + x


class SlowFast(nn.Module):
    """The non-local block of SlowFast and pytorchvideo."""

    def __init__(self, instantiation, pool, norm_name="bn"):
        super().__init__()
        self.instantiation, self.pool_first, self.norm_name = instantiation, pool, norm_name
        inner = C // 2
        self.conv_theta = nn.Conv3d(C, inner, 1)
        self.conv_phi = nn.Conv3d(C, inner, 1)
        self.conv_g = nn.Conv3d(C, inner, 1)
        self.conv_out = nn.Conv3d(inner, C, 1)
        setattr(self, norm_name, nn.BatchNorm3d(C))

    def forward(self, x):
        theta = self.conv_theta(x).flatten(2)
        source = F.max_pool3d(x, (1, 2, 2)) if self.pool_first else x
        phi, g = self.conv_phi(source).flatten(2), self.conv_g(source).flatten(2)
        f = torch.einsum("nct,ncp->ntp", theta, phi)
        if self.instantiation == "softmax":
            f = (f * theta.shape[1] ** -0.5).softmax(2)
        else:
            f = f / f.shape[2]
        y = torch.einsum("ntg,ncg->nct", f, g).view(len(x), -1, *x.shape[2:])
        return x + getattr(self, self.norm_name)(self.conv_out(y))


def assert_equal(ours, theirs, source, ndim):
    theirs = randomise(theirs).double().eval()
    load_peer_state_dict(ours.double().eval(), theirs.state_dict(), source)
    x = feature_map(C, ndim=ndim)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    assert (ours(x) - x).abs().max() > 1e-3


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("sub_sample", [True, False])
@pytest.mark.parametrize("bn_layer", [True, False])
@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
def test_alexhex7(instantiation, bn_layer, sub_sample, ndim):
    ours = NonLocalBlock(
        C,
        ndim=ndim,
        instantiation=instantiation,
        subsample="after" if sub_sample else None,
        norm="batch" if bn_layer else None,
    )
    theirs = AlexHex7(instantiation, ndim, sub_sample, bn_layer)
    assert_equal(ours, theirs, "alexhex7", ndim)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize(
    ("instantiation", "source", "norm"),
    [
        ("softmax", "slowfast", "bn"),
        ("dot_product", "slowfast", "bn"),
        ("softmax", "pytorchvideo", "norm"),
    ],
)
def test_slowfast_and_pytorchvideo(instantiation, source, norm, pool):
    softmax = instantiation == "softmax"
    ours = NonLocalBlock(
        C,
        ndim=3,
        instantiation="embedded_gaussian" if softmax else "dot_product",
        scale="sqrt" if softmax else None,
        subsample="before" if pool else None,
        norm="batch",
    )
    assert_equal(ours, SlowFast(instantiation, pool, norm), source, 3)


def gc_of_mmcv(channels=C, hidden=2, fusion="add"):
    """A state dict with the shapes and names of mmcv's ContextBlock."""
    conv = f"channel_{fusion}_conv"
    shapes = {
        "conv_mask.weight": (1, channels, 1, 1),
        "conv_mask.bias": (1,),
        f"{conv}.0.weight": (hidden, channels, 1, 1),
        f"{conv}.0.bias": (hidden,),
        f"{conv}.1.weight": (hidden, 1, 1),
        f"{conv}.1.bias": (hidden, 1, 1),
        f"{conv}.3.weight": (channels, hidden, 1, 1),
        f"{conv}.3.bias": (channels,),
    }
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_prefix_picks_one_block_of_a_network():
    theirs = {f"backbone.layer3.4.context_block.{k}": v for k, v in gc_of_mmcv().items()}
    theirs["backbone.layer3.4.conv1.weight"] = torch.zeros(3)
    block = GCBlock(C, ratio=4)
    load_peer_state_dict(block, theirs, "official", prefix="backbone.layer3.4.context_block.")
    expected = theirs["backbone.layer3.4.context_block.channel_add_conv.3.weight"]
    assert torch.equal(block.transform.expand.weight, expected.flatten(1))


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        (GCBlock(C, ratio=4), lambda d: d.pop("conv_mask.weight"), "nothing to load into cont"),
        (
            GCBlock(C, ratio=4, bias=False),
            lambda d: None,
            "conv_mask.bias: GCBlock with these options has no place for it",
        ),
        (
            GCBlock(C, ratio=2),
            lambda d: None,
            r"reduce.weight: \(2, 8, 1, 1\) does not fit \(4, 8\)",
        ),
        (SEBlock(C, ratio=4), lambda d: None, "conv_mask.weight: SEBlock .* no place for it"),
        (NonLocalBlock(C), lambda d: None, "no key of such a block stands under prefix=.*$"),
        (GCBlock(C, ratio=4), lambda d: d.update(surprise=torch.ones(1)), "surprise: GCBlock"),
        (GCBlock(C, ratio=4), lambda d: d.pop("channel_add_conv.1.bias"), "block with bias=False"),
        (
            GCBlock(C, ratio=4),
            lambda d: d.update({"conv_mask.bias": d["conv_mask.bias"].numpy()}),
            "conv_mask.bias: expected a tensor, got ndarray",
        ),
        (
            GCBlock(C, ratio=4),
            lambda d: d.update({f"odd{n}": torch.ones(1) for n in range(90)}),
            "and 84 more$",
        ),
        (
            ContextBlock(AttentionPooling(C), GCBlock(C, ratio=4).transform, ScaleFusion()),
            lambda d: None,
            r"channel_add_conv\.\*: the peer adds, this ContextBlock does not; .*AddFusion\(\)",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(block, change, message):
    theirs = gc_of_mmcv()
    change(theirs)
    before = {k: v.clone() for k, v in block.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_peer_state_dict(block, theirs, "mmcv")
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


def test_a_bias_that_is_missing_before_a_norm_becomes_zero():
    theirs = AlexHex7("dot_product", 2, False, True).state_dict()
    del theirs["W.0.bias"]
    block = randomise(NonLocalBlock(C, instantiation="dot_product", norm="batch"))
    load_peer_state_dict(block, theirs, "alexhex7")
    assert not block.out.bias.any()
    del theirs["W.1.bias"]
    with pytest.raises(ValueError, match=r"nothing to load into norm\.bias"):
        load_peer_state_dict(block, theirs, "alexhex7")


def test_files_from_before_num_batches_tracked():
    theirs = AlexHex7("dot_product", 2, False, True).state_dict()
    del theirs["W.1.num_batches_tracked"]
    load_peer_state_dict(
        NonLocalBlock(C, instantiation="dot_product", norm="batch"), theirs, "alexhex7"
    )


@pytest.mark.parametrize(("pools", "subsample"), [(True, None), (True, "before"), (False, "after")])
def test_another_subsampling_is_refused(pools, subsample):
    theirs = AlexHex7("dot_product", 2, pools, False).state_dict()
    block = NonLocalBlock(C, instantiation="dot_product", subsample=subsample)
    expected = "'after'" if pools else "None"
    with pytest.raises(ValueError, match=rf"build it with subsample={expected}"):
        load_peer_state_dict(block, theirs, "alexhex7")


def test_two_keys_for_one_place_are_refused():
    theirs = AlexHex7("dot_product", 2, False, False).state_dict()
    theirs["phi.0.weight"] = theirs["phi.weight"]
    with pytest.raises(
        ValueError, match=r"phi\.0\.weight: another key was loaded into key\.weight"
    ):
        load_peer_state_dict(NonLocalBlock(C, instantiation="dot_product"), theirs, "alexhex7")


def test_squeeze_excitation_adds_to_nothing():
    theirs = {
        "fc1.weight": torch.ones(2, C, 1, 1),
        "fc1.bias": torch.ones(2),
        "fc2.weight": torch.ones(C, 2, 1, 1),
        "fc2.bias": torch.ones(C),
    }
    load_peer_state_dict(SEBlock(C, ratio=4), theirs, "torchvision")
    block = ContextBlock(AveragePooling(), BottleneckTransform(C, ratio=4), AddFusion())
    with pytest.raises(ValueError, match=r"fc1\.\*: the peer scales"):
        load_peer_state_dict(block, theirs, "torchvision")
    odd = BottleneckTransform(C, hidden=3)
    theirs = {
        key: torch.ones(shape)
        for key, shape in (
            ("fc1.weight", (3, C, 1, 1)),
            ("fc1.bias", (3,)),
            ("fc2.weight", (C, 3, 1, 1)),
            ("fc2.bias", (C,)),
        )
    }
    load_peer_state_dict(ContextBlock(AveragePooling(), odd, ScaleFusion()), theirs, "torchvision")
    assert bool((odd.reduce.weight == 1).all())


def test_unknown_source_and_prefix():
    with pytest.raises(ValueError, match=r"source='mmvc': expected one of .* did you mean 'mmcv'"):
        convert_state_dict(GCBlock(C, ratio=4), {}, "mmvc")
    with pytest.raises(ValueError, match=r"under prefix='x\.'; blocks stand under prefix=''$"):
        convert_state_dict(GCBlock(C, ratio=4), gc_of_mmcv(), "mmcv", prefix="x.")
    deep = {f"module.layer3.4.context_block.{k}": v for k, v in gc_of_mmcv().items()}
    deep |= {f"module.layer3.{n}.conv1.weight": torch.ones(1) for n in range(50)}
    with pytest.raises(ValueError, match=r"prefix='module\.layer3\.4\.context_block\.'$"):
        convert_state_dict(GCBlock(C, ratio=4), deep, "mmcv", prefix="layer3.4.context_block")
