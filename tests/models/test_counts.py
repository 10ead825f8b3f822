"""Tables 2 to 5 counted: the printed digits, the shipped counts, what else was found."""

import json

import pytest
import torch

from gclib.analysis.networks import CONVENTIONS, layer_counts, multiply_adds
from gclib.models import build_resnet, insert_row
from gclib.models.counts import COUNTED_BY, COUNTED_ROWS, count_row, recount, row_layers
from gclib.models.detector_counts import DETECTOR_ROWS, count_detector, detector_layers
from gclib.paper.ledger import read_counts
from gclib.paper.tables import CELLS, printed

SHIPPED = read_counts()


@pytest.mark.parametrize("row", COUNTED_ROWS)
def test_shipped_counts_are_those_of_the_networks(row):
    found = {"parameters": count_row(row).parameters}
    found |= {name: count_row(row, name).multiply_adds for name in COUNTED_BY}
    assert found == SHIPPED["rows"][row]


def test_every_row_is_there():
    rows = {cell.row for cell in CELLS if not cell.row.startswith("1/kinetics_")}
    assert set(SHIPPED["rows"]) == rows


def test_the_shipped_file_is_current():
    assert json.loads(json.dumps(recount("4a"))) == SHIPPED


@pytest.mark.full
def test_the_shipped_file_is_current_with_its_detectors():
    assert json.loads(json.dumps(recount())) == SHIPPED


@pytest.mark.parametrize("row", ["2a/gc_1", "3a/x101_dcn_cascade_baseline"])
def test_detectors_as_built(row):
    """Each row by itself; the file has it from a baseline's strides."""
    shipped = SHIPPED["rows"][row]
    assert count_detector(row) == (shipped["parameters"], shipped["detection"])
    assert count_detector(row, "paper", "3x3") == (shipped["parameters"], shipped["as_built"])
    assert count_row(row) == count_detector(row)


def test_a_detector_by_hand():
    """The parts behind the backbone of table 2's baseline, by arithmetic."""
    layers = detector_layers("2a/baseline")
    levels = [200 * 336, 100 * 168, 50 * 84, 25 * 42, 13 * 21]
    expected = {
        "backbone.fpn": sum(
            n * 256 * (channels + 9 * 256)
            for n, channels in zip(levels, (256, 512, 1024, 2048), strict=False)
        ),
        "rpn": sum(levels) * 256 * (9 * 256 + 3 + 12),
        "roi_heads.box": 1000 * (12544 * 1024 + 1024 * 1024 + 1024 * 81 * 5),
        "roi_heads.mask": 100 * (4 * 196 * 9 * 256 * 256 + 784 * 256 * (4 * 256 + 81)),
    }
    for name, number in expected.items():
        inside = [layer for layer in layers if layer.name.startswith(name)]
        assert multiply_adds(inside, "detection") == number
    body = [layer for layer in layers if layer.name.startswith("backbone.body")]
    total = sum(expected.values()) + multiply_adds(body)
    assert total == multiply_adds(layers, "detection") == 279_401_225_472
    deconvolution = 100 * 196 * 256 * 256 * 4
    assert total - multiply_adds(layers, "paper") == 3 * deconvolution


PARAMETERS = {
    "4a/baseline": 25_557_032,  # torchvision's own
    "4a/nl_1": 25_557_032 + 2_099_712,  # 4 maps between 1024 and 512 channels, with biases
    "4a/snl_1": 25_557_032 + 1_050_625,
    "4a/gc_1": 25_557_032 + 133_313,
    "4a/gc_all": 25_557_032 + 4 * 33_889 + 6 * 133_313 + 3 * 528_769,
    "5/baseline": 32_454_096,
    "5/gc_all": 32_454_096 + 4 * 132_481 + 6 * 527_105 + 3 * 2_102_785,
    # Backbone, pyramid, proposals, box head (fc, classes and boxes), mask head.
    "2a/baseline": 25_557_032
    - 2_049_000
    + 256 * (256 + 512 + 1024 + 2048 + 4 * 9 * 256 + 8)
    + (9 * 256 * 256 + 256 + 15 * 257)
    + (12_545 * 1024 + 1025 * 1024 + 1025 * 81 * 5)
    + (4 * (9 * 256 * 256 + 256) + 4 * 256 * 256 + 256 + 81 * 257),
    "2a/gc_all": 44_400_693 + 4 * 33_889 + 6 * 133_313 + 3 * 528_769,
}


