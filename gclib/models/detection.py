r"""Mask R-CNN and its cascade with the paper's blocks (paper section 5.1, tables 1 to 3).

>>> model = build_detector("2a/gc_all", weights="DEFAULT")                  # doctest: +SKIP
>>> losses = model(images, targets)             # training mode             # doctest: +SKIP
>>> found = model.eval()(images)                                            # doctest: +SKIP

The parts and the interface are torchvision's. The set-up is that of the authors' configurations,
which are for mmdetection 0.6; where the two libraries differ, this stands here:

=====================  ===========================================================================
anchors                theirs: centred in the middle of a stride, corners rounded to pixels.
                       Torchvision centres them at a stride's corner and derives the stride from the
                       sizes of image and map, which on the last level gives 61 for a side of 800
proposals' training    theirs: anchors that cross the border of the image take no part (if any is
                       inside), and the best anchor of an object counts from an overlap of 0.3 on.
                       One that overlaps another object more goes to that, as in torchvision
deltas of boxes        the same in both: proposals (1, 1, 1, 1), boxes divided by (.1, .1, .2, .2).
                       Sides are continuous, x2 - x1, as in torchvision; theirs are in whole pixels,
                       x2 - x1 + 1, which is the same for annotations
pooling of regions     the same in both, without a shift by half a pixel (``aligned=False``)
loss of boxes          theirs: smooth L1 turns at 1, in torchvision at 1/9. Turned at 1/9 for
                       proposals in both. Sums are divided by the number of samples in both
masks to learn         torchvision's: pooled from the image's masks with ``roi_align``; theirs are
                       cut out at whole pixels and resized
initialisation         theirs (FPN and fully connected layers Xavier, predictors normal with 0.01
                       and 0.001), for boxes of a cascade must hardly move at the start
box head               two fully connected layers on the 7×7 map, each with a ReLU, in both
=====================  ===========================================================================

No layer of FPN and heads has a norm. The network's own resizing gives the sizes of torchvision,
which cuts off where mmdetection rounds (1 pixel).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import STAGES, find_row
from gclib.models.cascade import CascadeHeads, RegionHeads, wide
from gclib.models.insertion import LAYERS, insert_blocks, insert_row
from gclib.models.norms import KINDS, convert_norms, freeze
from gclib.models.resnet import Weights, build_resnet

_BACKBONES = {"r50": "resnet50", "r101": "resnet101", "x101": "resnext101_32x4d"}
TABLES = ("2a", "2b", "2c", "2d", "2e", "2f", "3a")  # and the rows 1/coco_*


@dataclass(frozen=True, kw_only=True)
class DetectorFields:
    """What can be set in a detector; the defaults are the paper's and its code's.

    Attributes:
        min_size: short side that images are resized to, in pixels.
        max_size: long side at most.
        resize: whether the model resizes; False if the images come in the size wanted.
        paste: whether masks come at the size of the image, ``(n, 1, H, W)``; False leaves them in
            their boxes, ``(n, 1, 28, 28)``, 100 of which need 1/1000 of the memory. Torchvision's
            ``paste_masks_in_image`` pastes them later, at any size.
        image_mean: of images in 0 to 1, RGB.
        image_std: likewise.
        size_divisible: a batch is padded with zeros to a multiple of this.
        frozen: parts of the ResNet that do not learn, see :func:`gclib.models.freeze`.
        channels: of the pyramid.
        strides: of the pyramid's levels, in pixels.
        anchor_sizes: side of the square anchor of each level; None for ``8 * stride``.
        anchor_ratios: height over width.
        levels: names of the levels that regions are pooled from, the finest first; they are the
            first ones of ``strides``.
        canonical_size: side in pixels of a region that is pooled from the level of
            ``canonical_stride``; half of it, from the level before.
        canonical_stride: see there.
        rpn_iou: overlap from which an anchor is an object, and below which it is background.
        rpn_best_iou: overlap from which the best anchor of an object counts in any case.
        rpn_border: pixels by which an anchor in training may cross the border; None for any.
        rpn_samples: anchors in a training step, for each image.
        rpn_positive: share of objects among them, at most.
        rpn_nms: overlap at which one of two proposals goes.
        proposals_train: for each level before that, and in all after it.
        proposals_test: likewise; 1000 in the refactored code, 2000 in the first commit.
        roi_samples: regions in a training step, for each image and stage.
        roi_positive: share of objects among them, at most.
        roi_ious: overlap from which a region is an object, for each stage of a cascade.
        box_stds: what the deltas of boxes are divided by, likewise.
        stage_weights: of the losses, likewise.
        box_beta: where the loss of boxes turns from a square to a line.
        class_agnostic: one regression of boxes for all classes; None for: in a cascade.
        box_size: side of the map that a box head gets.
        box_channels: of its two fully connected layers.
        mask_size: side of the map that a mask head gets; its masks have twice that.
        mask_channels: of its 3×3 convolutions.
        sampling: points in each direction that a number of these maps is a mean of.
        min_score: of a detection.
        nms: overlap at which one of two detections of a class goes.
        detections: at most, for each image.
    """

    min_size: int = 800
    max_size: int = 1333
    resize: bool = True
    paste: bool = True
    image_mean: Sequence[float] = (0.485, 0.456, 0.406)
    image_std: Sequence[float] = (0.229, 0.224, 0.225)
    size_divisible: int = 32
    frozen: Sequence[str] = ("stem", "c2")
    channels: int = 256
    strides: Sequence[int] = (4, 8, 16, 32, 64)
    anchor_sizes: Sequence[float] | None = None
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    levels: Sequence[str] = ("0", "1", "2", "3")
    canonical_size: int = 224
    canonical_stride: int = 16
    rpn_iou: tuple[float, float] = (0.7, 0.3)
    rpn_best_iou: float = 0.3
    rpn_border: float | None = 0.0
    rpn_samples: int = 256
    rpn_positive: float = 0.5
    rpn_nms: float = 0.7
    proposals_train: int = 2000
    proposals_test: int = 1000
    roi_samples: int = 512
    roi_positive: float = 0.25
    roi_ious: Sequence[float] = (0.5, 0.6, 0.7)
    box_stds: Sequence[Sequence[float]] = (
        (0.1, 0.1, 0.2, 0.2),
        (0.05, 0.05, 0.1, 0.1),
        (0.033, 0.033, 0.067, 0.067),
    )
    stage_weights: Sequence[float] = (1.0, 0.5, 0.25)
    box_beta: float = 1.0
    class_agnostic: bool | None = None
    box_size: int = 7
    box_channels: int = 1024
    mask_size: int = 14
    mask_channels: Sequence[int] = (256, 256, 256, 256)
    sampling: int = 2
    min_score: float = 0.05
    nms: float = 0.5
    detections: int = 100


def detector_options(row_id: str) -> dict[str, Any]:
    """What a row of tables 1 (COCO), 2 and 3 is built on, beside its blocks.

    Returns:
        ``backbone``, ``cascade`` and ``deformable``, arguments of :func:`build_detector`.

    Raises:
        ValueError: no such row, or a row of another table.
    """
    row = find_row(row_id)
    if row.table not in TABLES and not row_id.startswith("1/coco_"):
        raise ValueError(f"{row_id}: expected a row of tables 1 (COCO), 2 and 3, such as 2a/gc_all")
    parts = row_id.split("/")[1].split("_") if row.table == "3a" else ["r50"]
    return {
        "backbone": _BACKBONES[parts[0]],
        "cascade": "cascade" in parts,
        "deformable": STAGES if "dcn" in parts else (),
    }


def build_detector(
    row: str | Callable[..., nn.Module] | None = None,
    *,
    backbone: str | nn.Module | None = None,
    weights: Weights = None,
    progress: bool = True,
    cascade: bool | None = None,
    deformable: Iterable[str] | None = None,
    num_classes: int = 81,
    norm: str = "sync",
    stride_in: str = "3x3",
    **fields: Any,
) -> GeneralizedRCNN:
    """Build Mask R-CNN with FPN, or its cascade, in the paper's set-up.

    A small one, on a backbone of your own:

    >>> model = build_detector(backbone=pyramid, num_classes=4, strides=(4, 8), levels=("0", "1"),
    ...     anchor_sizes=(16, 24), box_channels=64, mask_channels=(32,), resize=False,
    ... )                                                                   # doctest: +SKIP

    Args:
        row: of tables 1 (COCO), 2 and 3, such as ``"2a/gc_all"``, which says which blocks stand
            where and on what; or a block that goes into every residual block of c3 to c5, as in
            :func:`gclib.models.insert_blocks`; None for no block.
        backbone: one of :data:`gclib.models.resnet.NAMES`; None for the row's, or ResNet-50. Or a
            module that maps ``(N, 3, H, W)`` to a dict of levels and has ``out_channels``: it is
            taken as it is, only the blocks are inserted into its ``body``.
        weights: of the ResNet, see :func:`gclib.models.build_resnet`. Those of a whole detector go
            into ``load_state_dict``; the names are torchvision's.
        progress: show a download.
        cascade: three stages of heads; None for the row's, or False.
        deformable: stages with deformable 3×3 convolutions; None for the row's, or none.
        num_classes: with the background.
        norm: ``"sync"``, ``"batch"`` or ``"frozen"``: the norms of the ResNet outside of its frozen
            parts, see :func:`gclib.models.convert_norms`. Without several processes on GPUs,
            ``"sync"`` gives ``"batch"``.
        stride_in: of :func:`gclib.models.build_resnet`.
        fields: of :class:`DetectorFields`.

    Returns:
        Torchvision's network of ``transform``, ``backbone`` (with ``body`` and ``fpn``), ``rpn``
        and ``roi_heads``. It takes a list of images ``(3, H, W)``, floats in 0 to 1. In training
        mode it also takes a target for each (``boxes`` ``(n, 4)`` as x1, y1, x2, y2 in pixels,
        ``labels`` ``(n,)``, ``masks`` ``(n, H, W)``; n may be 0) and returns losses. Otherwise it
        returns ``boxes``, ``labels``, ``scores`` and ``masks`` for each image.

    Raises:
        ValueError, TypeError, FileNotFoundError: an argument or the weights do not fit.
    """
    options = DetectorFields(**fields)
    check_choice("norm", norm, KINDS)
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: expected at least 2, background and a class")
    built = detector_options(row) if isinstance(row, str) else {}
    cascade = built.get("cascade", False) if cascade is None else cascade
    if isinstance(backbone, nn.Module):
        pyramid = _ready(backbone, row, weights, deformable)
    else:
        resnet = build_resnet(
            backbone or built.get("backbone", "resnet50"),
            row,
            weights=weights,
            progress=progress,
            stride_in=stride_in,
            deformable=built.get("deformable", ()) if deformable is None else deformable,
        )
        pyramid = _pyramid(resnet, norm, options)
    return GeneralizedRCNN(
        pyramid,
        _proposals(pyramid.out_channels, options),
        _heads(pyramid.out_channels, num_classes, cascade, options),
        DetectorTransform(options),
    )


def _ready(
    backbone: nn.Module, row: Any, weights: Weights, deformable: Iterable[str] | None
) -> nn.Module:
    if not isinstance(getattr(backbone, "out_channels", None), int):
        raise TypeError(f"{type(backbone).__name__} has no out_channels: channels of its levels")
    if weights is not None or deformable is not None:
        raise ValueError("weights and deformable are for a backbone that is built here, by name")
    body = getattr(backbone, "body", backbone)
    if isinstance(row, str):
        insert_row(body, row)
    elif row is not None:
        insert_blocks(body, row)
    return backbone


def _pyramid(resnet: nn.Module, norm: str, options: DetectorFields) -> BackboneWithFPN:
    widest = resnet.fc.in_features
    pyramid = BackboneWithFPN(
        resnet,
        {layer: str(number) for number, layer in enumerate(LAYERS.values())},
        [widest // 8, widest // 4, widest // 2, widest],
        options.channels,
    )
    freeze(pyramid.body, options.frozen)
    convert_norms(pyramid.body, norm if norm != "sync" or _several_gpus() else "batch")
    for module in pyramid.fpn.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
    return pyramid


def _several_gpus() -> bool:
    from torch import distributed

    started = distributed.is_available() and distributed.is_initialized()
    return started and distributed.get_world_size() > 1 and torch.cuda.is_available()


def _proposals(channels: int, options: DetectorFields) -> ProposalNetwork:
    sizes = options.anchor_sizes or [8 * stride for stride in options.strides]
    anchors = PyramidAnchors(options.strides, sizes, options.anchor_ratios)
    counts = {"training": options.proposals_train, "testing": options.proposals_test}
    network = ProposalNetwork(
        anchors,
        ProposalHead(channels, anchors.num_anchors_per_location()[0]),
        *options.rpn_iou,
        options.rpn_samples,
        options.rpn_positive,
        dict(counts),
        dict(counts),
        options.rpn_nms,
    )
    network.border = options.rpn_border
    network.proposal_matcher = AnchorMatcher(*options.rpn_iou, options.rpn_best_iou)
    return network


def _heads(
    channels: int, num_classes: int, cascade: bool, options: DetectorFields
) -> RegionHeads | CascadeHeads:
    pools = [_pool(size, options) for size in (options.box_size, options.mask_size)]
    agnostic = cascade if options.class_agnostic is None else options.class_agnostic

    def stage(iou: float, stds: Sequence[float]) -> RegionHeads:
        predictor = FastRCNNPredictor(options.box_channels, num_classes)
        if agnostic:
            predictor.bbox_pred = nn.Linear(options.box_channels, 4)
        box_head = TwoMLPHead(channels * options.box_size**2, options.box_channels)
        mask_predictor = MaskRCNNPredictor(
            options.mask_channels[-1], options.mask_channels[-1], num_classes
        )
        for layer in (box_head.fc6, box_head.fc7):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
        for name, parameter in [
            *(named for part in (box_head, predictor) for named in part.named_parameters()),
            *mask_predictor.named_parameters(),
        ]:
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        return RegionHeads(
            pools[0],
            box_head,
            predictor,
            iou,
            iou,
            options.roi_samples,
            options.roi_positive,
            tuple(1 / std for std in stds),
            options.min_score,
            options.nms,
            options.detections,
            pools[1],
            MaskRCNNHeads(channels, options.mask_channels, 1),
            mask_predictor,
            box_beta=options.box_beta,
        )

    if not cascade:
        return stage(options.roi_ious[0], options.box_stds[0])
    stages = [stage(*both) for both in zip(options.roi_ious, options.box_stds, strict=True)]
    return CascadeHeads(stages, options.stage_weights)


def _pool(size: int, options: DetectorFields) -> MultiScaleRoIAlign:
    finest = math.log2(options.canonical_stride)
    pool = MultiScaleRoIAlign(
        list(options.levels),
        size,
        options.sampling,
        canonical_scale=options.canonical_size,
        canonical_level=int(finest),
    )
    # Else torchvision takes them from the first batch, wrongly if its images are small.
    strides = options.strides[: len(options.levels)]
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = LevelMapper(
        int(math.log2(strides[0])),
        int(math.log2(strides[-1])),
        options.canonical_size,
        int(finest),
    )
    return pool


class PyramidAnchors(AnchorGenerator):
    """Anchors as in mmdetection 0.6, by given strides; always in float32.

    Torchvision computes them in the type of the maps, and bfloat16 rounds 1001 to 1000.

    Args:
        strides: of the levels, in pixels.
        sizes: side of the square anchor of each level.
        ratios: height over width, of every level.
    """

    def __init__(
        self, strides: Sequence[int], sizes: Sequence[float], ratios: Sequence[float]
    ) -> None:
        if len(strides) != len(sizes):
            raise ValueError(f"{len(strides)} strides and {len(sizes)} anchor_sizes")
        super().__init__(tuple((size,) for size in sizes), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)
        self.cell_anchors = [
            _around_a_cell(stride, size, ratios)
            for stride, size in zip(strides, sizes, strict=True)
        ]

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """``(A, 4)`` for each image, the same ones."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        grids = [feature.shape[-2:] for feature in feature_maps]
        anchors = torch.cat(self.grid_anchors(grids, [(s, s) for s in self.strides]))
        return [anchors] * len(image_list.image_sizes)


