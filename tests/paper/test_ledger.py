"""The ledger: verdicts follow the numbers, and the page is current."""

import json

import pytest

from gclib.cli import main
from gclib.paper.claims import CLAIMS, COMPARISONS, MARGIN
from gclib.paper.ledger import (
    LATER,
    VERDICTS,
    find_entry,
    judge,
    ledger,
    read_counts,
    read_summaries,
)
from gclib.training.runs import log_path, write_json
from gclib.training.scenes import LAB_ROWS


def write_runs(folder, row, accuracies):
    logs = [{"seed": seed, "accuracy": a} for seed, a in enumerate(accuracies, start=1)]
    write_json(log_path(folder, row), logs)


def test_fields_and_verdicts_are_those_of_the_contract():
    entries = ledger()
    assert len({entry.id for entry in entries}) == len(entries)
    fields = ["id", "table", "row", "column", "printed", "mark", "value", "interval"]
    fields += ["seeds", "method", "verdict", "command"]
    for entry in entries:
        assert list(vars(entry)) == fields
        assert entry.verdict in VERDICTS
        assert entry.mark in ("read", "derived", "recalled")
        if entry.mark != "read":
            assert entry.verdict != "reproduced"
        if entry.verdict == "needs GPUs":
            assert entry.value is None


def test_what_blocks_alone_can_show_is_reproduced():
    assert find_entry("4.3/params_added").value == 2.52
    assert find_entry("4.3/params_added").verdict == "reproduced"
    assert find_entry("4.3/transform").value == 0.125
    with pytest.raises(KeyError, match="no entry 'x'"):
        find_entry("x")


@pytest.mark.parametrize(
    ("entry", "value", "verdict"),
    [
        ("4a/baseline:params_m", 25.56, "reproduced"),
        ("4a/nl_1:params_m", 27.66, "computed; printed value unconfirmed"),
        ("4a/snl_1:params_m", 26.61, "computed; printed value unconfirmed"),
        ("4a/gc_1:params_m", 25.69, "computed; printed value unconfirmed"),
        # Derived: a sum of rounded numbers leaves the last digit open.
        ("4a/gc_all:params_m", 28.08, "computed; printed value unconfirmed"),
        ("4a/baseline:gflops", 3.86, "reproduced"),
        ("4a/gc_all:gflops", 3.87, "reproduced"),
        ("4a/nl_1:gflops", 4.308, "not reproduced"),
        ("4b/avg_scale:params_m", 28.064, "not reproduced"),
        ("4b/avg_scale:gflops", 3.87, "computed; printed value unconfirmed"),
        ("5/baseline:params_m", 32.45, "computed; printed value unconfirmed"),
        ("5/nl_5:params_m", 39.81, "computed; printed value unconfirmed"),
        ("5/snl_5:params_m", 36.13, "computed; printed value unconfirmed"),
        ("5/gc_5:params_m", 34.3, "computed; printed value unconfirmed"),
        ("5/gc_all:params_m", 42.45, "computed; printed value unconfirmed"),
        ("5/baseline:gflops", 41.742, "not reproduced"),
        ("4.3/flops_before", 3.86, "reproduced"),
        ("4.3/flops_after", 3.87, "reproduced"),
        ("4.3/params_before", 25.56, "reproduced"),
        ("4.3/params_share", 9.867, "not reproduced"),
        ("intro/flops", 0.306, "not reproduced"),
        ("intro/coco_flops", 0.07, "reproduced"),
        ("2a/baseline:params_m", 44.4, "computed; printed value unconfirmed"),
        ("2a/baseline:gflops", 279.4, "computed; printed value unconfirmed"),
        ("2a/nl_1:gflops", 306.27, "not reproduced"),
        ("2c/c5:params_m", 45.99, "not reproduced"),
        ("2f/avg_add:gflops", 279.5, "computed; printed value unconfirmed"),
        ("3a/r50_gc_r4:gflops", 279.6, "computed; printed value unconfirmed"),
        ("3a/x101_dcn_cascade_gc_r16:gflops", 533.83, "not reproduced"),
    ],
)
def test_networks_are_counted(entry, value, verdict):
    found = find_entry(entry)
    assert (found.value, found.verdict) == (value, verdict)
    place = found.table.removeprefix("section ")
    assert found.command == f"gclib ledger --table {place} --recount"
    if verdict == "not reproduced":
        assert read_counts()["notes"][entry] in found.method


