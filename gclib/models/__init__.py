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
    "cascade": ("CascadeHeads", "RegionHeads"),
    "deformable": ("DeformableConv2d", "make_deformable"),
    "detection": ("DetectorFields", "build_detector", "detector_options"),
    "norms": ("FrozenBatchNorm", "convert_norms", "freeze"),
    "resnet": (
        "build_resnet",
        "gc_resnet18",
        "gc_resnet34",
        "gc_resnet50",
        "gc_resnet101",
        "gc_resnet152",
        "gc_resnext50_32x4d",
        "gc_resnext101_32x4d",
        "gc_resnext101_32x8d",
        "gc_resnext101_64x4d",
        "gc_wide_resnet50_2",
        "gc_wide_resnet101_2",
        "set_stride",
    ),
    "slow_only": ("SlowOnly", "inflate_state_dict"),
    "weights": ("convert_weights", "load_weights", "read_weights"),
}
_PLACES = {name: module for module, names in _LATER.items() for name in names}

__all__ = ["CifarNet", "SceneNet", *_PLACES]


def __getattr__(name: str):
    if name in _PLACES:
        return getattr(import_module(f"gclib.models.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'gclib.models' has no attribute {name!r}")