def _around_a_cell(stride: int, size: float, ratios: Sequence[float]) -> Tensor:
    # Their corners are pixels, both inside of the box; here the last one is its edge.
    root = torch.tensor(ratios, dtype=torch.float32, device="cpu").sqrt()
    sides = torch.stack([size / root, size * root], 1)
    centre = (stride - 1) / 2
    return torch.cat(
        [(centre - (sides - 1) / 2).round(), (centre + (sides - 1) / 2).round() + 1], 1
    )


class ProposalHead(RPNHead):
    """Torchvision's, with results in float32 at least."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and deltas of each level."""
        logits, deltas = super().forward(x)
        return [wide(part) for part in logits], [wide(part) for part in deltas]


class AnchorMatcher(Matcher):
    """Torchvision's matching of anchors, with a limit for an object's best anchor.

    Args:
        high: overlap from which an anchor is an object.
        low: below which it is background.
        best: from which the best anchor of an object is one, whatever ``high`` is.
    """

    def __init__(self, high: float, low: float, best: float) -> None:
        super().__init__(high, low, allow_low_quality_matches=True)
        self.best = best

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, iou: Tensor) -> None:
        """Match the best anchors of objects, in ``matches``."""
        super().set_low_quality_matches_(matches, all_matches, iou[iou.amax(1) >= self.best])


