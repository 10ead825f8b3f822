"""Parameters and multiply-adds of the detectors of tables 1 (COCO), 2 and 3, on the meta device.

>>> count_detector("2a/baseline")
Counted(parameters=44400693, multiply_adds=279401225472)
>>> count_detector("2a/baseline", "paper", stride_in="3x3")     # as it is built and trained
Counted(parameters=44400693, multiply_adds=268941742080)

What is counted is one image of 800×1344 (1333 padded to a multiple of 32): backbone, pyramid, the
proposals' head on all levels, the box heads on 1000 regions and the mask heads on 100. Pooling of
regions, suppression and pasting are no multiply-adds of layers and are left out.
"""

from __future__ import annotations

from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gclib.analysis.networks import LayerCount, layer_counts, multiply_adds, operations
from gclib.blocks import ROWS, NonLocalBlock, find_row
from gclib.models.cascade import CascadeHeads
from gclib.models.detection import TABLES, build_detector
from gclib.models.insertion import insert_blocks

SIZE = (1, 3, 800, 1344)
PROPOSALS, DETECTIONS = 1000, 100
CONVENTION = "detection"
DETECTOR_ROWS = tuple(
    row for row in ROWS if row.startswith("1/coco_") or row.split("/")[0] in TABLES
)


class Counted(NamedTuple):
    """Of a network, for one image or one clip."""

    parameters: int
    multiply_adds: int


class _Layers(nn.Module):
    """The layers of a detector that run on one image, without what depends on numbers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.rpn, self.roi_heads = model.backbone, model.rpn, model.roi_heads

    def forward(self, images: Tensor) -> None:
        features = self.backbone(images)
        self.rpn.head(list(features.values()))
        heads = self.roi_heads
        for stage in heads.stages if isinstance(heads, CascadeHeads) else [heads]:
            regions = self._regions(PROPOSALS, stage.box_roi_pool, images)
            stage.box_predictor(stage.box_head(regions))
            regions = self._regions(DETECTIONS, stage.mask_roi_pool, images)
            stage.mask_predictor(stage.mask_head(regions))

    def _regions(self, number: int, pool: nn.Module, images: Tensor) -> Tensor:
        return images.new_empty(number, self.backbone.out_channels, *pool.output_size)


def count_detector(
    row_id: str,
    convention: str = CONVENTION,
    stride_in: str = "1x1",
    backbone: str | None = None,
) -> Counted:
    """Count the detector of a row of tables 1 (COCO), 2 and 3.

    Args:
        row_id: for example ``"2a/gc_all"``.
        convention: of multiply-adds, see :data:`gclib.analysis.networks.CONVENTIONS`. The default
            and ``stride_in="1x1"`` give table 2; ``"paper"`` and ``"3x3"`` say what the detector
            that :func:`gclib.models.build_detector` builds computes.
        stride_in: where the bottlenecks have their stride.
        backbone: in place of the row's.

    Raises:
        ValueError: no such row or convention, or a row of another table.
    """
    layers = detector_layers(row_id, stride_in, backbone)
    return Counted(sum(layer.parameters for layer in layers), multiply_adds(layers, convention))


@cache
def detector_layers(
    row_id: str, stride_in: str = "1x1", backbone: str | None = None
) -> tuple[LayerCount, ...]:
    """The detector of a row of tables 1 (COCO), 2 and 3, layer by layer.

    Args:
        row_id: for example ``"2a/gc_all"``.
        stride_in: where the bottlenecks have their stride.
        backbone: in place of the row's.

    Raises:
        ValueError: no such row, or a row of another table.
    """
    # Frozen norms have no parameters; the paper counts them.
    with torch.device("meta"):
        how = {"backbone": backbone, "stride_in": stride_in}
        model = build_detector(row_id, norm="batch", frozen=(), **how)
    return _layers(model)


def _layers(model: nn.Module) -> tuple[LayerCount, ...]:
    return tuple(layer_counts(_Layers(model), torch.empty(SIZE, device="meta")))


def recount_detectors() -> dict[str, dict[str, int]]:
    """Row → ``parameters``, multiply-adds by ``detection`` and others, and those ``as_built``.

    All with stride in the 1×1 convolutions, the last with stride in the 3×3 and what transposed
    convolutions really compute.
    """
    rows: dict[str, dict[str, int]] = {}
    for row_id in DETECTOR_ROWS:
        layers = detector_layers(row_id)
        rows[row_id] = {"parameters": sum(layer.parameters for layer in layers)}
        for name in (CONVENTION, "mmdetection", "fvcore"):
            rows[row_id][name] = multiply_adds(layers, name)
        # Blocks stand behind the strides, so these cost the same in every row of a backbone.
        rows[row_id]["as_built"] = multiply_adds(layers) + _strides(_baseline(row_id))
    return rows


def _baseline(row_id: str) -> str:
    name = row_id.split("/")[1].partition("_gc_")[0] if row_id.startswith("3a/") else "r50"
    return f"3a/{name.removesuffix('_baseline')}_baseline"


@cache
def _strides(row_id: str) -> int:
    counts = [count_detector(row_id, stride_in=place).multiply_adds for place in ("3x3", "1x1")]
    return counts[0] - counts[1]


def detector_notes(rows: dict[str, dict[str, int]]) -> dict[str, str]:
    """Cell that is not reproduced → what else was found."""
    notes = {
        f"{row}:params_m": f"{printed} is this cut off; 64.4 and 45.7 of table 2 are rounded"
        for row, printed in (("2a/snl_1", 45.4), ("2c/c5", 45.9))
    }
    notes["2a/nl_1:gflops"] = _nl_of_table_2()
    notes["2e/r32:gflops"] = "a wider bottleneck changes 0.01 G: the printed one is 0.1 G less"
    added = {
        name: (rows[f"3a/{name}_baseline"][CONVENTION] - rows[f"3a/{less}_baseline"][CONVENTION])
        for name, less in (
            ("r101", "r50"),
            ("x101", "r101"),
            ("x101_cascade", "x101"),
            ("x101_dcn_cascade", "x101_cascade"),
        )
    }
    texts = {
        "r101": "17 residual blocks of c4 more than ResNet-50: {ours} G, printed 74.6",
        "x101": "{ours} G against ResNet-101, printed +3.9",
        "x101_cascade": "two box heads and two mask heads more: {ours} G, printed 179.0",
        "x101_dcn_cascade": "deformable convolutions' offsets: {ours} G, printed 10.6",
    }
    for name, text in texts.items():
        text = text.format(ours=f"{added[name] / 1e9:.1f}")
        for row in ("baseline", "gc_r16", "gc_r4"):
            notes[f"3a/{name}_{row}:gflops"] = text
    return notes


def _nl_of_table_2() -> str:
    row = find_row("2a/nl_1")
    with torch.device("meta"):
        model = build_detector(norm="batch", frozen=(), stride_in="1x1")
        pooled = partial(NonLocalBlock, subsample="before")
        insert_blocks(model.backbone.body, pooled, row.stages, row.position, row.index)
    layers = detector_layers(row.id)
    free = multiply_adds(layers, CONVENTION) - operations(layers)["matrix product"]
    return (
        f"without the attention's two products {free / 1e9:.1f} G, with maps pooled by 2 before "
        f"keys and values {multiply_adds(_layers(model), CONVENTION) / 1e9:.1f} G"
    )
