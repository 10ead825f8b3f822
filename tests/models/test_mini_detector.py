"""The small detector: what it sees with and without a block, and that it is a Mask R-CNN."""

import itertools

import pytest
import torch
from torch import nn

from gclib.datasets import detection_scenes as ds
from gclib.models.insertion import inserted_blocks
from gclib.models.mini_detector import MINI_ROWS, build_mini_detector

BLOCKS = [row for row in MINI_ROWS if row != "mini/coco_none"]


def as_tensor(image):
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255


def inputs(scene):
    """The image, the image with its cue in another colour, and the boxes as corners."""
    other = scene.image.copy()
    x, y, width, height = scene.cue
    strip = other[y : y + height, x : x + width]
    strip[:] = strip[..., [2, 0, 1]]
    assert (other != scene.image).any()
    boxes = torch.from_numpy(scene.boxes).float()
    boxes[:, 2:] += boxes[:, :2]
    return as_tensor(scene.image), as_tensor(other), boxes


@torch.no_grad()
def seen(model, image, boxes):
    """What the heads for boxes and masks get of each object."""
    images, _ = model.transform([image])
    features = model.backbone(images.tensors)
    heads = model.roi_heads
    pools = (heads.box_roi_pool, heads.mask_roi_pool)
    return [pool(features, [boxes], images.image_sizes) for pool in pools]


def awake(model):
    """Blocks with random last layers: fresh ones are the identity."""
    for block in inserted_blocks(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)


def build(row):
    torch.manual_seed(0)
    return build_mini_detector(row).eval()


def test_without_a_block_no_object_sees_the_cue():
    model = build("mini/coco_none")
    for index in range(40):
        image, other, boxes = inputs(ds.make_detection_scene("val2017", index))
        for first, second in zip(seen(model, image, boxes), seen(model, other, boxes), strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize("row", BLOCKS)
def test_with_a_block_every_object_sees_the_cue(row):
    model = build(row)
    awake(model)
    image, other, boxes = inputs(ds.make_detection_scene("val2017", 0))
    for first, second in zip(seen(model, image, boxes), seen(model, other, boxes), strict=True):
        assert ((first - second).abs().amax((1, 2, 3)) > 1e-5).all()


def test_an_object_sees_at_most_27_pixels_around_itself():
    model = build("mini/coco_none")
    images, _ = model.transform([torch.rand(3, ds.SIDE, ds.SIDE)])
    pixels = images.tensors.clone().requires_grad_()
    for left, top, size in itertools.product(range(46, 54), (47, 50), (14, 20, 26)):
        box = torch.tensor([[left, top, left + size, top + size]]).float()
        pixels.grad = None
        for pool in (model.roi_heads.box_roi_pool, model.roi_heads.mask_roi_pool):
            pool(model.backbone(pixels), [box], images.image_sizes).square().sum().backward()
        rows, columns = pixels.grad[0].abs().sum(0).nonzero().unbind(1)
        for places, first in ((columns, left), (rows, top)):
            assert 8 < first - places.min() <= 27 < ds.GAP
            assert 8 < places.max() + 1 - (first + size) <= 27


def test_rows_share_all_weights_but_those_of_their_blocks():
    plain = build("mini/coco_none").state_dict()
    for row in BLOCKS:
        weights = build(row).state_dict()
        assert set(plain) < set(weights)
        for name, value in plain.items():
            assert torch.equal(weights[name], value), name
        assert all(".block." in name for name in set(weights) - set(plain))


def test_where_blocks_stand():
    assert inserted_blocks(build("mini/coco_none")) == {}
    expected = [f"backbone.body.layer{k}.{i}" for k in (2, 3, 4) for i in (0, 1)]
    for row in BLOCKS:
        assert list(inserted_blocks(build(row))) == expected
    with pytest.raises(ValueError, match="mini/coco_gc"):
        build_mini_detector("mini/coco_cg")


@pytest.mark.parametrize("row", MINI_ROWS)
def test_it_trains_and_detects_as_torchvisions_detectors_do(row):
    model = build(row).train()
    scenes = [ds.make_detection_scene("val2017", index) for index in range(2)]
    targets = []
    for scene in scenes:
        masks = torch.zeros(len(scene.boxes), ds.SIDE, ds.SIDE, dtype=torch.uint8)
        for mask, (x, y, size, _), shape in zip(masks, scene.boxes, scene.shapes, strict=True):
            ink = ds.shape_mask(int(shape), int(size)).copy()
            mask[y : y + size, x : x + size] = torch.from_numpy(ink)
        labels = torch.from_numpy(scene.labels) + 1
        targets.append({"boxes": inputs(scene)[2], "labels": labels, "masks": masks})
    losses = model([as_tensor(scene.image) for scene in scenes], targets)
    sum(losses.values()).backward()
    names = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    assert set(losses) == names
    for name, parameter in model.named_parameters():
        # A fresh block adds zeros: only its last layer learns from the first update.
        assert parameter.grad is not None or ".block." in name, name
    with torch.no_grad():
        found = model.eval()([as_tensor(scenes[0].image)])
    assert found[0]["masks"].shape[1:] == (1, ds.SIDE, ds.SIDE)
    assert found[0]["labels"].max() <= len(ds.CLASSES)
