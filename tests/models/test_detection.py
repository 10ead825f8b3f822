"""Mask R-CNN in the paper's set-up: what is built, and what it does with any image."""

import copy

import pytest
import torch
from detection_data import SIZES, SMALL, make_images, make_target, make_targets, wake_heads
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import box_iou

from gclib.blocks import GCBlock
from gclib.models import build_detector, build_resnet, detector_options, load_weights
from gclib.models.cascade import CascadeHeads, RegionHeads
from gclib.models.deformable import DeformableConv2d
from gclib.models.detection import AnchorMatcher, DetectorFields, ProposalNetwork, PyramidAnchors
from gclib.models.detector_counts import DETECTOR_ROWS
from gclib.models.insertion import inserted_blocks
from gclib.models.norms import FrozenBatchNorm
from gclib.paper.ledger import read_counts

IMAGES, TARGETS = make_images(), make_targets()
# Millions: torchvision's ResNets, FPN, heads for 81 classes, and the blocks.
PARAMETERS = {
    "1/coco_gaussian": 45.451,
    "1/coco_embedded_gaussian": 46.500,
    "1/coco_dot_product": 46.500,
    "1/coco_concat": 46.501,
    "2a/baseline": 44.401,
    "2a/nl_1": 46.500,
    "2a/snl_1": 45.451,
    "2a/gc_1": 44.534,
    "2a/gc_all": 46.922,
    "2b/after_add": 46.922,
    "2b/after_1x1": 46.922,
    "2c/c3": 44.536,
    "2c/c4": 45.201,
    "2c/c5": 45.987,
    "2c/all": 46.922,
    "2d/no_ratio": 64.352,
    "2d/r16": 46.921,
    "2d/r16_relu": 46.921,
    "2d/r16_ln_relu": 46.922,
    "2e/r4": 54.402,
    "2e/r8": 49.415,
    "2e/r16": 46.922,
    "2e/r32": 45.676,
    "2f/avg_scale": 46.908,
    "2f/avg_add": 46.908,
    "2f/att_scale": 46.922,
    "2f/att_add": 46.922,
    "3a/r50_baseline": 44.401,
    "3a/r50_gc_r16": 46.922,
    "3a/r50_gc_r4": 54.402,
    "3a/r101_baseline": 63.393,
    "3a/r101_gc_r16": 68.181,
    "3a/r101_gc_r4": 82.355,
    "3a/x101_baseline": 63.021,
    "3a/x101_gc_r16": 67.809,
    "3a/x101_gc_r4": 81.983,
    "3a/x101_cascade_baseline": 95.946,
    "3a/x101_cascade_gc_r16": 100.734,
    "3a/x101_cascade_gc_r4": 114.908,
    "3a/x101_dcn_cascade_baseline": 98.518,
    "3a/x101_dcn_cascade_gc_r16": 103.306,
    "3a/x101_dcn_cascade_gc_r4": 117.480,
}


def on_meta(row, **options):
    with torch.device("meta"):
        return build_detector(row, **options)


