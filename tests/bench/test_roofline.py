"""The roofline: its arithmetic, what it says of layers, and that a bound can fail."""

import json
from itertools import count

import pytest
import torch
from torch import nn

from gclib.analysis.networks import LayerCount, layer_counts
from gclib.bench import report, roofline
from gclib.bench.roofline import (
    MIB,
    Roofline,
    by_kind,
    explain,
    kind_seconds,
    layer_bounds,
    layer_seconds,
)

ROOF = Roofline(multiply_adds_per_second=100.0, bytes_per_second=10.0, cached_bytes_per_second=40.0)


@pytest.mark.parametrize(
    ("work", "cached", "seconds", "limit"),
    [
        ((200, 5), False, 2.0, "compute"),
        ((200, 40), False, 4.0, "memory"),
        ((200, 40), True, 2.0, "compute"),
        ((0, 40), True, 1.0, "memory"),
        ((100, 10), False, 1.0, "compute"),  # on the ridge
    ],
)
def test_the_longer_of_arithmetic_and_traffic_is_the_bound(work, cached, seconds, limit):
    assert ROOF.lower_bound(*work, cached=cached) == seconds
    assert ROOF.limit(*work, cached=cached) == limit


def test_the_ridge_is_where_both_take_equally_long():
    for cached in (False, True):
        products = ROOF.ridge(cached=cached) * 8
        bandwidth = 40.0 if cached else 10.0
        assert products / 100.0 == 8 / bandwidth


def test_a_machine_is_measured_in_silence(monkeypatch, capfd):
    monkeypatch.setattr(roofline, "_far", lambda: 16 * MIB)  # tests have less memory
    threads = torch.get_num_threads()
    found = roofline.measure(seconds=0.01)
    assert found.multiply_adds_per_second > 1e6
    assert found.cached_bytes_per_second >= found.bytes_per_second > 1e6
    assert (found.device, found.dtype, found.threads) == ("cpu", "float32", threads)
    assert roofline.measure(dtype=torch.bfloat16, seconds=0.01).dtype == "bfloat16"
    assert capfd.readouterr() == ("", "")


def test_tensors_for_the_memory_are_larger_than_caches_and_leave_room():
    assert 16 * MIB <= roofline._far() <= 512 * MIB


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_measurement_needs_time(seconds):
    with pytest.raises(ValueError, match="expected more than 0"):
        roofline.measure(seconds=seconds)


def test_bounds_of_layers_by_hand():
    network = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.ReLU())
    layers = layer_counts(network, torch.empty(1, 8, 5, 5, device="cpu"))
    convolution, relu = layer_bounds(network, layers, ROOF)
    assert (convolution.kind, convolution.multiply_adds) == ("1×1 convolution", 25 * 32)
    assert convolution.bytes == 4 * (200 + 32 + 100)
    assert (relu.kind, relu.multiply_adds, relu.bytes) == ("ReLU", 0, 4 * 200)
    assert (convolution.limit, convolution.seconds) == ("memory", 132.8)
    assert relu.seconds == 80.0
    assert convolution.share + relu.share == pytest.approx(1)
    (near, _) = layer_bounds(network, layers, ROOF, cached=True)
    assert near.seconds == pytest.approx(33.2)


def test_layers_of_a_network_with_blocks_have_kinds():
    pytest.importorskip("torchvision")
    from gclib.bench.networks import build_row

    with torch.device("meta"):
        network = build_row("4a/gc_1")
        layers = layer_counts(network, torch.empty(1, 3, 64, 64))
    kinds = {kind["kind"]: kind for kind in by_kind(layer_bounds(network, layers, ROOF))}
    assert kinds["3×3 convolution"]["layers"] == 16
    assert kinds["addition"]["layers"] == 16
    assert kinds["BatchNorm2d"]["layers"] == 53
    block = sum(layer.bytes for layer in layers if ".block" in layer.name)
    assert kinds["block"]["bytes"] == block > 0
    assert sum(kind["share"] for kind in kinds.values()) == pytest.approx(1)
    assert sum(kind["bytes"] for kind in kinds.values()) == sum(layer.bytes for layer in layers)


