"""Networks that hold the blocks."""

from gclib.models.cifar_net import CifarNet
from gclib.models.scene_net import SceneNet

__all__ = ["CifarNet", "SceneNet"]
