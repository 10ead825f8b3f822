"""The lab: one block in a small network on generated scenes, over several seeds.

    gclib train scenes --row mini/pairing_nl --seeds 1-5

A row is a task, a network, and a block or where blocks stand in it. Every run is repeated by its
row and seed alone; its log says with which command, versions and recipe, and how long it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclib.analysis.capture import capture
from gclib.blocks import (
    AddFusion,
    AttentionPooling,
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    GCBlock,
    LinearTransform,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    SimplifiedNonLocalBlock,
)
from gclib.blocks._arguments import check_choice
from gclib.blocks.non_local import INSTANTIATIONS
from gclib.datasets import Scenes, make_scenes
from gclib.models.scene_net import SceneNet
from gclib.paper.ledger import read_runs, runs_folder
from gclib.training import runs
from gclib.training.loop import Recipe, batches, config_hash
from gclib.training.runs import distances_of, fit_and_log, rounded

if TYPE_CHECKING:
    from gclib.models.mini_resnet import MiniResNet

WIDTH = 32
RATIO = 4  # of the lab's bottlenecks: 8 of 32 channels
# Chosen on seeds from 101 on, then frozen: NL is trained to its end on context and pairing; the
# task with headroom is stopped early, where GC is between 0.4 and 0.9 on average.
RECIPES = {
    "context": Recipe(steps=1600, batch_size=32, lr=2e-3),
    "pairing": Recipe(steps=1600, batch_size=32, lr=2e-3),
    "majority": Recipe(steps=200, batch_size=32, lr=8e-3),
    # Also on majority and stopped early, in the residual network: there, on seeds 101 and 102, GC
    # in all stages reached 0.62 and 0.67, and no block 0.39, what the object's own colour gives.
    "resnet": Recipe(steps=300, batch_size=32, lr=4e-3),
}
TRAIN_SCENES, TEST_SCENES = 10_000, 1_000
TRAIN_SEED, TEST_SEED = 1, 2
MEASURED_SCENES = 64  # whose distances are averaged
STAGES = ("c3", "c4", "c5")  # of the residual network
RETRAINED = Path("runs", "scenes")  # beside a notebook: what it trained itself

BlockFactory = Callable[[], nn.Module]


@dataclass(frozen=True)
class LabRow:
    """A row of the lab.

    Attributes:
        id: for example ``"mini/pairing_nl"``.
        task: one of ``gclib.datasets.TASKS``.
        block: makes the block; None for no block. In the residual network it is called with the
            channels of each feature map.
        network: ``"scene"`` for :class:`~gclib.models.SceneNet`, which has one place for a block,
            or ``"resnet"`` for :class:`~gclib.models.mini_resnet.MiniResNet`.
        stages: the stages of the residual network that hold blocks.
        position: where the blocks stand in a residual block.
    """

    id: str
    task: str
    block: Callable[..., nn.Module] | None
    network: str = "scene"
    stages: tuple[str, ...] = STAGES
    position: str = "after_1x1"

    @property
    def recipe(self) -> Recipe:
        """How the row is trained."""
        return RECIPES["resnet" if self.network == "resnet" else self.task]


def _context(pooling: str, transform: nn.Module | None = None, fusion: nn.Module | None = None):
    return ContextBlock(
        AttentionPooling(WIDTH) if pooling == "att" else AveragePooling(),
        transform or BottleneckTransform(WIDTH, ratio=RATIO, norm=True),
        fusion or AddFusion(),
    )


def _no_ratio() -> nn.Module:
    return _context("att", LinearTransform(WIDTH))


def _bottleneck(relu: bool) -> nn.Module:
    return _context("att", BottleneckTransform(WIDTH, ratio=RATIO, relu=relu))


def _fused(pooling: str, fusion: str) -> nn.Module:
    fusions = {"add": AddFusion, "scale": ScaleFusion, "2scale": partial(ScaleFusion, "2sigmoid")}
    return _context(pooling, fusion=fusions[fusion]())


def _rows() -> Iterator[LabRow]:
    blocks: dict[str, BlockFactory | None] = {
        "none": None,
        "nl": partial(NonLocalBlock, WIDTH),
        "snl": partial(SimplifiedNonLocalBlock, WIDTH),
        "gc": partial(GCBlock, WIDTH, ratio=RATIO),
        "se": partial(SEBlock, WIDTH, ratio=RATIO),
    }
    for task in ("context", "pairing", "majority"):
        for name, block in blocks.items():
            yield LabRow(f"mini/{task}_{name}", task, block)
    for task in ("context", "pairing"):
        for name in INSTANTIATIONS[1:]:  # the first one is nl
            block = partial(NonLocalBlock, WIDTH, instantiation=name)
            yield LabRow(f"mini/{task}_nl_{name}", task, block)
    # Tables 2(d), 2(e), 2(f) in small, on the task with headroom; each lacks its GC block, which
    # is mini/majority_gc.
    yield LabRow("mini/2d_no_ratio", "majority", _no_ratio)
    yield LabRow("mini/2d_r4", "majority", partial(_bottleneck, relu=False))
    yield LabRow("mini/2d_r4_relu", "majority", partial(_bottleneck, relu=True))
    for ratio in (2, 8, 16):
        yield LabRow(f"mini/2e_r{ratio}", "majority", partial(GCBlock, WIDTH, ratio=ratio))
    for pooling in ("avg", "att"):
        for fusion in ("scale", "2scale", "add"):
            if (pooling, fusion) != ("att", "add"):  # the GC block
                block = partial(_fused, pooling, fusion)
                yield LabRow(f"mini/2f_{pooling}_{fusion}", "majority", block)
    yield from _resnet_rows()


def _resnet_rows() -> Iterator[LabRow]:
    """Tables 2(b), 2(c), 2(e) in small: where blocks stand in a residual network, and their ratio.

    ``all`` is each table's full row: GC behind the last convolution of every residual block.
    """

    def row(name: str, block: Callable[..., nn.Module] | None, **place: Any) -> LabRow:
        return LabRow(f"mini/resnet_{name}", "majority", block, "resnet", **place)

    gc = partial(GCBlock, ratio=RATIO)
    yield row("none", None)
    yield row("all", gc)
    for position in ("after_3x3", "after_add"):
        yield row(position, gc, position=position)
    for stage in STAGES:
        yield row(stage, gc, stages=(stage,))
    for ratio in (2, 8, 16):
        yield row(f"r{ratio}", partial(GCBlock, ratio=ratio))


LAB_ROWS: Mapping[str, LabRow] = MappingProxyType({row.id: row for row in _rows()})


def find_lab_row(row_id: str) -> LabRow:
    """Return the row of that id; ValueError naming the nearest one otherwise."""
    check_choice("row", row_id, LAB_ROWS)
    return LAB_ROWS[row_id]


@cache
def scenes(task: str, part: str) -> Scenes:
    """The ``"train"`` or ``"test"`` scenes of a task."""
    if part == "train":
        return make_scenes(task, TRAIN_SCENES, seed=TRAIN_SEED)
    return make_scenes(task, TEST_SCENES, seed=TEST_SEED)


def build_net(row: LabRow, seed: int) -> SceneNet | MiniResNet:
    """The network of a row with the initial weights of a seed.

    Blocks are made last, so all rows of a network share its convolutions.
    """
    torch.manual_seed(seed)
    classes = scenes(row.task, "test").classes
    if row.network == "resnet":
        # Imported here: insertion needs torchvision, and bundles of early chapters have neither.
        from gclib.models.insertion import insert_blocks
        from gclib.models.mini_resnet import MiniResNet

        net = MiniResNet(classes)
        if row.block is not None:
            insert_blocks(net, row.block, row.stages, row.position)
        return net
    net = SceneNet(classes, width=WIDTH)
    if row.block is not None:
        net.block = row.block()
    return net


def loss_of(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy at the positions of objects."""
    images, labels = batch
    return F.cross_entropy(model(images), labels, ignore_index=-1)