def test_seconds_of_a_module_are_without_those_inside(monkeypatch):
    ticks = count()
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(ticks))
    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity()))
    own = layer_seconds(network, torch.zeros(1), rounds=2)
    # A tick at each start and each end: two children and a grandchild.
    assert own == {"0": 1, "1.0": 1, "1": 2, "": 3}
    assert not network._forward_hooks
    assert not network[0]._forward_pre_hooks


def test_measured_seconds_are_summed_by_kind():
    bounds = layer_bounds(
        nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Identity()),
        [LayerCount(str(i), "ReLU", 0, {}, 10 * (i + 1)) for i in range(2)],
        ROOF,
    )
    network = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Identity())
    seconds = kind_seconds(network, {"0": 0.5, "1": 0.25, "2": 9.0})
    assert seconds == {"Sequential": 0, "ReLU": 0.75, "Identity": 9.0}
    (kind,) = by_kind(bounds, seconds)
    assert (kind["layers"], kind["bytes"], kind["bound"], kind["measured"]) == (2, 30, 3.0, 0.75)
    assert by_kind(bounds)[0]["measured"] is None


def test_training_takes_three_products_and_counts_what_moves():
    linear = nn.Linear(6, 4, bias=False)
    x = torch.randn(5, 6, requires_grad=True)
    work = roofline.step_work(lambda: linear(x).backward(torch.ones(5, 4)))
    products = [products for products, _ in work if products]
    assert products == 3 * [5 * 6 * 4]
    moved = 4 * (5 * 6 + 4 * 6 + 5 * 4)  # each product reads two of these and writes the third
    assert [bytes for products, bytes in work if products] == 3 * [moved]


def test_fused_attention_of_processors_is_counted():
    query, key, value = (torch.randn(1, 1, n, 8) for n in (5, 7, 7))
    attention = torch.nn.functional.scaled_dot_product_attention
    ((products, moved),) = roofline.step_work(lambda: attention(query, key, value))
    assert products == 2 * 5 * 7 * 8
    assert moved >= 4 * (2 * 5 * 8 + 2 * 7 * 8)


def test_both_counters_agree_on_a_forward_pass():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(True), nn.Flatten())
    network, x = network.eval(), torch.randn(2, 3, 12, 12)
    layers = layer_counts(network, x)
    with torch.no_grad():
        work = roofline.step_work(lambda: network(x))
    assert sum(products for products, _ in work) == 2 * 100 * 27 * 8
    assert sum(bytes for _, bytes in work) == pytest.approx(sum(c.bytes for c in layers), rel=0.01)


def test_a_block_is_clocked_as_one_and_keeps_its_faster_form(monkeypatch):
    pytest.importorskip("torchvision")
    from torchvision.models import resnet50

    from gclib.blocks import GCBlock, fast
    from gclib.models import insert_blocks

    network = resnet50().eval()
    insert_blocks(network, GCBlock, stages="c5", index=-1)
    used, faster = [], fast.attention_pooling
    monkeypatch.setattr(fast, "attention_pooling", lambda *args: used.append(1) or faster(*args))
    own = layer_seconds(network, torch.randn(1, 3, 32, 32), rounds=1)
    assert len(used) == 2
    assert [name for name in own if "block" in name] == ["layer4.2.block"]


def test_memory_filled_with_one_number_is_written_alone():
    x = torch.randn(5, 7)
    assert roofline.step_work(lambda: x.new_full((2,), 1.0)) == [(0, 8)]
    assert roofline.step_work(lambda: torch.zeros_like(x)) == [(0, 4 * 35)]


def row(name, *, products, moved, compute, memory, cached, inside=0.0):
    return {
        "network": name,
        "mode": "inference",
        "parameters": 1,
        "multiply_adds": products,
        "bytes": moved,
        "compute": compute,
        "memory": memory,
        "cached": cached,
        "inside": inside,
    }


BARE = row("4a/baseline", products=1000, moved=100, compute=10.0, memory=20.0, cached=12.0)
GC = row("4a/gc_all", products=1002, moved=115, compute=10.02, memory=22.0, cached=12.5, inside=4.0)


