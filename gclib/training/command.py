"""``gclib train`` and ``gclib evaluate`` for the full recipes; ``python -m gclib.training``.

.. code-block:: bash

    gclib train imagenet --row 4a/gc_all --data DIR --weights P [--plan | --smoke] [--resume auto]
    torchrun --nproc-per-node 8 -m gclib.training imagenet --row 4a/gc_all --data DIR ...
    gclib evaluate imagenet --checkpoint P --data DIR
"""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from gclib.datasets.files import BrokenData
from gclib.training import distributed
from gclib.training.checkpoint import CheckpointError, Checkpoints, read
from gclib.training.options import BadOption, help_lines, option, override, parse
from gclib.training.recipe import Machine, Place
from gclib.training.trainer import TrainingError, in_layout, prepared, train

TASKS = {
    "imagenet": "gclib.training.imagenet",
    "coco": "gclib.training.coco",
    "kinetics": "gclib.training.kinetics",
}
SMOKE_EXAMPLES = 32
_FLAGS = ("--plan", "--smoke", "--help", "-h")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Options that are no part of a recipe."""

    data: str | None = option(None, "folder of the data set")
    weights: str | None = option(None, "what the network starts from: a path, or a name")
    out: str | None = option(None, "folder of the run; default: runs/<task>/<row>/...")
    resume: str | None = option(None, "go on where the run stands", choices=("auto",))


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Options of ``gclib evaluate``."""

    checkpoint: str | None = option(None, "a checkpoint, best.pt or model.pt of a run")
    data: str | None = option(None, "folder of the data set")


class Refused(Exception):
    """A command cannot be run as it was given; ``str()`` says what to do."""


# What ends a command with one sentence.
_SENTENCES = (
    BadOption,
    BrokenData,
    CheckpointError,
    FloatingPointError,
    Refused,
    TrainingError,
    OSError,
    ValueError,
)


def main(arguments: Sequence[str], *, program: str = "gclib train") -> int:
    """Train; the exit status: 0, 2 for what cannot be, 130 or 143 after a signal."""
    return guarded(_train, list(arguments), program)


def evaluate(arguments: Sequence[str], *, program: str = "gclib evaluate") -> int:
    """Evaluate a checkpoint; the exit status."""
    return guarded(_evaluate, list(arguments), program)


def guarded(run: Any, arguments: list[str], program: str) -> int:
    """Call ``run(arguments, program)``; what is wrong ends with one sentence and a status."""
    try:
        return run(arguments, program)
    except _SENTENCES as error:
        return _fail(_sentence(error))
    except torch.OutOfMemoryError:
        return _fail(
            "the GPU has too little memory: halve --micro-batch (the batch stays the same, more "
            "parts are accumulated)"
        )
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            return _fail(
                f"a process that reads data was killed, mostly for lack of memory: lower --workers "
                f"({str(error).splitlines()[0]})"
            )
        raise
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    finally:
        if sys.exc_info()[0] is None or torch.distributed.is_initialized():
            distributed.finish()


def _sentence(error: Exception) -> str:
    """What to say of an error; one of a reading process comes wrapped in its traceback."""
    text = str(error)
    if "Original Traceback" in text:
        name = type(error).__name__
        text = text.rsplit(f"{name}: ", 1)[-1].strip()
    return text or type(error).__name__


def _fail(message: object) -> int:
    print(f"gclib: {message}", file=sys.stderr, flush=True)
    return 2


def _module(arguments: list[str], program: str) -> Any:
    name = arguments.pop(0) if arguments else ""
    if name not in TASKS:
        import difflib

        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Refused(f"{program}: expected one of {', '.join(TASKS)}, got {name!r}{hint}")
    return import_module(TASKS[name])


