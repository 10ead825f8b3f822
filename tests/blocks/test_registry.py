"""The registry holds every row id of the design, with the right block in the right place."""

import copy
import dataclasses
import doctest
import pickle
import pkgutil
from importlib import import_module

import pytest
import torch
from cases import feature_map

import gclib.blocks
from gclib.blocks import (
    ROWS,
    AddFusion,
    AveragePooling,
    ContextBlock,
    GCBlock,
    NonLocalBlock,
    ScaleFusion,
    SEBlock,
    SimplifiedNonLocalBlock,
    build_block,
    reset_identity,
)
from gclib.blocks.registry import POSITIONS, STAGES

EXPECTED = {
    "1": "coco_{i} kinetics_{i}",
    "2a": "baseline nl_1 snl_1 gc_1 gc_all",
    "2b": "after_add after_1x1",
    "2c": "c3 c4 c5 all",
    "2d": "no_ratio r16 r16_relu r16_ln_relu",
    "2e": "r4 r8 r16 r32",
    "2f": "avg_scale avg_add att_scale att_add",
    "3a": "{b}_baseline {b}_gc_r16 {b}_gc_r4",
    "4a": "baseline nl_1 snl_1 gc_1 gc_all",
    "4b": "baseline avg_scale avg_add att_scale att_add",
    "5": "baseline nl_5 snl_5 gc_5 gc_all",
}
BACKBONES = ("r50", "r101", "x101", "x101_cascade", "x101_dcn_cascade")
INSTANTIATIONS = ("gaussian", "embedded_gaussian", "dot_product", "concat")


def expected_ids():
    for table, names in EXPECTED.items():
        for name in names.split():
            for i in INSTANTIATIONS if "{i}" in name else [""]:
                for b in BACKBONES if "{b}" in name else [""]:
                    yield f"{table}/{name.format(i=i, b=b)}"


def test_the_ids_are_those_of_the_tables():
    assert sorted(ROWS) == sorted(expected_ids())


@pytest.mark.parametrize("row_id", ROWS)
def test_row_builds_a_block_that_starts_fairly(row_id):
    row = ROWS[row_id]
    assert row.table == row_id.split("/")[0]
    ndim = 3 if row.table == "5" or "kinetics" in row_id else 2
    block = build_block(row_id, 64, ndim=ndim)
    if "baseline" in row_id:
        assert block is None
        assert not row.stages
        return
    assert set(row.stages) <= set(STAGES)
    assert row.position in POSITIONS
    x = feature_map(64, ndim=ndim, dtype=torch.float32)
    scales = isinstance(getattr(block, "fusion", None), ScaleFusion)
    assert torch.equal(block(x), x / 2 if scales else x)


def parameters(row_id, channels=1024, ndim=2):
    return sum(p.numel() for p in build_block(row_id, channels, ndim=ndim).parameters())


@pytest.mark.parametrize(
    ("row_id", "expected"),
    [
        # facts that the paper's counts pin down, in parameters added at C = 1024
        ("2a/nl_1", 2_099_712),  # 4·C·C/2 and biases: 25.56 M -> 27.66 M
        ("2a/snl_1", 1_050_625),  # 25.56 M -> 26.61 M
        ("2a/gc_1", 133_313),  # 25.56 M -> 25.69 M
        ("2d/no_ratio", 1_050_625),
        ("2d/r16", 133_313 - 128),
        ("2d/r16_relu", 133_313 - 128),
        ("2d/r16_ln_relu", 133_313),
        ("2e/r4", 527_105),
        ("2f/avg_scale", 133_313 - 1025),
        ("2f/avg_add", 133_313 - 1025),
        ("2f/att_scale", 133_313),
    ],
)
def test_parameters_of_a_row(row_id, expected):
    assert parameters(row_id) == expected


def test_table_5_counts():
    """Five blocks: two in c3 (512 channels), three in c4 (1024). Printed: +7.36, +3.68, +1.85 M."""
    for row_id, expected in (("5/nl_5", 7.359), ("5/snl_5", 3.678), ("5/gc_5", 1.846)):
        count = sum(n * parameters(row_id, c, 3) for n, c in ((2, 512), (3, 1024)))
        assert count / 1e6 == pytest.approx(expected, abs=0.001)
        index = ROWS[row_id].index
        assert {stage: len(index[stage]) for stage in index} == {"c3": 2, "c4": 3}


def test_kinds():
    assert isinstance(build_block("1/coco_concat", 8), NonLocalBlock)
    assert build_block("1/coco_concat", 8).instantiation == "concat"
    assert isinstance(build_block("5/snl_5", 8, ndim=3), SimplifiedNonLocalBlock)
    assert type(build_block("3a/x101_dcn_cascade_gc_r4", 8)) is GCBlock
    assert not isinstance(build_block("2f/avg_scale", 64), SEBlock)  # as released: with LayerNorm
    assert ROWS["2a/gc_1"].index == -2
    assert ROWS["2a/gc_1"].stages == ("c4",)
    assert ROWS["2a/gc_all"].index is None


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(gclib.blocks.__path__)])
def test_examples_in_docstrings(name):
    assert doctest.testmod(import_module(f"gclib.blocks.{name}")).failed == 0


@pytest.mark.parametrize("name", INSTANTIATIONS)
def test_options_of_the_video_rows(name):
    block = build_block(f"1/kinetics_{name}", 64, ndim=3)
    # 1/sqrt(d) belongs to the softmax branch; the others divide by the positions alone
    scale = {"embedded_gaussian": 32**-0.5, "gaussian": 64**-0.5}.get(name, 1.0)
    assert block.scale == pytest.approx(scale)
    assert block.subsample == "before"
    assert isinstance(block.norm, torch.nn.BatchNorm3d)
    assert build_block(f"1/coco_{name}", 64).scale == 1.0


def test_rows_are_values():
    for row in ROWS.values():
        assert pickle.loads(pickle.dumps(row)) == copy.deepcopy(row) == row
        assert dataclasses.asdict(row)["id"] == row.id
    assert len(set(ROWS.values())) == len(ROWS)


def test_an_unknown_row_names_those_of_its_table():
    with pytest.raises(
        ValueError, match=r"^row_id='2d/r8': expected one of '2d/no_ratio'.*'2d/r16"
    ):
        build_block("2d/r8", 64)


def test_dtype_and_device():
    for row_id in ("2a/nl_1", "2d/no_ratio", "2f/avg_scale", "2f/att_scale"):
        block = build_block(row_id, 64, dtype=torch.float64, device="meta")
        assert {(p.dtype, p.device.type) for p in block.parameters()} == {(torch.float64, "meta")}


def test_reset_touches_all_blocks_or_none():
    known = [GCBlock(32), GCBlock(32)]
    for block in known:
        torch.nn.init.ones_(block.transform.expand.weight)
    own = ContextBlock(AveragePooling(), torch.nn.Linear(32, 32), AddFusion())
    with pytest.raises(TypeError, match=r"transform Linear has no method reset_identity\(\)"):
        reset_identity(torch.nn.Sequential(known[0], own, known[1]))
    assert all(bool((block.transform.expand.weight == 1).all()) for block in known)
    assert reset_identity(torch.nn.Sequential(*known)) == 2
    assert not any(block.transform.expand.weight.any() for block in known)
