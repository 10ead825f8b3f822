r"""COCO (paper section 5.1, tables 1 to 3): Mask R-CNN and its relatives, from ImageNet weights.

.. code-block:: bash

    gclib train coco --row 2a/gc_all --data DIR --weights IMAGENET1K_V1
    torchrun --nproc-per-node 8 -m gclib.training coco --row 2a/gc_all --data DIR --weights P
    gclib evaluate coco --checkpoint runs/coco/2a-gc_all/seed-0/best.pt --data DIR

A row says which network: ResNet-50 for tables 1 and 2; for table 3 ResNet-101 and ResNeXt-101, the
cascade, deformable convolutions. ``--weights`` are those of the backbone.

====================  ==============================================================================
given by the paper    Mask R-CNN with FPN, 12 epochs, learning rate 0.02 for 8 × 2 images, SyncBN,
                      short side 800
by the authors' code  warm-up of 500 updates from a third, gradients clipped at 35, long side at
                      most 1333, flips, decay 1e-4 on every parameter, stem and c2 frozen, FPN and
                      heads without norms
====================  ==============================================================================

Where they differ, and where neither says it:

====================  ==============================================================================
``drops``             the code drops the rate after epochs 8 and 11 (default); the paper writes "at
                      the 9th and 11th epochs", which ``--drops 8,10`` gives
warm-up               update t of w has the share 1/3 + 2/3 · (t + 1)/w; in the authors' library t
                      stands for t + 1, one update of 500 behind
parts                 an image that lies and one that stands never share a forward pass, as there
images                without objects are left out of training (``--keep-empty yes`` keeps them)
proposals at test     1000, as in the refactored code; the first commit has 2000
``norm``              sync on GPUs; on a CPU or in one process BatchNorm would take the statistics
                      of ``micro_batch`` images, and a run says so (``--norm frozen``)
====================  ==============================================================================

What torchvision's parts do in another way than the authors' library stands in
:mod:`gclib.models.detection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import ROWS as ALL_ROWS
from gclib.datasets.coco import (
    CocoDataset,
    DetectionBatch,
    coco_folder,
    collate,
    eval_transform,
    resized,
    train_transform,
)
from gclib.datasets.detection_scenes import CLASSES as GENERATED
from gclib.datasets.detection_scenes import IMAGES, SIDE, write_detection_scenes
from gclib.datasets.files import BrokenData
from gclib.models.detection import build_detector, detector_options
from gclib.models.mini_detector import MINI_ROWS, build_mini_detector
from gclib.models.resnet import NAMES, STRIDES
from gclib.training.checkpoint import origin_of
from gclib.training.detection_metrics import CocoEvaluator, rescaled
from gclib.training.distributed import World
from gclib.training.loop import AUTOCAST, LossOf
from gclib.training.options import BadOption, option, override
from gclib.training.reading import First, in_order
from gclib.training.recipe import NORMS, Machine, TrainingRecipe
from gclib.training.smoke import untrained_resnet

_TABLES = ("1/coco_", "2a/", "2b/", "2c/", "2d/", "2e/", "2f/", "3a/")
ROWS = (*(row for row in ALL_ROWS if row.startswith(_TABLES)), *MINI_ROWS)
MINI = "mini_detector"  # for generated images of 96×96 pixels
CLASSES = 81  # COCO's 80 categories and the background
TRAINED_ON, TESTED_ON = 117_266, 5_000  # images of train2017 with objects, of val2017


@dataclass(frozen=True, kw_only=True)
class CocoRecipe(TrainingRecipe):
    """How to train a row of tables 1 to 3; the sources are in the module's text."""

    epochs: int = option(12, "passes over the data", least=1)
    batch_size: int = option(16, "images of an update, over all processes", least=1)
    micro_batch: int = option(2, "images of a forward pass in one process", least=1)
    lr: float = option(0.02, "learning rate for lr_batch images", above=0)
    lr_batch: int = option(16, "batch that lr belongs to: the rate grows with batch_size", least=1)
    schedule: str = option("steps", "of the learning rate", choices=("cosine", "steps"))
    drops: tuple[float, ...] = option(
        (8.0, 11.0), "epochs after which it drops: 8,11 in the code, 8,10 in the paper", above=0
    )
    warmup_steps: int = option(500, "linear warm-up, in updates", least=0)
    warmup_start: float = option(1 / 3, "share of the rate where it starts", least=0, most=1)
    clip: float | None = option(35.0, "largest norm of the gradient", above=0)
    norm: str = option(
        "sync", "BatchNorm of c3 to c5: per process, synchronised, frozen", choices=NORMS
    )
    network: str = option("resnet50", "backbone without its blocks", choices=(*NAMES, MINI))
    stride_in: str = option("3x3", "convolution that has the stride", choices=STRIDES)
    short: int = option(800, "short side of an image, in pixels", least=8)
    long: int = option(1333, "most pixels of the long side", least=8)
    flip: float = option(0.5, "share of mirrored images", least=0, most=1)
    keep_empty: bool = option(False, "train on images without objects, too")
    proposals_train: int = option(2000, "of an image behind NMS, in training", least=1)
    proposals_test: int = option(1000, "of an image behind NMS, in tests", least=1)
    rois: int = option(512, "proposals of an image that the heads train on", least=1)
    detections: int = option(100, "of an image, in tests", least=1)
    least_score: float = option(0.05, "of a detection", least=0, most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.long < self.short:
            raise BadOption(f"long={self.long}: expected at least short={self.short}")
        if (self.network == MINI) != (self.row in MINI_ROWS):
            raise BadOption(
                f"network={self.network} with row={self.row}: the rows mini/coco_… belong to "
                f"network={MINI}, and no other row does"
            )


# What a laptop trains: generated images, a small detector, from scratch.
MINI_VALUES: dict[str, Any] = {
    "network": MINI,
    "epochs": 12,
    "batch_size": 8,
    "micro_batch": 8,
    "optimizer": "adamw",  # in a pilot with SGD, GC was still guessing after 6 epochs
    "lr": 0.002,
    "lr_batch": 8,
    "warmup_steps": 50,
    "clip": 5.0,
    "norm": "batch",
    "precision": "fp32",
    "short": SIDE,
    "long": SIDE,
}


def recipe_of(row: str, values: Mapping[str, Any] | None = None) -> CocoRecipe:
    """The recipe of a row of tables 1 to 3, with other values for some of its fields.

    Args:
        row: for example ``"2a/gc_all"``; ``"mini/coco_gc"`` for a laptop.
        values: field → value.

    Raises:
        BadOption: no such row or field, or a value that it cannot have.
    """
    try:
        check_choice("row", row, ROWS)
    except ValueError as error:
        raise BadOption(str(error)) from None
    if row in MINI_ROWS:
        return override(CocoRecipe(row=row, **MINI_VALUES), dict(values or {}))
    recipe = CocoRecipe(row=row, network=detector_options(row)["backbone"])
    return override(recipe, dict(values or {}))


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Options of ``gclib evaluate coco`` beside those of every task."""

    part: str = option("val", "what to evaluate on", choices=("val", "test-dev"))
    results: str | None = option(
        None, "file for what was found, in COCO's format: P.bbox.json, ..."
    )


class Coco:
    """The task of a recipe on a folder in COCO's layout; see :class:`gclib.training.trainer.Task`.

    Args:
        recipe: how to train.
        data: folder with ``train2017/``, ``val2017/`` and ``annotations/``.
        weights: of the backbone: a path or a name of torchvision's; of a whole detector's file,
            the backbone alone is taken. None only for the small detector.
        few: read so many training images, and a quarter of it for tests, of the first ones; None
            for all.
        part: what to evaluate on: ``"val"`` or ``"test-dev"``.
        results: where :meth:`evaluate` writes what was found, in COCO's format; None: nowhere.

    Raises:
        BrokenData: the folder does not hold that.
        BadOption: no weights; no results of test-dev.
    """

    name, unit, figure = "coco", "images", "ap_box"
    collate = staticmethod(collate)
    one_size = False  # images and numbers of regions differ

    def __init__(
        self,
        recipe: CocoRecipe,
        data: Path,
        weights: str | None = None,
        *,
        few: int | None = None,
        part: str = "val",
        results: str | None = None,
    ) -> None:
        if weights is None and recipe.network != MINI:
            raise BadOption(
                "a detector starts from a backbone that was trained on ImageNet: --weights RUN/"
                f"model.pt of gclib train imagenet (with its --stride-in), or a name of "
                f"torchvision's for {recipe.network}"
            )
        if weights is not None and recipe.network == MINI:
            raise BadOption(f"--weights {weights}: the small detector starts from scratch")
        if part == "test-dev" and not results:
            raise BadOption("--results is missing: test-dev has no objects to compare with")
        self.recipe, self.weights, self.part, self.few = recipe, weights, part, few
        self.data = data
        self.results = results
        self.unread: list[str] = []

    @cached_property
    def train_data(self) -> Dataset:
        """Images with their objects, resized and mirrored."""
        recipe = self.recipe
        data = CocoDataset(
            *coco_folder(self.data, "train"),
            train_transform(recipe.short, recipe.long, recipe.flip),
            seed=recipe.seed,
            keep_empty=recipe.keep_empty,
        )
        return _First(data, self.few) if self.few else data

    @cached_property
    def test_data(self) -> Dataset:
        """Images to evaluate on, resized."""
        data = CocoDataset(
            *coco_folder(self.data, self.part),
            eval_transform(self.recipe.short, self.recipe.long),
            keep_empty=True,
            substitute=False,
            masks=False,
        )
        return _First(data, self.few // 4) if self.few else data

    @cached_property
    def groups(self) -> Tensor:
        """Images that lie, and those that stand: padded to one shape, half would be grey."""
        return torch.from_numpy(self.train_data.aspect_ratios < 1).long()

    @cached_property
    def classes(self) -> int:
        """Categories of the data and the background."""
        return 1 + len(self.test_data.labels)

    @property
    def labels(self) -> list[int]:
        """The category of each label."""
        return list(self.test_data.labels)

    def build_model(self, *, fresh: bool = True) -> nn.Module:
        """The detector; with ``fresh``, with the weights it starts from."""
        return build(self.recipe, self.classes, self.weights if fresh else None)

    @property
    def loss(self) -> LossOf:
        """The sum of the detector's losses."""
        return loss_of(self.recipe)

    def evaluate(self, model: nn.Module, world: World, machine: Machine) -> dict[str, float]:
        """Average precision of boxes and masks in percent, over all processes.

        Where the data has no annotations (test-dev), the detections are only written to
        ``results``.
        """
        if self.results and world.leads:  # what cannot be written must not cost the work
            Path(self.results).parent.mkdir(parents=True, exist_ok=True)
        # One at a time: beside a larger image it would be padded, and have other maps.
        loader = in_order(self.test_data, collate, world, machine)
        evaluator = CocoEvaluator(self.test_data.annotations)
        self.unread = []
        for batch in loader:
            self.unread += batch.broken
            if len(batch):
                ids = [target["image_id"] for target in batch.targets]
                evaluator.add(ids, predict(model, batch.to(world.device), self.recipe.precision))
        count, broken = map(int, world.total(len(evaluator), len(self.unread)))
        if not count:  # a process may have had no image of its own
            first = next(path for paths in world.gather(self.unread[:1]) for path in paths)
            raise BrokenData(f"no test image can be read, the first is {first}")
        evaluator.gather(world)
        if self.results:
            evaluator.save(self.results)
        figures = evaluator.figures() if self.test_data.annotations.has_objects else {}
        figures |= {"images": count}
        return figures | ({"broken": broken} if broken else {})

    def about(self) -> dict[str, Any]:
        """What the weights started from, and which category each label is."""
        labels = list(self.train_data.labels)
        if labels != self.labels:
            raise BrokenData(
                f"{self.data}: the two parts have different categories; both need the same"
            )
        if not self.test_data.annotations.has_objects:
            raise BrokenData(
                f"{self.test_data.annotations.path} has no list 'annotations': a training is "
                "evaluated after every epoch and needs objects to compare with"
            )
        return {"started_from": origin_of(self.weights), "labels": labels}

    def as_in_paper(self) -> bool:
        """Whether this is the recipe of the tables on all of COCO; the precision may differ."""
        mine = self.recipe
        free = {"seed": mine.seed, "precision": mine.precision}
        if mine.row in MINI_ROWS:
            return False
        whole = (len(self.train_data), len(self.test_data), self.classes)
        return mine == recipe_of(mine.row, free) and whole == (TRAINED_ON, TESTED_ON, CLASSES)


def build(recipe: CocoRecipe, classes: int = CLASSES, weights: str | None = None) -> nn.Module:
    """The detector of a recipe."""
    if recipe.network == MINI:
        sides = {"side": recipe.short, "long": recipe.long}
        return build_mini_detector(recipe.row, num_classes=classes, **sides)
    return build_detector(
        recipe.row,
        backbone=recipe.network,
        weights=weights,
        num_classes=classes,
        norm="batch",  # the trainer makes the recipe's of it
        stride_in=recipe.stride_in,
        resize=False,  # the data set has done it
        proposals_train=recipe.proposals_train,
        proposals_test=recipe.proposals_test,
        roi_samples=recipe.rois,
        detections=recipe.detections,
        min_score=recipe.least_score,
    )


def loss_of(recipe: CocoRecipe) -> LossOf:
    """The sum of the losses of RPN, boxes and masks."""

    def loss(model: nn.Module, batch: DetectionBatch) -> Tensor:
        losses = model(as_numbers(batch.images), batch.targets)
        return torch.stack(list(losses.values())).sum()

    return loss


def as_numbers(images: list[Tensor]) -> list[Tensor]:
    """Bytes → numbers from 0 to 1, where the bytes are; the detector normalises them."""
    return [image.float() / 255 for image in images]


@torch.no_grad()
def predict(model: nn.Module, batch: DetectionBatch, precision: str) -> list[dict[str, Tensor]]:
    """Detections in pixels of the images as the files have them, masks ``(n, 1, 28, 28)``.

    It is the forward pass of torchvision's detectors but for its end: that would paste every mask
    into an image of full size, where one at a time is enough.
    """
    dtype = AUTOCAST[precision]
    device = batch.images[0].device.type
    with torch.autocast(device, dtype or torch.bfloat16, enabled=bool(dtype)):
        images, _ = model.transform(as_numbers(batch.images))
        features = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, features)
        found, _ = model.roi_heads(features, proposals, images.image_sizes)
    return [
        rescaled({k: v.float() if v.is_floating_point() else v for k, v in one.items()}, seen, size)
        for one, seen, size in zip(
            found, images.image_sizes, [target["size"] for target in batch.targets], strict=True
        )
    ]