def test_parameters_by_hand():
    for row, expected in PARAMETERS.items():
        assert SHIPPED["rows"][row]["parameters"] == expected


DIFFERENT = {  # cells that the shipped counts do not give
    *("4a/nl_1:gflops", "4b/avg_scale:params_m", "4b/avg_add:params_m"),
    *(f"5/{row}:gflops" for row in ("baseline", "nl_5", "snl_5", "gc_5", "gc_all")),
    "5/gc_all:params_m",
    *("2a/nl_1:gflops", "2a/snl_1:params_m", "2c/c5:params_m", "2e/r32:gflops"),
    *(
        f"3a/{backbone}_{row}:gflops"
        for backbone in ("r101", "x101", "x101_cascade", "x101_dcn_cascade")
        for row in ("baseline", "gc_r16", "gc_r4")
    ),
}


def test_one_convention_gives_the_printed_digits():
    found = set()
    for row, counts in SHIPPED["rows"].items():
        for column, value in (
            ("params_m", counts["parameters"] / 1e6),
            ("gflops", counts["detection" if row in DETECTOR_ROWS else "paper"] / 1e9),
        ):
            if row[0] == "1" or (row[0] == "3" and column == "params_m"):
                continue  # not printed
            cell = printed(row, column)
            if round(value, cell.digits) != cell.printed:
                found.add(cell.id)
    assert found == DIFFERENT
    assert set(SHIPPED["notes"]) == DIFFERENT | {"intro/flops", "4.3/params_share"}


def test_no_other_convention_gives_table_4():
    """A slip in the choice would be seen: each operation that counts is needed, no other may."""
    weights = CONVENTIONS["paper"].weights
    wanted = [row for row in COUNTED_ROWS if row.startswith("4") and row != "4a/nl_1"]

    def differ(weights):
        convention = type(CONVENTIONS["paper"])("", weights)
        totals = {row: sum(map(convention.count, row_layers(row))) for row in wanted}
        return [r for r, n in totals.items() if round(n / 1e9, 2) != printed(r, "gflops").printed]

    assert not differ(weights)
    for free in ("norm", "activation"):
        assert "4a/baseline" in differ(weights | {free: 1})
    assert differ(weights | {"addition": 1})[:2] == ["4a/snl_1", "4a/gc_all"]
    for counted in ("broadcast", "average pooling"):
        assert differ(weights | {counted: 0}) == ["4b/avg_scale", "4b/avg_add"]


def test_by_hand_for_one_stage():
    """c5 of table 4(a): three residual blocks at 7×7, by arithmetic."""
    first = 49 * (1024 * 512 + 9 * 512 * 512 + 512 * 2048 + 1024 * 2048)
    other = 49 * (2048 * 512 + 9 * 512 * 512 + 512 * 2048)
    block = 2 * 2048 * 128 + 3 * 49 * 2048  # two maps; key, weighted sum and addition
    for row, expected in (("4a/baseline", first + 2 * other), ("4a/gc_all", 3 * block)):
        layers = [layer for layer in row_layers(row) if layer.name.startswith("layer4.")]
        inside = [layer for layer in layers if ".block" in layer.name]
        chosen = inside if row == "4a/gc_all" else layers
        assert multiply_adds(chosen) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_real_numbers(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")
    model = build_resnet("resnet18")
    insert_row(model, "4a/gc_all")
    found = layer_counts(model.to(device), torch.randn(1, 3, 64, 64, device=device))
    with torch.device("meta"):
        model = build_resnet("resnet18")
        insert_row(model, "4a/gc_all")
        assert layer_counts(model, torch.empty(1, 3, 64, 64)) == found


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match=r"1/kinetics_concat: expected a row of tables 1 \(COCO\)"):
        count_row("1/kinetics_concat")
    with pytest.raises(ValueError, match="row_id='4a/gc'"):
        count_row("4a/gc")
    with pytest.raises(ValueError, match="convention='paper2': expected one of 'paper'"):
        count_row("4a/baseline", "paper2")