def count(model, *, trained=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


def small(row=None, **options):
    torch.manual_seed(0)
    return build_detector(row, **SMALL | options)


def losses_of(model, images=IMAGES, targets=TARGETS, seed=0):
    torch.manual_seed(seed)
    return model.train()(images, targets)


def check_training(model, images, targets):
    """Losses are finite, and every parameter that learns gets a finite gradient."""
    model.zero_grad()
    losses = losses_of(model, images, targets)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert all(loss.isfinite() for loss in losses.values())
    return {name: loss.item() for name, loss in losses.items()}


def test_parameters_of_every_row():
    shipped = {row: read_counts()["rows"][row]["parameters"] for row in DETECTOR_ROWS}
    assert {row: round(number / 1e6, 3) for row, number in shipped.items()} == PARAMETERS


@pytest.mark.parametrize("row", ["2a/baseline", "2d/no_ratio", "3a/x101_dcn_cascade_gc_r4"])
def test_parameters_of_what_is_built(row):
    model = on_meta(row, norm="batch", frozen=())
    assert round(count(model) / 1e6, 3) == PARAMETERS[row]


def test_only_what_learns_has_gradients():
    model = on_meta("2a/baseline")
    assert round(count(model, trained=True) / 1e6, 3) == 44.175
    frozen = {name.split(".")[0] for name, p in model.backbone.body.named_parameters()
              if not p.requires_grad}  # fmt: skip
    assert frozen == {"conv1", "layer1"}


def test_rows_say_on_what_they_are_built():
    assert detector_options("2e/r4") == {
        "backbone": "resnet50", "cascade": False, "deformable": (),
    }  # fmt: skip
    assert detector_options("1/coco_concat")["backbone"] == "resnet50"
    assert detector_options("3a/r101_gc_r4")["backbone"] == "resnet101"
    best = detector_options("3a/x101_dcn_cascade_gc_r16")
    assert best == {
        "backbone": "resnext101_32x4d", "cascade": True, "deformable": ("c3", "c4", "c5"),
    }  # fmt: skip
    assert detector_options("3a/x101_cascade_baseline")["deformable"] == ()
    for row in ("4a/gc_all", "1/kinetics_concat", "5/gc_all"):
        with pytest.raises(ValueError, match="expected a row of tables 1"):
            detector_options(row)
    with pytest.raises(ValueError, match="row_id='2a/gc'"):
        build_detector("2a/gc")


def test_the_strongest_row_has_all_its_parts():
    model = on_meta("3a/x101_dcn_cascade_gc_r4")
    body = model.backbone.body
    assert len(inserted_blocks(body)) == 4 + 23 + 3
    deformable = [m for m in body.modules() if isinstance(m, DeformableConv2d)]
    assert len(deformable) == 30
    assert {m.groups for m in deformable} == {32}
    assert isinstance(model.roi_heads, CascadeHeads)
    heads = model.roi_heads.stages
    assert [stage.proposal_matcher.high_threshold for stage in heads] == [0.5, 0.6, 0.7]
    assert {stage.box_predictor.bbox_pred.out_features for stage in heads} == {4}
    coders = [(10, 10, 5, 5), (20, 20, 10, 10), (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067)]
    for stage, weights in zip(heads, coders, strict=True):
        assert stage.box_coder.weights == pytest.approx(weights)
    assert model.roi_heads.weights == (1.0, 0.5, 0.25)


def test_one_block_stands_before_the_last_residual_block_of_c4():
    assert list(inserted_blocks(on_meta("2a/nl_1").backbone.body)) == ["layer3.4"]


def test_the_set_up_is_the_papers():
    model = on_meta("2a/baseline")
    rpn, heads = model.rpn, model.roi_heads
    assert isinstance(heads, RegionHeads)
    assert (rpn.proposal_matcher.high_threshold, rpn.proposal_matcher.low_threshold) == (0.7, 0.3)
    assert rpn.fg_bg_sampler.batch_size_per_image == 256
    assert rpn.training
    assert rpn.post_nms_top_n() == rpn.pre_nms_top_n() == 2000
    assert rpn.eval().post_nms_top_n() == rpn.pre_nms_top_n() == 1000
    assert rpn.nms_thresh == 0.7
    sampler = heads.fg_bg_sampler
    assert (sampler.batch_size_per_image, sampler.positive_fraction) == (512, 0.25)
    assert heads.box_coder.weights == pytest.approx((10, 10, 5, 5))
    assert heads.box_predictor.bbox_pred.out_features == 81 * 4
    assert (heads.box_roi_pool.output_size, heads.mask_roi_pool.output_size) == ((7, 7), (14, 14))
    assert heads.box_roi_pool.sampling_ratio == 2
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.05, 0.5, 100)
    assert (model.transform.min_size, model.transform.max_size) == ((800,), 1333)
    mean = [255 * value for value in model.transform.image_mean]
    assert mean == pytest.approx([123.675, 116.28, 103.53])
    first = on_meta("2a/baseline", proposals_test=2000).rpn.eval()
    assert first.post_nms_top_n() == first.pre_nms_top_n() == 2000


def norms(model):
    kinds = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm)
    return {n: type(m) for n, m in model.backbone.body.named_modules() if isinstance(m, kinds)}


@pytest.mark.parametrize(
    ("norm", "cls"),
    [("batch", nn.BatchNorm2d), ("frozen", FrozenBatchNorm), ("sync", nn.BatchNorm2d)],
)
def test_norms_of_the_backbone(norm, cls):
    found = norms(small(norm=norm).train())
    assert len(found) == 20
    for name, kind in found.items():
        held = name.startswith(("bn1", "layer1."))
        assert kind is (FrozenBatchNorm if held else cls), name