def looked_at(model: nn.Module, batch: DetectionBatch) -> tuple[Tensor, list[tuple[float, float]]]:
    """The first image as the detector saw it, and the centres of its objects (row, column; 0..1).

    It is padded with grey below and on the right, and the maps cover that, too.
    """
    image = batch.images[0]
    multiple = model.transform.size_divisible
    height, width = (-(-side // multiple) * multiple for side in image.shape[1:])
    padded = image.new_full((3, height, width), 114)
    padded[:, : image.shape[1], : image.shape[2]] = image
    left, top, right, bottom = batch.targets[0]["boxes"].cpu().unbind(1)
    rows, columns = ((top + bottom) / 2 / height, (left + right) / 2 / width)
    return padded, list(zip(rows.tolist(), columns.tolist(), strict=True))


class _First(First):
    """The first images of a data set."""

    def __init__(self, data: CocoDataset, count: int) -> None:
        super().__init__(data, count)
        self.annotations, self.labels = data.annotations, data.labels
        self.aspect_ratios = data.aspect_ratios[: self.count]


# -- what the command needs beside the training --------------------------------------------------

SMOKE: dict[str, Any] = {
    "epochs": 2,
    "drops": (1.0,),
    "batch_size": 4,
    "micro_batch": 2,
    "warmup_steps": 4,
    "short": 128,
    "long": 128,
    "proposals_train": 64,
    "proposals_test": 32,
    "rois": 16,
}


def smoke_data(folder: Path) -> None:
    """A few generated images with objects, in COCO's layout."""
    write_detection_scenes(folder, images={"train2017": 32, "val2017": 8})


def smoke_weights(recipe: CocoRecipe, data: Path, folder: Path) -> str | None:
    """A file with the weights of an untrained backbone, as gclib train imagenet leaves it."""
    if recipe.network == MINI:
        return None
    return untrained_resnet(recipe.network, recipe.stride_in, folder / "backbone.pt")


def count_examples(data: Path) -> int:
    """How many training images with objects a folder holds."""
    return len(CocoDataset(*coco_folder(data, "train"), eval_transform(), masks=False))


OBJECTS = 7  # of a random image; COCO's images have 7.3 on average


def random_batch(recipe: CocoRecipe, device: torch.device) -> DetectionBatch:
    """What a forward pass gets, with random pixels: for a probe of time and memory."""
    height, width = resized((480, 640), recipe.short, recipe.long)
    images, targets = [], []
    for number in range(recipe.micro_batch):
        images.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
        corner = torch.rand(OBJECTS, 2) * torch.tensor([width, height]) / 2
        size = torch.rand(OBJECTS, 2) * torch.tensor([width, height]) / 3 + 8
        boxes = torch.cat([corner, corner + size], 1)
        masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.randint(1, 17, (OBJECTS,)),
                "masks": masks,
                "image_id": number,
                "size": (height, width),
            }
        )
    return DetectionBatch(images, targets, []).to(device)


