"""Top-k accuracy."""

import pytest
import torch

from gclib.training.metrics import as_shares, topk_correct


def test_by_hand():
    logits = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3], [1, 3, 2, 0]])
    labels = torch.tensor([0, 1, 0])
    assert topk_correct(logits, labels, (1, 2, 3, 4)) == [1, 1, 3, 3]
    assert topk_correct(logits, labels) == [1, 3]  # four classes: five guesses are all of them
    assert as_shares([1, 3], 3) == pytest.approx([100 / 3, 100])


def test_it_is_torchvisions_definition():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 30, generator=generator)
    labels = torch.randint(0, 30, (200,), generator=generator)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert topk_correct(logits, labels, (1, 5)) == [int((ranks < k).sum()) for k in (1, 5)]


def test_what_is_no_number_is_wrong():
    logits = torch.full((2, 3), float("nan"))
    assert topk_correct(logits, torch.tensor([0, 1]), (1, 3)) == [0, 0]


def test_shapes_and_nothing():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(3,\)"):
        topk_correct(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="no example was evaluated"):
        as_shares([0], 0)
