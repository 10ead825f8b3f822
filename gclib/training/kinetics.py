r"""Kinetics-400 (paper section 5.3, tables 1 and 5): slow-only networks, from ImageNet weights.

.. code-block:: bash

    gclib train kinetics --row 5/gc_all --data DIR --weights IMAGENET1K_V1
    torchrun --nproc-per-node 8 -m gclib.training kinetics --row 5/gc_all --data DIR --weights P
    gclib evaluate kinetics --checkpoint runs/kinetics/5-gc_all/seed-0/best.pt --data DIR \
        --scores DIR2      # the same command goes on where it was stopped

``--weights`` are those of a 2D ResNet, which are inflated: ``model.pt`` of ``gclib train imagenet``
(with its ``--stride-in``) or a name of torchvision's; or of a slow-only network, which are loaded
as they are.

====================  ==============================================================================
given by the paper    slow-only ResNet-50, 8 frames, stride 8; inflated ImageNet weights; 30 views;
                      blocks in five places or in all of c3 to c5, ratio 4; all else is to follow
                      SlowFast
by SlowFast's code    (its configurations for ImageNet weights, ``I3D_NLN_8x8_R50_IN1K``) batch of
                      64, 118 epochs, learning rate 0.01, a tenth of it behind epochs 44 and 88, no
                      warm-up; SGD with Nesterov's momentum of 0.9; decay 1e-4, none on BatchNorm;
                      dropout 0.5; short side from 256 to 320, crop of 224, flip; 10 clips × 3 crops
                      of 256, softmax averaged; inflation by repeating and dividing
by the non-local      keys and values max-pooled by 2 in space before their projections; products
network's code        scaled by 1/√d; a BatchNorm behind the last convolution whose scale starts at
                      0; after residual blocks 1 and 3 of c3 and 1, 3 and 5 of c4, counted from 0
====================  ==============================================================================

What neither says for this paper, and what stands here:

====================  ==============================================================================
which recipe          SlowFast trains its slow-only network from scratch (196 epochs, a cosine from
                      0.1), which cannot be meant where ImageNet weights are given. Its recipe for
                      ImageNet weights is the non-local network's
which five places     those of the non-local network's code, for SNL and GC too; they stand before
                      the last ReLU, as all blocks of the authors do. The counts of table 5 fit
mean and spread       of ImageNet, which the weights were trained with; SlowFast's 0.45 and 0.225
                      belong to its own weights
decay of LayerNorm    1e-4, as of every parameter that is none of a BatchNorm
times of a clip       8 frames of 1/30 s apart, see :mod:`gclib.datasets.kinetics`
BatchNorm             statistics of the 8 clips of a process
stride                in the 3×3 (``stride_in``), as torchvision's weights and SlowFast's networks
                      have it. Table 5's 39.29 G belong to no network: ``gclib ledger --table 5``
precision             bf16; the paper's is 32 bits (``--precision fp32``)
====================  ==============================================================================

An evaluation with ``--scores DIR`` keeps what it has, see :mod:`gclib.training.scores`; that of a
training does so by itself. Its result is that of an evaluation without a stop, to the last digit,
if ``--views`` and the device stay the same. Videos that cannot be read are named, counted and left
out of the figures.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import ROWS as ALL_ROWS
from gclib.datasets.clip_scenes import CLASSES as GENERATED
from gclib.datasets.clip_scenes import SIDE, VIDEOS, write_clip_scenes
from gclib.datasets.files import BrokenData
from gclib.datasets.images import MEAN, STD
from gclib.datasets.kinetics import (
    Crops,
    KineticsDataset,
    Sampling,
    VideoBatch,
    VideoList,
    Videos,
    clean_list,
    collate,
    eval_transform,
    kinetics,
    part_of_kinetics,
    same_numbers,
    train_transform,
)
from gclib.models.insertion import insert_row
from gclib.models.mini_slow_only import MINI_ROWS, build_mini_slow_only
from gclib.models.resnet import build_resnet
from gclib.models.slow_only import (
    INFLATIONS,
    STRIDES,
    TIME_PADDINGS,
    SlowOnly,
    inflate_state_dict,
)
from gclib.models.weights import load_weights, read_weights
from gclib.training.checkpoint import origin_of
from gclib.training.distributed import World
from gclib.training.loop import AUTOCAST, LossOf, config_hash
from gclib.training.metrics import as_shares, topk_correct
from gclib.training.options import BadOption, option, override
from gclib.training.reading import First, in_order
from gclib.training.recipe import Machine, TrainingRecipe
from gclib.training.scores import Scores, ScoresError, digest_of
from gclib.training.smoke import untrained_resnet

ROWS = (*(row for row in ALL_ROWS if row.startswith(("1/kinetics_", "5/"))), *MINI_ROWS)
MINI = "mini_slow_only"  # for generated clips
DEPTHS = {"slow_only_50": 50, "slow_only_101": 101}
CLASSES = 400
TRAINED_ON, TESTED_ON = 240_000, 20_000  # "about": videos vanish from where they were found
_NEARLY = 0.95  # of these, to be compared with the paper


@dataclass(frozen=True, kw_only=True)
class KineticsRecipe(TrainingRecipe):
    """How to train a row of table 5 or 1; the sources are in the module's text."""

    epochs: int = option(118, "passes over the data", least=1)
    batch_size: int = option(64, "clips of an update, over all processes", least=1)
    micro_batch: int = option(8, "clips of a forward pass in one process", least=1)
    lr: float = option(0.01, "learning rate for lr_batch clips", above=0)
    lr_batch: int = option(64, "batch that lr belongs to: the rate grows with batch_size", least=1)
    nesterov: bool = option(True, "Nesterov's momentum")
    weight_decay: float = option(1e-4, "on every parameter but those of BatchNorm", least=0)
    norm_decay: float = option(0.0, "weight decay of BatchNorm", least=0)
    schedule: str = option("steps", "of the learning rate", choices=("cosine", "steps"))
    drops: tuple[float, ...] = option((44.0, 88.0), "epochs after which it drops", above=0)
    network: str = option("slow_only_50", "without its blocks", choices=(*DEPTHS, MINI))
    stride_in: str = option("3x3", "convolution that has the stride", choices=STRIDES)
    time_padding: str = option("zeros", "beyond the ends of a clip", choices=TIME_PADDINGS)
    inflation: str = option("average", "of 2D weights", choices=INFLATIONS)
    dropout: float = option(0.5, "before the classifier", least=0, most=1)
    frames: int = option(8, "pictures of a clip", least=1)
    stride: int = option(8, "from one picture to the next, in frames of 1/30 s", least=1)
    short_range: tuple[int, int] = option(
        (256, 320), "short side of a video in training, in pixels: least and most", least=8
    )
    size: int = option(224, "pixels of a crop in training", least=8)
    flip: float = option(0.5, "share of mirrored clips", least=0, most=1)
    test_size: int = option(256, "short side and crop of a test, in pixels", least=8)
    clips: int = option(10, "of a test video, at even distances", least=1)
    crops: int = option(3, "of a test clip: 3 along its long side, 1 in the middle", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.short_range
        if not self.size <= low <= high:
            raise BadOption(
                f"short_range={low},{high}: expected the smaller one first, and at least "
                f"size={self.size}"
            )
        if self.crops not in (1, 3):
            raise BadOption(f"crops={self.crops}: expected 1 or 3")
        if (self.network == MINI) != (self.row in MINI_ROWS):
            raise BadOption(
                f"network={self.network} with row={self.row}: the rows mini/kinetics_… belong to "
                f"network={MINI}, and no other row does"
            )

    def decay_of(self, module: nn.Module) -> float:
        """``norm_decay`` for BatchNorm, as in SlowFast; ``weight_decay`` for all else."""
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        return self.norm_decay if norm else self.weight_decay

    @property
    def sampling(self) -> Sampling:
        """Which times of a video a clip shows."""
        return Sampling(self.frames, self.stride)

    @property
    def views(self) -> int:
        """Views of a test video."""
        return self.clips * self.crops


# What a laptop trains: generated clips, a small network, from scratch.
MINI_VALUES: dict[str, Any] = {
    "network": MINI,
    "epochs": 14,
    "batch_size": 16,
    "micro_batch": 16,
    "optimizer": "adamw",
    "nesterov": False,
    "lr": 0.003,
    "lr_batch": 16,
    "schedule": "cosine",
    "drops": (),
    "warmup_steps": 50,
    "clip": 5.0,
    "precision": "fp32",
    "dropout": 0.0,
    "stride": 4,  # a clip is as long as a video
    "short_range": (SIDE, SIDE),
    "size": SIDE,
    "flip": 0.0,  # left is not right
    "test_size": SIDE,
    "clips": 1,
    "crops": 1,
}


def recipe_of(row: str, values: Mapping[str, Any] | None = None) -> KineticsRecipe:
    """The recipe of a row of tables 5 and 1, with other values for some of its fields.

    Args:
        row: for example ``"5/gc_all"``; ``"mini/kinetics_gc"`` for a laptop.
        values: field → value.

    Raises:
        BadOption: no such row or field, or a value that it cannot have.
    """
    try:
        check_choice("row", row, ROWS)
    except ValueError as error:
        raise BadOption(str(error)) from None
    preset = MINI_VALUES if row in MINI_ROWS else {}
    return override(KineticsRecipe(row=row, **preset), dict(values or {}))


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Options of ``gclib evaluate kinetics`` beside those of every task."""

    scores: str | None = option(
        None, "folder for the scores of each video; the same command goes on there after a stop"
    )
    views: int | None = option(
        None, "that go through the network at once; default: micro_batch of the training", least=1
    )


class Kinetics:
    """The task of a recipe on a folder of videos; see :class:`gclib.training.trainer.Task`.

    Args:
        recipe: how to train.
        data: folder of :func:`gclib.datasets.kinetics.kinetics`; to evaluate, ``val`` is enough.
        weights: of a 2D ResNet, or of a slow-only network: a path, or a name of torchvision's for
            the ResNet. None only for the small network.
        few: read so many training videos, and a quarter of it for tests, of the first ones; None
            for all.
        scores: folder where :meth:`evaluate` keeps the scores of each video; None: nowhere.
        views: that go through the network at once in :meth:`evaluate`; None for ``micro_batch``.

    Raises:
        BrokenData: the folder does not hold that.
        BadOption: no weights, or weights for the small network.
    """

    name, unit, figure = "kinetics", "clips", "top1"
    groups = None  # all crops have one size
    collate = staticmethod(collate)

    def __init__(
        self,
        recipe: KineticsRecipe,
        data: Path,
        weights: str | None = None,
        *,
        few: int | None = None,
        scores: str | None = None,
        views: int | None = None,
    ) -> None:
        if weights is None and recipe.network != MINI:
            raise BadOption(
                "a slow-only network starts from a ResNet that was trained on ImageNet: --weights "
                "RUN/model.pt of gclib train imagenet (with its --stride-in), or a name of "
                f"torchvision's for {_flat(recipe.network)}, for example IMAGENET1K_V1"
            )
        if weights is not None and recipe.network == MINI:
            raise BadOption(f"--weights {weights}: the small network starts from scratch")
        self.recipe, self.data, self.weights, self.few = recipe, Path(data), weights, few
        self.scores = Path(scores) if scores is not None else None
        self.views = views or recipe.micro_batch
        self.passing = False  # whether the scores belong to a training and go when it has them
        self.unread: list[str] = []

    @cached_property
    def _both(self) -> tuple[Videos, Videos]:
        return kinetics(self.data)

    @cached_property
    def test_videos(self) -> Videos:
        """Paths and labels to evaluate on; without a training part, that is all there is."""
        if "_both" in vars(self):
            return self._both[1]
        videos = part_of_kinetics(self.data, "val", clean=self.data)
        if isinstance(videos, VideoList) and videos.numbered:
            with contextlib.suppress(BrokenData):  # its list may lack the last classes
                same_numbers(part_of_kinetics(self.data, "train", clean=self.data), videos)
        return videos

    @cached_property
    def train_data(self) -> Dataset:
        """A clip of each video, at a random place."""
        recipe = self.recipe
        data = KineticsDataset(
            self._both[0],
            train_transform(recipe.size, short=recipe.short_range, flip=recipe.flip),
            sampling=recipe.sampling,
            seed=recipe.seed,
        )
        return First(data, self.few) if self.few else data

    @cached_property
    def test_data(self) -> Dataset:
        """All views of each video."""
        recipe = self.recipe
        crops = eval_transform(recipe.test_size)
        data = KineticsDataset(
            self.test_videos,
            crops if recipe.crops == 3 else _Middle(crops),
            sampling=recipe.sampling,
            clips=recipe.clips,
            substitute=False,
        )
        return First(data, self.few // 4) if self.few else data

    @cached_property
    def seen_data(self) -> Dataset:
        """What an analysis looks at: one clip of a video, from its middle, as large as in training.

        Its maps are as large as those that the network was trained with: 8 × 28 × 28 queries in c3.
        """
        recipe = self.recipe
        return KineticsDataset(
            self.test_videos,
            _Middle(eval_transform(recipe.size, short=max(recipe.test_size, recipe.size))),
            sampling=_MiddleClip(recipe.frames, recipe.stride),
            clips=1,
            substitute=False,
        )

    @property
    def source(self) -> str:
        """Says so where the clean list stands in for what the folder holds."""
        path, count = clean_list(self.data, "train"), len(self._both[0])
        if self._both[0].root != path:
            return ""
        return f"training on the {count} videos of {path}, which gclib data kinetics --check wrote"

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.test_videos.classes)

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes; None where the data has numbers alone."""
        if isinstance(self.test_videos, VideoList) and self.test_videos.numbered:
            return None
        return list(self.test_videos.classes)

    def build_model(self, *, fresh: bool = True) -> nn.Module:
        """The network; with ``fresh``, with the weights it starts from."""
        return build(self.recipe, self.classes, self.weights if fresh else None)

    @property
    def loss(self) -> LossOf:
        """Cross-entropy of the classes."""
        return loss_of(self.recipe)

    def keep_scores(self, folder: Path) -> None:
        """Keep the scores of the next evaluation in a folder, as long as it runs."""
        self.scores, self.passing = folder, True

    def evaluate(self, model: nn.Module, world: World, machine: Machine) -> dict[str, float]:
        """Top-1 and top-5 in percent over all processes; how many videos could not be read."""
        kept, done = None, {}
        if self.scores is not None:
            try:
                kept = Scores(self.scores, self._belongs(model), world, replace=self.passing)
                done = kept.done
            except ScoresError as error:  # the same in all processes
                if not self.passing:
                    raise
                if world.leads:
                    print(f"{error}; the evaluation goes on without them", flush=True)
        try:
            return self._evaluate(model, world, machine, kept, done)
        finally:
            if kept:
                kept.close()

    def _evaluate(
        self,
        model: nn.Module,
        world: World,
        machine: Machine,
        kept: Scores | None,
        done: Mapping[int, int],
    ) -> dict[str, float]:
        left = [index for index in range(len(self.test_data)) if index not in done]
        if done and world.leads:
            print(f"{len(done)} videos have their scores already, {len(left)} are left", flush=True)
        first = fifth = count = 0
        if kept and world.leads:
            for index, label, scores in kept:
                if index not in done:  # another process has written it by now, and counts it
                    continue
                top1, top5 = topk_correct(scores[None], torch.tensor([label]))
                first, fifth, count = first + top1, fifth + top5, count + 1
        self.unread = []
        # One at a time: its views are a batch already, and videos differ in what can be read.
        for batch in in_order(self.test_data, collate, world, machine, chosen=left):
            self.unread += batch.broken
            if not len(batch):
                continue
            scores = predict(model, batch.to(world.device), self.recipe.precision, self.views).cpu()
            top1, top5 = topk_correct(scores, batch.labels)
            first, fifth, count = first + top1, fifth + top5, count + len(batch)
            if kept:
                for index, label, one in zip(
                    batch.indices.tolist(), batch.labels.tolist(), scores, strict=True
                ):
                    kept.add(index, label, one)
        first, fifth, count, broken = world.total(first, fifth, count, len(self.unread))
        if not count:  # a process may have had no video of its own
            found = next(path for paths in world.gather(self.unread[:1]) for path in paths)
            raise BrokenData(f"no test video can be read, the first is {found}")
        if kept and self.passing and world.leads:
            kept.remove()
        top1, top5 = as_shares((first, fifth), count)
        figures = {"top1": top1, "top5": top5, "videos": int(count)}
        return figures | ({"broken": int(broken)} if broken else {})

    def _belongs(self, model: nn.Module) -> dict[str, str]:
        """What scores are scores of."""
        videos, count = self.test_videos, len(self.test_data)
        digest = hashlib.sha256()
        for index in range(count):
            name = os.path.relpath(videos.path(index), self.data)
            digest.update(os.fsencode(f"{name}\n{videos.label(index)}\n"))
        return {
            "checkpoint": digest_of(model),
            "recipe": config_hash(self.recipe.as_dict()),
            "list of videos": f"{count} {digest.hexdigest()[:16]}",
        }

    def about(self) -> dict[str, Any]:
        """Where the stride is, what the weights started from, and the names of the classes."""
        if not len(self.train_data):  # both parts are read, and their classes compared
            raise BrokenData(f"{self.data} holds no video to train on")
        found = {
            "stride_in": self.recipe.stride_in,
            "started_from": origin_of(self.weights),
            "classes": self.classes,
        }
        return found | ({} if self.labels is None else {"labels": self.labels})

    def as_in_paper(self) -> bool:
        """Whether this is the recipe of table 5 on nearly all of Kinetics-400."""
        mine = self.recipe
        if mine.row in MINI_ROWS:
            return False
        free = {"seed": mine.seed, "precision": mine.precision}
        whole = (
            len(self.train_data) >= _NEARLY * TRAINED_ON
            and len(self.test_data) >= _NEARLY * TESTED_ON
            and self.classes == CLASSES
        )
        return mine == recipe_of(mine.row, free) and whole


@dataclass(frozen=True)
class _Middle:
    """The middle one of three crops alone."""

    make: Callable[[], Crops]

    def __call__(self) -> Crops:
        return _MiddleOf(self.make())


@dataclass(frozen=True)
class _MiddleOf:
    crops: Crops

    def __call__(self, picture: Tensor) -> Sequence[Tensor]:
        return self.crops(picture)[1:2]


class _MiddleClip(Sampling):
    """One clip from the middle of a video."""

    def spread(self, duration: float, clips: int) -> list[list[float]]:
        """It, whatever ``clips`` says."""
        return [self.at(duration, 0.5)]


# -- the network ---------------------------------------------------------------------------------


def build(
    recipe: KineticsRecipe, classes: int | None = None, weights: str | None = None
) -> nn.Module:
    """The network of a recipe; ``classes`` None: as many as the paper's or the generated data has.

    Raises:
        ValueError, FileNotFoundError: the weights do not fit; the message says why.
    """
    if classes is None:
        classes = classes_of(recipe)
    if recipe.network == MINI:
        options = {"dropout": recipe.dropout, "time_padding": recipe.time_padding}
        return build_mini_slow_only(recipe.row, num_classes=classes, **options)
    model = SlowOnly(
        DEPTHS[recipe.network],
        classes,
        dropout=recipe.dropout,
        stride_in=recipe.stride_in,
        time_padding=recipe.time_padding,
    )
    insert_row(model, recipe.row)
    if weights is not None:
        start_from(model, recipe, weights)
    return model


def classes_of(recipe: KineticsRecipe) -> int:
    """How many classes the data has that a recipe is meant for."""
    return len(GENERATED) if recipe.network == MINI else CLASSES


def start_from(model: nn.Module, recipe: KineticsRecipe, weights: str) -> None:
    """Load the weights of a slow-only network, or inflate those of a 2D ResNet, in place.

    Args:
        model: slow-only, with its blocks.
        recipe: of it.
        weights: the path of a file, or a name of torchvision's. Of 2D weights the classifier is
            left out; with blocks they are refused, which are not the baseline's.

    Raises:
        ValueError, FileNotFoundError: they do not fit; the message says why.
    """
    if Path(weights).is_file():
        found = read_weights(weights, stride_in=recipe.stride_in)
        if any(isinstance(v, Tensor) and v.dim() == 5 for v in found.values()):
            load_weights(model, found)
            return
    try:
        flat = build_resnet(_flat(recipe.network), weights=weights, stride_in=recipe.stride_in)
    except ValueError as error:
        raise ValueError(
            f"--weights {weights} cannot be inflated for {recipe.network}: {error}"
        ) from None
    kept = {k: v for k, v in flat.state_dict().items() if not k.startswith("fc.")}
    inflated = inflate_state_dict(
        kept, model, inflation=recipe.inflation, stride_in=recipe.stride_in
    )
    model.load_state_dict(inflated, strict=False)


def _flat(network: str) -> str:
    """The 2D network whose weights a slow-only network starts from."""
    return f"resnet{DEPTHS[network]}"


def loss_of(recipe: KineticsRecipe) -> LossOf:
    """Cross-entropy of the classes."""

    def loss(model: nn.Module, batch: VideoBatch) -> Tensor:
        clips = batch.clips.flatten(0, 1)
        labels = batch.labels.repeat_interleave(batch.clips.shape[1])
        return F.cross_entropy(model(prepare(clips, layout_of(model))), labels)

    return loss


def prepare(clips: Tensor, layout: torch.memory_format = torch.channels_last_3d) -> Tensor:
    """Bytes ``(N, 3, T, H, W)`` → normalised numbers, where the bytes are."""
    mean, spread = _statistics(clips.device)
    return (clips.contiguous(memory_format=layout).float() - mean) / spread


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """On a GPU once: a copy to it waits for all that is under way there."""
    return tuple(torch.tensor(v, device=device)[:, None, None, None] for v in (MEAN, STD))


def layout_of(model: nn.Module) -> torch.memory_format:
    """The layout of a network's weights, which its maps should have as well."""
    for weight in model.parameters():
        if weight.dim() == 5 and weight.shape[1] > 1 and weight[0, 0].numel() > 1:
            contiguous = weight.is_contiguous()
            return torch.contiguous_format if contiguous else torch.channels_last_3d
    return torch.channels_last_3d


@torch.no_grad()
def predict(
    model: nn.Module, batch: VideoBatch, precision: str, views: int | None = None
) -> Tensor:
    """Probabilities ``(N, classes)``, the mean of the softmax over the views of a video.

    Args:
        model: the network.
        batch: videos with their views.
        precision: of the network; the softmax is float32, its mean float64.
        views: that go through the network at once; None for all.
    """
    clips = batch.clips.flatten(0, 1)
    dtype = AUTOCAST[precision]
    parts = []
    for part in clips.split(views or len(clips)):
        with torch.autocast(clips.device.type, dtype or torch.bfloat16, enabled=bool(dtype)):
            logits = model(prepare(part, layout_of(model)))
        parts.append(logits.float().softmax(1).double())
    return torch.cat(parts).unflatten(0, batch.clips.shape[:2]).mean(1).float()


def looked_at(model: nn.Module, batch: VideoBatch) -> tuple[Tensor, list[tuple[float, float]]]:
    """The first clip of a batch, ``(3, T, H, W)``, and no places to look from."""
    return batch.clips[0, 0], []


# -- what the command needs beside the training --------------------------------------------------

SMOKE: dict[str, Any] = {
    "warmup_steps": 0,
    "epochs": 2,
    "batch_size": 8,
    "micro_batch": 4,
    "frames": 4,
    "short_range": (36, 40),
    "size": 32,
    "test_size": 32,
    "clips": 2,
}


def smoke_data(folder: Path) -> None:
    """A few generated videos, in the layout of the full run."""
    write_clip_scenes(folder, videos={"train": 32, "val": 8})


def smoke_weights(recipe: KineticsRecipe, data: Path, folder: Path) -> str | None:
    """A file with the weights of an untrained 2D ResNet, as gclib train imagenet leaves it."""
    if recipe.network == MINI:
        return None
    return untrained_resnet(_flat(recipe.network), recipe.stride_in, folder / "resnet.pt")


def count_examples(data: Path) -> int:
    """How many training videos a folder holds."""
    return len(part_of_kinetics(data, "train", clean=data))


def random_batch(recipe: KineticsRecipe, device: torch.device) -> VideoBatch:
    """What a forward pass gets, with random pixels: for a probe of time and memory."""
    count = recipe.micro_batch
    shape = (count, 1, recipe.frames, recipe.size, recipe.size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 1, 5, 2, 3, 4)
    labels = torch.randint(0, classes_of(recipe), (count,))
    return VideoBatch(clips, labels, torch.arange(count), []).to(device)


def counts(recipe: KineticsRecipe) -> Iterator[str]:
    """Parameters and multiply-adds of the network, beside what is printed."""
    from gclib.analysis.networks import layer_counts, multiply_adds
    from gclib.paper.ledger import read_counts
    from gclib.training.plan import beside

    with torch.device("meta"):
        model = build(recipe)
    view = (1, 3, recipe.frames, recipe.size, recipe.size)
    layers = layer_counts(model, torch.empty(view, device="meta"))
    ours = sum(layer.parameters for layer in layers)
    yield f"parameters: {ours:,}{beside(recipe.row, 'params_m', 'M')}"
    paper = multiply_adds(layers, "paper") / 1e9
    size = "×".join(map(str, view[2:]))
    yield (
        f"multiply-adds at {size}: {paper:.3f} G as built, by the paper's convention"
        f"{beside(recipe.row, 'gflops', 'G')}"
    )
    if note := read_counts().get("notes", {}).get(f"{recipe.row}:gflops"):
        yield f"  {note}"
    view = (1, 3, recipe.frames, recipe.test_size, recipe.test_size)
    test = multiply_adds(layer_counts(model, torch.empty(view, device="meta")), "paper") / 1e9
    yield (
        f"evaluation: {recipe.clips} clips × {recipe.crops} crops of {recipe.test_size}² a video, "
        f"{recipe.views * test / 1e3:.3f} T multiply-adds"
    )


def data_size(recipe: KineticsRecipe) -> tuple[int, str]:
    """How many examples the paper trains on, and what they are."""
    if recipe.network == MINI:
        return VIDEOS["train"], "generated clips"
    return TRAINED_ON, "about as many training videos as Kinetics-400 has"


Recipe = KineticsRecipe
open_task = Kinetics
