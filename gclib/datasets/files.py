"""Scenes in files, with a manifest of hashes.

gclib data scenes --out DIR          # writes context.npz, pairing.npz, majority.npz, manifest
gclib data scenes --check DIR        # does a folder hold what its manifest says?
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from gclib.datasets.scenes import TASKS, Scenes, make_scenes

MANIFEST = "manifest.json"
_ARRAYS = ("images", "boxes", "shapes", "colours", "labels")


class BrokenData(Exception):
    """A folder does not hold what it should; the message says what to do."""


def write_scenes(folder: Path, *, count: int = 100, seed: int = 0) -> None:
    """Write one file for each task and the manifest; each file whole or not at all.

    Args:
        folder: made if it is not there.
        count: scenes of each task.
        seed: seed of the scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for task in TASKS:
        scenes = make_scenes(task, count, seed=seed)
        temporary = folder / f".{task}.npz"
        with temporary.open("wb") as file:
            arrays = {name: getattr(scenes, name) for name in _ARRAYS}
            np.savez_compressed(file, classes=scenes.classes, **arrays)
        os.replace(temporary, folder / f"{task}.npz")
        manifest[task] = {"count": count, "seed": seed, "sha256": scenes.digest()}
    temporary = folder / f".{MANIFEST}"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)


def read_scenes(folder: Path, task: str) -> Scenes:
    """Read the scenes of a task and compare them with the manifest.

    The hash in the manifest is that of the arrays, so it does not depend on how they were packed.

    Raises:
        BrokenData: a file is missing, cannot be read, or holds something else.
    """
    try:
        wanted = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))[task]["sha256"]
        with np.load(folder / f"{task}.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            scenes = Scenes(**arrays, classes=int(file["classes"]), task=task)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise BrokenData(f"{name} is not there; run: gclib data scenes --out DIR") from None
    except Exception as error:
        raise BrokenData(
            f"{task}.npz or {MANIFEST} cannot be read ({type(error).__name__}); write them again "
            f"with: gclib data scenes --out DIR"
        ) from None
    if scenes.digest() != wanted:
        raise BrokenData(
            f"{task}.npz is not what {MANIFEST} says; write both again with: gclib data scenes "
            f"--out DIR"
        )
    return scenes


def check_scenes(folder: Path) -> list[str]:
    """One line for each task; raises BrokenData at the first that does not fit."""
    lines = []
    for task in TASKS:
        scenes = read_scenes(folder, task)
        lines.append(f"ok  {task}: {len(scenes)} scenes, {scenes.digest()[:12]}")
    return lines
