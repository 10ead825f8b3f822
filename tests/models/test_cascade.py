"""Heads on regions and their cascade, part by part."""

import copy
import math

import pytest
import torch
from detection_data import SIZES, SMALL, make_images, make_target, make_targets, wake_heads
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from gclib.models import build_detector
from gclib.models.cascade import CascadeHeads, RegionHeads, Sampled

CLASSES, CHANNELS = 5, 8
PROPOSALS = [make_target(12, size, seed + 9)["boxes"] for seed, size in enumerate(SIZES)]
TARGETS = make_targets()


def make_features(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"0": (24, 32), "1": (12, 16)}
    return {
        name: torch.randn(2, CHANNELS, *size, generator=generator).to(dtype)
        for name, size in sizes.items()
    }


def make_heads(
    cls=RegionHeads,
    *,
    iou=0.5,
    weights=(10, 10, 5, 5),
    agnostic=False,
    mask=True,
    seed=0,
    **options,
):
    torch.manual_seed(seed)
    predictor = FastRCNNPredictor(16, CLASSES)
    if agnostic:
        predictor.bbox_pred = nn.Linear(16, 4)
    masks = (
        MultiScaleRoIAlign(["0", "1"], 8, 2),
        MaskRCNNHeads(CHANNELS, (8,), 1),
        MaskRCNNPredictor(8, 8, CLASSES),
    )
    return cls(
        MultiScaleRoIAlign(["0", "1"], 7, 2),
        TwoMLPHead(CHANNELS * 49, 16),
        predictor,
        iou,
        iou,
        8,
        0.25,
        weights,
        0.0,
        0.5,
        100,
        *(masks if mask else ()),
        **options,
    )


def run(heads, *, training, seed=3, features=None, targets=TARGETS, proposals=PROPOSALS):
    torch.manual_seed(seed)
    features = make_features() if features is None else features
    return heads.train(training)(features, list(proposals), list(SIZES), targets)


def same(found, expected):
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("mask", [True, False])
def test_the_heads_are_torchvisions(mask):
    ours, theirs = make_heads(box_beta=1 / 9, mask=mask), make_heads(RoIHeads, mask=mask)
    (_, losses), (_, expected) = run(ours, training=True), run(theirs, training=True)
    assert len(losses) == 2 + mask
    same([losses], [expected])
    (found, none), (expected, _) = run(ours, training=False), run(theirs, training=False)
    assert none == {}
    assert len(found[0]["boxes"]) > 5
    same(found, expected)


@pytest.mark.parametrize("agnostic", [False, True])
def test_a_cascade_of_one_stage_is_the_plain_head(agnostic):
    plain = make_heads(agnostic=agnostic)
    cascade = CascadeHeads([copy.deepcopy(plain)], [1.0])
    (_, losses), (_, expected) = run(cascade, training=True), run(plain, training=True)
    same([losses], [{f"{name}_1": loss for name, loss in expected.items()}])
    (found, _), (expected, _) = run(cascade, training=False), run(plain, training=False)
    assert len(found[0]["boxes"]) > 5
    same(found, expected)
    # The gradients, too.
    for heads in (plain, cascade):
        sum(run(heads, training=True)[1].values()).backward()
    for mine, other in zip(cascade.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


def stages(count=3, **options):
    coders = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))
    return [
        make_heads(iou=0.5 + 0.1 * n, weights=coders[n], agnostic=True, seed=n, **options)
        for n in range(count)
    ]


def test_gradients_reach_every_stage_and_none_passes_through_boxes():
    heads = CascadeHeads(stages(), (1, 0.5, 0.25))
    features = {k: f.requires_grad_() for k, f in make_features().items()}
    _, losses = run(heads, training=True, features=features)
    names = ("loss_classifier", "loss_box_reg", "loss_mask")
    assert list(losses) == [f"{name}_{n}" for n in (1, 2, 3) for name in names]
    sum(losses.values()).backward()
    for number, stage in enumerate(heads.stages, 1):
        for name, parameter in stage.named_parameters():
            assert parameter.grad is not None, (number, name)
    assert features["0"].grad.any()
    for number in (1, 2, 3):
        _, losses = run(heads, training=True)
        own = sum(loss for name, loss in losses.items() if name.endswith(f"_{number}"))
        heads.zero_grad()
        own.backward()
        for other, stage in enumerate(heads.stages, 1):
            moved = [p.grad is not None and bool(p.grad.any()) for p in stage.parameters()]
            assert any(moved) == (other == number)


def test_losses_count_by_their_stages_weight():
    both = [CascadeHeads(stages(), weights) for weights in ((1, 1, 1), (1, 0.5, 0.25))]
    (_, plain), (_, weighted) = (run(heads, training=True) for heads in both)
    for name, loss in plain.items():
        assert weighted[name] == loss * (1, 0.5, 0.25)[int(name[-1]) - 1]
        assert "box_reg" in name or loss > 0


