"""gclib: the blocks of GCNet for PyTorch, their analysis, and the course that builds them.

``import gclib`` is light: torch is imported when a block is first used, and torchvision, nbgrader
and matplotlib only by the parts that need them.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_BLOCKS = (
    "AddFusion",
    "AttentionPooling",
    "AveragePooling",
    "BottleneckTransform",
    "ContextBlock",
    "GCBlock",
    "LinearTransform",
    "NonLocalBlock",
    "SEBlock",
    "ScaleFusion",
    "SimplifiedNonLocalBlock",
)

__all__ = [*_BLOCKS, "__version__"]


def __getattr__(name: str):
    if name in _BLOCKS:
        return getattr(import_module("gclib.blocks"), name)
    raise AttributeError(f"module 'gclib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_BLOCKS})