def _train(arguments: list[str], program: str) -> int:
    given = shlex.join([*program.split(), *arguments])
    module = _module(arguments, program)
    flags = {flag for flag in arguments if flag in _FLAGS}
    rest = [argument for argument in arguments if argument not in _FLAGS]
    cls = module.Recipe
    if flags & {"--help", "-h"}:
        print("\n".join(_help(module, program)))
        return 0
    values, machine_values, wanted_values = parse(rest, cls, Machine, Wanted)
    row = values.pop("row", None)
    if row is None or row == "?":
        print("\n".join(module.ROWS))
        if row:
            return 0
        raise Refused("--row is missing: one of the rows above")
    if {"--plan", "--smoke"} <= flags:
        raise Refused("--plan and --smoke: give one of them")
    machine = override(Machine(), machine_values)
    wanted = override(Wanted(), wanted_values)
    if "--smoke" in flags:
        return _smoke(module, row, values, machine_values, wanted)
    recipe = module.recipe_of(row, values)
    world = distributed.start(machine.device)
    if recipe.precision == "fp16" and world.device.type != "cuda":
        raise Refused("--precision fp16 needs a GPU: take bf16 or fp32")
    if "--plan" in flags:
        return _plan(module, recipe, machine, world, wanted)
    if wanted.data is None:
        raise Refused("--data DIR is missing: the folder of the data set")
    task = module.open_task(recipe, Path(wanted.data), wanted.weights)
    out = Path(wanted.out) if wanted.out else default_out(module.open_task.name, recipe)
    place = Place(out=out, resume=wanted.resume == "auto", command=given)
    ended = train(task, place, machine, world, say=_say)
    return 128 + ended.stopped if ended.stopped else 0


def _say(line: str) -> None:
    print(line, flush=True)


def default_out(task: str, recipe: Any) -> Path:
    """``runs/imagenet/4a-gc_all/stage-2/seed-0``."""
    stage = [f"stage-{recipe.stage}"] if hasattr(recipe, "stage") else []
    return Path("runs", task, recipe.row.replace("/", "-"), *stage, f"seed-{recipe.seed}")


def _help(module: Any, program: str) -> list[str]:
    name = module.open_task.name
    recipe = module.recipe_of(module.ROWS[-1])
    return [
        f"usage: {program} {name} --row ID --data DIR [--plan | --smoke] [--resume auto] [...]",
        "",
        f"rows: {', '.join(module.ROWS)}",
        "",
        "run:",
        *help_lines(Wanted()),
        "  --plan                        what the run takes, then stop",
        "  --smoke                       the same path with little data, in under a minute",
        "",
        f"recipe (values of {recipe.row}):",
        *help_lines(recipe),
        "",
        "machine:",
        *help_lines(Machine()),
    ]


def _plan(module: Any, recipe: Any, machine: Machine, world: Any, wanted: Wanted) -> int:
    from gclib.training.plan import plan

    examples = module.count_examples(Path(wanted.data)) if wanted.data else None
    say = _say if world.leads else (lambda line: None)
    for line in plan(module, recipe, machine, world, examples):
        say(line)
    return 0


