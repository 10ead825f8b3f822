"""Data sets: generated scenes here; photographs in modules of their own."""

from gclib.datasets.files import BrokenData, check_scenes, read_scenes, write_scenes
from gclib.datasets.scenes import TASKS, Scenes, make_scenes

__all__ = [
    "TASKS",
    "BrokenData",
    "Scenes",
    "check_scenes",
    "make_scenes",
    "read_scenes",
    "write_scenes",
]
