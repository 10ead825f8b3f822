"""A small task on files on disk, and a command that runs it: for tests of whole runs.

python tiny.py train DATA OUT [--resume] [field=value ...]      one run
python tiny.py killed DATA OUT KILLS SEED                       killed at random moments, to the end
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from gclib.datasets.images import make_images
from gclib.training import distributed
from gclib.training.imagenet import ImageNet, ImageNetRecipe
from gclib.training.options import override, read
from gclib.training.recipe import Machine, Place
from gclib.training.trainer import train

VALUES = {
    "row": "4a/baseline",
    "stage": 1,
    "epochs": 3,
    "batch_size": 8,
    "micro_batch": 4,
    "lr": 0.05,
    "lr_batch": 8,
    "warmup_epochs": 0.5,
    "image_size": 16,
    "resize": 18,
    "precision": "fp32",
}
LONG = 30  # epochs of the run that is killed
# 2 workers, augmentation, BatchNorm and dropout: everything that draws or keeps a state.
MACHINE = {"device": "cpu", "workers": 2, "threads": 1, "deterministic": True, "log_every": 1}


class Tiny(ImageNet):
    """ImageNet's data, loss and evaluation with a network of three layers."""

    def build_model(self, *, fresh=True):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.0 if self.recipe.norm == "frozen" else 0.2),
            nn.Linear(32, self.classes),
        )


def recipe(**values):
    return ImageNetRecipe(**(VALUES | values))


def make_data(folder):
    make_images(folder, classes=3, per_class=16, size=(24, 20))
    return folder


def run(data, out, *, resume=False, say=print, values=None, **machine):
    task = Tiny(recipe(**(values or {})), Path(data))
    place = Place(out=Path(out), resume=resume)
    machine = override(Machine(), MACHINE | machine)
    try:
        return train(task, place, machine, distributed.start("cpu"), say=say)
    finally:
        distributed.finish()


def final(out):
    return torch.load(Path(out, "model.pt"), weights_only=True)["model"]


def _forked(data, out):
    """Start the run in a process that has torch already; its number."""
    number = os.fork()
    if number:
        return number
    os.setpgid(0, 0)  # its workers die with it
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            run(data, out, resume=True, checkpoint_steps=1, keep=3, values={"epochs": LONG})
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def killed(data, out, kills, seed):
    """Run to the end, killed at random moments on the way; prints how often it was."""
    drawn, done = random.Random(seed), 0
    while True:
        child = _forked(data, out)
        if done < kills:
            deadline = time.monotonic() + drawn.uniform(0.02, 0.5)
            while time.monotonic() < deadline:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    break
                time.sleep(0.002)
            else:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                done += 1
                continue
        else:
            _, status = os.waitpid(child, 0)
        print(f"killed {done} times, status {os.waitstatus_to_exitcode(status)}")
        return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    command, data, out, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    if command == "killed":
        sys.exit(killed(data, out, int(rest[0]), int(rest[1])))
    resume = "--resume" in rest
    given = dict(text.split("=") for text in rest if "=" in text)
    values = {k: read(ImageNetRecipe, k, v) for k, v in given.items() if hasattr(ImageNetRecipe, k)}
    machine = {k: read(Machine, k, v) for k, v in given.items() if k not in values}
    ended = run(data, out, resume=resume, values=values, **machine)
    sys.exit(128 + ended.stopped if ended.stopped else 0)