def test_norms_are_synchronised_between_gpus(monkeypatch):
    monkeypatch.setattr("gclib.models.detection._several_gpus", lambda: True)
    found = set(norms(small()).values())
    assert found == {nn.SyncBatchNorm, FrozenBatchNorm}


def test_heads_start_as_in_the_authors_code():
    model = small(cascade=True, box_channels=256)
    for stage in model.roi_heads.stages:
        assert stage.box_predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert stage.box_predictor.bbox_pred.weight.std().item() == pytest.approx(1e-3, rel=0.1)
        assert not stage.box_head.fc6.bias.any()
    assert model.backbone.fpn.inner_blocks[0][0].weight.abs().max() <= (6 / (64 + 16)) ** 0.5


# Corners by hand: pixels -14 to 17 are 32 of them around the middle of a stride of 4.
def test_anchors_by_hand():
    anchors = PyramidAnchors((4, 64), (32, 512), (0.5, 1.0, 2.0))
    features = [torch.zeros(1, 8, 3, 2), torch.zeros(1, 8, 1, 1)]
    found = anchors(ImageList(torch.zeros(1, 3, 12, 8), [(12, 8)]), features)[0]
    assert found.shape == (3 * 2 * 3 + 3, 4)
    assert found[:3].tolist() == [[-21, -9, 25, 13], [-14, -14, 18, 18], [-9, -21, 13, 25]]
    assert found[3:6].tolist() == [[-17, -9, 29, 13], [-10, -14, 22, 18], [-5, -21, 17, 25]]
    assert found[7].tolist() == [-14, -10, 18, 22]  # one row down
    assert found[-2].tolist() == [-224, -224, 288, 288]


def test_anchors_keep_their_stride_and_their_precision():
    anchors = PyramidAnchors((4, 8, 16, 32, 64), (32, 64, 128, 256, 512), (1.0,))
    sides = (200, 100, 50, 25, 13)  # of 800 pixels; torchvision divides 800 by 13
    features = [torch.zeros(1, 1, n, n, dtype=torch.bfloat16) for n in sides]
    found = anchors(ImageList(torch.zeros(1, 3, 800, 800), [(800, 800)] * 2), features)
    assert len(found) == 2
    assert found[0].dtype == torch.float32
    last = found[0][-169:]
    assert (last[1] - last[0]).tolist() == [64, 0, 64, 0]
    first = found[0][:40000]
    assert first[199, 0].item() == -14 + 4 * 199
    with pytest.raises(ValueError, match="5 strides and 4 anchor_sizes"):
        PyramidAnchors((4, 8, 16, 32, 64), (32, 64, 128, 256), (1.0,))


def test_the_best_anchor_of_an_object_counts_from_a_limit_on():
    overlaps = torch.tensor([[0.8, 0.6, 0.2, 0.1], [0.0, 0.0, 0.1, 0.25], [0.35, 0.0, 0.5, 0.0]])
    found = AnchorMatcher(0.7, 0.3, 0.3)(overlaps)
    assert found.tolist() == [0, -2, 2, -1]
    assert AnchorMatcher(0.7, 0.3, 0.0)(overlaps).tolist() == [0, -2, 2, 1]
    assert AnchorMatcher(0.7, 0.3, 0.25)(overlaps).tolist() == [0, -2, 2, 1]
    assert AnchorMatcher(0.7, 0.3, 0.9)(overlaps).tolist() == [0, -2, -2, -1]


def test_anchors_across_the_border_take_no_part():
    network = small().rpn
    assert isinstance(network, ProposalNetwork)
    anchors = torch.tensor([[0.0, 0, 10, 10], [-1, 0, 10, 10], [10, 10, 20, 21], [5, 5, 20, 20]])
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]])}
    network._shapes = [(20, 20)]
    labels, boxes = network.assign_targets_to_anchors([anchors], [target])
    assert labels[0].tolist() == [1, -1, -1, 0]
    assert boxes[0][0].tolist() == [0, 0, 10, 10]
    network.border = 1.0
    assert network.assign_targets_to_anchors([anchors], [target])[0][0].tolist() == [1, 1, 0, 0]
    network.border = None
    assert network.assign_targets_to_anchors([anchors], [target])[0][0].tolist() == [1, 1, 0, 0]
    network.border, network._shapes = 0.0, [(5, 5)]  # none is inside: all take part
    assert network.assign_targets_to_anchors([anchors], [target])[0][0].tolist() == [1, 1, 0, 0]
    none = {"boxes": torch.zeros(0, 4)}
    network._shapes = [(20, 20)]
    assert network.assign_targets_to_anchors([anchors], [none])[0][0].tolist() == [0, -1, -1, 0]


