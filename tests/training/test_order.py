"""The order of the examples: every one once, the same for all processes, from any update on."""

import itertools

import pytest

from gclib.training.order import Order, epoch_order, parts_of


def batches(**values):
    how = {"count": 50, "batch_size": 12, "micro_batch": 3, "seed": 5, "first": 0, "steps": 9}
    how |= values
    count, batch_size, micro_batch = (how.pop(k) for k in ("count", "batch_size", "micro_batch"))
    return Order(count, batch_size, micro_batch, **how)


def test_an_epoch_holds_every_example_once():
    order = batches(count=48, steps=8)
    keys = [key for part in order for key in part]
    assert len(order) == 32 == len(list(order))
    for epoch in (0, 1):
        assert sorted(i for e, i in keys if e == epoch) == list(range(48))
    assert keys[:48] != [(0, i) for _, i in keys[48:]]


def test_what_fills_no_batch_is_left_out_and_changes_with_the_epoch():
    left = [set(range(50)) - set(epoch_order(50, 5, e)[:48].tolist()) for e in range(4)]
    assert len({frozenset(rest) for rest in left}) > 1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_parts_of_one_process(processes):
    one = list(batches())
    many = [list(batches(rank=r, processes=processes)) for r in range(processes)]
    together = [part for parts in zip(*many, strict=True) for part in parts]
    assert together == one


@pytest.mark.parametrize("first", [1, 3, 4, 8, 9])
def test_it_goes_on_from_any_update(first):
    order = batches(first=first)
    assert list(order) == list(batches())[first * order.parts :]


def test_seeds_and_epochs_give_other_orders():
    orders = {
        tuple(epoch_order(20, s, e).tolist()) for s, e in itertools.product(range(5), repeat=2)
    }
    assert len(orders) == 25


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((512, 100, 1), "micro_batch could be 32, 64, 128"),
        ((512, 64, 3), "batch_size must be a multiple of the 3 processes"),
        ((8, 16, 1), "micro_batch could be 2, 4, 8"),
        ((16, 16, 2), "for 2 processes: micro_batch could be 2, 4, 8"),
    ],
)
def test_batches_that_do_not_split(sizes, message):
    with pytest.raises(ValueError, match=message):
        parts_of(*sizes)


def test_too_few_examples():
    with pytest.raises(ValueError, match="10 examples: expected at least one batch of 12"):
        batches(count=10)