def _smoke(module: Any, row: str, values: dict, machine_values: dict, wanted: Wanted) -> int:
    """Both halves of a small run, with a stop between them, from files on disk."""
    for name, given in (("--out", wanted.out), ("--resume", wanted.resume)):
        if given is not None:
            raise Refused(f"{name}: --smoke runs in a folder of its own, leave it out")
    if "stop_after" in machine_values:
        raise Refused("--stop-after: --smoke stops by itself, leave it out")
    recipe = module.recipe_of(row, module.SMOKE | values)
    steps = recipe.epochs * (SMOKE_EXAMPLES // recipe.batch_size)
    if steps < 2:
        raise Refused(
            f"--smoke trains on {SMOKE_EXAMPLES} examples: give a --batch-size of at most "
            f"{SMOKE_EXAMPLES}, and at least two updates"
        )
    small = {"workers": 2, "log_every": 1} | machine_values
    machine = override(Machine(), small)
    world = distributed.start(machine.device)
    if world.size > 1:
        raise Refused("--smoke runs in one process")
    if recipe.precision == "fp16" and world.device.type != "cuda":
        raise Refused("--precision fp16 needs a GPU: take bf16 or fp32")
    with tempfile.TemporaryDirectory(prefix="gclib-smoke-") as folder:
        data = Path(wanted.data) if wanted.data else Path(folder, "data")
        if not wanted.data:
            module.smoke_data(data)
        weights = wanted.weights or module.smoke_weights(recipe, data, Path(folder))
        out = Path(folder, "run")

        def half(resume: bool, **how: Any) -> Any:
            task = module.open_task(recipe, data, weights, few=SMOKE_EXAMPLES)
            place = Place(out=out, resume=resume, command="--smoke")
            return train(task, place, override(machine, how), world, say=_say)

        first = half(False, stop_after=steps // 2)
        if first.stopped:
            return 128 + first.stopped
        before = Checkpoints(out).paths()
        ended = half(True)
        if ended.stopped:
            return 128 + ended.stopped
        figures = ended.summary["figures"]
        problems = [
            text
            for text, bad in (
                ("no checkpoint was written", not before),
                ("a figure is no number", not all(map(math.isfinite, figures.values()))),
                ("the best weights are not there", not Checkpoints(out).best.is_file()),
            )
            if bad
        ]
        again = _figures(module, Checkpoints(out).best, data, machine, world, few=SMOKE_EXAMPLES)
        best = ended.summary["best"]
        if any(again[key] != best[key] for key in again):
            problems.append(f"best.pt gives {again} when it is read, the run said {best}")
    if problems:
        raise Refused(f"--smoke: {'; '.join(problems)}")
    _say(
        f"ok: {row} was read, trained, stopped, resumed, evaluated and read back. Figures of "
        "so little data mean nothing."
    )
    return 0


def _evaluate(arguments: list[str], program: str) -> int:
    module = _module(arguments, program)
    kinds = [Evaluated, Machine, *([module.Evaluated] if hasattr(module, "Evaluated") else [])]
    if set(arguments) & {"--help", "-h"}:
        name = module.open_task.name
        print(f"usage: {program} {name} --checkpoint P --data DIR\n")
        print("\n".join(line for kind in kinds for line in help_lines(kind())))
        return 0
    wanted_values, machine_values, *more = parse(arguments, *kinds)
    wanted, machine = Evaluated(**wanted_values), override(Machine(), machine_values)
    for name in (f.name for f in fields(Evaluated)):
        if getattr(wanted, name) is None:
            raise Refused(f"--{name} is missing")
    world = distributed.start(machine.device)
    paths = (Path(wanted.checkpoint), Path(wanted.data))
    figures = _figures(module, *paths, machine, world, **(more[0] if more else {}))
    if world.leads:
        _say("  ".join(f"{key} {value:.6g}" for key, value in figures.items()))
    return 0


def _figures(
    module: Any,
    path: Path,
    data: Path,
    machine: Machine,
    world: Any,
    **how: Any,
) -> dict[str, float]:
    """What a checkpoint reaches on the test data; ``how`` is of the task."""
    recipe, state = recipe_in(module, path)
    task = module.open_task(recipe, data, state.get("started_from"), **how)
    model = task.build_model(fresh=False)
    with prepared(machine, world.device, one_size=getattr(task, "one_size", True)):
        load(model, state, path, data, task)
        model = in_layout(model.to(world.device), machine).eval()
        return task.evaluate(model, world, machine)


def recipe_in(module: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """The recipe of a checkpoint, and all that the file holds.

    Raises:
        CheckpointError: the file is none, or of another task.
    """
    state = read(path)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in state["recipe"].items()}
    try:
        return override(module.recipe_of(values.get("row"), {}), values), state
    except (BadOption, TypeError) as error:
        raise CheckpointError(f"{path} is of another task or version of gclib ({error})") from None


def load(
    model: torch.nn.Module, state: dict[str, Any], path: Path, data: Path, task: Any = None
) -> None:
    """Put the weights of a checkpoint into its network.

    Raises:
        CheckpointError: they do not fit; mostly the data has another number of classes. Or the
            task's labels stand for other categories than in the training.
    """
    labels = getattr(task, "labels", None)
    if labels is not None and labels != state.get("labels", labels):
        only = sorted(set(labels) ^ set(state["labels"]))
        more = ", ..." if len(only) > 5 else ""
        raise CheckpointError(
            f"{path} was trained on other categories than {data} has: only one of them has the ids "
            f"{', '.join(map(str, only[:5]))}{more}"
        )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit the data in {data}: {str(error).splitlines()[-1].strip()}"
        ) from None