def test_regions_come_from_the_level_of_their_size():
    pool = small().roi_heads.box_roi_pool
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    sides = torch.tensor([10.0, 111, 113, 223, 225, 447, 449, 2000])
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], 1)
    assert pool.map_levels([boxes]).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    small().train()(make_images([(9, 9)]), [make_target(0, (9, 9))])
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def as_torchvision(model, **options):
    """Torchvision's own Mask R-CNN with the same parts and weights."""
    theirs = MaskRCNN(
        copy.deepcopy(model.backbone),
        min_size=96,
        max_size=160,
        rpn_pre_nms_top_n_train=50,
        rpn_post_nms_top_n_train=50,
        rpn_pre_nms_top_n_test=30,
        rpn_post_nms_top_n_test=30,
        box_batch_size_per_image=16,
        box_head=TwoMLPHead(16 * 49, 32),
        box_predictor=FastRCNNPredictor(32, 5),
        mask_head=MaskRCNNHeads(16, (16,), 1),
        mask_predictor=MaskRCNNPredictor(16, 16, 5),
        **options,
    )
    theirs.load_state_dict(model.state_dict())
    return theirs


def test_with_torchvisions_choices_it_is_torchvisions_network():
    ours = wake_heads(small(box_beta=1 / 9, rpn_border=None, rpn_best_iou=0.0, min_score=0.0))
    theirs = as_torchvision(ours, box_score_thresh=0.0)
    theirs.rpn.anchor_generator = ours.rpn.anchor_generator
    theirs.backbone = copy.deepcopy(ours.backbone)
    expected, found = losses_of(theirs), losses_of(ours)
    assert expected.keys() == found.keys()
    for name, loss in expected.items():
        assert torch.equal(found[name], loss), name
    with torch.no_grad():
        expected, found = theirs.eval()(IMAGES), ours.eval()(IMAGES)
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        assert len(mine["boxes"]) > 5
        assert all(torch.equal(mine[key], other[key]) for key in mine)


@pytest.mark.parametrize("row", ["2a/gc_all", "2a/nl_1"])
def test_blocks_leave_a_fresh_detector_as_it_is(row):
    plain, with_blocks = wake_heads(small(min_score=0.0)), small(row, min_score=0.0)
    with_blocks.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        expected, found = plain.eval()(IMAGES), with_blocks.eval()(IMAGES)
    assert torch.equal(found[0]["boxes"], expected[0]["boxes"])
    assert torch.equal(found[0]["scores"], expected[0]["scores"])


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (0, 0)])
def test_images_with_and_without_objects(counts, cascade):
    model = small("2a/gc_all", cascade=cascade)
    found = check_training(model, IMAGES, make_targets(counts))
    boxes = [value for name, value in found.items() if "mask" in name or "box_reg" in name]
    if not any(counts):
        assert not any(boxes)


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("sizes", [((1, 1), (3, 40)), ((7, 5), (33, 64))])
def test_tiny_images_without_resizing(sizes, cascade):
    model = small(cascade=cascade, resize=False)
    images = make_images(sizes)
    targets = [make_target(0, sizes[0]), make_target(1, sizes[1])]
    targets[1]["boxes"] = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    check_training(model, images, targets)
    with torch.no_grad():
        for size, found in zip(sizes, model.eval()(images), strict=True):
            assert found["masks"].shape == (len(found["boxes"]), 1, *size)


def test_boxes_without_an_area_are_refused():
    for box in ([10.0, 10, 10, 20], [10.0, 20, 30, 10]):
        target = make_target(1, SIZES[0])
        target["boxes"] = torch.tensor([box])
        with pytest.raises(AssertionError, match="positive height and width"):
            losses_of(small(), IMAGES[:1], [target])


def test_targets_that_do_not_fit_are_refused():
    model = small()
    without = [{"boxes": t["boxes"], "labels": t["labels"]} for t in TARGETS]
    with pytest.raises(ValueError, match="masks key"):
        losses_of(model, IMAGES, without)
    wrong = [t | {"labels": t["labels"].int()} for t in TARGETS]
    with pytest.raises(TypeError, match="labels of int64, got"):
        losses_of(model, IMAGES, wrong)


