"""What the explorer shows: a scene, and what four trained blocks make of it at every step.

The weights are those of the lab's networks on their way from untrained to trained
(:mod:`gclib.training.snapshots`); features and maps are computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gclib.analysis.capture import capture
from gclib.blocks import NonLocalBlock
from gclib.blocks._arguments import check_choice
from gclib.blocks.non_local import INSTANTIATIONS
from gclib.datasets.files import BrokenData
from gclib.datasets.scenes import SIDE, Scenes, make_scenes
from gclib.models.scene_net import SceneNet
from gclib.paper.ledger import runs_folder

TASKS = ("context", "pairing")
SCENES, SEED = 24, 2  # scenes to choose from: the first ones that the lab tests on
SIZE = SIDE // SceneNet.stride  # rows and columns of a map
KINDS = ("input", "output", "attention")


@dataclass(frozen=True)
class Recorded:
    """One scene, seen by a network for each instantiation at each step of its training.

    Attributes:
        task: one of :data:`TASKS`.
        scene: number of the scene.
        image: uint8 ``(3, 32, 32)``.
        objects: row and column of each object on the map; in the task ``context``, the cue is the
            last one.
        blocks: names of the instantiations.
        steps: updates so far, from 0 on.
        accuracy: of the trained network of each block, on the lab's test scenes.
        input: float32 ``(blocks, steps, 64, C)``, a vector for each position before the block.
        output: what the block adds, of the same shape; zero before the first update.
        attention: float32 ``(blocks, steps, 64, 64)``, a row for each query.
    """

    task: str
    scene: int
    image: np.ndarray
    objects: tuple[tuple[int, int], ...]
    blocks: tuple[str, ...]
    steps: tuple[int, ...]
    accuracy: tuple[float, ...]
    input: Tensor
    output: Tensor
    attention: Tensor

    def packed(self) -> tuple[dict[str, Any], bytes]:
        """Plain values, and the arrays as little-endian float32, one behind the other.

        Pairs of vectors matter alone, so inputs and outputs go as unit vectors; of zeros, which
        have no direction, zeros are left.
        """
        about = {
            "task": self.task,
            "scene": self.scene,
            "size": SIZE,
            "pixels": SIDE,
            "image": np.ascontiguousarray(self.image.transpose(1, 2, 0)).ravel().tolist(),
            "objects": [list(place) for place in self.objects],
            "blocks": list(self.blocks),
            "steps": list(self.steps),
            "accuracy": list(self.accuracy),
            "channels": self.input.shape[-1],
        }
        arrays = []
        for tensor in (self.input, self.output):
            length = tensor.norm(dim=-1, keepdim=True)
            arrays.append(tensor / length.masked_fill(length == 0, 1))
        arrays.append(self.attention)
        return about, b"".join(array.numpy().astype("<f4").tobytes() for array in arrays)


def recorded(task: str = "pairing", scene: int = 0) -> Recorded:
    """What the networks of a task make of a scene.

    Args:
        task: one of :data:`TASKS`.
        scene: number of the scene, from 0 to ``SCENES - 1``.

    Raises:
        ValueError: no such task or scene.
        BrokenData: the snapshots are not here.
    """
    check_choice("task", task, TASKS)
    if not 0 <= scene < SCENES:
        raise ValueError(f"scene={scene}: expected a number from 0 to {SCENES - 1}")
    scenes = _scenes(task)
    image = torch.from_numpy(scenes.images[scene : scene + 1])
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    steps: Sequence[int] = ()
    accuracy = []
    for kind in INSTANTIATIONS:
        told, nets = _networks(task, kind)
        steps = tuple(nets)
        accuracy.append(told["accuracy"])
        for net in nets.values():
            with torch.no_grad(), capture(net) as captured:
                net(image)
            (block,) = captured.values()
            for name, kept in found.items():
                kept.append(
                    block.attention[0] if name == "attention" else block.vectors(name)[0].float()
                )
    shape = (len(INSTANTIATIONS), len(steps))
    arrays = {name: torch.stack(kept).unflatten(0, shape).float() for name, kept in found.items()}
    places = scenes.centres(SceneNet.stride)[scene].tolist()
    return Recorded(
        task,
        scene,
        scenes.images[scene],
        tuple((int(row), int(column)) for row, column in places),
        INSTANTIATIONS,
        tuple(steps),
        tuple(accuracy),
        **arrays,
    )


@cache
def _scenes(task: str) -> Scenes:
    return make_scenes(task, SCENES, seed=SEED)


def folder() -> Path:
    """Where the snapshots are."""
    return runs_folder("scenes").parent / "snapshots"


@cache
def _networks(task: str, kind: str) -> tuple[dict[str, Any], dict[int, nn.Module]]:
    """What is told of a run, and its network after each number of updates."""
    more = "" if kind == "embedded_gaussian" else f"_{kind}"
    path = folder() / f"mini-{task}_nl{more}.pt"
    try:
        told = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise BrokenData(
            f"{path} is not here: python -m gclib.training.snapshots {path.parent}"
        ) from None
    make = partial(NonLocalBlock, instantiation=kind)
    nets = {}
    for step, numbers in told["states"].items():
        width, classes = numbers["features.0.weight"].shape[0], numbers["head.3.weight"].shape[0]
        snapshot = SceneNet(classes, make(width), width=width)
        snapshot.load_state_dict(numbers)
        nets[step] = snapshot.eval()
    return told, nets
