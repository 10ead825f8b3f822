r"""ImageNet (paper section 5.2, table 4): two stages, and what the paper leaves open.

.. code-block:: bash

    gclib train imagenet --row 4a/baseline --stage 1 --data DIR      # 120 epochs, once
    gclib train imagenet --row 4a/gc_all --stage 2 --data DIR \\
        --weights runs/imagenet/4a-baseline/stage-1/seed-0/model.pt  # 40 epochs, for every row
    torchrun --nproc-per-node 8 -m gclib.training imagenet --row 4a/gc_all ...

Stage 1 trains ResNet-50. Stage 2 inserts the blocks, which start as the identity, and trains on;
the baseline gets the same stage 2 without blocks. ``--stage 1`` with a row of blocks trains it from
scratch, which the paper does not do.

====================  ==============================================================================
given by the paper    batch of 8 × 64, 120 epochs with 5 of linear warm-up and a cosine; 40 epochs
                      with learning rate 0.02 and a cosine
by the authors        stage 2 has no warm-up (issue 29 of the official repository); augmentation is
                      SENet's (issue 10)
====================  ==============================================================================

What neither says, and what stands here:

====================  ==============================================================================
learning rate 0.2     of stage 1: 0.1 for 256 images by the linear scaling rule
momentum, decay       0.9 and 1e-4 on every parameter, as in the authors' COCO recipes
augmentation          crop of 8 to 100 % of the area and 3:4 to 4:3, flip: all that the SENet paper
                      has; its release adds a rotation of ±10° and a pixel jitter of ±20, which
                      ``--rotation 10 --jitter 20`` give
test                  short side 256, crop of 224 in the centre
stride in the 1×1     the 3.86 G of table 4 belong to it; in the 3×3 there would be 4.09 G
place of one block    last but one residual block of c4, behind the addition, as for COCO
LayerNorm, BatchNorm  PyTorch's defaults; statistics of the 64 images of a process
====================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import ROWS as ALL_ROWS
from gclib.datasets.files import BrokenData
from gclib.datasets.imagenet import IMAGENET
from gclib.datasets.images import (
    MEAN,
    STD,
    Batch,
    ImageDataset,
    collate,
    eval_transform,
    folders,
    make_images,
    train_transform,
)
from gclib.models.insertion import insert_row
from gclib.models.mini_resnet import MiniResNetClassifier
from gclib.models.resnet import NAMES, STRIDES, build_resnet, set_stride
from gclib.models.weights import load_weights, read_weights
from gclib.training.checkpoint import origin_of, write
from gclib.training.distributed import World
from gclib.training.loop import AUTOCAST, LossOf
from gclib.training.metrics import as_shares, topk_correct
from gclib.training.options import BadOption, option, override
from gclib.training.reading import First, in_order
from gclib.training.recipe import Machine, TrainingRecipe

ROWS = tuple(row for row in ALL_ROWS if row.startswith(("4a/", "4b/")))
WHOLE = (IMAGENET.train, IMAGENET.val, IMAGENET.classes)
MINI = "mini_resnet"  # for photographs of 32×32 pixels
STAGES = {
    1: {"epochs": 120, "lr": 0.2, "warmup_epochs": 5.0},
    2: {"epochs": 40, "lr": 0.02, "warmup_epochs": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class ImageNetRecipe(TrainingRecipe):
    """How to train a row of table 4; the sources are in the module's text."""

    stage: int = option(2, "1: from scratch, 2: from the weights of stage 1", least=1, most=2)
    network: str = option("resnet50", "without its blocks", choices=(*NAMES, MINI))
    stride_in: str = option("1x1", "convolution that has the stride", choices=STRIDES)
    image_size: int = option(224, "pixels of a crop", least=8)
    resize: int = option(256, "short side before the crop of a test", least=8)
    area: tuple[float, float] = option((0.08, 1.0), "share of a training crop", above=0, most=1)
    aspect: tuple[float, float] = option((3 / 4, 4 / 3), "width over height of a crop", above=0)
    flip: float = option(0.5, "share of mirrored images", least=0, most=1)
    rotation: float = option(0.0, "largest angle of a rotation, in degrees", least=0)
    jitter: float = option(0.0, "largest change of an image's channels", least=0, most=255)
    smoothing: float = option(0.0, "of labels", least=0, most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("area", "aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise BadOption(f"{name}={low:g},{high:g}: expected the smaller one first")
        if self.network in ("resnet18", "resnet34") and self.stride_in == "1x1":
            raise BadOption(
                f"network={self.network} has no 1×1 convolution for the stride: give --stride-in "
                "3x3"
            )
        if self.resize < self.image_size:
            raise BadOption(f"resize={self.resize}: expected at least image_size={self.image_size}")


def recipe_of(row: str, values: Mapping[str, Any] | None = None) -> ImageNetRecipe:
    """The recipe of a row of table 4, with other values for some of its fields.

    Args:
        row: for example ``"4a/gc_all"``.
        values: field → value; ``stage`` decides the defaults of the others.

    Raises:
        BadOption: no such row or field, or a value that it cannot have.
    """
    values = dict(values or {})
    try:
        check_choice("row", row, ROWS)
    except ValueError as error:
        raise BadOption(str(error)) from None
    first = override(ImageNetRecipe(row=row), {k: v for k, v in values.items() if k == "stage"})
    return override(replace(first, **STAGES[first.stage]), values)


class ImageNet:
    """The task of a recipe on a folder of images; see :class:`gclib.training.trainer.Task`.

    Args:
        recipe: how to train.
        data: folder with ``train/`` and ``val/``, each with one folder for each class, of any
            number.
        weights: what the network starts from: a path or a name of torchvision's; None for random.
        few: read so many training images, and a quarter of it for tests, of the folder's first
            ones; None for all.

    Raises:
        BrokenData: the folder does not hold that.
        BadOption: stage 2 without weights.
    """

    name, unit, figure = "imagenet", "images", "top1"
    groups = None  # all crops have one size
    collate = staticmethod(collate)

    def __init__(
        self,
        recipe: ImageNetRecipe,
        data: Path,
        weights: str | None = None,
        *,
        few: int | None = None,
    ) -> None:
        if recipe.stage == 2 and weights is None:
            raise BadOption(
                "stage 2 starts from the network of stage 1: --weights RUN/model.pt, or a name of "
                "torchvision's with --stride-in 3x3"
            )
        self.recipe, self.weights = recipe, weights
        self.train_folder, self.test_folder = folders(data)
        self.classes = len(self.train_folder.classes)
        crop = train_transform(
            recipe.image_size,
            area=recipe.area,
            aspect=recipe.aspect,
            flip=recipe.flip,
            rotation=recipe.rotation,
            jitter=recipe.jitter,
        )
        self.train_data = ImageDataset(self.train_folder, crop, seed=recipe.seed)
        centre = eval_transform(recipe.resize, recipe.image_size)
        self.test_data = ImageDataset(self.test_folder, centre, seed=0, substitute=False)
        if few:
            self.train_data = First(self.train_data, few)
            self.test_data = First(self.test_data, few // 4)
        self.unread: list[str] = []

    def build_model(self, *, fresh: bool = True) -> nn.Module:
        """The network; with ``fresh``, with the weights it starts from."""
        return build(self.recipe, self.classes, self.weights if fresh else None)

    @property
    def loss(self) -> LossOf:
        """Cross-entropy of the classes."""
        return loss_of(self.recipe)

    def evaluate(self, model: nn.Module, world: World, machine: Machine) -> dict[str, float]:
        """Top-1 and top-5 in percent, single crop; how many images could not be read."""
        size = self.recipe.micro_batch
        loader = in_order(self.test_data, collate, world, machine, batch_size=size)
        first = fifth = count = 0
        self.unread = []
        for batch in loader:
            self.unread += batch.broken
            if not len(batch):
                continue
            logits = predict(model, batch.to(world.device), self.recipe.precision)
            top1, top5 = topk_correct(logits, batch.labels.to(logits.device))
            first, fifth, count = first + top1, fifth + top5, count + len(batch)
        first, fifth, count, broken = world.total(first, fifth, count, len(self.unread))
        if not count:  # a process may have had no image of its own
            first = next(path for paths in world.gather(self.unread[:1]) for path in paths)
            raise BrokenData(f"no test image can be read, the first is {first}")
        top1, top5 = as_shares((first, fifth), count)
        figures = {"top1": top1, "top5": top5, "images": int(count)}
        return figures | ({"broken": int(broken)} if broken else {})

    def about(self) -> dict[str, Any]:
        """Where the stride is, and what the weights started from."""
        return {
            "stride_in": self.recipe.stride_in,
            "started_from": origin_of(self.weights),
            "classes": self.classes,
        }

    def as_in_paper(self) -> bool:
        """Whether this is the recipe of table 4 on all of ImageNet; the precision may differ."""
        mine = self.recipe
        free = {"seed": mine.seed, "precision": mine.precision}  # stage 2, as in the table
        whole = (len(self.train_folder), len(self.test_folder), self.classes)
        return mine == recipe_of(mine.row, free) and whole == WHOLE


def build(recipe: ImageNetRecipe, classes: int = 1000, weights: str | None = None) -> nn.Module:
    """The network of a recipe."""
    if recipe.network != MINI:
        return build_resnet(
            recipe.network,
            recipe.row,
            weights=weights,
            num_classes=classes,
            stride_in=recipe.stride_in,
        )
    model = MiniResNetClassifier(classes)
    set_stride(model, recipe.stride_in)
    insert_row(model, recipe.row)
    if weights is not None:
        load_weights(model, read_weights(weights, stride_in=recipe.stride_in))
    return model


def loss_of(recipe: ImageNetRecipe) -> LossOf:
    """Cross-entropy of the classes, with the recipe's smoothing."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(prepare(batch.images, layout_of(model)))
        return F.cross_entropy(logits, batch.labels, label_smoothing=recipe.smoothing)

    return loss


def prepare(images: Tensor, layout: torch.memory_format = torch.channels_last) -> Tensor:
    """Bytes ``(N, 3, H, W)`` → normalised numbers, where the bytes are."""
    mean, spread = _statistics(images.device)
    images = images.to(memory_format=layout)
    return (images.float() - mean) / spread


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """On a GPU once: a copy to it waits for all that is under way there."""
    return tuple(torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))


def layout_of(model: nn.Module) -> torch.memory_format:
    """The layout of a network's weights, which its maps should have as well."""
    for weight in model.parameters():
        if weight.dim() == 4 and weight.shape[1] > 1 and weight[0, 0].numel() > 1:
            contiguous = weight.is_contiguous()
            return torch.contiguous_format if contiguous else torch.channels_last
    return torch.channels_last


@torch.no_grad()
def predict(model: nn.Module, batch: Batch, precision: str) -> Tensor:
    """Logits of a batch in float32."""
    dtype = AUTOCAST[precision]
    with torch.autocast(batch.images.device.type, dtype or torch.bfloat16, enabled=bool(dtype)):
        return model(prepare(batch.images, layout_of(model))).float()


def looked_at(model: nn.Module, batch: Batch) -> tuple[Tensor, list[tuple[float, float]]]:
    """The first image of a batch as the network saw it, and no places to look from."""
    return batch.images[0], []


# -- what the command needs beside the training --------------------------------------------------

SMOKE = {
    "epochs": 2,
    "batch_size": 8,
    "micro_batch": 4,
    "image_size": 64,
    "resize": 72,
    "warmup_epochs": 0.5,
}


def smoke_data(folder: Path) -> None:
    """A few images on disk, in the layout of the full run."""
    make_images(folder, classes=4, per_class=8, size=(160, 120))


def smoke_weights(recipe: ImageNetRecipe, data: Path, folder: Path) -> str | None:
    """For stage 2, a file of weights as stage 1 leaves it, from an untrained network."""
    if recipe.stage == 1:
        return None
    baseline = replace(recipe, row="4a/baseline")
    model = build(baseline, len(folders(data)[0].classes))
    path = folder / "stage-1.pt"
    about = {"stride_in": recipe.stride_in}
    write(path, {"model": model.state_dict(), "recipe": baseline.as_dict(), **about})
    return str(path)


def count_examples(data: Path) -> int:
    """How many training images a folder holds."""
    return len(folders(data)[0])


def random_batch(recipe: ImageNetRecipe, device: torch.device) -> Batch:
    """What a forward pass gets, with random pixels: for a probe of time and memory."""
    shape = (recipe.micro_batch, 3, recipe.image_size, recipe.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.randint(0, 1000, shape[:1])
    return Batch(images, labels, torch.arange(shape[0]), []).to(device)


def example_input(recipe: ImageNetRecipe) -> tuple[int, ...]:
    """Shape of one example, to count multiply-adds with."""
    return (1, 3, recipe.image_size, recipe.image_size)


def data_size(recipe: ImageNetRecipe) -> tuple[int, str]:
    """How many examples the paper trains on, and what they are."""
    return WHOLE[0], "ImageNet's training images"


Recipe = ImageNetRecipe
open_task = ImageNet
