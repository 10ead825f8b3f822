"""Figures carry an alt text and a summary in numbers, and touch no global state."""

import base64
import io
import re
import sys

import matplotlib
import pytest
import torch

from gclib.analysis import diagrams, figures


@pytest.fixture
def shown(monkeypatch):
    """What would be displayed in a notebook."""
    import IPython

    data = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: data.append(bundle))
    return data


def image_size(bundle):
    """Width and height of the PNG inside of a bundle."""
    png = base64.b64decode(re.search(r"base64,([^\"]+)", bundle["text/html"])[1])
    assert png.startswith(b"\x89PNG")
    from matplotlib.image import imread

    return imread(io.BytesIO(png)).shape[:2]


def test_alt_text_is_in_the_image_and_the_fallback(shown):
    figures.matrices({"a": torch.eye(3)}, alt='A "diagonal" of <ones>.')
    (bundle,) = shown
    assert bundle["text/plain"] == 'A "diagonal" of <ones>.'
    assert 'alt="A &quot;diagonal&quot; of &lt;ones&gt;."' in bundle["text/html"]
    height, width = image_size(bundle)
    assert height > 300
    assert width > 300


@pytest.mark.parametrize("opened", [False, True])
def test_a_figure_can_be_folded_away_with_its_numbers(shown, capsys, opened):
    fold = figures.Fold("Expected <figure>", opened)
    figures.matrices({"a": torch.eye(2)}, alt="a diagonal", fold=fold)
    (bundle,) = shown
    tag = "<details open " if opened else "<details "
    assert bundle["text/html"].startswith(tag)
    assert "<summary>Expected &lt;figure&gt;</summary>" in bundle["text/html"]
    assert ">a: shape (2, 2), from 0 to 1, rows sum to 1</pre><img " in bundle["text/html"]
    assert bundle["text/plain"].splitlines() == [
        "Expected <figure>",
        "a: shape (2, 2), from 0 to 1, rows sum to 1",
        "a diagonal",
    ]
    assert capsys.readouterr().out == ""


