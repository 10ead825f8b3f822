"""Networks of table 4: the right ones, beside peers that stand where ours do."""

import json

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision")

from gclib.analysis.networks import layer_counts, multiply_adds
from gclib.bench import networks, peers, report
from gclib.blocks import GCBlock
from gclib.cli import main
from gclib.models import inserted_blocks

PARAMETERS = {  # the paper prints 25.56, 27.66, 26.61, 25.69 and 28.08 M
    "4a/baseline": 25_557_032,
    "4a/nl_1": 27_656_744,
    "4a/snl_1": 26_607_657,
    "4a/gc_1": 25_690_345,
    "4a/gc_all": 28_078_773,
    "4b/avg_scale": 28_064_424,
    "4b/avg_add": 28_064_424,
    "4b/att_scale": 28_078_773,
    "4b/att_add": 28_078_773,
}


def test_the_rows_are_those_of_table_4():
    assert tuple(PARAMETERS) == networks.TABLE_4


@pytest.mark.parametrize("row", networks.TABLE_4)
def test_rows_have_the_parameters_of_the_paper_and_its_strides(row):
    with torch.device("meta"):
        network = networks.build_row(row)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[row]
    assert network.layer2[0].conv1.stride == (2, 2)
    blocks = inserted_blocks(network)
    assert len(blocks) == (0 if row == "4a/baseline" else 1 if row.endswith("_1") else 13)
    if row.endswith("_1"):
        (name,) = blocks
        assert (name, network.layer3[-2].position) == ("layer3.4", "after_add")


def test_the_bare_network_and_gc_have_the_printed_multiply_adds():
    for row, printed in (("4a/baseline", "3.86"), ("4a/gc_all", "3.87")):
        with torch.device("meta"):
            layers = layer_counts(networks.build_row(row), torch.empty(1, 3, 224, 224))
        assert f"{multiply_adds(layers) / 1e9:.2f}" == printed


@pytest.mark.full
@pytest.mark.parametrize("row", networks.TABLE_4)
def test_peers_are_the_same_function_and_stand_where_ours_do(row):
    found = networks.contest(row)  # raises if one is another function
    if row != "4a/baseline" and not row.startswith("4a/snl"):
        for library in ("mmcv", "timm") if "nl" not in row else ("mmcv",):
            pytest.importorskip(library)
            assert library in found.builds
    places = set()
    for build in found.builds.values():
        with torch.device("meta"):
            network = networks.resnet50(build, stride_in=found.stride_in, **found.place)
        assert sum(p.numel() for p in network.parameters()) == PARAMETERS[row]
        places.add(tuple((n, network.get_submodule(n).position) for n in inserted_blocks(network)))
    assert len(places) == 1


def test_a_peer_of_a_row_that_is_another_function_is_refused(monkeypatch):
    class Halved(GCBlock):
        def forward(self, x):
            return x + (super().forward(x) - x) / 2

    monkeypatch.setitem(peers.PEERS["gc"], "wrong", peers.Peer(Halved, None))
    with pytest.raises(RuntimeError, match=r"4a/gc_1: wrong is another function, 50.0% off"):
        networks.contest("4a/gc_1")


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch, capsys):
    def build(channels):
        raise ImportError("No module named 'timm'")

    monkeypatch.setitem(peers.PEERS["gc"], "timm", peers.Peer(build, "timm"))
    assert "timm" not in networks.contest("4a/gc_all").builds
    assert "4a/gc_all · timm is left out: No module named 'timm'" in capsys.readouterr().err


def test_blocks_of_a_measured_network_have_no_zero_weights():
    network = networks.build_row("4a/gc_all")
    for block in inserted_blocks(network).values():
        assert all(p.abs().max() > 0 for p in block.parameters())


def test_settled_norms_keep_the_size_of_maps():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    x = 50 * torch.randn(4, 3, 9, 9)
    out = networks.settle(network, x).eval()(x)
    assert out.std().item() == pytest.approx(1, abs=0.01)
    assert network[1].momentum == 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["networks", "--row", "2a/gc_all"], "2a/gc_all: expected a row of table 4, one of 4a/"),
        (["networks", "--row", "4a/gc_al"], "4a/gc_all"),
        (["blocks", "--row", "4a/gc_1"], "--row and --table belong to networks and roofline"),
        (["networks", "--row", "4a/gc_1", "--block", "gc"], "--block: rows say which block"),
        (["networks", "--block", "nl_concat"], "--block: networks have gc, se, snl"),
        (["roofline", "--block", "gc"], "--block: rows say which block"),
        (["roofline", "--row", "5/gc_5"], "5/gc_5: expected a row of table 4"),
        (["roofline", "--compiled"], "roofline runs layer by layer"),
        (["networks", "--threads", "0"], "--threads 0: expected at least 1"),
    ],
)
def test_command_refuses(options, said, capsys):
    assert main(["bench", *options]) != 0
    assert said in capsys.readouterr().err


def test_rows_and_other_blocks_do_not_share_a_bare_network():
    with pytest.raises(ValueError, match="measure them in two runs"):
        networks.run(groups=("gc", "4a/gc_1"))


@pytest.mark.full
def test_rows_take_turns_and_say_what_they_cost(tmp_path, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "gc", {"ours again": peers.Peer(GCBlock, None)})
    records = networks.run(
        examples=2, size=32, rounds=1, groups=("4a/baseline", "4a/gc_1"), device="cpu"
    )
    json.dumps(records)
    names = ["no block", "4a/baseline · gclib", "4a/gc_1 · gclib", "4a/gc_1 · ours again"]
    assert [r["network"] for r in records if r["mode"] == "inference"] == names
    assert [r["network"] for r in records if r["mode"] == "training"] == names
    bare, baseline, ours, again = records[:4]
    for key in ("parameters", "multiply_adds", "bytes"):
        assert bare[key] == baseline[key] < ours[key] == again[key]
    assert {r["stride_in"] for r in records} == {"1x1"}
    report.save(tmp_path, "networks-rows", "gclib bench networks", "cpu", records)
    page = (tmp_path / "PERFORMANCE.md").read_text(encoding="utf-8")
    assert "| 4a/gc_1 · gclib | 25.69 |" in page
    assert "the same network, and so are" in page
    assert len(report.as_lines("networks", records)) == len(records)
