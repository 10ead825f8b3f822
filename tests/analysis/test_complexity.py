"""Three ways to count agree, with each other and with counts by hand."""

import pytest
import torch
from torch import nn

from gclib.analysis.complexity import (
    block_multiply_adds,
    count_parameters,
    dispatched_multiply_adds,
    fvcore_multiply_adds,
    fvcore_parameters,
)
from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    NonLocalBlock,
    SEBlock,
    SimplifiedNonLocalBlock,
)
from gclib.blocks.non_local import INSTANTIATIONS

C = 16
BLOCKS = {
    **{f"nl {name}": {"instantiation": name} for name in INSTANTIATIONS},
    "nl before": {"subsample": "before"},
    "nl after": {"subsample": "after"},
    "nl norm": {"norm": "batch", "scale": "sqrt", "reduction": 4},
    "snl": lambda ndim: SimplifiedNonLocalBlock(C, ndim=ndim),
    "snl eq2": lambda ndim: SimplifiedNonLocalBlock(C, ndim=ndim, form="eq2"),
    "se": lambda ndim: SEBlock(C, ndim=ndim, ratio=4),
    "gc": lambda ndim: GCBlock(C, ndim=ndim, ratio=4),
    "avg add": lambda ndim: ContextBlock(
        AveragePooling(), BottleneckTransform(C, ratio=2, norm=True), AddFusion(), ndim=ndim
    ),
    "gc wide": lambda ndim: ContextBlock(
        AttentionPooling(C), BottleneckTransform(C, hidden=5), AddFusion(), ndim=ndim
    ),
}
SIZES = {1: (12,), 2: (4, 6), 3: (3, 4, 6)}


def build(name, ndim):
    made = BLOCKS[name]
    block = NonLocalBlock(C, ndim=ndim, **made) if isinstance(made, dict) else made(ndim)
    return block.eval()


@pytest.mark.parametrize("ndim", SIZES)
@pytest.mark.parametrize("name", BLOCKS)
def test_formula_fvcore_and_dispatch_agree(name, ndim, capfd):
    block, x = build(name, ndim), torch.randn(1, C, *SIZES[ndim])
    expected = sum(block_multiply_adds(block, SIZES[ndim]).values())
    assert dispatched_multiply_adds(block, x) == expected
    assert fvcore_multiply_adds(block, x) == expected
    assert capfd.readouterr() == ("", "")


def test_counts_by_hand():
    steps = block_multiply_adds(NonLocalBlock(1024), (14, 14))
    assert steps["query"] == 196 * 1024 * 512
    assert steps["similarity"] == 196 * 196 * 512
    assert block_multiply_adds(GCBlock(1024), (14, 14)) == {
        "context modelling": 2 * 196 * 1024,
        "transform": 2 * 1024 * 64,
    }
    # Equation 2 to equation 3: O(HWC²) to O(C²).
    eq2 = block_multiply_adds(SimplifiedNonLocalBlock(64, form="eq2"), (10, 10))
    eq3 = block_multiply_adds(SimplifiedNonLocalBlock(64), (10, 10))
    assert eq2["transform"] == 100 * eq3["transform"] == 100 * 64 * 64


def test_parameters(capfd):
    assert count_parameters(GCBlock(1024)) == fvcore_parameters(GCBlock(1024)) == 133_313
    assert capfd.readouterr() == ("", "")
    frozen = GCBlock(1024)
    frozen.transform.reduce.requires_grad_(False)
    assert count_parameters(frozen) == 133_313 - 1024 * 64 - 64


def test_attention_and_baddbmm_are_counted_by_fvcore():
    class Fused(nn.Module):
        def forward(self, q, k, v):
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return torch.baddbmm(torch.zeros(1), y[:, 0], v[:, 0].transpose(1, 2))

    q, k, v = torch.randn(2, 1, 5, 8), torch.randn(2, 1, 7, 8), torch.randn(2, 1, 7, 8)
    expected = 2 * 5 * 7 * (8 + 8) + 2 * 5 * 8 * 7
    assert fvcore_multiply_adds(Fused(), q, k, v) == expected


def test_without_a_formula():
    with pytest.raises(TypeError, match="no formula for a Conv2d"):
        block_multiply_adds(nn.Conv2d(3, 3, 1), (4, 4))