def test_boxes_stay_exact_in_bfloat16():
    model = small(min_score=0.0)
    wide = losses_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = losses_of(model)
        with torch.no_grad():
            found = model.eval()(IMAGES)
    sum(narrow.values()).backward()
    for name, loss in wide.items():
        assert narrow[name].dtype == torch.float32
        assert narrow[name].item() == pytest.approx(loss.item(), rel=0.15, abs=0.02), name
    for image in found:
        assert {image[key].dtype for key in ("boxes", "scores", "masks")} == {torch.float32}
    # Heads that move nothing report proposals: whole pixels would be multiples of 0.5 in bfloat16.
    boxes = torch.cat([image["boxes"] for image in found])
    assert (boxes != boxes.bfloat16()).float().mean() > 0.5


def test_channels_last_is_the_same_network():
    plain = small("2a/gc_all")
    losses = losses_of(plain)
    other = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    for name, loss in losses_of(other).items():
        assert loss.item() == pytest.approx(losses[name].item(), rel=1e-3, abs=1e-5), name


def test_detections_come_in_the_size_of_the_image():
    model = wake_heads(small(min_score=0.0)).eval()
    with torch.no_grad():
        found = model(IMAGES)
    for image, size in zip(found, SIZES, strict=True):
        assert image.keys() == {"boxes", "labels", "scores", "masks"}
        assert 0 < len(image["boxes"]) <= 100
        assert image["masks"].shape == (len(image["boxes"]), 1, *size)
        assert image["boxes"].min() >= 0
        assert image["boxes"][:, 2].max() <= size[1] + 1e-3
        assert image["boxes"][:, 3].max() <= size[0] + 1e-3
        assert image["labels"].min() >= 1
        assert image["scores"].diff().max() <= 0


def test_masks_can_be_pasted_later():
    model = wake_heads(small(min_score=0.0)).eval()
    later = small(min_score=0.0, paste=False).eval()
    later.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected, found = model(IMAGES), later(IMAGES)
    for mine, other, size in zip(found, expected, SIZES, strict=True):
        assert mine["masks"].shape == (len(mine["boxes"]), 1, 28, 28)
        assert torch.equal(mine["boxes"], other["boxes"])
        pasted = paste_masks_in_image(mine["masks"], mine["boxes"], size)
        assert torch.equal(pasted, other["masks"])


def test_without_resizing_images_stay_as_they_are():
    model = small(resize=False)
    for training in (True, False):
        images, targets = model.transform.train(training)(IMAGES, TARGETS)
        assert images.image_sizes == list(SIZES)
        assert images.tensors.shape == (2, 3, 96, 128)
        assert torch.equal(targets[0]["boxes"], TARGETS[0]["boxes"])
    assert small().transform(IMAGES)[0].image_sizes[0] == (96, 106)


def test_weights_of_a_resnet(tmp_path):
    torch.manual_seed(5)
    resnet = build_resnet("resnet18", num_classes=7)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pt")
    model = small("2a/gc_all", weights=tmp_path / "resnet.pt")
    for name, value in model.backbone.body.state_dict().items():
        if ".block." not in name:
            assert torch.equal(value, resnet.state_dict()[name]), name
    # In place, also from the keys of mmlab's detectors, into frozen norms.
    theirs = {f"backbone.{key}": value + 1 for key, value in resnet.state_dict().items()}
    theirs |= {"neck.fpn.weight": torch.zeros(2), "rpn_head.conv.weight": torch.zeros(2)}
    load_weights(model.backbone.body, theirs)
    assert torch.equal(model.backbone.body.conv1.weight, resnet.conv1.weight + 1)
    found = model.backbone.body.layer1[0].bn1
    assert isinstance(found, FrozenBatchNorm)
    assert torch.equal(found.weight, resnet.layer1[0].bn1.weight + 1)
    with pytest.raises(FileNotFoundError, match="expected one of 'IMAGENET1K_V1'"):
        small(weights="IMAGENET1K")


def test_deformable_stages_start_as_plain_ones(tmp_path):
    with torch.device("meta"):
        model = build_detector("2a/baseline", deformable=("c5",))
    kinds = [type(b.conv2) for b in model.backbone.body.layer4]
    assert kinds == [DeformableConv2d] * 3
    assert type(model.backbone.body.layer3[0].conv2) is nn.Conv2d


