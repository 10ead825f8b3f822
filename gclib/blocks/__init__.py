"""The paper's blocks: non-local, simplified non-local, squeeze-excitation, global context.

Every block maps a feature map ``(N, C, *positions)`` to one of the same shape; with
``return_attention=True`` it returns the pair of it and its attention map. This package imports
torch alone.
"""

from gclib.blocks.converters import convert_state_dict, load_peer_state_dict
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
from gclib.blocks.registry import ROWS, Row, build_block, find_row, reset_identity
from gclib.blocks.simplified_non_local import SimplifiedNonLocalBlock
from gclib.blocks.squeeze_excitation import SEBlock

__all__ = [
    "ROWS",
    "AddFusion",
    "AttentionPooling",
    "AveragePooling",
    "BottleneckTransform",
    "ContextBlock",
    "GCBlock",
    "LinearTransform",
    "NonLocalBlock",
    "Row",
    "SEBlock",
    "ScaleFusion",
    "SimplifiedNonLocalBlock",
    "build_block",
    "convert_state_dict",
    "find_row",
    "load_peer_state_dict",
    "reset_identity",
]
