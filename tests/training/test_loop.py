"""The loop: same seed, same losses; what goes wrong is said."""

import pytest
import torch
from torch import nn

from gclib.training.loop import Recipe, batches, config_hash, fit, update

RECIPE = Recipe(steps=30, batch_size=8, lr=0.05, warmup=5)


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    return x, x @ torch.tensor([1.0, -2.0, 0.5])


def loss_of(model, batch):
    x, y = batch
    return (model(x)[:, 0] - y).square().mean()


def train(recipe=RECIPE, seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Linear(3, 1)
    return model, fit(model, batches(data(), recipe, seed=seed), loss_of, recipe, **options)


def test_it_learns_and_repeats():
    model, losses = train(Recipe(steps=200, batch_size=8, lr=0.05, warmup=5))
    assert losses[-1] < 1e-3 * losses[0]
    assert not model.training
    assert train()[1] == train()[1]
    assert train(seed=1)[1] != train()[1]


def test_every_example_once_in_an_epoch():
    x = torch.arange(20)
    seen = torch.cat([b for (b,) in batches((x,), Recipe(steps=5, batch_size=4), seed=0)])
    assert sorted(seen.tolist()) == list(range(20))
    two = torch.cat([b for (b,) in batches((x,), Recipe(steps=10, batch_size=4), seed=0)])
    assert sorted(two[20:].tolist()) == list(range(20))
    assert two[20:].tolist() != two[:20].tolist()


def test_the_rate_rises_and_falls_to_zero():
    rates = [RECIPE.rate(step) for step in range(RECIPE.steps + 1)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[4] == rates[5] == max(rates) == pytest.approx(0.05)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_gradients_are_clipped():
    def huge(model, batch):
        return 1e6 * loss_of(model, batch)

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    norms = []
    recipe = Recipe(steps=2, batch_size=8, clip=0.5)

    def look(step, loss):
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())

    fit(model, batches(data(), recipe, seed=0), huge, recipe, on_step=look)
    assert norms == pytest.approx([0.5, 0.5], rel=1e-3)


def test_a_loss_that_is_not_finite_stops_with_its_update():
    seen = []

    def breaks(model, batch):
        seen.append(batch)
        return loss_of(model, batch) / (2 - len(seen))

    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    with pytest.raises(FloatingPointError, match=r"loss of update 1 is inf: lower the learning"):
        fit(model, batches(data(), RECIPE, seed=0), breaks, RECIPE)


def test_too_few_examples():
    with pytest.raises(ValueError, match="40 examples: expected at least one batch of 64"):
        next(batches(data(), Recipe(batch_size=64), seed=0))


def test_the_hash_follows_every_field():
    assert config_hash(RECIPE) == config_hash(Recipe(steps=30, batch_size=8, lr=0.05, warmup=5))
    for change in ({"lr": 0.04}, {"steps": 31}, {"clip": 2.0}, {"weight_decay": 0.0}):
        fields = {"steps": 30, "batch_size": 8, "lr": 0.05, "warmup": 5} | change
        assert config_hash(Recipe(**fields)) != config_hash(RECIPE)
    assert config_hash({"b": 1, "a": 2}) == config_hash({"a": 2, "b": 1})


def test_the_bar_is_on_stdout(capsys):
    train(label="training")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("clip", [None, 0.5])
def test_parts_of_a_batch_give_the_update_of_the_batch(clip):
    x, y = data()
    weights = []
    for size in (40, 10, 5):
        torch.manual_seed(0)
        model = nn.Linear(3, 1).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        parts = list(zip(x.double().split(size), y.double().split(size), strict=True))
        for _ in range(3):
            loss = update(model, optimizer, iter(parts), len(parts), loss_of, clip=clip)
        weights.append(torch.cat([model.weight.flatten(), model.bias, loss[None]]).detach())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-12, atol=1e-12)


def test_an_update_needs_a_batch():
    model = nn.Linear(3, 1)
    before = model.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no parts"):
        update(model, optimizer, [], 1, loss_of)
    assert torch.equal(model.weight, before)


def test_autocast_is_on_for_the_loss_alone():
    kinds = []

    def look(model, batch):
        loss = loss_of(model, batch)
        kinds.append(model(batch[0]).dtype)
        return loss

    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for precision in ("fp32", "bf16"):
        update(model, optimizer, [data()], 1, look, precision=precision)
    assert kinds == [torch.float32, torch.bfloat16]
    assert model.weight.grad.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