def test_other_counts_give_other_verdicts():
    counts = read_counts()
    counts["rows"]["4a/baseline"]["paper"] = 4_089_184_256  # stride in the 3×3
    found = find_entry("4a/baseline:gflops", ledger(counts=counts))
    assert (found.value, found.verdict) == (4.089, "not reproduced")
    assert find_entry("4.3/flops_before", ledger(counts=counts)).value == 4.089
    assert find_entry("4a/baseline:gflops").value == 3.86


def test_full_trainings_of_every_table_have_a_command():
    detector = find_entry("2e/r4:ap_mask")
    assert detector.verdict == "needs GPUs"
    wanted = "gclib train coco --row 2e/r4 --data DIR --weights IMAGENET1K_V1"
    assert detector.command == wanted
    for row in ("1/coco_concat:ap_box", "2a/baseline:ap75_box", "3a/r101_gc_r4:ap_box"):
        assert find_entry(row).command.startswith("gclib train coco --row ")
    # Torchvision has no weights for it.
    assert find_entry("3a/x101_baseline:ap_box").command.endswith("--weights FILE")


def test_without_the_counts_cells_are_undecided():
    entries = ledger(counts={})
    assert len(entries) == len(ledger())
    for entry in ("4a/baseline:params_m", "5/nl_5:gflops", "4.3/params_share", "intro/flops"):
        found = find_entry(entry, entries)
        assert (found.value, found.verdict, found.method) == (None, "undecided", LATER)
    assert find_entry("4.3/params_added", entries).value == 2.52