def counts(recipe: CocoRecipe) -> Iterator[str]:
    """Parameters and multiply-adds of the detector, beside what is printed."""
    from gclib.models.detector_counts import count_detector
    from gclib.training.plan import beside

    if recipe.network == MINI:
        with torch.device("meta"):
            model = build(recipe, 1 + len(GENERATED))
        yield f"parameters: {sum(p.numel() for p in model.parameters()):,}"
        return
    network = recipe.network
    first = "3x3" if network in ("resnet18", "resnet34") else "1x1"  # these have no 1×1
    parameters, ours = count_detector(recipe.row, stride_in=first, backbone=network)
    built = count_detector(recipe.row, "paper", recipe.stride_in, network).multiply_adds
    yield f"parameters: {parameters:,}{beside(recipe.row, 'params_m', 'M')}"
    yield (
        f"multiply-adds at 800×1344: {ours / 1e9:.3f} G by the convention of table 2"
        f"{beside(recipe.row, 'gflops', 'G')}, {built / 1e9:.3f} G as built"
    )


def data_size(recipe: CocoRecipe) -> tuple[int, str]:
    """How many examples a row is trained on, and what they are."""
    if recipe.network == MINI:
        return IMAGES["train2017"], "generated images"
    return TRAINED_ON, "COCO's training images with objects"


Recipe = CocoRecipe
open_task = Coco
