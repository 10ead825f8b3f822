"""A full training: one process or many, from the first update or from a checkpoint.

A :class:`Task` brings the network, the data, the loss and the evaluation; a recipe says how to
train; all else is here, once, for ImageNet, COCO and Kinetics:

- an update is the same for any number of processes and workers (:mod:`gclib.training.order`);
- a run that was killed goes on where its last checkpoint stands, with the same order, the same
  augmentation and the state of every random generator;
- Ctrl-C, SIGTERM and SIGUSR1 save and leave; a full disk costs a checkpoint, not the run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from gclib.datasets.images import mixed
from gclib.training.checkpoint import CheckpointError, Checkpoints, write
from gclib.training.distributed import World
from gclib.training.locks import lock
from gclib.training.loop import config_hash, not_finite, set_rate, update
from gclib.training.options import differing
from gclib.training.order import Order
from gclib.training.progress import LINE_SECONDS, Log, Meter, duration, memory_mib
from gclib.training.recipe import Machine, Place, TrainingRecipe
from gclib.training.runs import commit, write_json
from gclib.training.stopping import StopSignals, ignore_in_worker, name_of

SUMMARY = "summary.json"
RECIPE = "recipe.json"
BROKEN = "broken.txt"
FINAL = "model.pt"
SCORES = "scores"  # of an evaluation that is not at its end yet
_SHOWN = 5  # broken files on the terminal; all of them are in BROKEN


class TrainingError(Exception):
    """A run cannot start or go on; ``str()`` says what to do."""


class Task(Protocol):
    """What a recipe trains.

    Attributes:
        name: ``"imagenet"``, ``"coco"`` or ``"kinetics"``.
        recipe: how to train it.
        unit: of the examples, for ``images/s``.
        one_size: whether all batches have one shape (default: yes), see :func:`prepared`.
        figure: which figure of :meth:`evaluate` decides on the best weights; more is better.
        train_data: gives an example for ``(epoch, index)``.
        groups: ``(len(train_data),)``, which examples may share a forward pass; None for all.
        unread: paths of test files that the last evaluation could not read.
        source: optional; a line about where the training examples come from, if that may surprise.
        keep_scores: optional; called with a folder where :meth:`evaluate` may keep what it has, so
            that it goes on there after a stop.
        collate: makes a batch of examples; it has ``to(device)``, ``len()`` and ``broken``, the
            paths of files that could not be read.
    """

    name: str
    recipe: TrainingRecipe
    unit: str
    figure: str
    train_data: Dataset
    groups: Tensor | None
    unread: list[str]
    collate: Callable[[list], Any]

    def build_model(self, *, fresh: bool = True) -> nn.Module:
        """The network; with ``fresh``, with the weights it starts from."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The mean loss over the examples of a batch on the device."""

    def evaluate(self, model: nn.Module, world: World, machine: Machine) -> dict[str, float]:
        """Figures of the network over all processes, the same in each."""

    def about(self) -> dict[str, Any]:
        """Plain values that belong to the weights, for checkpoints and summary."""

    def as_in_paper(self) -> bool:
        """Whether recipe and data are the paper's, so that the ledger may compare figures."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        stopped: number of the signal that ended it; 0 if none did.
        summary: what ``summary.json`` holds; None if the run is not finished.
    """

    stopped: int
    summary: dict[str, Any] | None