class ProposalNetwork(RegionProposalNetwork):
    """Torchvision's, which leaves anchors across the image's border out of its training.

    Attributes:
        border: pixels by which an anchor may cross it; None for any number.
    """

    border: float | None = 0.0

    def forward(self, images: ImageList, features: Mapping[str, Tensor], targets=None):
        """Proposals of each image, and losses in training mode."""
        self._shapes = images.image_sizes
        return super().forward(images, features, targets)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label and object's box of each anchor; label -1 takes no part."""
        if self.border is None:
            return super().assign_targets_to_anchors(anchors, targets)
        labels, boxes = [], []
        for all_here, target, shape in zip(anchors, targets, self._shapes, strict=True):
            inside = _inside(all_here, shape, self.border)
            label, box = super().assign_targets_to_anchors([all_here[inside]], [target])
            labels.append(label[0].new_full((len(all_here),), -1).masked_scatter(inside, label[0]))
            box_here = all_here.clone()
            box_here[inside] = box[0].to(box_here.dtype)
            boxes.append(box_here)
        return labels, boxes


def _inside(anchors: Tensor, shape: tuple[int, int], border: float) -> Tensor:
    height, width = shape
    low, high = anchors[:, :2], anchors[:, 2:]
    limit = anchors.new_tensor([width, height]) + border
    inside = (low >= -border).all(1) & (high <= limit).all(1)
    # An image smaller than the smallest anchor would teach nothing.
    return inside if inside.any() else torch.ones_like(inside)


class DetectorTransform(GeneralizedRCNNTransform):
    """Torchvision's normalisation, resizing and padding, the last two steps as options."""

    def __init__(self, options: DetectorFields) -> None:
        super().__init__(
            options.min_size,
            options.max_size,
            list(options.image_mean),
            list(options.image_std),
            options.size_divisible,
        )
        self.resizes, self.pastes = options.resize, options.paste

    def resize(self, image: Tensor, target=None):
        """An image and its target, in the size that the network takes."""
        return super().resize(image, target) if self.resizes else (image, target)

    def postprocess(self, result, image_shapes, original_image_sizes):
        """Put boxes and masks back to the size in which the image came."""
        if self.pastes:
            return super().postprocess(result, image_shapes, original_image_sizes)
        masks = [found.pop("masks", None) for found in result]
        result = super().postprocess(result, image_shapes, original_image_sizes)
        for found, mask in zip(result, masks, strict=True):
            if mask is not None:
                found["masks"] = mask
        return result