def test_what_bytes_explain_of_the_time_in_blocks():
    seconds = {"4a/baseline": [40.0, 50.0, 40.0], "4a/gc_all": [44.0, 54.0, 44.0]}
    found = explain(BARE, GC, seconds)
    assert found["more_multiply_adds"] == pytest.approx(0.002)
    assert found["more_bytes"] == pytest.approx(0.15)
    assert (found["more_time"], found["median"]) == (pytest.approx(0.1), 44.0)
    assert (found["low"], found["high"]) == (pytest.approx(0.08), pytest.approx(0.1))
    assert found["explained"] == {
        "compute": pytest.approx(0.005),
        "memory": pytest.approx(0.5),
        "cached": pytest.approx(0.125),
    }
    assert found["beaten"] == []


def test_a_network_that_is_faster_than_a_bound_shows_it_wrong():
    seconds = {"4a/baseline": [15.0], "4a/gc_all": [16.0]}
    assert explain(BARE, GC, seconds)["beaten"] == ["memory"]
    assert explain(BARE, BARE, seconds)["explained"] == {}  # no block, nothing to explain


def kind(name, bound, measured):
    return {
        "part": "kind",
        "network": "4a/gc_all",
        "kind": name,
        "layers": 1,
        "multiply_adds": 10,
        "bytes": 10,
        "compute_bound": 0,
        "bound": bound,
        "share": 0.25,
        "measured": measured,
    }


def test_the_page_says_what_fits_and_what_does_not():
    seconds = {"4a/baseline": [15.0], "4a/gc_all": [16.0]}
    about = {"part": "network", "examples": 4, "size": 224, "layout": "nchw"}
    records = [
        {"part": "machine", **vars(ROOF)},
        {**explain(BARE, BARE, seconds), **about},
        {**explain(BARE, GC, seconds), **about},
        kind("3×3 convolution", 8.0, 9.0),
        kind("ReLU", 2.0, 1.0),
        kind("MaxPool2d", 0.1, 5.0),
        kind("Linear", 0.01, 0.02),
    ]
    run = {"command": "c", "allocator": "default", "machine": {}, "records": records}
    page = report.as_markdown({"roofline-cpu": run})
    assert "than 10 multiply-adds for a byte is limited by memory" in page
    assert "| arithmetic 0.5 %, bound 50 %, cached 12 % |" in page
    # Of the 15 s of the bare network its blocks took 4, arithmetic 0.02 and with bytes 2 of them.
    assert "+26.7 % time in its blocks" in page
    assert "would be +0.13 %, with the bytes +13.3 %. 50 % of the time" in page
    assert "Within twice the bound: 3×3 convolution. Slower than twice the bound" in page
    assert "MaxPool2d. Faster than the bound, so a cache held the map: ReLU." in page
    assert (
        "Faster than the whole bound: `4a/baseline` in inference, `4a/gc_all` in inference." in page
    )
    lines = report.as_lines("roofline", records)
    assert len(lines) == len(records)
    assert "arithmetic 0.5 %, bound 50 %" in lines[2]


@pytest.mark.full
def test_a_run_from_the_machine_to_the_page(tmp_path, monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.setattr(roofline, "_far", lambda: 16 * MIB)
    records = roofline.run(rows=("4a/gc_1",), examples=2, size=32, rounds=1, seconds=0.05)
    json.dumps(records)
    assert [r["part"] for r in records[:6]] == ["machine", *4 * ["network"], "kind"]
    assert [r["mode"] for r in records[1:5]] == [*2 * ["inference"], *2 * ["training"]]
    _, bare, with_block, bare_step, step = records[:5]
    assert 2.9 < bare_step["multiply_adds"] / bare["multiply_adds"] <= 3  # two for one backward
    assert step["more_bytes"] > step["more_multiply_adds"] > 0
    assert step["inside"] is None
    assert (bare["inside"], bare["explained"]) == (0, {})
    assert with_block["inside"] > 0
    assert set(with_block["explained"]) == {"compute", "memory", "cached"}
    assert with_block["more_bytes"] > with_block["more_multiply_adds"] > 0
    blocks = [r for r in records if r["part"] == "kind" and r["kind"] == "block"]
    assert [r["network"] for r in blocks] == ["4a/gc_1"]
    report.save(tmp_path, "roofline-cpu", "gclib bench roofline", "cpu", records)
    assert "## Roofline" in (tmp_path / "PERFORMANCE.md").read_text(encoding="utf-8")
