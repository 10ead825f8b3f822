"""Networks that hold the blocks."""

from gclib.models.scene_net import SceneNet

__all__ = ["SceneNet"]
