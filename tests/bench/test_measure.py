"""Time and memory of calls; no test here depends on how fast the machine is."""

import random

import pytest
import torch

from gclib.bench.measure import median_seconds, peak_bytes


def test_peak_counts_what_is_held_at_once():
    x = torch.zeros(1000)  # there before: does not count
    scalars = 100  # bytes of the Python numbers on the way
    assert peak_bytes(lambda: torch.empty(1000)) == 4000
    assert peak_bytes(lambda: (x + 1).add_(1)) == pytest.approx(4000, abs=scalars)
    assert peak_bytes(lambda: [x + 1, x + 2]) == pytest.approx(8000, abs=scalars)
    assert peak_bytes(lambda: ((x + 1) * 2).sum()) == pytest.approx(8000, abs=scalars)


def test_peak_of_attention_is_quadratic():
    def map_of(positions):
        x = torch.zeros(1, positions, 4)
        return peak_bytes(lambda: (x @ x.mT).softmax(2))

    assert map_of(200) == pytest.approx(4 * map_of(100), rel=0.05)


def test_peak_leaves_the_environment_and_stderr_alone(capfd, monkeypatch):
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    peak_bytes(lambda: torch.empty(10))
    import os

    assert "KINETO_LOG_LEVEL" not in os.environ
    assert capfd.readouterr().err == ""


def test_every_function_runs_once_a_round_in_changing_order():
    calls = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = median_seconds(functions, rounds=20)
    assert set(seconds) == {"a", "b", "c"}
    assert all(value >= 0 for value in seconds.values())
    rounds = [tuple(calls[i : i + 3]) for i in range(3, 63, 3)]  # after one call each
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1


def test_the_callers_random_state_stays():
    random.seed(1)
    before = random.getstate()
    median_seconds({"a": lambda: None}, rounds=2)
    assert random.getstate() == before


def test_threads_are_as_before_after_an_error_too():
    before = torch.get_num_threads()
    seen = []

    def fail():
        seen.append(torch.get_num_threads())
        raise KeyError("stop")

    with pytest.raises(KeyError):
        median_seconds({"a": fail}, threads=before + 1)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
    median_seconds({"a": lambda: seen.append(torch.get_num_threads())}, rounds=1)
    assert seen[1:] == [before, before]


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="rounds=0: expected at least 1"):
        median_seconds({"a": lambda: None}, rounds=0)
