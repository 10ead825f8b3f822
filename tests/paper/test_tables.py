"""The tables as data: every row of the registry, marks as the fact sheet has them."""

import pytest

from gclib.blocks import ROWS
from gclib.paper.statistics import interval, paired
from gclib.paper.tables import CELLS, MARKS, printed


def test_every_row_of_the_registry_has_numbers_and_no_other():
    assert {cell.row for cell in CELLS} == set(ROWS)
    assert len({cell.id for cell in CELLS}) == len(CELLS)
    assert {cell.mark for cell in CELLS} == set(MARKS.values())


@pytest.mark.parametrize(
    ("row", "column", "value", "digits", "mark"),
    [
        ("1/coco_gaussian", "cosine_attention", 0.177, 3, "read"),
        ("2a/gc_all", "ap_box", 39.4, 1, "read"),
        ("2a/gc_1", "ap_box", 38.3, 1, "derived"),
        ("2a/nl_1", "gflops", 288.7, 1, "recalled"),
        ("4a/gc_all", "gflops", 3.87, 2, "read"),
        ("4a/gc_all", "params_m", 28.08, 2, "derived"),
        ("5/gc_5", "top1", 75.84, 2, "derived"),
        ("3a/x101_dcn_cascade_gc_r16", "ap75_box", 52.2, 1, "read"),
    ],
)
def test_single_cells(row, column, value, digits, mark):
    cell = printed(row, column)
    assert (cell.printed, cell.digits, cell.mark) == (value, digits, mark)
    assert cell.table == row.split("/")[0]


def test_jsd_is_of_the_gaussians_alone():
    rows = [cell.row for cell in CELLS if cell.column == "jsd_attention"]
    assert len(rows) == 4
    assert all("gaussian" in row for row in rows)
    with pytest.raises(KeyError, match="no number for 1/coco_concat, jsd_attention"):
        printed("1/coco_concat", "jsd_attention")


def test_equal_rows_of_table_2_have_equal_numbers():
    same = ("2a/gc_all", "2b/after_1x1", "2c/all", "2d/r16_ln_relu", "2e/r16", "2f/att_add")
    values = [
        [(cell.column, cell.printed, cell.mark) for cell in CELLS if cell.row == row]
        for row in same
    ]
    assert all(value == values[0] for value in values)


def test_differences_that_the_text_states():
    def difference(first, second, column):
        return round(printed(first, column).printed - printed(second, column).printed, 2)

    assert difference("2a/gc_all", "2a/gc_1", "ap_box") == 1.1
    assert difference("2e/r4", "2f/avg_scale", "ap_box") == 1.7
    assert difference("2e/r4", "2a/baseline", "ap_mask") == 2.4
    assert difference("4a/gc_all", "4a/baseline", "top1") == 0.82
    assert difference("4b/att_add", "4b/avg_scale", "top1") == 0.44
    assert difference("5/gc_5", "5/nl_5", "top1") == -0.11


def test_intervals_against_worked_numbers():
    # 1, 2, 3, 4, 5: mean 3, standard deviation 1.5811, t(4) = 2.776
    found = interval([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.low == pytest.approx(3 - 2.776 * 1.5811388 / 5**0.5)
    assert found.high == pytest.approx(3 + 2.776 * 1.5811388 / 5**0.5)
    assert paired([2, 4, 6], [1, 3, 5]) == (1, 1, 1)
    with pytest.raises(ValueError, match="1 values: expected 2 to 21"):
        interval([1])
    with pytest.raises(ValueError, match="2 and 3 values: expected the same seeds"):
        paired([1, 2], [1, 2, 3])
