"""Learning rates, by hand and against torch's own schedulers."""

import math

import pytest
import torch

from gclib.training.imagenet import recipe_of
from gclib.training.options import override
from gclib.training.recipe import TrainingRecipe
from gclib.training.schedule import cosine, multistep, scaled_lr, warmup_factor


def test_cosine_by_hand():
    rates = [cosine(t, 10, 1.0, warmup=2) for t in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0, abs=1e-15)
    assert cosine(0, 10, 1.0, warmup=4, start=0.5) == 0.625


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(40):
        assert cosine(step, 40, 0.3) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_steps_are_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.02)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 11])
    for step in range(12):
        rate = optimizer.param_groups[0]["lr"]
        assert multistep(step, [8, 11], 0.02) == pytest.approx(rate, rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_warm_up_from_a_third():
    """The COCO recipe: 500 updates from a third of the rate."""
    factors = [warmup_factor(t, 500, 1 / 3) for t in range(501)]
    assert factors[0] == pytest.approx(1 / 3 + 2 / 3 / 500)
    assert factors[249] == pytest.approx(2 / 3)
    assert factors[499] == factors[500] == 1
    assert warmup_factor(0, 0) == 1


def test_linear_scaling():
    assert scaled_lr(0.1, 256, 512) == 0.2
    recipe = TrainingRecipe(lr=0.2, lr_batch=512, batch_size=64)
    assert recipe.largest_lr == pytest.approx(0.025)
    assert recipe.rate(0, 100) == pytest.approx(0.025)


def test_both_stages_of_the_paper():
    first, second = (recipe_of("4a/baseline", {"stage": stage}) for stage in (1, 2))
    per_epoch = 1_281_167 // 512
    assert (first.epochs, second.epochs, first.batch_size) == (120, 40, 512)
    assert first.rate(5 * per_epoch, per_epoch) == 0.2  # behind five epochs of warm-up
    assert first.rate(0, per_epoch) == pytest.approx(0.2 / (5 * per_epoch))
    half = (first.epochs * per_epoch + 5 * per_epoch) // 2
    assert first.rate(half, per_epoch) == pytest.approx(0.1, rel=1e-3)
    assert second.rate(0, per_epoch) == 0.02
    last = second.rate(40 * per_epoch - 1, per_epoch)
    assert 0 < last < 0.02 * math.pi**2 / 4 / (40 * per_epoch) ** 2 * 1.1


def test_drops_in_epochs():
    recipe = override(TrainingRecipe(epochs=12), {"schedule": "steps", "drops": (8.0, 11.0)})
    rates = [recipe.rate(100 * epoch, 100) for epoch in range(12)]
    assert rates == pytest.approx([0.2] * 8 + [0.02] * 3 + [0.002])
