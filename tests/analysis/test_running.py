"""Distances over a data set: those of each image, averaged, whatever the batches and processes."""

import itertools
import math
import statistics

import pytest
import torch

from gclib.analysis.capture import Captured, capture
from gclib.analysis.distances import average_cosine_distance, average_jsd
from gclib.analysis.running import Mean, RunningDistances
from gclib.blocks import GCBlock, NonLocalBlock


def seen(instantiation="embedded_gaussian", images=6, seed=0):
    torch.manual_seed(seed)
    block = NonLocalBlock(8, instantiation=instantiation)
    torch.nn.init.normal_(block.out.weight)
    with torch.no_grad(), capture(block) as captured:
        block(torch.randn(images, 8, 3, 4))
    return captured


def part(captured, start, stop):
    return {
        name: Captured(b.input[start:stop], b.output[start:stop], b.attention[start:stop])
        for name, b in captured.items()
    }


def test_each_image_has_its_average_and_the_images_are_averaged():
    captured = seen()
    running = RunningDistances()
    running.add(captured)
    found = running.as_dict()[""]
    block = captured[""]
    for what in ("input", "output", "attention"):
        each = [average_cosine_distance(v).item() for v in block.vectors(what)]
        assert found[f"cosine/{what}"]["mean"] == pytest.approx(statistics.mean(each), rel=1e-12)
        error = statistics.stdev(each) / math.sqrt(6)
        assert found[f"cosine/{what}"]["standard_error"] == pytest.approx(error, rel=1e-9)
    jsd = statistics.mean(average_jsd(v).item() for v in block.attention)
    assert found["jsd/attention"]["mean"] == pytest.approx(jsd, rel=1e-12)
    assert found["jsd/attention"]["images"] == 6


@pytest.mark.parametrize("cuts", [(0, 6), (0, 1, 6), (0, 2, 3, 6)])
def test_batches_and_processes_make_no_difference(cuts):
    captured = seen()
    whole, merged = RunningDistances(), RunningDistances()
    whole.add(captured)
    for start, stop in itertools.pairwise(cuts):
        one = RunningDistances()
        one.add(part(captured, start, stop))
        merged.merge(one)
    for kind, mean in whole.means[""].items():
        assert merged.means[""][kind].mean == pytest.approx(mean.mean, rel=1e-12)
        assert merged.means[""][kind].squares == pytest.approx(mean.squares, rel=1e-9)


@pytest.mark.parametrize("instantiation", ["dot_product", "concat"])
def test_maps_that_are_no_distributions_have_no_jsd(instantiation):
    running = RunningDistances()
    running.add(seen(instantiation))
    assert set(running.means[""]) == {"cosine/input", "cosine/output", "cosine/attention"}


def test_sampled_pairs_come_near_all_pairs():
    exact, sampled = RunningDistances(), RunningDistances(pairs=140)  # of 144
    for running in (exact, sampled):
        running.add(seen())
    a, b = (r.means[""]["jsd/attention"].mean for r in (exact, sampled))
    assert a != b
    assert b == pytest.approx(a, rel=0.3)


def test_no_more_pairs_are_drawn_than_there_are():
    exact, sampled = RunningDistances(), RunningDistances(pairs=144)
    for running in (exact, sampled):
        running.add(seen())
    assert exact.as_dict() == sampled.as_dict()


def test_one_map_for_all_queries_has_no_distance():
    block = GCBlock(8, ratio=2)
    with torch.no_grad(), capture(block) as captured:
        block(torch.randn(2, 8, 3, 4))
    running = RunningDistances()
    running.add(captured)
    assert running.means[""]["cosine/attention"].mean == pytest.approx(0, abs=1e-12)
    assert running.as_dict()[""]["cosine/input"]["mean"] > 0.3


def test_numbers_that_are_not_finite_are_refused_by_name():
    captured = seen()
    captured["layer3"] = captured.pop("")
    captured["layer3"].output[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="block layer3, output: a vector is not finite"):
        RunningDistances().add(captured)


def test_mean_of_one_number_has_no_standard_error():
    mean = Mean()
    mean.add(3.0)
    assert mean.mean == 3.0
    assert math.isnan(mean.standard_error)
    empty = Mean()
    empty.merge(Mean())
    assert empty == Mean()
