"""Names that a class gets later: what they say, and where the reader's own stands in."""

import pickle
import sys

import pytest
import torch
from mutants.answers import define

from gclib import course
from gclib.analysis import distances, maps
from gclib.later import NotReleased, bundled, later


@pytest.fixture
def notebook(monkeypatch):
    """Define names where a notebook would."""

    def write(**names):
        for name, value in names.items():
            monkeypatch.setattr(sys.modules["__main__"], name, value, raising=False)

    return write


def test_a_name_says_when_it_comes():
    block = later("GCBlock", "06")
    with pytest.raises(NotReleased, match=r"GCBlock is not in your copy .* comes with chapter 06"):
        block(64, ratio=4)
    assert not isinstance(torch.nn.ReLU(), block)
    with pytest.raises(NotReleased, match="it is what the last chapter builds"):
        later("GCBlock")()


def test_the_message_crosses_processes_and_is_one_line_in_a_notebook():
    error = pickle.loads(pickle.dumps(NotReleased("so it is")))
    assert str(error) == "so it is"
    assert error._render_traceback_() == ["NotReleased: so it is"]


def test_an_experiment_prints_it_and_goes_on(capsys):
    with course.reference():
        later("GCBlock", "06")()
    assert capsys.readouterr().out.startswith("GCBlock is not in your copy of the course")
    with pytest.raises(KeyError), course.reference():
        raise KeyError


def test_the_checkout_is_no_copy_of_a_class():
    assert not bundled()


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4), (2, 3, 6, 4)])
def test_the_readers_own_distances_stand_in(notebook, shape):
    notebook(**{k: v for k, v in define("02").items() if not k.startswith("__")})
    vectors = torch.randn(shape)
    for name, given in (
        ("average_cosine_distance", vectors),
        ("average_jsd", vectors.softmax(-1)),
    ):
        found = later(name, "03")(given)
        torch.testing.assert_close(found, getattr(distances, name)(given), atol=1e-7, rtol=0)


def test_the_readers_own_map_stands_in(notebook):
    attention = torch.randn(6, 6).softmax(1)
    notebook(map_of_query=define("02")["map_of_query"])
    found = later("map_of", "03")(attention, torch.Size((2, 3)), [1, 2])
    assert torch.equal(found, maps.map_of(attention, (2, 3), (1, 2)))


def test_what_is_not_written_yet_is_named(notebook):
    average = later("average_jsd", "03")
    first = r"Finish exercise c02-e5 first, then run this cell again\."
    with pytest.raises(NotReleased, match=first):
        average(torch.ones(1, 2, 2))

    def stub(attention):
        raise NotImplementedError("your code here")

    notebook(average_jsd=stub)
    with pytest.raises(NotReleased, match=first):
        average(torch.ones(1, 2, 2))
    notebook(average_jsd=average)  # imported by the reader: not an answer
    with pytest.raises(NotReleased, match=first):
        average(torch.ones(1, 2, 2))
