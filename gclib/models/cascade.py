r"""Heads on regions: torchvision's, one of them or several in a row (table 3's cascade).

A stage takes boxes, says for each which class it is, and moves it:

.. math:: x' = x + w \, \sigma_x d_x, \quad w' = w \, e^{\sigma_w d_w}

(:math:`x` a centre, :math:`w` a side, :math:`d` what the head predicts, :math:`\sigma` the stage's
standard deviations). In a cascade the next stage takes the moved boxes, and only those that overlap
an object by more count as objects in its training.

With one stage :class:`CascadeHeads` computes what :class:`RegionHeads` computes, bit for bit, and
that, with ``box_beta=1/9``, what torchvision's ``RoIHeads`` computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import boxes as box_ops

Features = Mapping[str, Tensor]
Targets = Sequence[Mapping[str, Tensor]]
Shapes = list[tuple[int, int]]
_SMALLEST = 1e-2  # pixels; torchvision's limit for a box that was found


class Sampled(NamedTuple):
    """Regions of a training step, one tensor for each image.

    Attributes:
        boxes: ``(R, 4)``.
        matches: ``(R,)``, the object that each region belongs to; 0 for background too.
        labels: ``(R,)``, 0 for background.
        targets: ``(R, 4)``, what the head is to predict.
        given: ``(R,)``, true for objects' own boxes, which were added to the proposals.
    """

    boxes: list[Tensor]
    matches: list[Tensor]
    labels: list[Tensor]
    targets: list[Tensor]
    given: list[Tensor]


class RegionHeads(RoIHeads):
    """Torchvision's heads for boxes and masks, with four differences.

    * The smooth L1 loss of boxes has its width as an argument.
    * The regression may be one for all classes: a ``box_predictor`` that gives 4 numbers.
    * Boxes, scores and losses stay in float32 where autocast runs the layers in a narrower type,
      in which a coordinate of 1000 pixels would be rounded to multiples of 4.
    * A step in which no image has a region has losses of 0, not NaN.

    Args:
        As ``RoIHeads``, without key points.
        box_beta: where the loss of boxes turns from a square to a line: 1 in the authors'
            configurations (the default), 1/9 in torchvision.
    """

    def __init__(self, *args: Any, box_beta: float = 1.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.box_beta = box_beta

    def forward(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: Shapes,
        targets: Targets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections and no losses, or, in training mode, losses and no detections.

        Args:
            features: level → ``(N, C, H, W)``.
            proposals: ``(R, 4)`` for each image.
            image_shapes: height and width of each image.
            targets: of each image; needed in training mode.
        """
        if self.training:
            sampled = self.sample(proposals, targets)
            logits, deltas = self.predict(features, sampled.boxes, image_shapes)
            losses = self.losses(features, sampled, logits, deltas, image_shapes, targets)
            return [], losses
        logits, deltas = self.predict(features, proposals, image_shapes)
        found = self.detect(logits, deltas, proposals, image_shapes)
        if self.has_mask():
            put_masks(found, self.masks(features, found, image_shapes))
        return found, {}

    @torch.no_grad()
    def sample(self, proposals: list[Tensor], targets: Targets | None) -> Sampled:
        """Match proposals and the objects' own boxes with objects, and draw some of them.

        Raises:
            ValueError: no targets, or one without boxes, labels or (with a mask head) masks.
            TypeError: boxes are no floats, labels no int64.
        """
        self.check_targets(targets)
        for target in targets:
            if not target["boxes"].is_floating_point() or target["labels"].dtype != torch.int64:
                kinds = target["boxes"].dtype, target["labels"].dtype
                raise TypeError(f"expected boxes of floats and labels of int64, got {kinds}")
        truth = [target["boxes"].to(proposals[0].dtype) for target in targets]
        boxes = self.add_gt_proposals(proposals, truth)
        matches, labels = self.assign_targets_to_proposals(
            boxes, truth, [target["labels"] for target in targets]
        )
        chosen = self.subsample(labels)
        given = [index >= len(p) for index, p in zip(chosen, proposals, strict=True)]
        boxes, matches, labels = (
            [part[index] for part, index in zip(parts, chosen, strict=True)]
            for parts in (boxes, matches, labels)
        )
        # An image without objects has nothing to predict: its boxes stand for themselves.
        aims = [t[m] if len(t) else b for t, m, b in zip(truth, matches, boxes, strict=True)]
        return Sampled(boxes, matches, labels, list(self.box_coder.encode(aims, boxes)), given)

    def predict(
        self, features: Features, boxes: list[Tensor], image_shapes: Shapes
    ) -> tuple[Tensor, Tensor]:
        """Logits ``(R, classes)`` and moves ``(R, 4)`` or ``(R, 4 classes)`` of all images."""
        pooled = self.box_roi_pool(features, boxes, image_shapes)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return wide(logits), wide(deltas)

    def losses(
        self,
        features: Features,
        sampled: Sampled,
        logits: Tensor,
        deltas: Tensor,
        image_shapes: Shapes,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """``loss_classifier``, ``loss_box_reg`` and, with a mask head, ``loss_mask``.

        The first is a mean over regions. The second is a sum over objects' regions, divided by all
        regions, as in both libraries. The third is a mean over the pixels of objects' regions.
        """
        labels, aims = torch.cat(sampled.labels), torch.cat(sampled.targets)
        if not len(labels):
            losses = {"loss_classifier": logits.sum() * 0, "loss_box_reg": deltas.sum() * 0}
        else:
            positive = torch.where(labels > 0)[0]
            moves = deltas.unflatten(1, (-1, 4))
            column = labels[positive] if moves.shape[1] > 1 else 0
            box = F.smooth_l1_loss(
                moves[positive, column], aims[positive], beta=self.box_beta, reduction="sum"
            )
            losses = {
                "loss_classifier": F.cross_entropy(logits, labels),
                "loss_box_reg": box / labels.numel(),
            }
        if self.has_mask():
            objects = [torch.where(found > 0)[0] for found in sampled.labels]
            boxes, matches = (
                [part[index] for part, index in zip(parts, objects, strict=True)]
                for parts in (sampled.boxes, sampled.matches)
            )
            losses["loss_mask"] = maskrcnn_loss(
                self.mask_logits(features, boxes, image_shapes),
                boxes,
                [target["masks"] for target in targets],
                [target["labels"] for target in targets],
                matches,
            )
        return losses

    def detect(
        self, logits: Tensor, deltas: Tensor, boxes: list[Tensor], image_shapes: Shapes
    ) -> list[dict[str, Tensor]]:
        """Boxes, labels and scores of each image: those over the threshold, after suppression."""
        found = self.postprocess_detections(logits, deltas, boxes, image_shapes)
        return [{"boxes": b, "labels": k, "scores": s} for b, s, k in zip(*found, strict=True)]

    def postprocess_detections(
        self, class_logits: Tensor, box_regression: Tensor, proposals: list[Tensor], image_shapes
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """As torchvision's; with one regression for all classes, every class has the same box."""
        if box_regression.shape[1] == 4:
            box_regression = box_regression.repeat(1, class_logits.shape[1])
        return super().postprocess_detections(class_logits, box_regression, proposals, image_shapes)

    @torch.no_grad()
    def refine(
        self, logits: Tensor, deltas: Tensor, boxes: list[Tensor], image_shapes: Shapes
    ) -> list[Tensor]:
        """Move boxes as the head says, and cut them off at the border of the image.

        Where each class has its own regression, that of the likeliest object class moves a box.
        """
        moves = deltas.detach().unflatten(1, (-1, 4))
        if moves.shape[1] > 1:
            best = logits.detach()[:, 1:].argmax(1) + 1
            moves = moves[torch.arange(len(best), device=best.device), best]
        counts = [len(part) for part in boxes]
        moved = self.box_coder.decode_single(moves.reshape(-1, 4), torch.cat(boxes))
        parts = moved.split(counts)
        return [box_ops.clip_boxes_to_image(p, s) for p, s in zip(parts, image_shapes, strict=True)]

    def mask_logits(self, features: Features, boxes: list[Tensor], shapes: Shapes) -> Tensor:
        """``(R, classes, M, M)`` of the boxes of all images."""
        pooled = self.mask_roi_pool(features, boxes, shapes)
        return wide(self.mask_predictor(self.mask_head(pooled)))

    def masks(
        self, features: Features, found: Sequence[Mapping[str, Tensor]], image_shapes: Shapes
    ) -> Sequence[Tensor]:
        """Probabilities ``(R, 1, M, M)`` of the found class, for each image."""
        logits = self.mask_logits(features, [f["boxes"] for f in found], image_shapes)
        return maskrcnn_inference(logits, [f["labels"] for f in found])


class CascadeHeads(nn.Module):
    """Stages of heads, each on the boxes that the one before it moved.

    As the authors' library does it:

    * in training each stage draws its own regions from the boxes that it gets and the objects' own
      boxes; these, where they were drawn, are not handed on. Its losses count by its weight;
    * no gradient goes from a stage to the one before it through the boxes;
    * at test the scores are the softmax of the stages' mean logits, each stage having looked at its
      own boxes; the last stage's boxes are reported. The masks are means of the stages'
      probabilities. (``keep_all_stages=False`` only means that no stage is reported by itself.)

    Args:
        stages: the heads, first to last; they may share their pooling.
        weights: of the stages' losses.

    Raises:
        ValueError: no stage, or another number of weights; some stages have masks, some not.
    """

    def __init__(self, stages: Sequence[RegionHeads], weights: Sequence[float]) -> None:
        super().__init__()
        if not stages or len(stages) != len(weights):
            raise ValueError(f"{len(stages)} stages and {len(weights)} weights: expected as many")
        if len({stage.has_mask() for stage in stages}) > 1:
            raise ValueError("some stages have a mask head and some have none")
        self.stages, self.weights = nn.ModuleList(stages), tuple(weights)

    def has_mask(self) -> bool:
        """Whether there are mask heads."""
        return self.stages[0].has_mask()

    def forward(
        self,
        features: Features,
        proposals: list[Tensor],
        image_shapes: Shapes,
        targets: Targets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As :meth:`RegionHeads.forward`; losses are named ``loss_mask_1`` and so on."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        boxes, all_logits = proposals, []
        for stage in self.stages:
            logits, deltas = stage.predict(features, boxes, image_shapes)
            all_logits.append(logits)
            if stage is not self.stages[-1]:
                boxes = stage.refine(logits, deltas, boxes, image_shapes)
        mean = torch.stack(all_logits).mean(0)
        found = self.stages[-1].detect(mean, deltas, boxes, image_shapes)
        if self.has_mask():
            masks = [stage.masks(features, found, image_shapes) for stage in self.stages]
            put_masks(found, [torch.stack(parts).mean(0) for parts in zip(*masks, strict=True)])
        return found, {}

    def _losses(
        self, features: Features, boxes: list[Tensor], shapes: Shapes, targets: Targets | None
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for number, (stage, weight) in enumerate(zip(self.stages, self.weights, strict=True), 1):
            sampled = stage.sample(boxes, targets)
            logits, deltas = stage.predict(features, sampled.boxes, shapes)
            found = stage.losses(features, sampled, logits, deltas, shapes, targets)
            losses |= {f"{name}_{number}": weight * loss for name, loss in found.items()}
            if number < len(self.stages):
                moved = stage.refine(logits, deltas, sampled.boxes, shapes)
                boxes = [b[_usable(b, g)] for b, g in zip(moved, sampled.given, strict=True)]
        return losses


def _usable(boxes: Tensor, given: Tensor) -> Tensor:
    """Which moved boxes the next stage can learn from: with an area, and not an object's own."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= _SMALLEST).all(1) & ~given


def put_masks(found: Sequence[dict[str, Tensor]], masks: Sequence[Tensor]) -> None:
    """Add the masks of each image to what was found in it."""
    for image, part in zip(found, masks, strict=True):
        image["masks"] = part


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 if it is of a narrower type."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
