"""Every block of the paper in every form that the tests run through."""

from functools import partial

import torch

from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    SimplifiedNonLocalBlock,
)
from gclib.blocks.non_local import INSTANTIATIONS


def attention_scale(in_channels, *, ndim=2, **factory):
    return ContextBlock(
        AttentionPooling(in_channels, **factory),
        BottleneckTransform(in_channels, ratio=2, norm=True, **factory),
        ScaleFusion("2sigmoid"),
        ndim=ndim,
    )


def attention_linear_free(in_channels, *, ndim=2, **factory):
    """The row 2d/r16: a bottleneck without ReLU and LayerNorm."""
    return ContextBlock(
        AttentionPooling(in_channels, **factory),
        BottleneckTransform(in_channels, ratio=2, relu=False, **factory),
        AddFusion(),
        ndim=ndim,
    )


BLOCKS = {
    **{f"nl_{name}": partial(NonLocalBlock, instantiation=name) for name in INSTANTIATIONS},
    "nl_sqrt": partial(NonLocalBlock, scale="sqrt"),
    "nl_before": partial(NonLocalBlock, subsample="before", reduction=1),
    "nl_after": partial(NonLocalBlock, subsample="after", instantiation="dot_product"),
    "nl_batch": partial(NonLocalBlock, norm="batch"),
    "snl_eq3": SimplifiedNonLocalBlock,
    "snl_eq2": partial(SimplifiedNonLocalBlock, form="eq2"),
    "gc": partial(GCBlock, ratio=2),
    "gc_no_bias": partial(GCBlock, ratio=2, bias=False),
    "se": partial(SEBlock, ratio=2),
    "se_2sigmoid": partial(SEBlock, ratio=2, gate="2sigmoid"),
    "att_scale": attention_scale,
    "r2_linear": attention_linear_free,
}
SHAPES = {1: (7,), 2: (5, 4), 3: (3, 4, 2)}
ADDITIVE = [name for name in BLOCKS if name not in ("se", "se_2sigmoid", "att_scale")]


def randomise(module, seed=0, std=0.4):
    """Give every parameter a value, the zero-initialised ones too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * std)
    return module


def make(name, in_channels=4, ndim=2, dtype=torch.float64, seed=0):
    """A block with random weights."""
    return randomise(BLOCKS[name](in_channels, ndim=ndim, dtype=dtype), seed)


def feature_map(in_channels=4, ndim=2, batch=2, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, in_channels, *SHAPES[ndim])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
