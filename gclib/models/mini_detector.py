"""A small Mask R-CNN for generated images: trained on two cores in minutes.

The parts are torchvision's, the backbone is that of the lab (:mod:`gclib.models.mini_resnet`) with
stages c3 to c5 where :func:`gclib.models.insertion.insert_blocks` finds them: ``backbone.body``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn

from gclib.blocks import GCBlock, NonLocalBlock, SEBlock, SimplifiedNonLocalBlock
from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import STAGES, Row
from gclib.models.insertion import insert_blocks
from gclib.models.mini_resnet import MiniResNet

PLANES = (8, 16, 16)  # channels inside of the bottlenecks of c3, c4, c5
RATIO = 4  # of the bottlenecks of blocks: 16 of 64 channels
CHANNELS = 32  # of the pyramid and the heads


def _rows() -> list[Row]:
    """Blocks in all residual blocks, as the paper's ``2a/gc_all`` has them.

    In pilots, one GC block in c4 did not learn the cue within the length of a run.
    """
    blocks: dict[str, Callable[..., nn.Module]] = {
        "nl": NonLocalBlock,
        "snl": SimplifiedNonLocalBlock,
        "se": partial(SEBlock, ratio=RATIO),
        "gc": partial(GCBlock, ratio=RATIO),
    }
    rows = [Row(f"mini/coco_{name}", block, STAGES) for name, block in blocks.items()]
    return [Row("mini/coco_none"), *rows]


MINI_ROWS = MappingProxyType({row.id: row for row in _rows()})


class MiniBackbone(nn.Module):
    """Stages c3 (stride 4), c4 and c5 (stride 8) with a pyramid of two levels above them.

    The stages are those of :class:`~gclib.models.mini_resnet.MiniResNet` behind a convolution of
    6×6 pixels with stride 4. Only the first residual blocks of c3 and c4 look around themselves,
    the other 3×3 convolutions are 1×1. So the pyramid sees an object and a part of its neighbours,
    and what lies further away must come through a block.

    Shape: normalised images ``(N, 3, H, W)`` → ``(N, 32, H/4, W/4)`` and ``(N, 32, H/8, W/8)``.
    """

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.body = body = MiniResNet(1, planes=PLANES)
        del body.head
        body.conv1 = nn.Conv2d(3, body.conv1.out_channels, 6, stride=4, padding=1, bias=False)
        body.layer4[0].conv2 = nn.Conv2d(PLANES[2], PLANES[2], 1, bias=False)
        for convolution in (body.conv1, body.layer4[0].conv2):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.fpn = FeaturePyramidNetwork(
            [4 * PLANES[0], 4 * PLANES[2]], CHANNELS, norm_layer=nn.BatchNorm2d
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid's maps, the finest first."""
        body = self.body
        c3 = body.layer2(body.relu(body.bn1(body.conv1(images))))
        c5 = body.layer4(body.layer3(c3))
        return self.fpn(OrderedDict([("0", c3), ("1", c5)]))


def _box_head(inputs: int, width: int) -> nn.Sequential:
    """Torchvision's two layers, with norms, as in the pyramid.

    In pilots with GC and SGD, the cue was learned sooner with both than without.
    """
    return nn.Sequential(
        nn.Flatten(1),
        nn.Linear(inputs, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
    )


def build_mini_detector(
    row: str = "mini/coco_none", *, num_classes: int = 10, side: int = 96, long: int | None = None
) -> nn.Module:
    """Mask R-CNN with the blocks of a row of :data:`MINI_ROWS`.

    Blocks are made last, so with one seed all rows share the other weights.

    Args:
        row: for example ``"mini/coco_gc"``.
        num_classes: with the background.
        side: short side of the images in pixels; others are resized in evaluation.
        long: most pixels of the long side; None for ``side``.

    Returns:
        A torchvision ``MaskRCNN``; images of these sizes stay as they are.

    Raises:
        ValueError: no such row.
    """
    check_choice("row", row, MINI_ROWS)
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.ops import MultiScaleRoIAlign

    def pooling(size: int) -> MultiScaleRoIAlign:
        return MultiScaleRoIAlign(["0", "1"], size, 1, canonical_scale=20, canonical_level=3)

    model = MaskRCNN(
        MiniBackbone(),
        image_mean=(0.25, 0.25, 0.25),
        image_std=(0.2, 0.2, 0.2),
        size_divisible=8,
        min_size=side,
        max_size=long or side,
        _skip_resize=True,  # in training; in evaluation the sizes above are the image's own
        rpn_anchor_generator=AnchorGenerator(((14,), (18,)), ((1.0,), (1.0,))),
        rpn_pre_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=25,
        rpn_batch_size_per_image=32,
        box_roi_pool=pooling(7),
        box_head=_box_head(CHANNELS * 7 * 7, 64),
        box_predictor=FastRCNNPredictor(64, num_classes),
        box_batch_size_per_image=12,
        box_positive_fraction=0.75,
        mask_roi_pool=pooling(8),
        mask_head=MaskRCNNHeads(CHANNELS, (CHANNELS,), 1),
        mask_predictor=MaskRCNNPredictor(CHANNELS, CHANNELS, num_classes),
    )
    found = MINI_ROWS[row]
    if found.block is not None:
        insert_blocks(model.backbone.body, found.block, found.stages, found.position, found.index)
    return model