def train(
    task: Task,
    place: Place,
    machine: Machine,
    world: World,
    *,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Train to the end, or until a signal.

    Args:
        task: what to train.
        place: where the run lives.
        machine: how to use this machine.
        world: the processes.
        say: prints a line; called in process 0 alone.

    Returns:
        How it ended.

    Raises:
        TrainingError: the folder holds another run, or too many files are broken.
        CheckpointError: a checkpoint does not fit, or the last one cannot be written.
        FloatingPointError: the loss is not finite.
    """
    try:
        return _Run(task, place, machine, world, say if world.leads else _silent).train()
    except BaseException as error:
        # The frames hold the loader, and its processes would keep Python from ending.
        traceback.clear_frames(error.__traceback__)
        raise


def _silent(line: str) -> None:
    pass


class _Run:
    """One process of a run."""

    def __init__(
        self, task: Task, place: Place, machine: Machine, world: World, say: Callable[[str], None]
    ) -> None:
        self.task, self.recipe = task, task.recipe
        self.place, self.machine, self.world, self._print = place, machine, world, say
        self.checkpoints = Checkpoints(place.out, machine.keep)
        self.step = 0
        self.seconds = 0.0  # of earlier parts of the run
        self.results: list[dict[str, Any]] = []
        self.broken: set[str] = set()
        self.broken_in_all = self.broken_everywhere = 0
        self.best: dict[str, Any] | None = None  # the evaluation that best.pt is of
        self.about = task.about()

    def say(self, line: str) -> None:
        """Print a line; a terminal that is gone costs lines, never the run."""
        try:
            self._print(line)
        except OSError:
            self._print = _silent

    # -- before the first update -------------------------------------------------------------

    def train(self) -> Outcome:
        """See :func:`train`."""
        one_size = getattr(self.task, "one_size", True)
        with prepared(self.machine, self.world.device, one_size=one_size):
            return self._train()

    def _train(self) -> Outcome:
        if done := self.world.from_leader(self._finished()):
            self.say(f"finished already: {self.place.out / SUMMARY}")
            return Outcome(0, done)
        state = self._find()
        torch.manual_seed(mixed(self.recipe.seed, 0))
        core = self.task.build_model(fresh=state is None)
        core, norm = with_norms(core, self.recipe.norm, self.world)
        for line in (norm, getattr(self.task, "source", "")):
            if line:
                self.say(line)
        core = in_layout(core.to(self.world.device), self.machine)
        self.core = core
        self.optimizer = build_optimizer(core, self.recipe, self.world.device)
        fp16 = self.recipe.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.world.device.type) if fp16 else None
        self.order_of = Order(
            len(self.task.train_data),
            self.recipe.batch_size,
            self.recipe.micro_batch,
            seed=self.recipe.seed,
            first=0,
            steps=0,
            rank=self.world.rank,
            processes=self.world.size,
            groups=self.task.groups,
        )
        self.per_epoch = self.order_of.steps_per_epoch
        self.order_of.steps = self.steps = self.recipe.epochs * self.per_epoch
        # Process k draws other numbers (dropout) than process 0.
        torch.manual_seed(mixed(self.recipe.seed, 1, self.world.rank))
        if state:
            self._restore(state)
        self.order_of.first = self.step
        if self.recipe.warmup_steps > self.steps:
            raise TrainingError(
                f"warmup_steps={self.recipe.warmup_steps}: the run has {self.steps} updates"
            )
        for line in explain(self.recipe, self.world, self.order_of.parts):
            self.say(line)
        with self._logging(), StopSignals(say=self.world.leads) as signals:
            return self._updates(signals)

    def _finished(self) -> dict[str, Any] | None:
        """The summary, where a run that is to go on has come to its end."""
        if not (self.place.resume and self.world.leads):
            return None
        with contextlib.suppress(ValueError, OSError):  # a damaged one is written again
            summary = read_summary(self.place.out)
            if summary and summary.get("recipe") == self.recipe.as_dict():
                return summary
        return None

    def _find(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, the same in all processes."""
        found, error = None, None
        if self.world.leads:
            try:
                found = self._newest()
                self.checkpoints.clean()
            except (CheckpointError, TrainingError) as problem:
                error = problem
        error = self.world.from_leader(error)
        if error:
            raise error
        return self.world.from_leader(found)

    def _newest(self) -> dict[str, Any] | None:
        out = self.place.out
        if not self.place.resume:
            if self.checkpoints.paths() or (out / SUMMARY).exists():
                raise TrainingError(
                    f"{out} holds a run already: --resume auto goes on with it, --out DIR starts "
                    "another"
                )
            return None
        found = self.checkpoints.newest(self.recipe.as_dict())
        if found is None:
            self.say(f"no checkpoint in {out}: starting from the beginning")
            return None
        path, state, damaged = found
        for line in damaged:
            self.say(f"{line}: taking the one before")
        self.say(f"going on from {path} (update {state['step']})")
        return state

    def _restore(self, state: Mapping[str, Any]) -> None:
        try:
            if state["examples"] != len(self.task.train_data):
                raise TrainingError(
                    f"the checkpoint was made with {state['examples']} examples, the data has "
                    f"{len(self.task.train_data)}: give the same data, or start again with --out "
                    "DIR"
                )
            # Where the weights came from is a matter of the first start.
            self.about = self.about | {"started_from": state["about"]["started_from"]}
            if lines := differing(state["about"], self.about):
                raise TrainingError(f"the checkpoint is of other data ({'; '.join(lines)})")
            self.core.load_state_dict(state["model"])
            fused = self.optimizer.defaults["fused"]
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["fused"] = fused  # that of this device, not of the one before
            if self.scaler and state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.results = [dict(result) for result in state["results"]]
            self.best = state["best"] and dict(state["best"])
            self.broken = set(state["broken"])
            self.broken_everywhere = len(self.broken)
            generators = state["generators"]
        except (KeyError, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"the checkpoint does not fit this network ({type(error).__name__}: {said})"
            ) from None
        if len(generators) != self.world.size:
            self.say(
                f"the checkpoint is of {len(generators)} processes, here are {self.world.size}: "
                "dropout draws other numbers; order and augmentation stay the same"
            )
            torch.manual_seed(mixed(self.recipe.seed, 2, self.step, self.world.rank))
            return
        mine = generators[self.world.rank]
        torch.set_rng_state(mine["cpu"])
        if self.world.device.type == "cuda" and mine["cuda"] is not None:
            torch.cuda.set_rng_state(mine["cuda"], self.world.device)

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        self.log, error, held = None, None, None
        if self.world.leads:
            try:
                self.place.out.mkdir(parents=True, exist_ok=True)
                busy = TrainingError(
                    f"another run is at work in {self.place.out}: wait for it, or take another "
                    "--out DIR"
                )
                held = lock(self.place.out, busy)
                write_json(self.place.out / RECIPE, self.recipe.as_dict())
                self.log = Log(self.place.out, self.step)
            except OSError as problem:
                error = TrainingError(
                    f"{self.place.out} cannot be written ({problem.strerror}): --out DIR names "
                    "another folder"
                )
            except TrainingError as problem:
                error = problem
        error = self.world.from_leader(error)
        try:
            if error:
                raise error
            yield
        finally:
            if self.log:
                self.log.close()
            if held:
                held.close()

    # -- updates -----------------------------------------------------------------------------

    def _updates(self, signals: StopSignals) -> Outcome:
        run = self.core
        if self.world.size > 1:
            ids = [self.world.device.index] if self.world.device.type == "cuda" else None
            run = DistributedDataParallel(run, device_ids=ids, gradient_as_bucket_view=True)
        if self.machine.compile:  # the outer one, so that gradients are exchanged meanwhile
            run = torch.compile(run)
        self.started = time.perf_counter()
        last_step = self.steps
        if self.machine.stop_after:
            last_step = min(last_step, self.step + self.machine.stop_after)
        loader = None
        meter = Meter()
        losses: list[Tensor] = []  # since the last look
        looked, saved, said = self.step, time.perf_counter(), -math.inf
        while True:
            boundary = self.step > 0 and self.step % self.per_epoch == 0
            if boundary and self._due():
                self._evaluate()
                meter.reset()
            if self.step >= self.steps:
                return self._finish()
            if loader is None:
                loader = iter(self._loader())
                self.core.train()
            lr = self.recipe.rate(self.step, self.per_epoch)
            set_rate(self.optimizer, lr)
            waited = _Wait()
            parts = self._parts(loader, waited)
            loss = update(
                run,
                self.optimizer,
                parts,
                self.order_of.parts,
                self.task.loss,
                clip=self.recipe.clip,
                precision=self.recipe.precision,
                device=self.world.device.type,
                scaler=self.scaler,
            )
            losses.append(loss)
            self.step += 1
            meter.add(self.recipe.batch_size, waited.seconds)
            now = time.perf_counter()
            # What one process sees (its clock, a signal, a broken file), all must know.
            signal_number, save, shows, self.broken_in_all = self.world.largest(
                signals.received,
                self._wants_checkpoint(now - saved),
                now - said > LINE_SECONDS,
                len(self.broken),
            )
            ends = bool(signal_number) or self.step >= last_step
            if ends or save or shows or self.step - looked >= self.machine.log_every:
                mean = self._look(losses, looked, lr, meter)
                losses, looked = [], self.step
                if shows or ends:
                    said = now
                    self.say(self._line(mean, lr))
                meter.reset()
            too_many = self.broken_in_all > self.machine.max_broken
            if save or ends or too_many:
                self._save(must=ends)
                saved = time.perf_counter()
            if too_many:
                raise self._too_many_broken()
            if signal_number and self.step < self.steps:
                self.say(
                    f"{name_of(signal_number)}: saved at update {self.step} of {self.steps}; go on "
                    "with --resume auto"
                )
                return Outcome(signal_number, None)
            if ends and self.step < self.steps:
                self.say(f"saved at update {self.step} of {self.steps}, as --stop-after says")
                return Outcome(0, None)

    def _loader(self) -> DataLoader:
        return DataLoader(
            self.task.train_data,
            batch_sampler=self.order_of,
            collate_fn=self.task.collate,
            num_workers=self.machine.workers,
            pin_memory=self.world.device.type == "cuda",
            worker_init_fn=ignore_in_worker,
            # Its own generator: else a resumed run would draw other numbers from torch's.
            generator=torch.Generator().manual_seed(mixed(self.recipe.seed, 3)),
        )

    def _parts(self, loader: Iterator, waited: _Wait) -> Iterator[Any]:
        for _ in range(self.order_of.parts):
            with waited:
                batch = next(loader)
            self._note_broken(batch.broken)
            yield batch.to(self.world.device)

    def _note_broken(self, paths: list[str], what: str = "another one takes its place") -> None:
        for path in paths:
            if path not in self.broken:
                self.broken.add(path)
                if len(self.broken) <= _SHOWN:
                    shown = os.fsencode(path).decode("utf-8", "replace")
                    self.say(f"cannot be read, {what}: {shown}")
                with contextlib.suppress(OSError):
                    self.place.out.mkdir(parents=True, exist_ok=True)
                    how = {"encoding": "utf-8", "errors": "surrogateescape"}
                    with (self.place.out / BROKEN).open("a", **how) as file:
                        file.write(f"{path}\n")

    def _too_many_broken(self) -> TrainingError:
        return TrainingError(
            f"{self.broken_in_all} files cannot be read, more than --max-broken "
            f"{self.machine.max_broken}; they are named in {self.place.out / BROKEN}. Mend them or "
            "allow more, and go on with --resume auto"
        )

    def _look(self, losses: list[Tensor], since: int, lr: float, meter: Meter) -> float:
        """The mean loss since the last look, over all processes; stops if it is no number."""
        mean = self.world.mean(torch.stack(losses).float().mean()).item() if losses else math.nan
        if losses and not math.isfinite(mean):
            first, last = since, self.step - 1
            where = f"{first}" if first == last else f"{first} to {last}"
            raise not_finite(where, mean, lr)
        self.speed = meter.look()
        if self.log and losses:
            speed = {f"{self.task.unit}_per_s": round(self.speed["examples_per_s"], 2)}
            values = {"epoch": round(self.step / self.per_epoch, 4), "loss": mean, "lr": lr}
            memory = {"memory_mib": round(memory_mib(self.world.device), 1)}
            waiting = {"waiting": round(self.speed["waiting"], 4)}
            self.log.write(self.step, "train", values | speed | waiting | memory)
        return mean

    def _line(self, mean: float, lr: float) -> str:
        left = self.speed["seconds_per_step"] * (self.steps - self.step)
        return (
            f"{self.step}/{self.steps}  epoch {self.step / self.per_epoch:.2f}  loss {mean:.4f}  "
            f"lr {lr:.3g}  {self.speed['examples_per_s']:.1f} {self.task.unit}/s  "
            f"waits for data {self.speed['waiting']:.0%}  "
            f"{memory_mib(self.world.device) / 1024:.1f} GiB  {duration(left)} left"
        )

    # -- evaluation --------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether the epoch that has just ended is to be evaluated, and has not been yet."""
        epoch = self.step // self.per_epoch
        wanted = epoch % self.machine.evaluate_every == 0 or self.step >= self.steps
        return wanted and all(result["epoch"] != epoch for result in self.results)

    def _evaluate(self) -> None:
        if self.world.size > 1:  # the running statistics of process 0 are those that are kept
            for buffer in self.core.buffers():
                torch.distributed.broadcast(buffer, 0)
        start = time.perf_counter()
        self.core.eval()
        if hasattr(self.task, "keep_scores"):
            self.task.keep_scores(self.place.out / SCORES)
        try:
            with without_random():
                figures = self.task.evaluate(self.core, self.world, self.machine)
        finally:
            self.core.train()
        result = {"epoch": self.step // self.per_epoch, "step": self.step, **figures}
        self.results.append(result)
        self._note_broken(self.task.unread, "the evaluation leaves it out")
        (self.broken_in_all,) = self.world.largest(len(self.broken))
        self.broken_everywhere = len(set().union(*self.world.gather(self.broken)))
        if self.broken_in_all > self.machine.max_broken:
            raise self._too_many_broken()
        shown = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
        self.say(f"epoch {result['epoch']}: {shown}  ({duration(time.perf_counter() - start)})")
        if self.log:
            self.log.write(self.step, "evaluation", {"epoch": result["epoch"], **figures})
        value = figures[self.task.figure]
        better = self.best is None or value > self.best[self.task.figure]
        if self.world.leads and math.isfinite(value) and better:
            try:
                self.checkpoints.save_best(self._weights(result))
                self.best = result
            except CheckpointError as error:
                self.say(f"{error}; going on")

    # -- saving ------------------------------------------------------------------------------

    def _wants_checkpoint(self, seconds: float) -> bool:
        if self.step >= self.steps or self.step % self.per_epoch == 0:
            return True  # before an evaluation, which may take long
        if self.machine.checkpoint_steps:
            return self.step % self.machine.checkpoint_steps == 0
        return seconds > 60 * self.machine.checkpoint_minutes

    def _weights(self, result: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {
            "model": self.core.state_dict(),
            "recipe": self.recipe.as_dict(),
            "step": self.step,
            "result": dict(result) if result else None,
            "about": self.about,
            **self.about,
        }

    def _save(self, *, must: bool) -> None:
        """Write a checkpoint; where it is not the last one, a full disk is said and no more."""
        # The loss of the last update was finite before it; the weights may not be behind it.
        (spoilt,) = self.world.largest(not all_finite(self.core))
        if spoilt:
            raise FloatingPointError(
                f"the weights after update {self.step - 1} are no numbers: lower the learning rate "
                f"(lr={self.recipe.largest_lr:g}); the last checkpoint is older and sound"
            )
        cuda = self.world.device.type == "cuda"
        mine = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.world.device) if cuda else None,
        }
        generators = self.world.gather(mine)
        broken = sorted(set().union(*self.world.gather(self.broken)))
        self.broken_everywhere = len(broken)
        error = None
        if self.world.leads:
            state = self._weights() | {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict() if self.scaler else None,
                "seconds": self._elapsed(),
                "results": self.results,
                "broken": broken,
                "best": self.best,
                "examples": len(self.task.train_data),
                "generators": generators,
            }
            try:
                self.checkpoints.save(state, self.step)
            except CheckpointError as problem:
                error = problem
        if must:
            error = self.world.from_leader(error)
            if error:
                raise error
        elif error:
            self.say(f"{error}; the one before is still there, and the next one is tried later")

    def _elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def _finish(self) -> Outcome:
        error, summary = None, None
        if self.world.leads:
            try:
                summary = self._summary()
                write(self.place.out / FINAL, {"format": 1, **self._weights(self.results[-1])})
                write_json(self.place.out / SUMMARY, summary)
            except OSError as problem:
                error = CheckpointError(
                    f"{self.place.out / SUMMARY} was not written: {problem.strerror}"
                )
            except CheckpointError as problem:
                error = problem
        error = self.world.from_leader(error)
        if error:
            raise error
        self.say(f"finished in {duration(self._elapsed())}: {self.place.out / SUMMARY}")
        return Outcome(0, summary)

    def _summary(self) -> dict[str, Any]:
        recipe = self.recipe.as_dict()
        figures = {k: v for k, v in self.results[-1].items() if k not in ("epoch", "step")}
        return {
            "task": self.task.name,
            "row": self.recipe.row,
            "seed": self.recipe.seed,
            "figures": figures,
            "best": self.best,
            "evaluations": self.results,
            "updates": self.steps,
            "seconds": round(self._elapsed(), 1),
            "parameters": sum(p.numel() for p in self.core.parameters()),
            "examples": len(self.task.train_data),
            "broken": self.broken_everywhere,
            "recipe": recipe,
            "hash": config_hash(recipe),
            "about": self.about,
            "as_in_paper": self.task.as_in_paper() and not figures.get("broken"),
            "machine": {
                "device": device_name(self.world.device),
                "processes": self.world.size,
                "deterministic": self.machine.deterministic,
                "compiled": self.machine.compile,
                "memory_mib": round(memory_mib(self.world.device), 1),
            },
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "commit": commit(),
            "command": self.place.command,
        }


class _Wait:
    """Seconds that were spent inside of it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.start


def all_finite(model: nn.Module) -> bool:
    """Whether every parameter and buffer of a model is finite; waits for the device once."""
    values = [v for v in model.state_dict().values() if v.is_floating_point()]
    return bool(torch.stack([v.isfinite().all() for v in values]).all()) if values else True


@contextlib.contextmanager
def without_random() -> Iterator[None]:
    """What runs inside leaves torch's generators as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


@contextlib.contextmanager
def prepared(machine: Machine, device: torch.device, *, one_size: bool = True) -> Iterator[None]:
    """Torch's switches as this machine wants them, as long as it is open.

    Args:
        machine: how to use it.
        device: what runs on it.
        one_size: whether all batches have one shape; cuDNN then looks for the fastest algorithm of
            each convolution. It would do so for every new shape, and detectors have new ones in
            every update: images of many sizes, and as many regions as there are objects.
    """
    before = (
        torch.get_num_threads(),
        torch.backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
    )
    if machine.threads:
        torch.set_num_threads(machine.threads)
    torch.backends.cudnn.benchmark = one_size and not machine.deterministic
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if machine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark = before[1]
        torch.set_float32_matmul_precision(before[2])
        torch.use_deterministic_algorithms(before[3])


def device_name(device: torch.device) -> str:
    """For a summary: the GPU's name, or that it was a CPU and with how many threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def build_optimizer(
    model: nn.Module, recipe: TrainingRecipe, device: torch.device
) -> torch.optim.Optimizer:
    """The recipe's optimizer on every parameter that is trained; one kernel on a GPU.

    Parameters of one decay are a group, the largest decay first.
    """
    decays: dict[nn.Parameter, float] = {}  # a shared one belongs to the module that has it first
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                decays.setdefault(parameter, recipe.decay_of(module))
    common = {
        "params": [
            {"params": [p for p in decays if decays[p] == decay], "weight_decay": decay}
            for decay in sorted(set(decays.values()), reverse=True)
        ],
        "lr": recipe.largest_lr,
        "weight_decay": recipe.weight_decay,
        "fused": device.type == "cuda" or None,
    }
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(**common, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(**common, momentum=recipe.momentum, nesterov=recipe.nesterov)


def in_layout(model: nn.Module, machine: Machine) -> nn.Module:
    """The model with the layout of its feature maps that the machine wants, in place."""
    sizes = {parameter.dim() for parameter in model.parameters()} & {4, 5}
    if len(sizes) != 1:  # torch has no layout for both
        return model
    last = torch.channels_last if sizes == {4} else torch.channels_last_3d
    return model.to(memory_format=last if machine.channels_last else torch.contiguous_format)


def with_norms(model: nn.Module, norm: str, world: World) -> tuple[nn.Module, str]:
    """The model with the norms of a recipe, and what is to be said about it.

    Synchronised norms exchange statistics between GPUs. On CPUs, where torch has none, and in one
    process, where there is nothing to exchange, they are BatchNorm.
    """
    if norm == "batch":
        return model, ""
    from gclib.models.norms import convert_norms

    if norm == "sync":
        if world.size > 1 and world.device.type == "cuda":
            return convert_norms(model, "sync"), ""
        why = "one process" if world.size == 1 else "no GPU"
        return model, (
            f"norm=sync: {why}, so BatchNorm takes the statistics of micro_batch examples "
            "(--norm frozen keeps those of the weights)"
        )
    return convert_norms(model, "frozen"), ""


def explain(recipe: TrainingRecipe, world: World, parts: int) -> list[str]:
    """How the batch and the learning rate of a recipe come about here."""
    many = f"{world.size} processes × " if world.size > 1 else ""
    accumulated = f"{parts} parts × " if parts > 1 else ""
    lines = [
        f"batch of {recipe.batch_size}: {many}{accumulated}{recipe.micro_batch} examples"
        + (f" (gradients of {parts} parts are accumulated)" if parts > 1 else "")
    ]
    if recipe.batch_size != recipe.lr_batch:
        lines.append(
            f"learning rate {recipe.largest_lr:.4g}: {recipe.lr:g} for {recipe.lr_batch} examples, "
            f"scaled to {recipe.batch_size} (linear scaling)"
        )
    else:
        lines.append(f"learning rate {recipe.lr:g}")
    return lines


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None where there is none."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    return summary if isinstance(summary, dict) else None
