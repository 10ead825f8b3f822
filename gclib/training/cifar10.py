"""Table 1 in small on photographs: one non-local block in a small network on CIFAR-10.

    gclib train cifar10 --data DIR --row all --seeds 1-3

A row is an instantiation, or no block. Its log holds the distances of the block on test images,
after training and before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclib.analysis.capture import capture
from gclib.blocks import NonLocalBlock
from gclib.blocks._arguments import check_choice
from gclib.blocks.non_local import INSTANTIATIONS
from gclib.datasets.cifar10 import Photographs, read_cifar10
from gclib.models import CifarNet
from gclib.training import runs
from gclib.training.loop import Recipe, batches, config_hash
from gclib.training.runs import distances_of, fit_and_log, rounded

RECIPE = Recipe(steps=1200, batch_size=128, lr=4e-3, weight_decay=5e-4)  # about 3 epochs
MEASURED_IMAGES = 100  # whose distances are averaged

# None: no block.
CIFAR10_ROWS: Mapping[str, str | None] = MappingProxyType(
    {"cifar10/none": None} | {f"cifar10/nl_{name}": name for name in INSTANTIATIONS}
)


def find_cifar10_row(row_id: str) -> str | None:
    """The instantiation of a row; ValueError naming the nearest row otherwise."""
    check_choice("row", row_id, CIFAR10_ROWS)
    return CIFAR10_ROWS[row_id]


@cache
def photographs(folder: Path, part: str) -> Photographs:
    """A part of CIFAR-10, read once."""
    return read_cifar10(folder, part)


def build_net(row_id: str, seed: int) -> CifarNet:
    """The network of a row with the initial weights of a seed; rows share the convolutions."""
    instantiation = find_cifar10_row(row_id)
    torch.manual_seed(seed)
    net = CifarNet()
    if instantiation:
        net.block = NonLocalBlock(CifarNet.width, instantiation=instantiation)
    return net


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the classes."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def accuracy(model: nn.Module, data: Photographs) -> float:
    """Share of the images whose class is right."""
    model.eval()
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in data.images.split(250)])
    return (predicted == data.labels).double().mean().item()


def block_distances(model: nn.Module, data: Photographs) -> dict[str, float]:
    """Table 1 for one block: distances over all positions, a mean over images of all classes."""
    model.eval()
    step = len(data) // MEASURED_IMAGES or 1
    with torch.no_grad(), capture(model) as captured:
        model(data.images[::step][:MEASURED_IMAGES])
    (block,) = captured.values()
    return distances_of(block, "all")


def run(row_id: str, seed: int, *, folder: Path, recipe: Recipe = RECIPE, label: str | None = None):
    """Train one row with one seed.

    Args:
        row_id: for example ``"cifar10/nl_gaussian"``.
        seed: of the initial weights and the order of the images.
        folder: where CIFAR-10 is; see :func:`~gclib.datasets.cifar10.read_cifar10`.
        recipe: how to train.
        label: name on a progress bar; None for no bar.

    Returns:
        The trained network and its log.
    """
    train, test = photographs(folder, "train"), photographs(folder, "test")
    log: dict[str, Any] = {"row": row_id, "seed": seed}
    net = build_net(row_id, seed)
    if find_cifar10_row(row_id):
        nn.init.normal_(net.block.out.weight, std=0.01)  # a zero one has no output to measure
        log["untrained"] = rounded(block_distances(net, test))
        net = build_net(row_id, seed)
    net = net.to(memory_format=torch.channels_last)
    order = batches((train.images, train.labels), recipe, seed=seed)
    command = f"gclib train cifar10 --data DIR --row {row_id} --seeds {seed}"
    log |= fit_and_log(net, order, loss_of, recipe, command=command, label=label)
    log |= {"accuracy": round(accuracy(net, test), 5), "config": config_of(row_id, recipe)}
    log["layout"] = train.layout
    if find_cifar10_row(row_id):
        log["trained"] = rounded(block_distances(net, test))
    return net, log


def config_of(row_id: str, recipe: Recipe = RECIPE) -> dict[str, Any]:
    """What decides a run beside its seed and the images, with its hash."""
    config = {"row": row_id, "recipe": asdict(recipe), "width": CifarNet.width}
    return {**config, "hash": config_hash(config)}


def run_many(
    row_ids: Iterable[str],
    seeds: Iterable[int],
    folder: Path,
    *,
    data: Path,
    workers: int | None = None,
    checkpoints: Path | None = None,
) -> None:
    """Train rows with seeds; see :func:`gclib.training.runs.run_many`.

    Raises:
        BrokenData: ``data`` does not hold CIFAR-10.
    """
    for part in ("train", "test"):  # read before processes start, which then share it
        photographs(data, part)
    wanted = {}
    for row_id in row_ids:
        find_cifar10_row(row_id)
        wanted[row_id] = config_of(row_id)["hash"]
    train = partial(run, folder=data)
    runs.run_many(train, wanted, seeds, folder, workers=workers, checkpoints=checkpoints)
