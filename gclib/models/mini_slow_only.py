"""A small slow-only network for generated videos: trained on one core in minutes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from gclib.blocks import GCBlock, NonLocalBlock, SEBlock, SimplifiedNonLocalBlock
from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import Row
from gclib.models.insertion import insert_blocks
from gclib.models.slow_only import SlowBottleneck

PLANES = (8, 16, 16)  # channels inside of the bottlenecks of c3, c4, c5
RATIO = 4  # of the bottlenecks of blocks, as in the paper's video networks
BLOCKS = 2  # residual blocks of a stage


def _rows() -> list[Row]:
    """Blocks in all residual blocks of c4 and c5.

    ``5/gc_all`` has them in c3, too. There NL, with its map over 800 positions, takes more time
    than all the rest, and in a pilot GC learned more slowly with them.
    """
    blocks: dict[str, Callable[..., nn.Module]] = {
        # As in the rows of table 5.
        "nl": partial(NonLocalBlock, norm="batch", subsample="before", scale="sqrt"),
        "snl": SimplifiedNonLocalBlock,
        "se": partial(SEBlock, ratio=RATIO),
        "gc": partial(GCBlock, ratio=RATIO),
    }
    rows = [Row(f"mini/kinetics_{name}", block, ("c4", "c5")) for name, block in blocks.items()]
    return [Row("mini/kinetics_none"), *rows]


MINI_ROWS = MappingProxyType({row.id: row for row in _rows()})


class MiniSlowOnly(nn.Module):
    """Stages c3 (stride 4), c4 and c5 (stride 8), no stride in time, average, classifier.

    The layers have the names and the residual blocks of :class:`~gclib.models.slow_only.SlowOnly`,
    two a stage, behind a convolution of 6×6 pixels with stride 4. One convolution alone looks along
    time, the first one of c4, so a feature sees three of the eight pictures. In space, the first
    residual blocks of c3 and c4 look around themselves, the other 3×3 convolutions are 1×1: a
    feature sees 22×22 pixels. What was shown long before must come through a block.

    Args:
        num_classes: of the classifier.
        dropout: before the classifier.
        time_padding: see :class:`~gclib.models.slow_only.SlowOnly`.

    Shape: clips ``(N, 3, T, H, W)`` → logits ``(N, num_classes)``.
    """

    def __init__(
        self, num_classes: int = 4, *, dropout: float = 0.0, time_padding: str = "zeros"
    ) -> None:
        super().__init__()
        stem = 2 * PLANES[0]
        self.conv1 = nn.Conv3d(3, stem, (1, 6, 6), stride=(1, 4, 4), padding=(0, 1, 1), bias=False)
        self.bn1 = nn.BatchNorm3d(stem)
        self.relu = nn.ReLU(inplace=True)
        inputs = stem
        for number, (width, stride) in enumerate(zip(PLANES, (1, 2, 1), strict=True), start=2):
            stage = []
            for place in range(BLOCKS):
                residual = SlowBottleneck(
                    inputs,
                    width,
                    stride=1 if place else stride,
                    temporal=3 if (number, place) == (3, 0) else 1,
                    time_padding=time_padding,
                )
                if place or number == 4:
                    residual.conv2 = nn.Conv3d(width, width, 1, bias=False)
                inputs = width * SlowBottleneck.expansion
                stage.append(residual)
            setattr(self, f"layer{number}", nn.Sequential(*stage))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips."""
        x = self.relu(self.bn1(self.conv1(clips)))
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def build_mini_slow_only(
    row: str = "mini/kinetics_none", *, num_classes: int = 4, **options: Any
) -> nn.Module:
    """The small network with the blocks of a row of :data:`MINI_ROWS`.

    Blocks are made last, so with one seed all rows share the other weights.

    Args:
        row: for example ``"mini/kinetics_gc"``.
        num_classes: of the classifier.
        options: of :class:`MiniSlowOnly`.

    Raises:
        ValueError: no such row.
    """
    check_choice("row", row, MINI_ROWS)
    model = MiniSlowOnly(num_classes, **options)
    found = MINI_ROWS[row]
    if found.block is not None:
        insert_blocks(model, found.block, found.stages, found.position, found.index)
    return model
