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


def stale(text, sourced):
    """The numbers of a document that neither a table of their section nor a source has."""
    found = set()
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # a comment there is no heading
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        tables = numbers("\n".join(re.findall(r"^\|.*$", section, flags=re.MULTILINE)))
        prose = re.sub(r"^\|.*$", "", section, flags=re.MULTILINE)
        found |= {
            one for one in set(quoted(prose)) - sourced if not stands(one, tables, scales=(1,))
        }
    return found


def test_a_number_that_no_table_of_its_section_has_is_stale():
    text = "# A\n1.5 % of 40 %, 2.5, 7.25\n| 1.49 | 0.4 | 7.25 |\n# B\n| 2.5 |\n"
    assert stale(text, sourced=set()) == {"40", "2.5"}
    assert stale(text, sourced={"40", "2.5"}) == set()


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in GENERATED])
def test_numbers_in_the_text_of_a_document_stand_in_its_tables_or_have_a_source(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    sourced = set(NOT_PRINTED.get(Path(name).name, {}))
    assert not stale(text, sourced), "no table has them, and quoted_numbers.json has no source"
    assert all(number in quoted(text) for number in sourced), "quoted_numbers.json has more"


def test_the_road_of_the_readme_has_the_times_of_the_chapters():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    road = re.findall(r"^\| (\d\d) .*\| (\d+) s \|$", readme, flags=re.MULTILINE)
    measured = {
        path.parent.name[:2]: re.search(r"the cells run in (\d+) s", path.read_text("utf-8"))[1]
        for path in sorted((ROOT / "chapters").glob("*/*.ipynb"))
    }
    assert dict(road) == measured


def test_the_table_of_the_instructors_has_hours_and_points_of_the_chapters():
    guide = (ROOT / "docs" / "INSTRUCTORS.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\d\d|all) \| ([\d½]+) \| (\d+) \| (\d+) \|$", guide, re.MULTILINE)
    hours = dict(re.findall(r"^\| (\d\d) .*\| ([\d½]+) h \| \d+ s \|$", readme, re.MULTILINE))
    expected, sums = [], [0.0, 0, 0]
    for path in sorted((ROOT / "chapters").glob("*/*.ipynb")):
        cells = [cell["metadata"] for cell in json.loads(path.read_text("utf-8"))["cells"]]
        graded = [meta["nbgrader"] for meta in cells if meta.get("nbgrader", {}).get("grade")]
        number = path.parent.name[:2]
        checks = sum(one["points"] for one in graded if not one["solution"])
        person = sum(one["points"] for one in graded if one["solution"])
        expected.append((number, hours[number], str(checks), str(person)))
        whole, half, _ = hours[number].partition("½")
        sums = [sums[0] + int(whole) + 0.5 * bool(half), sums[1] + checks, sums[2] + person]
    assert table == [*expected, ("all", *(f"{value:g}" for value in sums))]


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