def accuracy(model: nn.Module, data: Scenes) -> float:
    """Share of the objects whose label is right."""
    model.eval()
    labels = torch.from_numpy(data.label_maps(SceneNet.stride))
    with torch.no_grad():
        parts = torch.from_numpy(data.images).split(250)
        predicted = torch.cat([model(part).argmax(1) for part in parts])
    objects = labels >= 0
    return (predicted[objects] == labels[objects]).double().mean().item()


def block_distances(model: nn.Module, data: Scenes) -> dict[str, float]:
    """Table 1 for one block: average distances over all positions and over objects alone.

    Returns:
        ``{"all/cosine/input": ..., "objects/jsd/attention": ...}``; JSD only where the rows of
        the map are distributions. Each is a mean over scenes.
    """
    model.eval()
    images = torch.from_numpy(data.images[:MEASURED_SCENES])
    with torch.no_grad(), capture(model) as captured:
        model(images)
    (block,) = captured.values()
    rows, columns = torch.from_numpy(data.centres(SceneNet.stride)[:MEASURED_SCENES]).unbind(2)
    chosen = (rows * (images.shape[3] // SceneNet.stride) + columns).long()  # (N, K)
    return distances_of(block, "all") | distances_of(block, "objects", chosen)


def run(
    row_id: str,
    seed: int,
    *,
    recipe: Recipe | None = None,
    label: str | None = None,
    on_update: Callable[[int, nn.Module], None] | None = None,
):
    """Train one row with one seed.

    Args:
        row_id: for example ``"mini/pairing_nl"``.
        seed: of the initial weights and the order of the scenes.
        recipe: how to train; default: that of the row.
        label: name on a progress bar; None for no bar.
        on_update: called before the first update and after each, with the number of updates so far
            and the network.

    Returns:
        The trained network and its log.
    """
    row = find_lab_row(row_id)
    recipe = recipe or row.recipe
    train, test = scenes(row.task, "train"), scenes(row.task, "test")
    net = build_net(row, seed)
    log: dict[str, Any] = {"row": row_id, "seed": seed}
    measured = row.network == "scene" and isinstance(net.block, NonLocalBlock)
    if measured:
        log["untrained"] = rounded(block_distances(_awake(net), test))
        net = build_net(row, seed)
    net = net.to(memory_format=torch.channels_last)  # a quarter faster on CPUs
    tensors = (torch.from_numpy(train.images), torch.from_numpy(train.label_maps(net.stride)))
    command = f"gclib train scenes --row {row_id} --seeds {seed}"
    order = batches(tensors, recipe, seed=seed)
    on_step = None
    if on_update:
        on_update(0, net)

        def on_step(step: int, loss: float) -> None:
            on_update(step + 1, net)

    how = {"command": command, "label": label, "on_step": on_step}
    log |= fit_and_log(net, order, loss_of, recipe, **how)
    log |= {"accuracy": round(accuracy(net, test), 5), "config": config_of(row, recipe)}
    if measured:
        log["trained"] = rounded(block_distances(net, test))
    return net, log


def config_of(row: LabRow, recipe: Recipe) -> dict[str, Any]:
    """What decides a run beside its seed, with its hash."""
    config = {
        "row": row.id,
        "recipe": asdict(recipe),
        "width": WIDTH,
        "train": scenes(row.task, "train").digest()[:12],
        "test": scenes(row.task, "test").digest()[:12],
    }
    if row.network == "resnet":
        from gclib.models.mini_resnet import PLANES

        del config["width"]
        config |= {"planes": list(PLANES), "stages": list(row.stages), "position": row.position}
    return {**config, "hash": config_hash(config)}


def _awake(net: SceneNet) -> SceneNet:
    """The untrained net with a random last layer: a zero one has no output to measure."""
    nn.init.normal_(net.block.out.weight, std=0.01)
    return net


def run_many(
    row_ids: Iterable[str],
    seeds: Iterable[int],
    folder: Path,
    *,
    workers: int | None = None,
    checkpoints: Path | None = None,
) -> None:
    """Train lab rows with seeds; see :func:`gclib.training.runs.run_many`."""
    rows = [find_lab_row(row_id) for row_id in row_ids]
    wanted = {row.id: config_of(row, row.recipe)["hash"] for row in rows}
    runs.run_many(run, wanted, seeds, folder, workers=workers, checkpoints=checkpoints)


def logs_of(
    row_id: str, *, retrain: bool = False, seeds: Iterable[int] = range(1, 6)
) -> list[dict[str, Any]]:
    """Logs of a row for a notebook; one printed line where there are none.

    Args:
        row_id: for example ``"mini/pairing_nl"``.
        retrain: train the row here and now, into :data:`RETRAINED`, and read that; what was trained
            before is not trained again. Default: the logs that come with the course.
        seeds: of the training.
    """
    find_lab_row(row_id)
    folder = runs_folder()
    if retrain:
        folder = RETRAINED
        run_many([row_id], seeds, folder)
    logs = read_runs(folder, row_id)
    if not logs:
        print(f"logs of {row_id} are not here: gclib train scenes --row {row_id}")
    return logs
