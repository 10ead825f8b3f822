"""Values and gradients equal those of mmcv and timm, with their weights loaded.

``make test-full`` installs the peers; without them these tests skip.
"""

import pytest
import torch
from cases import feature_map, randomise
from torch import nn

from gclib.blocks import (
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    build_block,
    convert_state_dict,
    load_peer_state_dict,
)

C = 32
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def assert_equal(ours, theirs, source, *, ndim=2, backward=True, train=False):
    """Load theirs into ours; compare outputs and the gradients of input and weights."""
    theirs = randomise(theirs, std=0.2).double().train(train)
    for name, buffer in theirs.named_buffers():  # batch statistics that are not the default
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    load_peer_state_dict(ours.double(), theirs.state_dict(), source)
    ours.train(train)
    x = feature_map(C, ndim=ndim).requires_grad_(backward)
    x_peer = x.detach().clone().requires_grad_(backward)
    z, z_peer = ours(x), theirs(x_peer)
    torch.testing.assert_close(z, z_peer, **TOLERANCE)
    assert (z - x).abs().max() > 1e-3  # not a comparison of two identities
    if not backward:
        return
    for output in (z, z_peer):
        (output * torch.arange(z.numel(), dtype=z.dtype).sin().view_as(z)).sum().backward()
    torch.testing.assert_close(x.grad, x_peer.grad, **TOLERANCE)
    # The converter that renames weights renames their gradients too.
    expected = dict(theirs.named_buffers()) | {k: p.grad for k, p in theirs.named_parameters()}
    expected = convert_state_dict(ours, expected, source)
    for key, parameter in ours.named_parameters():
        if key == "out.bias" and source == "mmcv" and ours.norm.__class__ is not nn.Identity:
            continue  # mmcv has no bias there
        torch.testing.assert_close(parameter.grad, expected[key], **TOLERANCE)


@pytest.mark.full
class TestMmcv:
    @pytest.fixture(autouse=True)
    def peer(self):
        self.cnn = pytest.importorskip("mmcv.cnn", reason="mmcv-lite is not installed")

    @pytest.mark.parametrize("ratio", [16, 4, 1])
    def test_gc_block(self, ratio):
        assert_equal(GCBlock(C, ratio=ratio), self.cnn.ContextBlock(C, ratio=1 / ratio), "mmcv")

    @pytest.mark.parametrize(
        ("row", "options"),
        [
            ("2f/att_add", {}),
            ("2f/avg_add", {"pooling_type": "avg"}),
            ("2f/att_scale", {"fusion_types": ("channel_mul",)}),
            ("2f/avg_scale", {"pooling_type": "avg", "fusion_types": ("channel_mul",)}),
        ],
    )
    def test_rows_of_table_2f(self, row, options):
        assert_equal(build_block(row, C), self.cnn.ContextBlock(C, 1 / 16, **options), "mmcv")

    def test_starts_where_the_official_code_starts(self):
        x = feature_map(C, dtype=torch.float32)
        assert torch.equal(self.cnn.ContextBlock(C, 1 / 16)(x), GCBlock(C)(x))
        theirs = self.cnn.ContextBlock(C, 1 / 16, fusion_types=("channel_mul",))
        assert torch.equal(theirs(x), build_block("2f/att_scale", C)(x))

    def test_two_fusions_at_once_are_refused(self):
        theirs = self.cnn.ContextBlock(C, 1 / 16, fusion_types=("channel_mul", "channel_add"))
        with pytest.raises(ValueError, match=r"fuses twice .* has one fusion"):
            load_peer_state_dict(GCBlock(C), theirs.state_dict(), "mmcv")

    @pytest.mark.parametrize("ndim", [1, 2, 3])
    @pytest.mark.parametrize("sub_sample", [False, True])
    @pytest.mark.parametrize("mode", ["gaussian", "embedded_gaussian", "dot_product", "concat"])
    def test_non_local(self, mode, sub_sample, ndim):
        theirs = getattr(self.cnn, f"NonLocal{ndim}d")(
            C, sub_sample=sub_sample, mode="concatenation" if mode == "concat" else mode
        )
        ours = NonLocalBlock(
            C,
            ndim=ndim,
            instantiation=mode,
            scale="sqrt" if mode == "embedded_gaussian" else None,
            subsample="after" if sub_sample else None,
        )
        # mmcv's concatenation divides in place and cannot run backward
        assert_equal(ours, theirs, "mmcv", ndim=ndim, backward=mode != "concat")

    @pytest.mark.parametrize("train", [False, True])
    def test_non_local_with_batch_norm(self, train):
        theirs = self.cnn.NonLocal2d(C, norm_cfg={"type": "BN"}, reduction=4, use_scale=False)
        assert_equal(NonLocalBlock(C, norm="batch", reduction=4), theirs, "mmcv", train=train)

    @pytest.mark.parametrize("ndim", [1, 3])
    def test_2d_weights_load_into_other_dimensions(self, ndim):
        for ours, theirs in (
            (GCBlock(C, ndim=ndim), self.cnn.ContextBlock(C, 1 / 16)),
            (NonLocalBlock(C, ndim=ndim, scale="sqrt"), self.cnn.NonLocal2d(C)),
        ):
            randomise(theirs, std=0.2)
            load_peer_state_dict(ours, theirs.state_dict(), "official")
            x = feature_map(C, ndim=1, dtype=torch.float32)
            as_2d = theirs(x[..., None]).flatten(2)
            as_nd = ours(x[(..., *[None] * (ndim - 1))]).flatten(2)
            torch.testing.assert_close(as_nd, as_2d, rtol=1e-5, atol=1e-5)


