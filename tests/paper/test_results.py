"""The results of the README: each number and verdict is the one of its log or measurement."""

import re
from collections import Counter

import pytest
from mutants.answers import ROOT

from gclib.bench import report
from gclib.paper.ledger import find_entry, ledger

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## Results\n")[1].split("\n## ")[0]
ROWS = [row.strip("| ").split(" | ") for row in re.findall(r"^\|.*$", SECTION, re.MULTILINE)][2:]
PERFORMANCE = report.read(ROOT / "docs")


@pytest.fixture(scope="module")
def entries():
    return ledger()


def found(paper):
    """What was found of a claim, and the verdict."""
    ((_, text, verdict),) = [row for row in ROWS if row[0].startswith(paper)]
    return text, re.match(r"\[([^]]+)\]", verdict)[1]


def with_interval(entry):
    return f"{entry.value} ({entry.interval[0]} to {entry.interval[1]})"


def test_every_row_has_a_verdict():
    assert [len(row) for row in ROWS] == [3] * 10


def test_counts(entries):
    text, verdict = found("counts of parameters")
    kinds = ("gflops", "params_m", "%", "G", "M", "")
    counted = [e for e in entries if e.column in kinds and e.value is not None and not e.seeds]
    verdicts = Counter(entry.verdict for entry in counted)
    assert f"{len(counted)} numbers: {verdicts['reproduced']} (" in text
    assert (
        f"equal what was read off the paper, {verdicts['computed; printed value unconfirmed']} "
        in text
    )
    assert f"{verdicts['not reproduced']} differ, most of them multiply-adds" in text
    assert sum(verdicts.values()) == len(counted) == 12 + 61 + 26
    assert len({entry.printed for entry in counted if entry.verdict == "reproduced"}) == 6
    assert "six different values" in text
    # "most of them multiply-adds of larger detectors and of videos"
    differ = [entry for entry in counted if entry.verdict == "not reproduced"]
    larger = [e for e in differ if e.table in ("3a", "5") and e.column == "gflops"]
    assert len(larger) > len(differ) / 2
    assert verdict == "in part"
    full = sum(entry.verdict == "needs GPUs" for entry in entries)
    assert found("figures on ImageNet")[0].startswith(f"{full} numbers")


@pytest.mark.parametrize(
    ("paper", "before", "entry_id", "verdict"),
    [
        ("the map of a", "need one fact: ", "distance_context_objects", "same direction in small"),
        ("the map of a", "needs another: ", "distance_pairing_objects", "not reproduced"),
        ("SNL, with one map", "One fact for all: ", "snl_context", "undecided"),
        ("SNL, with one map", "needs another: ", "snl_pairing", "not reproduced"),
        ("SNL, with one map", "A count is needed: ", "snl_majority", "not reproduced"),
        (
            "addition is better",
            "addition minus scaling: ",
            "add_attention",
            "same direction in small",
        ),
    ],
)
def test_the_lab(entries, paper, before, entry_id, verdict):
    entry = find_entry(f"small/{entry_id}", entries)
    text, said = found(paper)
    assert before + with_interval(entry) in text
    # A verdict that changes must be read again.
    assert (entry.verdict, entry.seeds) == (verdict, 5)
    verdicts = {"the map of a": "depends on the task", "addition is better": "same direction"}
    assert said == verdicts.get(paper, "not reproduced in two tasks, undecided in one")


def test_maps_of_the_other_instantiations(entries):
    assert "The Gaussian is below 0 in both tasks, concat in none" in found("the map of a")[0]
    for name, lower in (("gaussian", True), ("concat", False)):
        for task in ("context", "pairing"):
            entry = find_entry(f"small/distance_{task}_{name}_objects", entries)
            assert (entry.interval[1] < 0) if lower else (entry.interval[0] > 0)


def row_of(page, name):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `?{re.escape(name)}`? \|.*$", text, re.MULTILINE)
    return [cell.strip() for cell in row.strip("| ").split(" | ")]


