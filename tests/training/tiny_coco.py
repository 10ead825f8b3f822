"""COCO's task with the small detector on generated images, for tests of whole runs.

python tiny_coco.py DATA OUT [--resume] [field=value ...]
"""

import sys
from pathlib import Path

import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from gclib.training import distributed
from gclib.training.coco import Coco, recipe_of
from gclib.training.options import override, read
from gclib.training.recipe import Machine, Place
from gclib.training.trainer import train

VALUES = {
    "lr": 0.01,
    "epochs": 4,
    "drops": (3.0,),
    "warmup_steps": 2,
    "batch_size": 4,
    "micro_batch": 2,
}
MACHINE = {"device": "cpu", "workers": 0, "threads": 1, "deterministic": True, "log_every": 1}
MACHINE |= {"evaluate_every": 4}


class EverySample(Coco):
    """Heads that learn from every region: which ones are drawn differs between processes."""

    def build_model(self, *, fresh=True):
        model = super().build_model(fresh=fresh)
        for part in (model.rpn, model.roi_heads):
            part.fg_bg_sampler = BalancedPositiveNegativeSampler(1_000_000, 0.5)
        return model


def run(
    data, out, *, task=Coco, row="mini/coco_gc", resume=False, values=None, say=print, **machine
):
    task = task(recipe_of(row, VALUES | (values or {})), Path(data))
    place = Place(out=Path(out), resume=resume)
    machine = override(Machine(), MACHINE | machine)
    try:
        return train(task, place, machine, distributed.start("cpu"), say=say)
    finally:
        distributed.finish()


if __name__ == "__main__":
    data, out, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    given = dict(text.split("=") for text in rest if "=" in text)
    kind = type(recipe_of("mini/coco_gc"))
    values = {k: read(kind, k, v) for k, v in given.items() if hasattr(kind, k)}
    machine = {k: read(Machine, k, v) for k, v in given.items() if k not in values}
    run(data, out, task=EverySample, resume="--resume" in rest, values=values, **machine)
