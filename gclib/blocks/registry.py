"""The rows of the paper's tables: which block, and where it stands in the network.

One id names a row everywhere: here, in recipes, in the ledger and in notebooks. A row holds the
block and its place; the network and the training are matters of other packages.

>>> build_block("2e/r4", 1024)            # doctest: +ELLIPSIS
GCBlock(...)
>>> find_row("2a/nl_1").index
-2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from gclib.blocks._arguments import check_choice
from gclib.blocks.framework import (
    AddFusion,
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    LinearTransform,
    ScaleFusion,
)
from gclib.blocks.global_context import GCBlock
from gclib.blocks.non_local import NonLocalBlock
from gclib.blocks.simplified_non_local import SimplifiedNonLocalBlock

STAGES = ("c3", "c4", "c5")
POSITIONS = ("after_1x1", "after_3x3", "after_add")

BlockFactory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        id: ``table/name``, for example ``"2a/gc_all"``.
        block: called as ``block(in_channels, ndim=...)``; None for a baseline.
        stages: the stages that hold blocks.
        position: where in a residual block: ``"after_1x1"`` (after the last 1×1 convolution and
            its norm), ``"after_3x3"``, or ``"after_add"`` (after the shortcut, before the ReLU).
        index: which residual blocks of the stages: None for all, an int for one (-2 is the one
            before the last), or a mapping from stage to indices.
    """

    id: str
    block: BlockFactory | None = field(default=None, compare=False)
    stages: tuple[str, ...] = ()
    position: str = "after_1x1"
    index: int | Mapping[str, tuple[int, ...]] | None = field(default=None, hash=False)

    @property
    def table(self) -> str:
        """The table the row belongs to, for example ``"2a"``."""
        return self.id.split("/")[0]


_TRANSFORM = partial(BottleneckTransform, ratio=16, norm=True)  # as released


def _context(
    in_channels: int,
    *,
    attend: bool = True,
    scale: bool = False,
    transform: BlockFactory = _TRANSFORM,
    ndim: int = 2,
    **factory: Any,
) -> ContextBlock:
    """A block of tables 2(d) and 2(f), as the official code has them: with LayerNorm by default."""
    return ContextBlock(
        AttentionPooling(in_channels, **factory) if attend else AveragePooling(),
        transform(in_channels, **factory),
        ScaleFusion() if scale else AddFusion(),
        ndim=ndim,
    )


_no_ratio = partial(_context, transform=LinearTransform)
_r16 = partial(_context, transform=partial(BottleneckTransform, ratio=16, relu=False))
_r16_relu = partial(_context, transform=partial(BottleneckTransform, ratio=16))
_average_scale = partial(_context, attend=False, scale=True)
_average_add = partial(_context, attend=False)
_attention_scale = partial(_context, scale=True)


# "Right before the last residual block of c4" (section 3.2): behind the shortcut of block -2.
_SINGLE = {"stages": ("c4",), "position": "after_add", "index": -2}
_ALL = {"stages": STAGES}
# Kinetics: five blocks behind the residual blocks that Wang et al. chose; the paper gives their
# number only. Theirs stand after the last ReLU, "after_add" before it, as in the authors' code.
_FIVE = {
    "stages": ("c3", "c4"),
    "position": "after_add",
    "index": {"c3": (1, 3), "c4": (1, 3, 5)},
}
# The 39.81 M of table 5 need the norm; the other options are video-nonlocal-net's, which scales
# where a softmax follows and divides by the positions elsewhere.
_VIDEO_NL = partial(NonLocalBlock, norm="batch", subsample="before")
_VIDEO_SCALE = {"gaussian": "sqrt", "embedded_gaussian": "sqrt"}
_INSTANTIATIONS = ("gaussian", "embedded_gaussian", "dot_product", "concat")


