"""Maps show the right row in the right place, and say in words what they show."""

import pytest
import torch

from gclib.analysis import maps
from gclib.analysis.capture import capture
from gclib.analysis.distances import average_cosine_distance
from gclib.blocks import GCBlock, NonLocalBlock


@pytest.fixture
def shown(monkeypatch):
    figures = []
    monkeypatch.setattr(maps, "show", lambda figure, alt: figures.append((figure, alt)))
    return figures


def one_hot(queries, keys):
    """Query i looks at key keys[i] alone."""
    attention = torch.zeros(len(keys), queries)
    for i, key in enumerate(keys):
        attention[i, key] = 1
    return attention


def test_the_row_of_a_query_is_folded_row_by_row():
    attention = torch.arange(36.0).view(6, 6)
    assert maps.map_of(attention, (2, 3), (1, 0)).tolist() == [[18, 19, 20], [21, 22, 23]]
    assert maps.map_of(attention[:1], (2, 3), (1, 0)).tolist() == [[0, 1, 2], [3, 4, 5]]
    clip = torch.arange(64.0).view(8, 8)
    assert maps.map_of(clip, (2, 2, 2), (1, 0, 1))[1, 0, 1] == 5 * 8 + 5


def test_subsampled_keys():
    block = NonLocalBlock(4, subsample="after")
    with capture(block) as captured:
        block(torch.randn(1, 4, 6, 8))
    found = captured[""]
    assert maps.map_of(found.attention[0], found.positions, (5, 7)).shape == (3, 4)


@pytest.mark.parametrize("query", [(2, 0), (0, -1), (0,), (0, 0, 0)])
def test_a_query_outside_is_refused(query):
    with pytest.raises(ValueError, match=r"expected a position inside of \(2, 3\)"):
        maps.map_of(torch.zeros(6, 6), (2, 3), query)
    with pytest.raises(ValueError, match="5 keys do not fit"):
        maps.map_of(torch.zeros(6, 5), (2, 3), (0, 0))


def test_one_panel_a_query_one_scale_and_numbers(shown, capsys):
    image = torch.rand(3, 8, 12)
    attention = one_hot(6, [0, 1, 2, 3, 4, 5])
    maps.query_maps(image, attention, (2, 3), [(0, 0), (1, 2)])
    ((figure, alt),) = shown
    axes = [axis for axis in figure.axes if axis.images]
    assert len(axes) == 3
    first, second = axes[1].images[-1], axes[2].images[-1]
    assert first.get_clim() == second.get_clim() == (0, 1)
    assert first.get_array().shape == (8, 12)
    assert first.get_array()[0, 0] == 1
    assert second.get_array()[7, 11] == 1
    ring = axes[2].collections[0].get_offsets()[0]
    assert ring.tolist() == [9.5, 5.5]  # the centre of row 1, column 2 in pixels
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "(0, 0) looks most at (0, 0) (1); (1, 2) at (1, 2) (1)",
        "    average cosine distance of these 2 maps: 0.25",
    ]
    assert "different" in alt


def test_equal_maps_have_no_distance_from_rounding():
    torch.manual_seed(0)
    map_ = torch.rand(7, 7, dtype=torch.float64).flatten().softmax(0).view(7, 7)
    assert average_cosine_distance(map_.flatten().expand(3, -1)) > 0
    assert maps.summary("GC", [map_] * 3, [(0, 0)] * 3).endswith("of these 3 maps: 0")


def test_a_shared_map_is_called_the_same(shown):
    block = GCBlock(4, ratio=2)
    with capture(block) as captured:
        block(torch.randn(2, 4, 4, 4))
    attention = captured[""].attention
    rows = {f"image {n}": (torch.randint(0, 255, (3, 16, 16)), attention[n]) for n in range(2)}
    maps.grid(rows, (4, 4), {"image 0": [(0, 0), (3, 3)], "image 1": [(1, 1), (2, 0)]})
    assert "image 0: the maps of its queries are nearly the same" in shown[0][1]


def test_space_time(shown, capsys):
    attention = one_hot(8, [7] * 8)
    maps.space_time(torch.rand(3, 4, 6, 6), attention, (2, 2, 2), (0, 1, 0))
    ((figure, alt),) = shown
    assert len([axis for axis in figure.axes if axis.images]) == 2
    assert "looks most at frame 1" in alt
    assert "attention on each frame 0, 1; most at (1, 1, 1)" in capsys.readouterr().out