@pytest.mark.parametrize(
    ("paper", "before", "row", "verdict"),
    [
        (
            "GC helps a detector",
            "mask AP {} without a block, {} with GC: ",
            "mini/coco_gc",
            "same direction",
        ),
        (
            "GC helps with videos",
            "top-1 {} % without a block, {} % with GC: ",
            "mini/kinetics_gc",
            "same direction",
        ),
        ("GC is better", "Mask AP: SE ", "mini/coco_se", "not seen"),
        ("GC is better", "Top-1 of videos: SE ", "mini/kinetics_se", "not seen"),
    ],
)
def test_small_runs(paper, before, row, verdict):
    """The tables of docs/TRAINING.md, which other tests compare with their logs."""
    text, said = found(paper)
    assert said == verdict
    column = 3  # mask AP, or top-1
    without, with_it = (
        row_of("TRAINING.md", f"{row.partition('_')[0]}_none"),
        row_of("TRAINING.md", row),
    )
    before = before.format(without[column], with_it[column])
    assert before + with_it[-1] in text
    if verdict == "not seen":
        name = row.replace("_se", "_gc")
        ours, theirs = row_of("TRAINING.md", name)[-1], row_of("TRAINING.md", row)[-1]
        assert f"{theirs}, GC {ours}" in text
        assert float(ours.split()[0]) <= float(theirs.split()[0])


def test_cifar10():
    text, verdict = found("GC helps on ImageNet")
    row = row_of("TRAINING.md", "4a/gc_all")
    assert (row[-2], verdict) == ("3", "undecided")
    assert text.endswith(row[-1])


def training_step(run, network):
    """A network's training step over that of the network without a block."""
    (record,) = [
        record
        for record in PERFORMANCE[run]["records"]
        if record["mode"] == "training" and record["network"] == network
    ]
    return record


def percent(ratio):
    return f"{100 * (ratio - 1):+.1f}"


def test_costs(entries):
    text, verdict = found("GC in all residual blocks costs")
    share = find_entry("intro/flops", entries)
    assert f"ResNet-50: {share.value} %" in text
    assert (verdict, share.verdict) == ("not reproduced", "not reproduced")
    ours, mmcv, timm = (
        training_step("networks-table-4-cpu-tuned-fp32", f"4a/gc_all · {name}")
        for name in ("gclib", "mmcv", "timm")
    )
    low, high = percent(ours["low"]), percent(ours["high"])
    assert f"on a CPU: {percent(ours['ratio'])} % ({low} to {high} %)" in text
    for name, peer in (("mmcv", mmcv), ("timm", timm)):
        assert f"with {name}'s {percent(peer['ratio'])} %" in text
        assert max(peer["low"], ours["low"]) < min(peer["high"], ours["high"])  # "that overlap"
    for images, run in (
        (256, "networks-gc-cuda-default-bf16-256-examples-graph"),
        (64, "networks-cuda-default-bf16-graph"),
    ):
        gpu = training_step(run, "gc · gclib")
        assert (gpu["examples"], gpu["dtype"]) == (images, "bfloat16")
        assert "H200" in PERFORMANCE[run]["machine"]["gpu"]
        assert f"{percent(gpu['ratio'])} % with {images}" in text


def test_our_block_beside_others():
    said = " ".join(SECTION.split())
    rows = report.pairs(PERFORMANCE["blocks-gc-snl-se-cpu-tuned"]["records"])
    for mode, times in (("training", "as long in a training step"), ("forward", "in a forward")):
        ratios = [
            row["ratio"]
            for row in rows
            if (row["group"], row["mode"], row["dtype"]) == ("gc", mode, "fp32")
        ]
        assert len(ratios) == 8
        assert f"{min(ratios):.2f} to {max(ratios):.2f} times {times}" in said
    page = (ROOT / "docs" / "PERFORMANCE.md").read_text(encoding="utf-8")
    first = page.split("\n## ")[1]
    assert first.startswith("Slower than a peer")
    slower = re.findall(r"^\| ([\w-]+-cuda-[\w-]+) \| ([^|]+) \|", first, re.MULTILINE)
    blocks = [block for run, block in slower if run.startswith("blocks-")]
    (run,) = (run for name, run in PERFORMANCE.items() if name.startswith("blocks-gc-snl-se-cuda"))
    count = sum(row["ratio"] is not None for row in report.pairs(run["records"]))
    assert (
        f"{len(blocks)} of {count} measurements of blocks, {blocks.count('se')} of them of" in said
    )
    assert f"and {len(slower) - len(blocks)} of networks are slower than a peer" in said


def test_links_lead_to_sections_of_the_pages():
    links = re.findall(r"\]\((docs/\w+\.md)(?:#([\w-]+))?\)", SECTION)
    assert len(links) == 11
    for page, anchor in links:
        text = (ROOT / page).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        names = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in names
