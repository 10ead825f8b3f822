"""Networks that hold the blocks.

Insertion and the networks of torchvision are imported when they are first used: torchvision takes
a second.
"""

from __future__ import annotations

from importlib import import_module

from gclib.models.cifar_net import CifarNet
from gclib.models.scene_net import SceneNet

_LATER = {
    "insertion": (
        "assert_identity",
        "insert_blocks",
        "insert_row",
        "inserted_blocks",
        "remove_blocks",
        "without_blocks",
    ),
    "slow_only": ("SlowOnly", "inflate_state_dict"),
}
_PLACES = {name: module for module, names in _LATER.items() for name in names}

__all__ = ["CifarNet", "SceneNet", *_PLACES]


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(f"gclib.models.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'gclib.models' has no attribute {name!r}")
