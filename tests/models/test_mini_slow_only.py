"""The small slow-only network: what it sees with and without a block, and where blocks stand."""

import pytest
import torch
from torch import nn

from gclib.datasets import clip_scenes as cs
from gclib.models.insertion import inserted_blocks
from gclib.models.mini_slow_only import MINI_ROWS, build_mini_slow_only
from gclib.training.kinetics import prepare

BLOCKS = [row for row in MINI_ROWS if row != "mini/kinetics_none"]
SEEN = slice(None, None, 2)  # the pictures that the recipe reads
WITH_CUE, WITH_SQUARES = cs.CUE_UNTIL // 2, cs.START // 2  # places among them


def build(row, **options):
    torch.manual_seed(0)
    return build_mini_slow_only(row, **options).eval()


def awake(model):
    """Blocks with random last layers: fresh ones are the identity."""
    for block in inserted_blocks(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.5)


@torch.no_grad()
def features(model, frames):
    """What is averaged: ``(64, 8, 5, 5)``."""
    found = []
    handle = model.avgpool.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    model(prepare(torch.from_numpy(frames[SEEN].transpose(3, 0, 1, 2).copy())[None]))
    handle.remove()
    return found[0][0]


def with_other_cue(scene):
    """The same video with a cue of the other colour."""
    frames = scene.frames.copy()
    cue = frames[: cs.CUE_UNTIL]
    ink = (cue == cs._RGB[scene.colour]).all(-1)
    assert ink.any((1, 2)).all()
    cue[ink] = cs._RGB[1 - scene.colour]
    return frames


def test_without_a_block_nothing_sees_cue_and_squares():
    model = build("mini/kinetics_none")
    for index in range(20):
        scene = cs.make_clip_scene("val", index)
        whole = features(model, scene.frames)
        cue = (whole != features(model, with_other_cue(scene))).any(0)
        still = scene.frames.copy()
        still[cs.START :] = still[cs.CUE_UNTIL]
        squares = (whole != features(model, still)).any(0)
        assert cue.any()
        assert squares.any()
        assert not (cue & squares).any()
        assert not cue[WITH_CUE + 1 :].any()
        assert not squares[: WITH_SQUARES - 1].any()


@pytest.mark.parametrize("row", BLOCKS)
def test_with_a_block_the_squares_see_the_cue(row):
    model = build(row)
    awake(model)
    scene = cs.make_clip_scene("val", 0)
    apart = (features(model, scene.frames) - features(model, with_other_cue(scene))).abs()
    assert (apart.amax((0, 2, 3))[WITH_SQUARES:] > 1e-6).all()


def test_a_feature_sees_three_pictures_and_22_pixels():
    model = build("mini/kinetics_none").double()
    found = []
    model.avgpool.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    clip = torch.randn(1, 3, 8, 80, 80, dtype=torch.float64, requires_grad=True)
    model(clip)
    found[0][0, :, 4, 5, 5].square().sum().backward()
    times, rows, columns = clip.grad[0].abs().sum(0).nonzero().unbind(1)
    assert sorted(set(times.tolist())) == [3, 4, 5]
    for places in (rows, columns):
        assert 12 < places.max() - places.min() + 1 <= 22


def test_rows_share_all_weights_but_those_of_their_blocks():
    plain = build("mini/kinetics_none").state_dict()
    for row in BLOCKS:
        weights = build(row).state_dict()
        assert set(plain) < set(weights)
        for name, value in plain.items():
            assert torch.equal(weights[name], value), name
        assert all(".block." in name for name in set(weights) - set(plain))


def test_where_blocks_stand():
    assert inserted_blocks(build("mini/kinetics_none")) == {}
    expected = [f"layer{k}.{i}" for k in (3, 4) for i in (0, 1)]
    for row in BLOCKS:
        assert list(inserted_blocks(build(row))) == expected
    with pytest.raises(ValueError, match="mini/kinetics_gc"):
        build_mini_slow_only("mini/kinetics_cg")


@pytest.mark.parametrize("row", MINI_ROWS)
def test_every_parameter_learns(row):
    model = build(row, num_classes=7, dropout=0.5, time_padding="replicate").train()
    assert model.dropout.p == 0.5
    logits = model(torch.randn(2, 3, 8, 40, 40))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        # A fresh block adds zeros: only its last layer learns from the first update.
        assert parameter.grad is not None or ".block." in name, name
