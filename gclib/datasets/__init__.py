"""Data sets: generated scenes."""

from gclib.datasets.scenes import TASKS, Scenes, make_scenes

__all__ = ["TASKS", "Scenes", "make_scenes"]
