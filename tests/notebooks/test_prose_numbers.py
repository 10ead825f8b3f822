"""The measure of quoted numbers, and the numbers that no cell prints."""

import json
import math
from pathlib import Path

import pytest
from notebook_copies import ROOT
from prose_numbers import numbers, quoted, stands

NOT_PRINTED = json.loads(
    (Path(__file__).parent / "quoted_numbers.json").read_text(encoding="utf-8")
)
ENTRIES = [
    pytest.param(number, source, id=f"{chapter}-{number}")
    for chapter, entries in NOT_PRINTED.items()
    for number, source in entries.items()
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GC reaches 91.9 % and NL 83.7 %.", ["91.9", "83.7"]),
        ("About 95 % of 2,099,712 weights, or 12.", ["95", "2099712"]),
        ("The difference is +0.277 or −0.05, up to 1.25.", ["+0.277", "-0.05", "1.25"]),
        ("From 0.2-0.3 to 1,234.5, 95% or 10\u00a0%.", ["0.2", "0.3", "1234.5", "95", "10"]),
        ("See section 3.1, table 2(d), sections 4.2 and 4.3, Python 3.10.", []),
        ("`x = 1.5`, $y = 2.5$, [paper](https://a.b/1.5), arXiv 1904.11492.", []),
        ("Kernels of 3×3 in 13 blocks of c4 at 2.5.1.", []),
    ],
)
def test_what_is_quoted(text, found):
    assert quoted(text) == found


@pytest.mark.parametrize(
    ("number", "printed", "does"),
    [
        ("0.397", "mean 0.3971234", True),
        ("0.397", "mean 0.3984", False),
        ("0.40", "0.397", True),
        ("+0.277", "difference 0.277", True),
        ("+0.277", "difference -0.277", False),
        ("-0.277", "difference −0.277", True),
        ("0.277", "difference -0.277", True),
        ("0.4", "0.46", False),
        ("95", "95 %", True),
        ("84", "top-1 0.837", True),  # as a percentage
        ("83", "top-1 0.837", False),
        ("2099712", "2,099,712 parameters", True),
        ("2099712", "2,099,713 parameters", False),
        ("0.0001", "1e-4", True),
        ("46.92", "46,922,434 parameters", True),
        ("46.93", "46,922,434 parameters", False),
        ("3.86", "3,858,000,000 multiply-adds", True),
    ],
)
def test_what_stands(number, printed, does):
    assert stands(number, numbers(printed)) is does


@pytest.mark.parametrize(("number", "source"), ENTRIES)
def test_a_number_that_no_cell_prints_has_a_source(number, source):
    if source.startswith("= "):
        known = {name: getattr(math, name) for name in ("e", "exp", "log", "sqrt")}
        value = eval(source[2:], {"__builtins__": {}}, known)
        assert stands(number, {value}), f"{source[2:]} is {value}"
    elif source.startswith("given: "):
        assert len(source) > 15
    else:
        assert stands(number, numbers((ROOT / source).read_text(encoding="utf-8")))
