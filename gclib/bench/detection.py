"""``gclib bench training`` for detectors: images per second beside torchvision's detection script.

Both train torchvision's Mask R-CNN (ResNet-50, FPN, nothing frozen, random weights) on the same
generated photographs of 640×480 pixels with seven outlined objects each, at 800×1067, with as many
reading processes, in turns. Torchvision's reference does not come with its package: clone its
repository and name ``references/detection/train.py``; it needs pycocotools.

.. code-block:: bash

    gclib bench training --reference references/detection/train.py --batch 2 --updates 6
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gclib.bench.training import as_records, in_turns, lines, seconds_in, seconds_printed
from gclib.datasets.images import make_images

NETWORK = "maskrcnn_resnet50_fpn"
WAYS = ("gclib.training, COCO's task", "torchvision's reference")
SKIPPED = 1  # updates that set up kernels and memory
OBJECTS, CATEGORIES, TESTS = 7, 90, 2


def run(
    reference: Path,
    *,
    batch: int = 2,
    updates: int = 6,
    workers: int = 2,
    rounds: int = 3,
    device: str = "cpu",
    half: bool = False,
) -> list[dict[str, Any]]:
    """Time both in turns; arguments and result as in :func:`gclib.bench.training.run`."""
    if updates <= SKIPPED + 1:
        raise ValueError(f"--updates {updates}: expected at least {SKIPPED + 2}")
    with tempfile.TemporaryDirectory(prefix="gclib-bench-") as scratch:
        data = Path(scratch, "coco")
        make_photographs(data, batch * updates)

        def ours(number: int) -> float:
            out = Path(scratch, f"run-{number}")
            command = [sys.executable, "-m", "gclib.bench.detection", str(data), str(out)]
            command += [str(batch), str(workers), device, "bf16" if half else "fp32"]
            for _ in lines(command, Path.cwd()):
                pass
            return seconds_in(out, batch, SKIPPED)

        def theirs(number: int) -> float:
            command = [sys.executable, "-u", reference.name, "--data-path", str(data)]
            command += ["--model", NETWORK, "--device", device, "-b", str(batch), "--epochs", "1"]
            command += ["-j", str(workers), "--print-freq", "1", "--lr", "0.001"]
            command += ["--output-dir", str(Path(scratch, "reference"))]
            command += ["--amp"] if half else []
            return seconds_printed(command, reference, SKIPPED)

        ways = {WAYS[0]: ours, WAYS[1]: theirs}
        speeds, load = in_turns(ways, batch * (updates - SKIPPED), rounds)
    about = {"network": NETWORK, "batch": batch, "workers": workers, "other_load": load}
    about["data"] = "generated JPEGs of 640×480 pixels with seven outlined objects, at 800×1067"
    return as_records(speeds, about, half)


def make_photographs(folder: Path, count: int) -> None:
    """Generated JPEGs of 640×480 pixels with random outlines, in COCO's layout."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch, "images")
        make_images(made, classes=1, per_class=count + TESTS, size=(640, 480))
        pictures = sorted(made.glob("train/*/*.jpg"))
        (folder / "annotations").mkdir(parents=True)
        for part, chosen in (("train2017", pictures[:count]), ("val2017", pictures[count:])):
            (folder / part).mkdir()
            images = []
            for number, path in enumerate(chosen, start=1):
                path.rename(folder / part / f"{number:012d}.jpg")
                images.append(
                    {"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480}
                )
            told = {
                "images": images,
                "annotations": _outlines(len(images)),
                "categories": [{"id": k, "name": f"thing {k}"} for k in range(1, 1 + CATEGORIES)],
            }
            path = folder / "annotations" / f"instances_{part}.json"
            path.write_text(json.dumps(told), "utf-8")


def _outlines(images: int) -> list[dict[str, Any]]:
    """Ellipses of 24 corners, as many on each image as COCO has on average."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    found = []
    for image in range(1, images + 1):
        for _ in range(OBJECTS):
            half = rng.uniform(12, 110, 2)
            centre = rng.uniform(half, (640 - half[0], 480 - half[1]))
            corners = centre + half * np.stack([np.cos(angles), np.sin(angles)], 1)
            left, top = corners.min(0).tolist()
            right, bottom = corners.max(0).tolist()
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, CATEGORIES)),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(np.pi * half.prod()),
                    "segmentation": [corners.flatten().round(2).tolist()],
                    "iscrowd": 0,
                }
            )
    return found


def main(arguments: list[str]) -> int:
    """One run of an epoch on the engine, with torchvision's network; the exit status."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    from gclib.training import distributed
    from gclib.training.coco import Coco, recipe_of
    from gclib.training.recipe import Machine, Place
    from gclib.training.trainer import train

    data, out, batch, workers, device, precision = arguments

    class TheirNetwork(Coco):
        def build_model(self, *, fresh: bool = True) -> Any:
            return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)

    values = {"epochs": 1, "drops": (0.5,), "warmup_steps": 1, "lr": 0.001, "norm": "batch"}
    values |= {"batch_size": int(batch), "micro_batch": int(batch), "lr_batch": int(batch)}
    recipe = recipe_of("2a/baseline", values | {"precision": precision, "clip": None})
    task = TheirNetwork(recipe, Path(data), "none")
    machine = Machine(device=device, workers=int(workers), log_every=1)
    train(task, Place(out=Path(out)), machine, distributed.start(device))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