def test_nothing_is_shown_outside_of_a_notebook(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", None)
    figures.matrices({"a": torch.eye(3)}, alt="x")
    assert capsys.readouterr().out == "a: shape (3, 3), from 0 to 1, rows sum to 1\n"


def test_summary_tells_range_and_row_sums():
    assert figures.describe("m", torch.tensor([[1.0, 2], [3, 4.5]])) == (
        "m: shape (2, 2), from 1 to 4.5, rows sum to 3 to 7.5"
    )
    assert figures.describe("v", torch.tensor([1.0, 2])) == "v: shape (2,), from 1 to 2"


def test_maps_tell_where_they_are_largest(shown, capsys):
    map_ = torch.zeros(4, 6)
    map_[2, 5] = 0.5
    seen = (torch.arange(24).view(4, 6) < 7).double()
    figures.maps({"attention": map_, "seen": seen}, mark=(1, 1), alt="two maps")
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "attention: from 0 to 0.5, largest at (2, 5), sum 0.5"
    assert out[1] == "seen: 1 at 7 of 24 positions, 0 at the others"
    assert len(shown) == 1


def test_curves_print_the_power(shown, capsys):
    x = (2, 4, 8)
    figures.curves(x, {"square": [v**2 for v in x]}, xlabel="x", ylabel="y", alt="a line", log=True)
    assert capsys.readouterr().out == "square: follows the power 2.00 (last two points)\n"
    assert figures.slope(x, [v**4 for v in x]) == pytest.approx(4)
    assert len(shown) == 1


@pytest.fixture
def axes(monkeypatch):
    """The first axes of each figure, drawn."""
    found = []

    def draw(figure, alt, **_):
        figure.draw_without_rendering()
        found.append(figure.axes[0])

    monkeypatch.setattr(figures, "show", draw)
    return found


@pytest.mark.parametrize("values", [[12, 14, 18], [0.1, 0.2, 0.9], [5, 5, 5], [0.3, 1, 8]])
def test_few_decades_have_plain_numbers(axes, values):
    figures.curves((1, 2, 4), {"a": values}, xlabel="x", ylabel="y", alt="a line")
    low, high = axes[0].get_ylim()
    ticks = [tick for tick in axes[0].get_yticks() if low <= tick <= high]
    assert len(ticks) >= 2
    texts = [label.get_text() for label in axes[0].get_yticklabels()]
    assert set(map("{:g}".format, ticks)) <= set(texts)
    assert not any(label.get_text() for label in axes[0].get_yticklabels(minor=True))


def test_decades_have_powers_of_ten(axes):
    figures.curves((1, 2, 4), {"a": [1, 10, 200]}, xlabel="x", ylabel="y", alt="a line")
    assert any("10^{" in label.get_text() for label in axes[0].get_yticklabels())


def test_whole_numbers_have_whole_ticks(axes):
    lines = {"a": [1, 2, 3, 4]}
    figures.curves((5, 6, 7, 8), lines, xlabel="epoch", ylabel="y", alt="a line", log=False)
    assert all(tick == int(tick) for tick in axes[0].get_xticks())


@pytest.mark.parametrize("count", [5, 6])
def test_many_curves_have_their_legend_outside(axes, count):
    lines = {str(n): [n, n + 1] for n in range(count)}
    figures.curves((1, 2), lines, xlabel="x", ylabel="y", alt="lines", log=False)
    (axis,) = axes
    assert (axis.get_legend() is None) == bool(axis.figure.legends) == (count > 5)


def test_rows_and_columns_can_have_names(axes, capsys):
    panels = {"a": torch.eye(2), "b": torch.eye(2)}
    names = {"row_names": ["up", "down"], "column_names": ["left", "right"]}
    figures.matrices(panels, **names, alt="x", sums=False)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["up", "down"]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["left", "right"]
    assert "rows sum" not in capsys.readouterr().out


def test_gradients_and_half_precision_can_be_drawn(shown):
    figures.matrices({"a": torch.randn(9, 9, dtype=torch.bfloat16).requires_grad_()}, alt="x")
    assert len(shown) == 1


def test_global_state_of_matplotlib_stays(shown):
    def state():  # reading "backend" would choose one
        return {
            key: matplotlib.rcParams[key] for key in matplotlib.rcParams if "backend" not in key
        }

    before = state()
    figures.matrices({"a": torch.eye(2), "b": torch.eye(2)}, alt="x", shared_scale=False)
    assert state() == before


def test_the_paper_in_one_picture(shown):
    figures.show(diagrams.three_steps(), diagrams.ALT)
    height, width = image_size(shown[0])
    assert width > 2 * height > 400
    for block in ("NL", "SNL", "SE", "GC"):
        assert block in diagrams.ALT


def test_the_three_places_for_a_block(shown):
    figures.show(diagrams.positions(), diagrams.POSITIONS_ALT)
    height, width = image_size(shown[0])
    assert width > 2 * height > 200
    for position in ("after_3x3", "after_1x1", "after_add"):
        assert position in diagrams.POSITIONS_ALT


def test_a_detector_and_where_blocks_stand(shown):
    figures.show(diagrams.detector(), diagrams.DETECTOR_ALT)
    height, width = image_size(shown[0])
    assert width > 1.5 * height > 400
    for part in ("stem", "c2", "c5", "p2", "GC", "frozen", "masks"):
        assert part in diagrams.DETECTOR_ALT


def test_boxes_are_drawn_and_printed(shown, capsys):
    panels = {
        "a": torch.tensor([[0, 0, 4, 2.5], [5, 1, 7, 3]]),
        "b": torch.tensor([[1.0, 1, 2, 2]]),
    }
    figures.boxes(panels, alt="Three boxes.")
    assert capsys.readouterr().out == "a: 0, 0, 4, 2.5; 5, 1, 7, 3\nb: 1, 1, 2, 2\n"
    (bundle,) = shown
    assert bundle["text/plain"] == "Three boxes."
    height, width = image_size(bundle)
    assert width > height > 300


def test_a_map_of_ones_is_bright_and_a_constant_one_is_neither():
    assert figures._limits(torch.ones(2, 3)) == (0.0, 1.0)
    assert figures._limits(torch.zeros(2, 3)) == (0.0, 1.0)
    assert figures._limits(torch.full((2, 3), 0.25)) == (-0.75, 1.25)
    assert figures._limits(torch.tensor([[-1.0, 3.0]])) == (-1.0, 3.0)


def test_clips_are_drawn_as_rows_of_pictures(shown):
    clips = {"a": torch.rand(8, 5, 6, 3), "b": torch.zeros(8, 5, 6, 3, dtype=torch.uint8)}
    figures.film(clips, alt="Two rows.")
    figures.film({"a": clips["a"]}, alt="One row.")
    two, one = shown
    assert two["text/plain"] == "Two rows."
    (height, width), (low, wide) = image_size(two), image_size(one)
    assert width == wide > 8 * 100
    assert height > 1.8 * low
