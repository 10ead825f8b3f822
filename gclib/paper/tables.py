"""The numbers of tables 1 to 5, each with a mark that says how far it can be trusted.

=========  ========================================================================
mark       meaning
=========  ========================================================================
read       read off the paper, its text, an image of its tables, or the official repository
derived    arithmetic from a number that was read and a difference that the text states
recalled   from memory; no readable copy of the table was found
=========  ========================================================================

A cell is written as a number and its mark: ``38.0`` read, ``38.1?`` recalled, ``38.2=`` derived,
``-`` where the paper has none. Rows carry the ids of :mod:`gclib.blocks.registry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MARKS = {"": "read", "?": "recalled", "=": "derived"}

COLUMNS = {
    "1/coco": "ap_box ap_mask cosine_input cosine_output cosine_attention jsd_attention",
    "1/kinetics": "top1 top5 cosine_input cosine_output cosine_attention jsd_attention",
    "2": "ap_box ap50_box ap75_box ap_mask ap50_mask ap75_mask params_m gflops",
    "3a": "ap_box ap50_box ap75_box ap_mask ap50_mask ap75_mask gflops",
    "4": "top1 top5 params_m gflops",
    "5": "top1 top5 params_m gflops",
}

_TABLE_1 = """
1/coco_gaussian              38.0 34.8 0.397 0.062 0.177 0.065
1/coco_embedded_gaussian     38.0 34.7 0.402 0.012 0.020 0.011
1/coco_dot_product           38.1 34.8 0.405 0.020 0.015 -
1/coco_concat                38.0 34.9 0.393 0.003 0.004 -
1/kinetics_gaussian          76.0 92.3 0.345 0.056 0.056 0.021
1/kinetics_embedded_gaussian 75.9 92.2 0.358 0.003 0.004 0.015
1/kinetics_dot_product       76.0 92.3 0.353 0.095 0.099 -
1/kinetics_concat            75.4 92.2 0.354 0.048 0.049 -
"""
# The row 2a/gc_1 is uncertain: the text's differences give 38.3 and 34.8, memory 38.1 and 34.9.
_TABLE_2 = """
2a/baseline     37.2  59.0? 40.1? 33.8  55.4? 35.9? 44.4? 279.4?
2a/nl_1         38.0  59.8? 41.0? 34.7  56.7? 36.6? 46.5? 288.7?
2a/snl_1        38.1? 60.0? 41.6? 35.0? 56.9? 37.0? 45.4? 279.4?
2a/gc_1         38.3= 60.0? 41.2? 34.8= 56.5? 37.2? 44.5? 279.4?
2a/gc_all       39.4  61.6? 42.4? 35.7  58.4? 37.6? 46.9? 279.6?
2b/after_add    39.4? 61.9? 42.5? 35.8? 58.6? 38.1? 46.9? 279.6?
2b/after_1x1    39.4  61.6? 42.4? 35.7  58.4? 37.6? 46.9? 279.6?
2c/c3           37.9? 59.6? 41.1? 34.5? 56.3? 36.8? 44.5? 279.5?
2c/c4           38.9? 60.9? 42.2? 35.5? 57.6? 37.7? 45.2? 279.5?
2c/c5           38.7? 61.1? 41.7? 35.2? 57.4? 37.4? 45.9? 279.4?
2c/all          39.4  61.6? 42.4? 35.7  58.4? 37.6? 46.9? 279.6?
2d/no_ratio     39.4? 61.8? 42.8? 35.9? 58.6? 38.1? 64.4? 279.6?
2d/r16          38.8? 61.0? 42.3? 35.3? 57.6? 37.5? 46.9? 279.6?
2d/r16_relu     38.8? 61.0? 42.0? 35.4? 57.5? 37.6? 46.9? 279.6?
2d/r16_ln_relu  39.4  61.6? 42.4? 35.7  58.4? 37.6? 46.9? 279.6?
2e/r4           39.9  62.2? 42.9? 36.2  58.7? 38.3? 54.4? 279.6?
2e/r8           39.5? 62.1? 42.5? 35.9? 58.1? 38.1? 49.4? 279.6?
2e/r16          39.4  61.6? 42.4? 35.7  58.4? 37.6? 46.9? 279.6?
2e/r32          39.1? 61.6? 42.4? 35.7? 58.1? 37.8? 45.7? 279.5?
2f/avg_scale    38.2= 60.2? 41.2? 34.7= 56.7? 37.1? 46.9? 279.5?
2f/avg_add      39.1? 61.4? 42.3? 35.6? 57.9? 37.9? 46.9? 279.5?
2f/att_scale    38.3? 60.4? 41.5? 34.8? 57.0? 36.8? 46.9? 279.6?
2f/att_add      39.4  61.6? 42.4? 35.7  58.4? 37.6? 46.9? 279.6?
"""
_TABLE_3A = """
3a/r50_baseline               37.2 59.0? 40.1? 33.8 55.4? 35.9? 279.4?
3a/r50_gc_r16                 39.4 61.6? 42.4? 35.7 58.4? 37.6? 279.6?
3a/r50_gc_r4                  39.9 62.2? 42.9? 36.2 58.7? 38.3? 279.6?
3a/r101_baseline              39.8 61.3? 42.9? 36.0 57.9? 38.3? 354.0?
3a/r101_gc_r16                41.1 63.6? 45.0? 37.4 60.1? 39.6? 354.3?
3a/r101_gc_r4                 41.7 63.7? 45.5? 37.6 60.5? 39.8? 354.3?
3a/x101_baseline              41.2 63.0? 45.1? 37.3 59.7? 39.9? 357.9?
3a/x101_gc_r16                42.4 64.6? 46.5? 38.0 60.9? 40.5? 358.2?
3a/x101_gc_r4                 42.9 65.2? 47.0? 38.5 61.8? 40.9? 358.2?
3a/x101_cascade_baseline      44.7 63.0? 48.5? 38.3 59.9? 41.3? 536.9?
3a/x101_cascade_gc_r16        45.9 64.8? 50.0? 39.3 61.8? 42.1? 537.2?
3a/x101_cascade_gc_r4         46.5 65.4? 50.7? 39.7 62.5? 42.7? 537.3?
3a/x101_dcn_cascade_baseline  47.1 66.1? 51.3? 40.4 63.1? 43.7? 547.5?
3a/x101_dcn_cascade_gc_r16    47.9 66.9  52.2  40.9 63.7? 44.1? 547.8?
3a/x101_dcn_cascade_gc_r4     47.9 66.9? 51.9? 40.8 63.7? 44.0? 547.8?
"""
_TABLE_4 = """
4a/baseline   76.88? 93.16? 25.56  3.86
4a/nl_1       77.20? 93.51? 27.66? 4.11?
4a/snl_1      77.28? 93.60? 26.61? 3.86?
4a/gc_1       77.34? 93.52? 25.69? 3.86?
4a/gc_all     77.70? 93.66? 28.08= 3.87
4b/baseline   76.88? 93.16? 25.56  3.86
4b/avg_scale  77.26? 93.55? 28.07? 3.87?
4b/avg_add    77.40? 93.60? 28.07? 3.87?
4b/att_scale  77.34? 93.48? 28.08? 3.87?
4b/att_add    77.70? 93.66? 28.08= 3.87
"""
_TABLE_5 = """
5/baseline  74.94? 91.90? 32.45? 39.29?
5/nl_5      75.95? 92.29? 39.81? 59.60?
5/snl_5     75.76? 92.44? 36.13? 39.32?
5/gc_5      75.84= 92.43= 34.30? 39.31?
5/gc_all    76.00? 92.34? 42.45? 39.35?
"""


@dataclass(frozen=True)
class Cell:
    """One printed number.

    Attributes:
        row: row id.
        column: for example ``"ap_box"``, ``"params_m"`` (millions), ``"gflops"`` (multiply-adds).
        printed: the number.
        digits: digits behind the point, as printed.
        mark: ``"read"``, ``"derived"`` or ``"recalled"``.
    """

    row: str
    column: str
    printed: float
    digits: int
    mark: str

    @property
    def table(self) -> str:
        """For example ``"2a"``."""
        return self.row.split("/")[0]

    @property
    def id(self) -> str:
        """Row and column."""
        return f"{self.row}:{self.column}"


def _cells(text: str) -> Iterator[Cell]:
    for line in text.strip().splitlines():
        row, *values = line.split()
        table = row.split("/")[0]
        kind = row.split("_")[0] if table == "1" else table if table == "3a" else table[0]
        for column, value in zip(COLUMNS[kind].split(), values, strict=True):
            if value == "-":
                continue
            number = value.rstrip("?=")
            mark = MARKS[value.removeprefix(number)]
            digits = len(number.partition(".")[2])
            yield Cell(row, column, float(number), digits, mark)


CELLS: tuple[Cell, ...] = tuple(
    cell for text in (_TABLE_1, _TABLE_2, _TABLE_3A, _TABLE_4, _TABLE_5) for cell in _cells(text)
)
# Table 3(b), test-dev: only the best row's two numbers could be read.
TEST_DEV = {"3b/best:ap_box": (48.4, "read"), "3b/x101_dcn_cascade_gc_r16:ap_mask": (41.5, "read")}


def printed(row: str, column: str) -> Cell:
    """The cell of a row and column; KeyError naming both otherwise."""
    for cell in CELLS:
        if cell.row == row and cell.column == column:
            return cell
    raise KeyError(f"the tables have no number for {row}, {column}")
