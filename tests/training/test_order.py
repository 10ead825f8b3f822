"""The order of the examples: every one once, the same for all processes, from any update on."""

import itertools

import pytest
import torch

from gclib.training.order import Order, epoch_order, grouped, parts_of


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


GROUPS = torch.tensor([0, 1, 1] * 16 + [1, 0])  # 17 and 33 examples


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_parts_are_of_one_group_for_any_number_of_processes(processes):
    one = list(batches(groups=GROUPS, steps=8))
    assert all(len({int(GROUPS[i]) for _, i in part}) == 1 for part in one)
    assert all(len(part) == 3 for part in one)
    many = [
        list(batches(groups=GROUPS, steps=8, rank=r, processes=processes)) for r in range(processes)
    ]
    assert [part for parts in zip(*many, strict=True) for part in parts] == one


def test_groups_leave_out_only_what_fills_no_part():
    order = batches(count=50, batch_size=3, groups=GROUPS, steps=32)
    assert order.steps_per_epoch == 17 // 3 + 33 // 3 == 16
    for epoch in (0, 1):
        seen = [i for part in order for e, i in part if e == epoch]
        assert len(seen) == len(set(seen)) == 48
        assert sum(int(GROUPS[i]) for i in seen) == 33


def test_both_groups_come_from_the_beginning_to_the_end():
    order = grouped(epoch_order(1000, 0, 0), torch.arange(1000) % 2, 4)
    kinds = (order.view(-1, 4)[:, 0] % 2).float()
    assert kinds.view(5, -1).mean(1).sub(0.5).abs().max() < 0.2


def test_a_group_that_fills_no_part_is_refused_where_no_batch_is_left():
    with pytest.raises(ValueError, match="5 examples: expected at least one batch"):
        batches(count=5, batch_size=4, micro_batch=4, groups=torch.tensor([0, 0, 0, 1, 1]))
