"""What stands beside an expected figure: the student's matrix, or one line that says why not."""

import pytest
import torch

from gclib.checks import cards, expected
from gclib.checks.outcome import STUB_MESSAGE

GOOD = torch.tensor(expected.load_expected("c00-e1")["matrix"], dtype=torch.float64)


class Odd(Exception):
    """An error that cannot be printed."""

    def __str__(self):
        raise ValueError


def raising(error):
    def yours():
        raise error

    return yours


def lines(capsys, yours):
    expected.beside("c00-e1", yours)
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


def test_yours_stands_beside_it(capsys):
    first, second = lines(capsys, lambda: GOOD)
    assert first.startswith("expected list of positions: shape (6, 2)")
    assert second.startswith("yours: shape (6, 2)")


@pytest.mark.parametrize("text", ["", STUB_MESSAGE])
def test_a_stub_is_no_error(capsys, text):
    (line,) = lines(capsys, raising(NotImplementedError(text)))
    assert line.startswith("expected list")


@pytest.mark.parametrize(
    ("yours", "said"),
    [
        (raising(RuntimeError("no such shape\nsecond line")), "RuntimeError: no such shape."),
        (raising(ValueError()), "ValueError."),
        (raising(Odd()), "Odd."),
        (raising(ValueError("x" * 5000)), f"ValueError: {'x' * 200}."),
        (
            raising(NameError("name 'toy' is not defined")),
            "NameError: name 'toy' is not defined; run the cells above, in order.",
        ),
        (lambda: None, "a NoneType, expected a tensor."),
        (lambda: GOOD[:, :0], "shape (6, 0), expected (6, 2)."),
        (lambda: GOOD[:4], "shape (4, 2), expected (6, 2)."),
        (lambda: GOOD.to_sparse(), "no plain tensor of real numbers."),
        (lambda: GOOD.to("meta"), "no plain tensor of real numbers."),
        (lambda: GOOD * 1j, "no plain tensor of real numbers."),
        (lambda: GOOD / 0, "it holds numbers that are not finite."),
    ],
)
def test_what_cannot_be_drawn_takes_one_line(capsys, yours, said):
    first, second = lines(capsys, yours)
    assert first == f"Yours cannot be drawn beside it: {said} What does its check say?"
    assert second.startswith("expected list")


def test_behind_a_check_that_passed_nobody_is_sent_to_it(capsys, monkeypatch):
    monkeypatch.setattr(cards, "last_verdicts", {"c00-e1": cards.PASSED})
    first, _ = lines(capsys, raising(NameError("name 'toy' is not defined")))
    assert first.endswith("run the cells above, in order.")
