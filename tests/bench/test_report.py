"""The page of measurements: current, honest about what is slower, and repeatable."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from gclib.bench import blocks, networks, peers, report
from gclib.bench.measure import OtherLoad, graphed, median_interval, time_rounds
from gclib.blocks import GCBlock
from gclib.cli import main

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_says_what_the_files_say():
    page = (DOCS / "PERFORMANCE.md").read_text(encoding="utf-8")
    assert page == report.as_markdown(report.read(DOCS))


def test_the_figure_is_drawn_from_the_files(tmp_path):
    report.figure(report.read(DOCS), tmp_path / "performance.svg")
    drawn = (tmp_path / "performance.svg").read_text(encoding="utf-8")
    shipped = (DOCS / "figures" / "performance.svg").read_text(encoding="utf-8")
    # Versions of matplotlib draw differently; what is said must be the same.
    assert drawn.count("<use") == shipped.count("<use")
    assert "16×1024×14×14 nchw" in shipped


def test_every_run_names_command_versions_and_machine():
    runs = report.read(DOCS)
    assert {name.split("-")[0] for name in runs} >= {"blocks", "networks", "course", "grading"}
    for run in runs.values():
        assert run["command"].startswith("gclib bench")
        assert run["allocator"] in ("tuned", "default")
        assert {"processor", "threads", "torch", "timm", "mmcv"} <= set(run["machine"])
        assert "/" not in run["machine"]["processor"]


def record(implementation, milliseconds, **other):
    return {
        "group": "gc",
        "shape": [2, 64, 14, 14],
        "dtype": "fp32",
        "layout": "nchw",
        "mode": "forward",
        "device": "cpu",
        "implementation": implementation,
        "median": milliseconds / 1000,
        "low": 0.9 * milliseconds / 1000,
        "high": 1.1 * milliseconds / 1000,
        "floor": 0.001,
        "peak": 2**20,
        "input": 2**20,
        **other,
    }


def test_a_cell_that_is_slower_stands_first():
    machine = {"processor": "x"}
    run = {"command": "c", "allocator": "default", "machine": machine, "records": []}
    run["records"] = [record("gclib", 1), record("mmcv", 3), record("timm", 2)]
    page = report.as_markdown({"blocks-cpu-default": run})
    assert "In no cell." in page
    assert "2 (timm) | 2.00" in page
    slow = copy.deepcopy(run)
    slow["records"][0] = record("gclib", 4)
    page = report.as_markdown({"blocks-cpu-default": slow})
    assert "In no cell." not in page
    assert page.index("| 0.50 |") < page.index("## Targets")
    assert "| GC, SNL forward fp32, smallest | 2× | 0.50× | no |" in page


def test_page_where_no_peer_runs():
    """As on a machine without mmcv and timm: no ratio, no target, no error."""
    records = [record("gclib", 1), record("gclib", 2, mode="training")]
    run = {"command": "c", "allocator": "default", "machine": {}, "records": records}
    page = report.as_markdown({"blocks-cpu-default": run})
    assert page.count("none runs") == 2
    assert "| target |" not in page


def test_compiled_peers_do_not_stand_for_eager_ones():
    records = [record("gclib", 2), record("mmcv", 3), record("mmcv compiled", 1)]
    (pair,) = report.pairs(records)
    assert pair["ratio"] == pytest.approx(1.5)
    records += [record("gclib compiled", 0.5), record("timm compiled", 0.8)]
    (pair,) = report.pairs(records, " compiled")
    assert (pair["peer"], pair["ratio"]) == ("timm compiled", pytest.approx(1.6))
    run = {"command": "c", "allocator": "default", "machine": {}, "records": records}
    page = report.as_markdown({"blocks-cpu-default": run})
    assert "| gc | 2×64×14×14 | fp32 nchw | forward | 0.5 | 2 | 0.8 (timm) | 1.60 |" in page


def on_gpu(implementation, milliseconds, **other):
    return record(implementation, milliseconds, device="cuda", dtype="bf16", **other)


def test_a_run_on_a_gpu_has_targets_of_its_own():
    run = {"command": "c", "allocator": "default", "machine": {"gpu": "x"}}
    run["records"] = [on_gpu("gclib", 4), on_gpu("timm", 2), on_gpu("mmcv", 3)]
    page = report.as_markdown({"blocks-cuda-default": run})
    assert "| gc forward, smallest | 1× | 0.50×, slower in 1 of 1 | no |" in page
    assert "Launch-bound: in 1 of 1 cells of GC, SNL and SE" in page
    assert "page faults" not in page
    assert "set with an older torch" not in page
    graphs = [on_gpu("gclib graph", 0.1), on_gpu("timm graph", 0.2), on_gpu("mmcv graph", 0.3)]
    run["records"] += graphs
    page = report.as_markdown({"blocks-cuda-default": run})
    assert "| gc forward, as CUDA graph, smallest | 1× | 2.00× | yes |" in page
    assert "in 1 of 1 cells more than half of our time is Python" in page
    assert "| bf16 nchw | forward | 100 | 4e+03 | 0.1× | 200 (timm) | 2.00 |" in page


def network(name, milliseconds, ratio, device="cuda"):
    return {
        "network": name,
        "mode": "training",
        "device": device,
        "dtype": "bfloat16",
        "layout": "nhwc",
        "examples": 64,
        "size": 224,
        "median": milliseconds / 1000,
        "ratio": ratio,
        "low": ratio - 0.01,
        "high": ratio + 0.01,
        "peak": 2**20,
    }


def test_networks_on_a_gpu_stand_over_the_bare_one_that_ran_alike():
    run = {"command": "c", "allocator": "default", "machine": {"gpu": "x"}}
    run["records"] = [network("no block", 20, 1), network("no block graph", 10, 1)]
    run["records"] += [network("gc · gclib", 30, 1.5), network("gc · timm", 32, 1.6)]
    run["records"] += [network("gc · gclib graph", 10.2, 1.02)]
    run["records"] += [network("gc · timm graph", 10, 1.0)]
    page = report.as_markdown({"networks-cuda-default": run})
    name = "GC-ResNet-50 training, bfloat16, nhwc, 64 examples"
    assert f"| {name} | at most +3 % | +50.0 % | no |" in page
    assert "| – beside the best peer | +60.0 % (timm) | +50.0 % | yes |" in page
    assert f"| {name}, graph | at most +3 % | +2.0 % | yes |" in page
    assert "| – beside the best peer | +0.0 % (timm) | +2.0 % | within the intervals |" in page
    assert "20 ms eagerly and 10 ms as a graph, so the GPU works 50 % of the time and each" in page
    run["records"] = [network("no block", 20, 1, "cpu"), network("gc · gclib", 21, 1.05, "cpu")]
    page = report.as_markdown({"networks-cpu-default": run})
    assert "at most +4 % | +5.0 % | no |" in page
    assert "best peer |" not in page


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_graph_replays_the_same_work():
    cell = {"group": "gc", "shape": (2, 32, 8, 8), "dtype": "bf16", "layout": "nhwc"}
    records = blocks.measure(cell, device="cuda", rounds=3, graph=True)
    names = {r["implementation"] for r in records}
    assert {"gclib", "gclib graph"} <= names
    x = torch.ones(4, device="cuda")
    replay = graphed(lambda: x + 1)
    x.fill_(3)
    assert replay().tolist() == [4, 4, 4, 4]


@pytest.mark.full
def test_networks_under_torch_compile(monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.setattr(networks, "PEERS", {"gc": {}})
    compiled, compiler = [], torch.compile

    def compile(network, fullgraph):
        compiled.append(network)
        return compiler(network, fullgraph=fullgraph, backend="eager")  # to generate code is slow

    monkeypatch.setattr(torch, "compile", compile)
    records = networks.run(examples=2, size=32, rounds=1, groups=("gc",), compiled=True)
    assert len(compiled) == 4  # two networks, two modes
    names = ["no block", "no block compiled", "gc · gclib", "gc · gclib compiled"]
    assert [r["network"] for r in records if r["mode"] == "training"] == names
    assert all(r["ratio"] == 1 for r in records if r["network"].startswith("no block"))


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (9, (1, 7)), (17, (4, 12))]
)
def test_interval_of_the_median_by_the_binomial(count, expected):
    """Places from a table of the sign test at 95 %."""
    assert median_interval([float(i) for i in range(count)][::-1]) == expected


def test_disturbed_rounds_are_made_again():
    loads = iter([0, 0.9, 0, 0.1, 0, 0.9, 0, 0.2, 0, 0.3, 0, 0.1, 0, 0.1])
    calls = []
    seconds = time_rounds({"a": lambda: calls.append(1)}, 3, others=lambda: next(loads))
    assert len(seconds["a"]) == 3
    assert len(calls) == 1 + 5  # one before, rounds 1, 3 and 5 disturbed: the last is not needed


def test_other_load_counts_other_processes_only():
    import subprocess
    import sys
    import time

    if not Path("/proc/stat").exists():
        pytest.skip("no /proc/stat here: other processes cannot be seen")
    load = OtherLoad()
    end = time.perf_counter() + 0.4
    while time.perf_counter() < end:  # own work
        pass
    own = load()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        load()
        time.sleep(0.8)
        other = load()
    finally:
        busy.kill()
        busy.wait()
    assert other > 0.3
    assert own < other


def test_a_peer_that_is_another_function_is_refused(monkeypatch):
    wrong = peers.Peer(lambda channels: nn.Sequential(GCBlock(channels), nn.Identity()), None)
    monkeypatch.setitem(peers.PEERS["gc"], "wrong", wrong)
    with pytest.raises(RuntimeError):  # its weights do not load
        peers.build_all("gc", 32)

    class Shifted(GCBlock):
        def forward(self, x):
            return super().forward(x) + 0.1

    monkeypatch.setitem(peers.PEERS["gc"], "wrong", peers.Peer(Shifted, None))
    with pytest.raises(RuntimeError, match=r"gc: wrong is another function, \d+\.\d% off"):
        peers.build_all("gc", 32)


def test_a_missing_peer_is_named(monkeypatch):
    def build(channels):
        raise ImportError("No module named 'mmcv'")

    monkeypatch.setitem(peers.PEERS["gc"], "mmcv", peers.Peer(build, "mmcv"))
    modules, missing = peers.build_all("gc", 32)
    assert "mmcv" not in modules
    assert "mmcv is not installed" in missing["mmcv"]


@pytest.mark.parametrize("group", peers.PEERS)
def test_one_cell_of_every_block(group):
    cell = {"group": group, "shape": (1, 32, 4, 4), "dtype": "fp32", "layout": "nhwc"}
    records = blocks.measure(cell, rounds=1)
    assert {r["mode"] for r in records} == {"forward", "training"}
    assert all(r["median"] > 0 and r["peak"] > 0 and r["floor"] > 0 for r in records)
    json.dumps(records)


def test_networks_take_turns(monkeypatch):
    pytest.importorskip("torchvision")
    records = networks.run(examples=2, size=64, rounds=1, groups=("gc",))
    assert {r["mode"] for r in records} == {"inference", "training"}
    assert all(r["ratio"] == 1 for r in records if r["network"] == "no block")
    assert any(r["network"] == "gc · gclib" for r in records)
    with_blocks = networks.resnet50(GCBlock)
    added = sum(p.numel() for p in with_blocks.parameters()) - 25_557_032
    assert added == 2_521_741  # the paper's 2.52 M, for r = 16 in c3 to c5


def test_command(capsys):
    assert main(["bench", "blocks", "--quick", "--block", "se", "--rounds", "1", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {r["dtype"] for r in records} == {"fp32", "bf16"}
    assert main(["bench", "blocks", "--block", "?"]) == 0
    assert "nl_concat" in capsys.readouterr().out


def test_command_saves_page_data_and_figure(tmp_path, capsys):
    command = ["bench", "blocks", "--quick", "--block", "gc", "--dtype", "fp32", "--rounds", "1"]
    assert main([*command, "--save", str(tmp_path)]) == 0
    assert "PERFORMANCE.md" in capsys.readouterr().out
    (run,) = report.read(tmp_path).values()
    assert run["command"].startswith("gclib bench blocks --quick --block gc")
    assert (tmp_path / "PERFORMANCE.md").read_text(encoding="utf-8") == report.as_markdown(
        report.read(tmp_path)
    )
    assert (tmp_path / "figures" / "performance.svg").stat().st_size > 1000


def test_command_measures_a_shape_of_ones_own(capsys):
    shape = ["--shape", "1x32x3x5"]
    assert main(["bench", "blocks", "--block", "se", "--rounds", "1", "--json", *shape]) == 0
    assert {tuple(r["shape"]) for r in json.loads(capsys.readouterr().out)} == {(1, 32, 3, 5)}
    for wrong in ("1x32x3", "1x32x3x0", "axbxcxd", "1x20x3x3"):
        with pytest.raises(SystemExit):
            main(["bench", "blocks", "--shape", wrong])
        assert f"{wrong!r}: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["blocks", "--block", "gcc"], "--block gcc: expected some of gc, snl"),
        (["blocks", "--graph"], "--graph: only with --device cuda"),
        (["blocks", "--rounds", "0"], "--rounds 0: expected at least 1"),
        *(
            []
            if torch.cuda.is_available()
            else [(["networks", "--device", "cuda"], "--device cuda: torch finds no GPU here")]
        ),
    ],
)
def test_command_refuses(options, said, capsys):
    assert main(["bench", *options]) != 0
    assert said in capsys.readouterr().err


def test_command_where_the_page_cannot_be_written(tmp_path, capsys):
    (tmp_path / "docs").write_text("a file")
    command = ["bench", "blocks", "--quick", "--block", "se", "--dtype", "fp32", "--rounds", "1"]
    assert main([*command, "--save", str(tmp_path / "docs")]) != 0
    assert "docs" in capsys.readouterr().err