@pytest.mark.full
class TestTimm:
    @pytest.fixture(autouse=True)
    def peer(self):
        self.layers = pytest.importorskip("timm.layers", reason="timm is not installed")

    def test_global_context(self):
        theirs = self.layers.GlobalContext(C, fuse_add=True, fuse_scale=False, rd_ratio=1 / 4)
        assert_equal(GCBlock(C, ratio=4, norm_eps=1e-6), theirs, "timm")

    def test_global_context_as_timm_defaults_to_scaling(self):
        ours = ContextBlock(
            AttentionPooling(C),
            BottleneckTransform(C, ratio=8, norm=True, norm_eps=1e-6),
            ScaleFusion(),
        )
        assert_equal(ours, self.layers.GlobalContext(C), "timm")

    def test_global_context_with_average_pooling(self):
        transform = BottleneckTransform(C, ratio=8, norm=True, norm_eps=1e-6)
        ours = ContextBlock(AveragePooling(), transform, ScaleFusion())
        assert_equal(ours, self.layers.GlobalContext(C, use_attn=False), "timm")

    def test_se(self):
        theirs = self.layers.SEModule(C, rd_ratio=1 / 4)
        assert_equal(SEBlock(C, ratio=4), theirs, "timm")

    def test_se_whose_width_timm_rounded(self):
        theirs = self.layers.SEModule(C)  # 32 / 16 = 2, rounded to 8
        with pytest.raises(ValueError, match=r"fc1.weight -> transform.reduce.weight: \(8, 32"):
            load_peer_state_dict(SEBlock(C), theirs.state_dict(), "timm")
        assert_equal(SEBlock(C, ratio=4), theirs, "timm")

    @pytest.mark.parametrize("train", [False, True])
    def test_non_local(self, train):
        theirs = self.layers.NonLocalAttn(C, rd_ratio=1 / 4)
        ours = NonLocalBlock(C, reduction=4, norm="batch", scale=C**-0.5)
        assert_equal(ours, theirs, "timm", train=train)


def test_torchvision_se():
    misc = pytest.importorskip("torchvision.ops.misc", reason="torchvision is not installed")
    assert_equal(SEBlock(C, ratio=4), misc.SqueezeExcitation(C, C // 4), "torchvision")