def _rows() -> list[Row]:
    rows = []
    for name in _INSTANTIATIONS:
        rows.append(Row(f"1/coco_{name}", partial(NonLocalBlock, instantiation=name), **_SINGLE))
    for name in _INSTANTIATIONS:
        block = partial(_VIDEO_NL, instantiation=name, scale=_VIDEO_SCALE.get(name))
        rows.append(Row(f"1/kinetics_{name}", block, **_FIVE))

    rows += [
        Row("2a/baseline"),
        Row("2a/nl_1", NonLocalBlock, **_SINGLE),
        Row("2a/snl_1", SimplifiedNonLocalBlock, **_SINGLE),
        Row("2a/gc_1", GCBlock, **_SINGLE),
        Row("2a/gc_all", GCBlock, **_ALL),
        Row("2b/after_add", GCBlock, **_ALL, position="after_add"),
        Row("2b/after_1x1", GCBlock, **_ALL, position="after_1x1"),
        *(Row(f"2c/{stage}", GCBlock, (stage,)) for stage in STAGES),
        Row("2c/all", GCBlock, **_ALL),
        Row("2d/no_ratio", _no_ratio, **_ALL),
        Row("2d/r16", _r16, **_ALL),
        Row("2d/r16_relu", _r16_relu, **_ALL),
        Row("2d/r16_ln_relu", GCBlock, **_ALL),
        *(Row(f"2e/r{ratio}", partial(GCBlock, ratio=ratio), **_ALL) for ratio in (4, 8, 16, 32)),
        Row("2f/avg_scale", _average_scale, **_ALL),
        Row("2f/avg_add", _average_add, **_ALL),
        Row("2f/att_scale", _attention_scale, **_ALL),
        Row("2f/att_add", GCBlock, **_ALL),
    ]
    for backbone in ("r50", "r101", "x101", "x101_cascade", "x101_dcn_cascade"):
        rows.append(Row(f"3a/{backbone}_baseline"))
        for ratio in (16, 4):
            rows.append(Row(f"3a/{backbone}_gc_r{ratio}", partial(GCBlock, ratio=ratio), **_ALL))

    rows += [
        Row("4a/baseline"),
        Row("4a/nl_1", NonLocalBlock, **_SINGLE),
        Row("4a/snl_1", SimplifiedNonLocalBlock, **_SINGLE),
        Row("4a/gc_1", GCBlock, **_SINGLE),
        Row("4a/gc_all", GCBlock, **_ALL),
        Row("4b/baseline"),
        Row("4b/avg_scale", _average_scale, **_ALL),
        Row("4b/avg_add", _average_add, **_ALL),
        Row("4b/att_scale", _attention_scale, **_ALL),
        Row("4b/att_add", GCBlock, **_ALL),
        Row("5/baseline"),
        Row("5/nl_5", partial(_VIDEO_NL, scale="sqrt"), **_FIVE),
        Row("5/snl_5", SimplifiedNonLocalBlock, **_FIVE),
        Row("5/gc_5", partial(GCBlock, ratio=4), **_FIVE),
        Row("5/gc_all", partial(GCBlock, ratio=4), **_ALL),
    ]
    return rows


ROWS: Mapping[str, Row] = MappingProxyType({row.id: row for row in _rows()})


def find_row(row_id: str) -> Row:
    """Return the row of that id; ValueError naming the nearest one otherwise."""
    check_choice("row_id", row_id, ROWS)
    return ROWS[row_id]


def build_block(
    row_id: str,
    in_channels: int,
    *,
    ndim: int = 2,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module | None:
    """Build the block of a row for feature maps of ``in_channels`` channels.

    Args:
        row_id: for example ``"2f/avg_scale"``.
        in_channels: channels C of the feature map.
        ndim: number of position axes: 1, 2 (default) or 3.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Returns:
        The block, or None for a baseline.

    Raises:
        ValueError: no such row, or arguments that its block refuses.
    """
    block = find_row(row_id).block
    if block is None:
        return None
    return block(in_channels, ndim=ndim, device=device, dtype=dtype)


def reset_identity(model: nn.Module) -> int:
    """Make every block of the paper in ``model`` the identity again (with scaling: its gate at 0).

    Call it after a model-level initialisation, which overwrites the zero-initialised last layers.

    Returns:
        The number of blocks that were reset.

    Raises:
        TypeError: a block has a transform that cannot be reset; no block is touched then.
    """
    blocks = [m for m in model.modules() if isinstance(m, (ContextBlock, NonLocalBlock))]
    for block in blocks:
        if isinstance(block, ContextBlock):
            block.check_resettable()
    for block in blocks:
        block.reset_identity()
    return len(blocks)