class Pyramid(nn.Module):
    """Two levels, of one's own."""

    out_channels = 8

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, stride=4)
        self.second = nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, x):
        fine = self.first(x).relu()
        return {"0": fine, "1": self.second(fine)}


READY = {
    "num_classes": 4,
    "resize": False,
    "size_divisible": 8,
    "strides": (4, 8),
    "levels": ("0", "1"),
    "anchor_sizes": (16, 24),
    "anchor_ratios": (1.0,),
    "canonical_size": 24,
    "canonical_stride": 8,
    "box_channels": 16,
    "mask_channels": (8,),
    "mask_size": 8,
    "proposals_train": 40,
    "proposals_test": 20,
    "min_score": 0.0,
}


@pytest.mark.parametrize("cascade", [False, True])
def test_a_small_detector_on_a_backbone_of_ones_own(cascade):
    model = build_detector(backbone=Pyramid(), cascade=cascade, **READY)
    assert count(model) < 60_000
    images = make_images([(40, 48), (32, 32)])
    targets = [make_target(2, (40, 48), classes=4), make_target(1, (32, 32), classes=4)]
    check_training(model, images, targets)
    with torch.no_grad():
        found = model.eval()(images)
    assert found[0]["masks"].shape[1:] == (1, 40, 48)
    first = model.backbone.first.weight
    assert first.requires_grad


def test_a_ready_backbone_is_taken_as_it_is():
    class Wrapped(nn.Module):
        out_channels = 512

        def __init__(self):
            super().__init__()
            self.body = build_resnet("resnet18")
            del self.body.fc

        def forward(self, x):
            body = self.body
            x = body.maxpool(body.relu(body.bn1(body.conv1(x))))
            return {"0": body.layer4(body.layer3(body.layer2(body.layer1(x))))}

    options = {"strides": (32,), "levels": ("0",), "box_channels": 8, "mask_channels": (8,)}
    model = build_detector("2a/gc_1", backbone=Wrapped(), num_classes=3, **options)
    assert list(inserted_blocks(model.backbone.body)) == ["layer3.0"]
    assert isinstance(model.backbone.body.bn1, nn.BatchNorm2d)
    model = build_detector(GCBlock, backbone=Wrapped(), num_classes=3, **options)
    assert len(inserted_blocks(model.backbone.body)) == 6
    with pytest.raises(TypeError, match="Conv2d has no out_channels: "):
        build_detector(backbone=type("Conv2d", (nn.Module,), {})())
    with pytest.raises(ValueError, match="weights and deformable are for a backbone"):
        build_detector(backbone=Pyramid(), deformable=("c3",), **READY)


def test_arguments_that_cannot_be():
    with pytest.raises(ValueError, match="norm='group': expected one of"):
        build_detector(norm="group")
    with pytest.raises(ValueError, match="num_classes=1: expected at least 2"):
        build_detector(num_classes=1)
    with pytest.raises(TypeError, match="anchor_scale"):
        build_detector(anchor_scale=8)
    with pytest.raises(ValueError, match="name='resnet5'"):
        build_detector(backbone="resnet5")
    assert DetectorFields().strides == (4, 8, 16, 32, 64)


@pytest.mark.full
def test_a_cascade_learns_two_images_by_heart():
    sizes = ((64, 72), (56, 80))
    images, targets = make_images(sizes), make_targets((2, 1), sizes)
    options = {"norm": "frozen", "frozen": (), "resize": False}
    model = small("2a/gc_all", cascade=True, anchor_sizes=(16, 24, 32, 48, 64), **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(120):
        optimizer.zero_grad()
        sum(losses_of(model, images, targets, step).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 35)
        optimizer.step()
    with torch.no_grad():
        found = model.eval()(images)
    for image, target in zip(found, targets, strict=True):
        right = (image["labels"][:, None] == target["labels"]) & (image["scores"] > 0.5)[:, None]
        assert (box_iou(image["boxes"], target["boxes"]) * right).amax(0).min() > 0.5


@pytest.mark.full
def test_a_whole_row_takes_a_step():
    torch.manual_seed(0)
    model = build_detector("2a/gc_all", min_size=256, max_size=340)
    found = check_training(model, make_images([(240, 320)]), [make_target(3, (240, 320))])
    assert found["loss_classifier"] == pytest.approx(4.4, abs=0.4)  # log 81
    assert found["loss_objectness"] == pytest.approx(0.69, abs=0.05)  # log 2
