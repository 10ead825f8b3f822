"""Kinetics' task with the small network on generated clips, for tests of whole runs.

python tiny_kinetics.py train DATA OUT [--resume] [field=value ...]     one run
python tiny_kinetics.py evaluate DATA CHECKPOINT SCORES                 its figures as JSON
python tiny_kinetics.py killed DATA CHECKPOINT SCORES KILLS SEED        killed at random moments
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from gclib.training import distributed, kinetics
from gclib.training.command import load, recipe_in
from gclib.training.kinetics import Kinetics, recipe_of
from gclib.training.options import override, read
from gclib.training.recipe import Machine, Place
from gclib.training.trainer import train

VALUES = {
    "epochs": 3,
    "batch_size": 8,
    "micro_batch": 4,
    "warmup_steps": 2,
    "dropout": 0.3,
    "short_range": (32, 36),
    "size": 32,
    "flip": 0.5,
    "test_size": 32,
    "clips": 2,
    "crops": 3,
}
MACHINE = {"device": "cpu", "workers": 0, "threads": 1, "deterministic": True, "log_every": 1}


def run(data, out, *, task=Kinetics, row="mini/kinetics_gc", resume=False, values=None, **machine):
    task = task(recipe_of(row, VALUES | (values or {})), Path(data))
    place = Place(out=Path(out), resume=resume)
    machine = override(Machine(), MACHINE | machine)
    try:
        return train(task, place, machine, distributed.start("cpu"), say=lambda line: None)
    finally:
        distributed.finish()


def evaluated(data, checkpoint, scores=None, **options):
    """The figures of a checkpoint, as ``gclib evaluate`` has them."""
    machine = override(Machine(), MACHINE | options)
    torch.set_num_threads(1)
    recipe, state = recipe_in(kinetics, Path(checkpoint))
    task = Kinetics(recipe, Path(data), state.get("started_from"), scores=scores)
    model = task.build_model(fresh=False)
    load(model, state, Path(checkpoint), Path(data), task)
    world = distributed.start("cpu")
    try:
        return task.evaluate(model.eval(), world, machine)
    finally:
        distributed.finish()


def _forked(data, checkpoint, scores):
    """Start an evaluation in a process that has torch already; its number."""
    number = os.fork()
    if number:
        return number
    os.setpgid(0, 0)  # its workers die with it
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            evaluated(data, checkpoint, scores, workers=2)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def killed(data, checkpoint, scores, kills, seed):
    """Evaluate to the end, killed on the way; prints how many scores there were at each kill."""
    drawn, found = random.Random(seed), []
    while True:
        child = _forked(data, checkpoint, scores)
        if len(found) < kills:
            deadline = time.monotonic() + drawn.uniform(0.05, 0.6)
            while time.monotonic() < deadline:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    break
                time.sleep(0.002)
            else:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                files = Path(scores).glob("scores-*.txt")
                found.append(sum(file.read_bytes().count(b'"index"') for file in files))
                continue
        else:
            _, status = os.waitpid(child, 0)
        print(json.dumps(found))
        return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    if command == "killed":
        sys.exit(killed(*rest[:3], int(rest[3]), int(rest[4])))
    if command == "evaluate":
        figures = evaluated(*rest)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(figures))
        sys.exit(0)
    data, out, *rest = rest
    given = dict(text.split("=") for text in rest if "=" in text)
    kind = type(recipe_of("mini/kinetics_gc"))
    values = {k: read(kind, k, v) for k, v in given.items() if hasattr(kind, k)}
    machine = {k: read(Machine, k, v) for k, v in given.items() if k not in values}
    run(data, out, resume="--resume" in rest, values=values, **machine)