def test_boxes_are_refined_as_by_hand():
    head = make_heads(agnostic=True, weights=(10, 10, 5, 5))
    boxes = [torch.tensor([[10.0, 20, 30, 60], [0, 0, 40, 40]]), torch.tensor([[0.0, 0, 8, 8]])]
    # A tenth of a side to the right, two tenths down, twice as wide, half as high.
    moves = torch.tensor([[1.0, 2, 5 * math.log(2), -5 * math.log(2)]]).expand(3, 4)
    found = head.refine(torch.zeros(3, CLASSES), moves, boxes, [(90, 100), (90, 100)])
    first = [22 - 20, 48 - 10, 22 + 20, 48 + 10]
    torch.testing.assert_close(found[0][0], torch.tensor(first, dtype=torch.float32))
    cut = [0, 28 - 10, 24 + 40, 28 + 10]  # 24 - 40 would be outside
    torch.testing.assert_close(found[0][1], torch.tensor(cut, dtype=torch.float32))
    torch.testing.assert_close(found[1], torch.tensor([[0, 3.6, 12.8, 7.6]]))
    small = head.refine(torch.zeros(3, CLASSES), moves, boxes, [(50, 25), (90, 100)])
    assert small[0][0].tolist() == [2, 38, 25, 50]


def test_of_several_regressions_the_likeliest_objects_moves_the_box():
    head = make_heads()
    logits = torch.tensor([[9.0, 0, 0, 2, 1], [0, 3, 0, 0, 0]])  # background never moves a box
    moves = torch.arange(10.0).repeat_interleave(4)
    moves = moves.reshape(2, 5 * 4) * torch.tensor([1.0, 1, 0, 0]).repeat(5)
    found = head.refine(logits, moves, [torch.tensor([[0.0, 0, 10, 10]] * 2)], [(90, 100)])
    assert found[0][:, 0].tolist() == pytest.approx([3.0, 6.0])


def test_each_stage_asks_for_more_overlap():
    target = {"boxes": torch.tensor([[0.0, 0, 100, 100]]), "labels": torch.tensor([2])}
    target["masks"] = torch.ones(1, 100, 100, dtype=torch.uint8)
    # Overlaps of 0.55, 0.65 and 0.75.
    proposals = torch.tensor([[0.0, 0, 100, 100 * share] for share in (0.55, 0.65, 0.75)])
    expected = {0.5: [2, 2, 2, 2], 0.6: [0, 2, 2, 2], 0.7: [0, 0, 2, 2]}
    for iou, labels in expected.items():
        head = make_heads(iou=iou)
        head.fg_bg_sampler.positive_fraction = 1.0
        found = head.sample([proposals], [target])
        assert found.labels[0].tolist() == labels
        assert found.given[0].tolist() == [False, False, False, True]
        assert found.matches[0].tolist() == [0, 0, 0, 0]
    # What the head is to predict, in units of its standard deviations: down and higher.
    dy, dh = 10 * (50 - 37.5) / 75, 5 * math.log(100 / 75)
    torch.testing.assert_close(found.targets[0][2], torch.tensor([0.0, dy, 0.0, dh]))
    assert found.targets[0][3].tolist() == [0, 0, 0, 0]


def test_objects_own_boxes_and_boxes_without_an_area_are_not_handed_on(monkeypatch):
    heads = CascadeHeads(stages(2), (1, 1))
    got = []
    monkeypatch.setattr(
        heads.stages[1], "sample",
        lambda boxes, targets: got.append(boxes) or RegionHeads.sample(
            heads.stages[1], boxes, targets
        ),
    )  # fmt: skip
    heads.stages[0].fg_bg_sampler.positive_fraction = 1.0
    with torch.no_grad():
        heads.stages[0].box_predictor.bbox_pred.weight.zero_()
        heads.stages[0].box_predictor.bbox_pred.bias.zero_()
    outside = torch.tensor([[100.0, 0, 120, 9], [10, 10, 30, 40]])  # the image ends at 100
    objects = [make_target(1, SIZES[0]), make_target(1, SIZES[1])]
    run(heads, training=True, proposals=[outside, outside[1:]], targets=objects)
    assert [boxes.tolist() for boxes in got[0]] == [[[10, 10, 30, 40]], [[10, 10, 30, 40]]]


def constant(head, logits=None, mask=None):
    """A head that says the same of every region and moves none."""
    with torch.no_grad():
        for layer, bias in (
            (head.box_predictor.cls_score, logits),
            (head.box_predictor.bbox_pred, None),
            (head.mask_predictor.mask_fcn_logits, mask),
        ):
            layer.weight.zero_()
            layer.bias.zero_()
            if bias is not None:
                layer.bias.copy_(torch.as_tensor(bias))
    return head


