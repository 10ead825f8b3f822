"""Distances equal their definitions, keep memory small, and refuse what is no distribution."""

import math

import pytest
import torch

from gclib.analysis.distances import average_cosine_distance, average_jsd, sampled_distance
from gclib.bench.measure import peak_bytes

close = torch.testing.assert_close


def pairs(vectors, distance):
    """The definition: a sum over all pairs, pairs of a position with itself included."""
    values = [[distance(a, b) for b in vectors] for a in vectors]
    return torch.tensor(values, dtype=torch.float64).mean()


def cosine(a, b):
    if a is b or not (a.any() or b.any()):
        return 0.0
    if not (a.any() and b.any()):
        return 0.5
    return (1 - (a @ b / (a.norm() * b.norm())).item()) / 2


def jsd(a, b):
    both = list(zip(a.tolist(), b.tolist(), strict=True))
    terms = [x * math.log(2 * x / (x + y)) for x, y in both if x > 0]
    terms += [y * math.log(2 * y / (x + y)) for x, y in both if y > 0]
    return sum(terms) / 2


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    vectors[0, 3] = vectors[0, 7] = 0
    return vectors


@pytest.fixture
def distributions():
    generator = torch.Generator().manual_seed(0)
    rows = (3 * torch.randn(2, 9, 6, generator=generator, dtype=torch.float64)).softmax(2)
    rows[0, 0] = torch.eye(6)[2]
    rows[0, 1] = torch.eye(6)[4]
    return rows


def test_cosine_is_the_average_over_all_pairs(vectors):
    close(average_cosine_distance(vectors), torch.stack([pairs(v, cosine) for v in vectors]))


def test_jsd_is_the_average_over_all_pairs(distributions):
    expected = torch.stack([pairs(v, jsd) for v in distributions])
    close(average_jsd(distributions), expected)
    assert average_jsd(distributions[0, :2]).item() == pytest.approx(math.log(2) / 2)


def test_chosen_positions(vectors, distributions):
    chosen = torch.tensor([1, 4, 8])
    close(
        average_cosine_distance(vectors, positions=chosen),
        average_cosine_distance(vectors[:, chosen]),
    )
    close(average_jsd(distributions, positions=chosen), average_jsd(distributions[:, chosen]))


def test_known_values():
    same = torch.ones(4, 3)
    assert average_cosine_distance(same).item() == 0
    opposite = torch.tensor([[1.0, 0], [-1, 0]])
    assert average_cosine_distance(opposite).item() == 0.5  # half of the pairs are at distance 1
    assert average_cosine_distance(torch.zeros(4, 3)).item() == 0
    assert average_jsd(torch.full((5, 4), 0.25)).item() == 0


def test_no_digits_are_lost_where_all_vectors_are_nearly_the_same():
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(50, generator=generator, dtype=torch.float64)
    vectors = base + 1e-7 * torch.randn(20, 50, generator=generator, dtype=torch.float64)
    close(average_cosine_distance(vectors), pairs(vectors, cosine), rtol=0.05, atol=0)
    rows = base / base.sum()
    rows = rows * (1 + 1e-3 * torch.randn(20, 50, generator=generator, dtype=torch.float64))
    rows /= rows.sum(1, keepdim=True)
    close(average_jsd(rows), pairs(rows, jsd), rtol=1e-6, atol=0)


def test_float16_maps_count_as_distributions():
    rows = torch.randn(4, 300).softmax(1).half()
    assert 0 < average_jsd(rows).item() < math.log(2)


@pytest.mark.parametrize("kind", ["cosine", "jsd"])
def test_samples_estimate_the_average(kind, distributions):
    exact = (average_cosine_distance if kind == "cosine" else average_jsd)(distributions)
    estimate = sampled_distance(distributions, kind, pairs=4000)
    assert bool((estimate.mean - exact).abs().le(4 * estimate.standard_error).all())
    assert bool((estimate.standard_error < 0.01).all())
    again = sampled_distance(distributions, kind, pairs=4000)
    assert torch.equal(again.mean, estimate.mean)
    wider = sampled_distance(distributions, kind, pairs=250)
    assert bool((wider.standard_error > 2 * estimate.standard_error).all())


def test_cosine_needs_no_pairs():
    vectors = torch.randn(4000, 16)
    assert peak_bytes(lambda: average_cosine_distance(vectors)) < 8 * 4000 * 16 * 8  # not 4000²


def test_jsd_needs_memory_for_its_input_and_a_few_blocks():
    rows = torch.randn(600, 600).softmax(1)
    peak = peak_bytes(lambda: average_jsd(rows))
    assert peak < 5 * rows.numel() * 8 + 4 * 2**23


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_cosine_distance(torch.ones(3)), r"one vector per position .* got \(3,\)"),
        (lambda: average_cosine_distance(torch.ones(0, 3)), "no position"),
        (lambda: average_cosine_distance(torch.full((2, 2), math.nan)), "not finite"),
        (lambda: average_jsd(torch.ones(2, 2)), "rows sum to 2 up to 2"),
        (lambda: average_jsd(torch.tensor([[2.0, -1.0]])), "smallest entry -1"),
        (lambda: sampled_distance(torch.ones(2, 2), "jds", pairs=9), "kind='jds': expected"),
        (lambda: sampled_distance(torch.ones(2, 2), "cosine", pairs=1), "pairs=1: expected at"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_progress_is_on_stdout(capsys):
    average_jsd(torch.randn(8, 8).softmax(1), progress="JSD")
    assert capsys.readouterr().err == ""