def test_counting_again_and_layer_by_layer(capsys):
    assert main(["ledger", "--table", "4.3", "--recount", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert main(["ledger", "--table", "4.3", "--json"]) == 0
    assert again == json.loads(capsys.readouterr().out)
    assert main(["ledger", "--layers", "4a/gc_all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:3] == ["total", "28,078,773", "3,869,896,704"]
    assert any(line.startswith("layer4.2.block.transform.expand") for line in lines)
    assert main(["ledger", "--layers", "4a/baseline", "--convention", "fvcore"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[2] == "3,879,247,872"
    assert main(["ledger", "--layers", "2a/baseline"]) == 0  # by the convention of its table
    assert capsys.readouterr().out.splitlines()[-1].split()[2] == "279,401,225,472"
    for arguments, message in (
        (["--layers", "1/kinetics_concat"], "expected a row of tables 1 (COCO) to 5"),
        (["--layers", "4a/gc_1", "--convention", "x"], "convention='x': expected one of 'paper'"),
        (["--layers", "4a/gc_1", "--table", "4a"], "--table: not with --layers"),
        (["--convention", "fvcore"], "--convention: only with --layers"),
    ):
        assert main(["ledger", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_every_comparison_has_lab_rows_and_two_printed_cells():
    for comparison in COMPARISONS:
        assert {comparison.first, comparison.second} <= set(LAB_ROWS)
    assert len(CLAIMS) == len({claim.id for claim in CLAIMS}) == 30


@pytest.mark.parametrize(
    ("low", "high", "same", "verdict"),
    [
        (0.01, 0.2, False, "same direction in small"),
        (-0.01, 0.2, False, "undecided"),
        (-0.3, -0.1, False, "not reproduced"),
        (-0.02, 0.02, True, "equivalent in small"),
        (-0.02, 0.05, True, "undecided"),
        (0.04, 0.2, True, "not reproduced"),
        (-0.2, -0.04, True, "not reproduced"),
        (-MARGIN, MARGIN, True, "equivalent in small"),
    ],
)
def test_verdicts_on_differences(low, high, same, verdict):
    assert judge(low, high, same=same) == verdict


def test_a_comparison_is_paired_over_common_seeds(tmp_path):
    write_runs(tmp_path, "mini/pairing_nl", [0.9, 0.92, 0.94, 0.96, 0.98, 1.0])
    write_runs(tmp_path, "mini/pairing_snl", [0.5, 0.52, 0.54, 0.56, 0.58])
    entry = find_entry("small/snl_pairing", ledger(tmp_path))
    assert entry.seeds == 5
    assert entry.value == -0.4
    assert entry.interval == [-0.4, -0.4]
    assert entry.verdict == "not reproduced"
    assert entry.mark == "recalled"
    write_runs(tmp_path, "mini/pairing_snl", [0.5, 0.52, 0.54, 0.56])
    entry = find_entry("small/snl_pairing", ledger(tmp_path))
    assert entry.verdict == "undecided"  # four seeds are not enough
    assert entry.value is None


def test_the_page_is_current(pytestconfig, capsys):
    assert main(["ledger", "--markdown"]) == 0
    page = (pytestconfig.rootpath / "docs/LEDGER.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out


def texts_of(svg):
    from xml.etree import ElementTree

    return {e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("}text")}


def test_the_figure_is_current(pytestconfig, tmp_path, capsys):
    path = tmp_path / "ledger.svg"
    assert main(["ledger", "--figure", str(path)]) == 0
    shown = texts_of(path.read_text(encoding="utf-8"))
    for entry in ledger():
        if entry.interval:
            assert f"{entry.row} ({entry.table}, {entry.seeds} seeds)" in shown
            assert entry.verdict in shown
    shipped = (pytestconfig.rootpath / "docs/figures/ledger.svg").read_text(encoding="utf-8")
    assert texts_of(shipped) == shown
    assert main(["ledger", "--figure", str(tmp_path / "ledger.gif")]) == 2
    assert "ends in .svg, .png or .pdf" in capsys.readouterr().err
    assert main(["ledger", "--table", "3a", "--figure", str(path)]) == 2
    assert "no entry was measured in small" in capsys.readouterr().err


def test_three_seeds_are_shown_but_decide_nothing(tmp_path):
    distances = {"all/cosine/input": 0.3, "all/cosine/attention": 0.1}
    logs = [
        {"seed": seed, "trained": distances, "untrained": {"all/cosine/attention": 0.02}}
        for seed in (1, 2, 3)
    ]
    write_json(log_path(tmp_path, "cifar10/nl_gaussian"), logs)
    entry = find_entry("small/distance_cifar10_gaussian", ledger(tmp_path))
    assert (entry.value, entry.seeds, entry.verdict) == (0.2, 3, "undecided")
    assert entry.command == "gclib train cifar10 --data DIR --row cifar10/nl_gaussian --seeds 1-3"
    assert entry.method.endswith("between maps 0.1, before training 0.02")


def test_at_a_terminal(capsys):
    assert main(["ledger", "--table", "2a", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {entry["table"] for entry in entries} == {"2a"}
    assert main(["ledger", "--table", "4.3"]) == 0
    assert "parameters that 13 GC blocks add" in capsys.readouterr().out
    assert main(["ledger", "--table", "9z"]) == 2
    assert "--table 9z: expected one of 1, 2a, 2b" in capsys.readouterr().err


def test_table_1_in_small_compares_maps_with_inputs(tmp_path):
    distances = {"all/cosine/input": 0.3, "all/cosine/attention": 0.1}
    distances |= {"objects/cosine/input": 0.2, "objects/cosine/attention": 0.4}
    logs = [{"seed": seed, "accuracy": 1.0, "trained": distances} for seed in range(1, 6)]
    write_json(log_path(tmp_path, "mini/pairing_nl"), logs)
    entries = ledger(tmp_path)
    everywhere = find_entry("small/distance_pairing_all", entries)
    assert (everywhere.value, everywhere.verdict) == (0.2, "same direction in small")
    assert everywhere.printed == 0.382
    objects = find_entry("small/distance_pairing_objects", entries)
    assert (objects.value, objects.verdict) == (-0.2, "not reproduced")
    assert find_entry("small/distance_context_all", entries).verdict == "undecided"


def summaries(folder, row, *top1, **values):
    for seed, value in enumerate(top1):
        path = folder / row.replace("/", "-") / f"seed-{seed}" / "summary.json"
        path.parent.mkdir(parents=True)
        figures = {"top1": value, "top5": 90.0}
        summary = {"row": row, "seed": seed, "figures": figures, "command": "gclib train ..."}
        path.write_text(json.dumps(summary | {"as_in_paper": True} | values), encoding="utf-8")


def test_full_trainings_fill_the_cells_that_need_gpus(tmp_path):
    summaries(tmp_path / "a", "4a/gc_all", 77.5, 77.6)
    summaries(tmp_path / "b", "4a/nl_1", 75.0)
    summaries(tmp_path / "c", "4a/gc_1", 77.3, as_in_paper=False)  # another recipe, or other data
    (tmp_path / "d").mkdir()
    (tmp_path / "d/summary.json").write_text("{", encoding="utf-8")
    trained = read_summaries(tmp_path)
    assert len(trained) == 4
    entries = ledger(trained=trained)
    gc = find_entry("4a/gc_all:top1", entries)
    assert (gc.value, gc.interval, gc.seeds) == (77.55, [77.5, 77.6], 2)
    assert gc.verdict == "computed; printed value unconfirmed"  # 77.70 is recalled
    assert find_entry("4a/gc_all:top5", entries).verdict == "not reproduced"
    nl = find_entry("4a/nl_1:top1", entries)
    assert (nl.value, nl.interval, nl.verdict) == (75.0, None, "not reproduced")
    untouched = find_entry("4a/gc_1:top1", entries)
    assert (untouched.value, untouched.verdict) == (None, "needs GPUs")
    assert untouched.command.startswith("gclib train imagenet --row 4a/gc_1")


def test_detectors_fill_their_cells(tmp_path):
    figures = {"ap_box": 39.61, "ap_box_50": 61.0, "ap_mask": 35.1, "ap_mask_75": 37.6}
    path = tmp_path / "summary.json"
    summary = {"row": "2a/gc_all", "seed": 0, "figures": figures, "command": "gclib train coco"}
    path.write_text(json.dumps(summary | {"as_in_paper": True}), encoding="utf-8")
    entries = ledger(trained=read_summaries(tmp_path))
    found = {e.column: (e.value, e.verdict) for e in entries if e.row == "2a/gc_all"}
    assert found["ap_box"] == (39.6, "reproduced")
    assert found["ap_mask"] == (35.1, "not reproduced")
    assert found["ap50_box"] == (61.0, "not reproduced")  # 61.6
    assert found["ap75_mask"] == (37.6, "computed; printed value unconfirmed")
    assert found["ap75_box"] == (None, "needs GPUs")


def test_a_folder_without_trainings_is_said(tmp_path, capsys):
    assert main(["ledger", "--runs", str(tmp_path)]) == 2
    assert "no summary.json of a finished training" in capsys.readouterr().err
    summaries(tmp_path, "4a/gc_all", 77.6)
    assert main(["ledger", "--runs", str(tmp_path), "--table", "4a", "--json"]) == 0
    found = {e["id"]: e for e in json.loads(capsys.readouterr().out)}
    assert found["4a/gc_all:top1"]["value"] == 77.6