def test_scores_are_of_mean_logits_and_masks_are_mean_probabilities():
    logits = ([0.0, 3, 0, 0, 0], [0.0, 0, 3, 0, 0], [1.0, 0, 3, 0, 0])
    masks = (-2.0, 0.0, 4.0)
    made = [
        constant(stage, score, [mask] * CLASSES)
        for stage, score, mask in zip(stages(), logits, masks, strict=True)
    ]
    heads = CascadeHeads(made, (1, 1, 1))
    found, _ = run(heads, training=False, proposals=[p[:1] for p in PROPOSALS])
    mean = torch.tensor(logits).mean(0).softmax(0)
    probability = torch.tensor(masks).sigmoid().mean()
    for image, proposals in zip(found, PROPOSALS, strict=True):
        assert image["labels"].tolist()[:2] == [2, 1]
        torch.testing.assert_close(image["scores"][:2], mean[[2, 1]])
        torch.testing.assert_close(image["boxes"][:2], proposals[:1].expand(2, 4))
        assert image["masks"].shape == (4, 1, 16, 16)
        torch.testing.assert_close(image["masks"], torch.full((4, 1, 16, 16), probability))


def test_at_test_every_stage_looks_at_boxes_that_the_one_before_moved():
    made = [constant(stage) for stage in stages()]
    for stage, move in zip(made, (10.0, 20.0, 30.0), strict=True):  # a side each, times 1
        with torch.no_grad():
            stage.box_predictor.bbox_pred.bias[0] = move
    heads = CascadeHeads(made, (1, 1, 1))
    box = torch.tensor([[0.0, 10, 10, 20]])
    found, _ = run(heads, training=False, proposals=[box, box])
    assert found[0]["boxes"][0].tolist() == pytest.approx([30, 10, 40, 20])
    # A box that has left the image stays in the batch, for the scores of all stages belong to it.
    with torch.no_grad():
        made[0].box_predictor.bbox_pred.bias[0] = 200.0
    found, _ = run(heads, training=False, proposals=[box, box])
    assert len(found[0]["boxes"]) == 0
    assert found[0]["masks"].shape == (0, 1, 16, 16)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_losses_by_hand(agnostic, beta):
    head = make_heads(agnostic=agnostic, mask=False, box_beta=beta)
    sampled = Sampled(
        boxes=[],
        matches=[],
        labels=[torch.tensor([2, 0]), torch.tensor([1])],
        targets=[torch.zeros(2, 4), torch.tensor([[0.5, 0, 0, 3]])],
        given=[],
    )
    logits = torch.zeros(3, CLASSES)
    moves = torch.tensor([[0.05, 0, 0, 0], [9, 9, 9, 9], [0, 0, 0, 0]])
    if not agnostic:
        other = torch.full((3, CLASSES, 4), 7.0)
        other[0, 2], other[2, 1] = moves[0], moves[2]
        moves = other.reshape(3, -1)
    found = head.losses({}, sampled, logits, moves, [], [])

    def smooth(x):
        return x**2 / (2 * beta) if x < beta else x - beta / 2

    assert found["loss_classifier"].item() == pytest.approx(math.log(CLASSES))
    box = (smooth(0.05) + smooth(0.5) + smooth(3)) / 3
    assert found["loss_box_reg"].item() == pytest.approx(box)


@pytest.mark.parametrize("proposals", [PROPOSALS, [torch.zeros(0, 4)] * 2])
def test_without_objects_and_without_proposals(proposals):
    heads = CascadeHeads(stages(), (1, 0.5, 0.25))
    targets = make_targets((0, 0))
    _, losses = run(heads, training=True, targets=targets, proposals=proposals)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    found, _ = run(heads, training=False, proposals=[torch.zeros(0, 4)] * 2)
    assert [len(image["boxes"]) for image in found] == [0, 0]


def test_boxes_and_scores_stay_in_float32():
    heads = CascadeHeads(stages(), (1, 0.5, 0.25))
    features = make_features(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        _, losses = run(heads, training=True, features=features)
        found, _ = run(heads, training=False, features=features)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {found[0][key].dtype for key in ("boxes", "scores", "masks")} == {torch.float32}


def test_a_cascade_that_cannot_be():
    with pytest.raises(ValueError, match="2 stages and 3 weights"):
        CascadeHeads(stages(2), (1, 1, 1))
    with pytest.raises(ValueError, match="0 stages"):
        CascadeHeads([], [])
    with pytest.raises(ValueError, match="some stages have a mask head"):
        CascadeHeads([*stages(1), *stages(1, mask=False)], (1, 1))


def test_a_cascade_without_masks_finds_boxes():
    heads = CascadeHeads(stages(mask=False), (1, 0.5, 0.25))
    boxes = [{"boxes": t["boxes"], "labels": t["labels"]} for t in TARGETS]
    _, losses = run(heads, training=True, targets=boxes)
    assert len(losses) == 6
    found, _ = run(heads, training=False)
    assert found[0].keys() == {"boxes", "labels", "scores"}


def test_in_a_detector():
    torch.manual_seed(0)
    model = wake_heads(build_detector("2a/gc_all", cascade=True, **SMALL | {"min_score": 0.0}))
    assert isinstance(model.roi_heads, CascadeHeads)
    images = make_images()
    with torch.no_grad():
        found = model.eval()(images)
    assert found[0]["masks"].shape[1:] == (1, *SIZES[0])
    names = {name.split(".")[0] for name, _ in model.roi_heads.named_parameters()}
    assert names == {"stages"}
    again = build_detector("2a/gc_all", cascade=True, **SMALL | {"min_score": 0.0})
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        same(again.eval()(images), found)
