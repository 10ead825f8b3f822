"""The measure of quoted numbers, and the numbers that no cell prints."""

import json
import math
import re
from pathlib import Path

import pytest
from notebook_copies import ROOT
from prose_numbers import numbers, quoted, stands

NOT_PRINTED = json.loads(
    (Path(__file__).parent / "quoted_numbers.json").read_text(encoding="utf-8")
)
# Other tests compare them with the files that they come from.
GENERATED = {"docs/LEDGER.md", "docs/PERFORMANCE.md"}
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


DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in GENERATED])
def test_numbers_in_the_text_of_a_document_stand_in_its_tables_or_have_a_source(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    asked, other = set(quoted(prose)), NOT_PRINTED.get(Path(name).name, {})
    tables = numbers("\n".join(re.findall(r"^\|.*$", text, flags=re.MULTILINE)))
    stale = {number for number in asked - set(other) if not stands(number, tables)}
    assert not stale, "no table has them, and quoted_numbers.json has no source of them"
    assert set(other) <= asked, "quoted_numbers.json has numbers that the text does not quote"


def test_the_road_of_the_readme_has_the_times_of_the_chapters():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    road = re.findall(r"^\| (\d\d) .*\| (\d+) s \|$", readme, flags=re.MULTILINE)
    measured = {
        path.parent.name[:2]: re.search(r"the cells run in (\d+) s", path.read_text("utf-8"))[1]
        for path in sorted((ROOT / "chapters").glob("*/*.ipynb"))
    }
    assert dict(road) == measured


WITH_INTERVAL = re.compile(r"([+-]?[\d.]+)[^()\d]*\(([+-]?[\d.]+) to ([+-]?[\d.]+)")


ALONE = re.compile(r"(?<![\w.-])[+-]?\d+(?:\.\d+)?")


def results(readme):
    """The table of results: what was found, and the page that it is from."""
    section = readme.split("\n## Results\n")[1].split("\n## ")[0]
    return re.findall(
        r"^\| [^|]+ \| ([^|]+) \| \[\w[\w ]*\]\((docs/\w+\.md)\) \|$", section, re.MULTILINE
    )


def not_on_the_page(found, page):
    """Numbers of a result that the page has not; with its interval, a number has one line."""
    rows = [numbers(row) for row in re.findall(r"^\|.*$", page, flags=re.MULTILINE)]
    together = WITH_INTERVAL.findall(found)
    alone = [(number,) for number in ALONE.findall(WITH_INTERVAL.sub("", found))]
    return [
        group
        for group in together + alone
        if not any(all(stands(number, row) for number in group) for row in rows)
    ]


def test_the_results_of_the_readme_are_those_of_the_pages():
    table = results((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(table) == 10
    for found, page in table:
        assert not_on_the_page(found, (ROOT / page).read_text(encoding="utf-8")) == [], found


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        ("0.36 (0.25 to 0.5), 7 of them, as +2.0 %", []),
        ("0.36 (0.25 to 0.6)", [("0.36", "0.25", "0.6")]),  # of another row
        ("0.37", [("0.37",)]),
        ("8 of them, CIFAR-10", [("8",)]),
    ],
)
def test_a_result_that_the_page_has_not_is_found(found, missing):
    page = "| a | 0.36 (0.25 to 0.5) | 7.0 |\n| b | 0.12 (0.1 to 0.6) | +2.0 % |\n\nNo row: 8.\n"
    assert not_on_the_page(found, page) == missing


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
