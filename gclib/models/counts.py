r"""Parameters and multiply-adds of the networks of tables 4 and 5, on the meta device.

Those of the detectors are counted in :mod:`gclib.models.detector_counts`, and written here.

>>> count_row("4a/gc_all")
Counted(parameters=28078773, multiply_adds=3869896704)

The ledger reads what this module wrote into ``gclib/paper/counts.json``:

.. code-block:: bash

    python -m gclib.models.counts       # for authors: count again, write the file
    gclib ledger --table 4a --recount   # for everyone: count again, write nothing
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gclib.analysis.networks import (
    CONVENTIONS,
    LayerCount,
    layer_counts,
    multiply_adds,
    operations,
)
from gclib.blocks import ROWS, NonLocalBlock, SEBlock, find_row
from gclib.models.detector_counts import (
    CONVENTION,
    DETECTOR_ROWS,
    Counted,
    detector_layers,
    detector_notes,
    recount_detectors,
)
from gclib.models.insertion import insert_blocks, insert_row
from gclib.models.resnet import build_resnet
from gclib.models.slow_only import SlowOnly
from gclib.paper.ledger import read_counts

# What is counted: the network, and the size of its input.
NETWORKS = {
    "4a": ("ResNet-50, 224×224, stride in the 1×1 convolutions", (1, 3, 224, 224)),
    "4b": ("ResNet-50, 224×224, stride in the 1×1 convolutions", (1, 3, 224, 224)),
    "5": ("slow-only ResNet-50, 8×224×224, stride in the 3×3 convolutions", (1, 3, 8, 224, 224)),
}
COUNTED_ROWS = tuple(row for row in ROWS if row.split("/")[0] in NETWORKS)
COUNTED_BY = ("paper", "mmdetection", "fvcore")
_DETECTOR = "800×1344, 1000 proposals, 100 masks, stride in the 1×1 convolutions"
DETECTORS = {
    **dict.fromkeys(
        ("1", "2a", "2b", "2c", "2d", "2e", "2f"), f"Mask R-CNN on ResNet-50, {_DETECTOR}"
    ),
    "3a": f"the row's detector, {_DETECTOR}",
}
_OTHERS = "expected a row of tables 1 (COCO) to 5, for example 2a/gc_all or 4a/gc_all"


def count_row(row_id: str, convention: str | None = None) -> Counted:
    """Count the network of a row of tables 1 (COCO) to 5, with the strides of the paper's counts.

    Args:
        row_id: for example ``"4a/gc_all"``.
        convention: of multiply-adds, see :data:`gclib.analysis.networks.CONVENTIONS`; None for the
            one of the row's table.

    Raises:
        ValueError: no such row or convention, or a row of another table.
    """
    layers = row_layers(row_id)
    return Counted(_parameters(layers), multiply_adds(layers, convention or convention_of(row_id)))


def convention_of(row_id: str) -> str:
    """By which convention a row's multiply-adds are compared with the printed ones."""
    return CONVENTION if row_id in DETECTOR_ROWS else "paper"


def row_layers(row_id: str) -> tuple[LayerCount, ...]:
    """The network of a row of tables 1 (COCO) to 5, layer by layer.

    Raises:
        ValueError: no such row, or a row of another table.
    """
    table = find_row(row_id).table
    if row_id in DETECTOR_ROWS:
        return detector_layers(row_id)
    if table not in NETWORKS:
        raise ValueError(f"{row_id}: {_OTHERS}")
    return _row_layers(row_id)


@cache
def _row_layers(row_id: str) -> tuple[LayerCount, ...]:
    if row_id.startswith("5/"):
        return _slow_only(row_id)
    return _resnet50(row_id, stride_in="1x1")


def _resnet50(row_id: str | None = None, **options: Any) -> tuple[LayerCount, ...]:
    with torch.device("meta"):
        return _layers(build_resnet("resnet50", row_id, **options), NETWORKS["4a"][1])


def _slow_only(row_id: str, stride_in: str = "3x3") -> tuple[LayerCount, ...]:
    with torch.device("meta"):
        model = SlowOnly(stride_in=stride_in)
        insert_row(model, row_id)
    return _layers(model, NETWORKS["5"][1])


def _layers(model: nn.Module, size: Sequence[int]) -> tuple[LayerCount, ...]:
    return tuple(layer_counts(model, torch.empty(size, device="meta")))


def _parameters(layers: Sequence[LayerCount]) -> int:
    return sum(layer.parameters for layer in layers)


def recount(table: str | None = None) -> dict[str, Any]:
    """Count everything that the ledger shows; what ``counts.json`` holds.

    Args:
        table: leave networks that this table (or section) does not show as they were counted last:
            the detectors take half a minute. None counts all.

    Returns:
        ``convention`` and ``detection``: texts of the conventions; ``networks``: what is counted,
        by table; ``rows``: parameters, and multiply-adds by convention; ``shares``: what GC in all
        residual blocks adds, in percent; ``notes``: for a cell or claim that is not reproduced,
        what else was found.
    """
    rows = {}
    for row_id in COUNTED_ROWS:
        layers = row_layers(row_id)
        rows[row_id] = {"parameters": _parameters(layers)}
        rows[row_id] |= {name: multiply_adds(layers, name) for name in COUNTED_BY}
    shipped = read_counts().get("rows", {})
    if table is None or table[0] in "123" or not shipped.keys() >= set(DETECTOR_ROWS):
        detectors = recount_detectors()
    else:
        detectors = {row_id: shipped[row_id] for row_id in DETECTOR_ROWS}
    rows |= detectors
    return {
        "convention": CONVENTIONS["paper"].text,
        "detection": CONVENTIONS[CONVENTION].text,
        "networks": {table: text for table, (text, _) in NETWORKS.items()} | DETECTORS,
        "rows": rows,
        "shares": {
            "parameters": _share(rows, "4a", "parameters"),
            "multiply_adds": _share(rows, "4a", "paper"),
            "coco_multiply_adds": _share(rows, "2a", CONVENTION),
        },
        "notes": _notes() | detector_notes(detectors),
    }


def _share(rows: dict[str, dict[str, int]], table: str, what: str) -> float:
    return 100 * (rows[f"{table}/gc_all"][what] / rows[f"{table}/baseline"][what] - 1)


def _notes() -> dict[str, str]:
    """Cell or claim → which other convention gives the printed number, or that none does."""
    notes = {"4a/nl_1:gflops": _nl_of_table_4()}
    narrow = f"28.07 would be {_without_norm_and_bias() / 1e6:.4f} M: "
    narrow += "no LayerNorm and no biases, and blocks in c2 as well"
    notes |= {f"4b/{row}:params_m": narrow for row in ("avg_scale", "avg_add")}
    keys = [layer for layer in row_layers("5/gc_all") if layer.kind == "KeyLogits"]
    unbiased = (_parameters(row_layers("5/gc_all")) - len(keys)) / 1e6
    notes["5/gc_all:params_m"] = (
        "42.45 is this cut off, as all five of this column can be; rounded it would be 42.46, and "
        f"42.45 without the {len(keys)} biases of the attention keys, which softmax cancels "
        f"({unbiased:.6f} M)"
    )
    notes |= _table_5()
    plain, blocks = row_layers("4a/baseline"), row_layers("4a/gc_all")
    added = _without_fusion(blocks) - _without_fusion(plain)
    notes["intro/flops"] = (
        "0.26 is 0.01 / 3.86, from the rounded numbers; without the additions of fusion it is "
        f"{100 * added / _without_fusion(plain):.2f} %"
    )
    notes["4.3/params_share"] = "9.86 is 2.52 / 25.56, from the rounded numbers"
    return notes


def _products(layers: Sequence[LayerCount]) -> int:
    """Multiply-adds of convolutions and linear maps alone."""
    found = operations(layers)
    return found["convolution"] + found["linear"]


def _without_fusion(layers: Sequence[LayerCount]) -> int:
    return multiply_adds(layers) - operations(layers).get("broadcast", 0)


def _nl_of_table_4() -> str:
    with torch.device("meta"):
        model = build_resnet("resnet50", stride_in="1x1")
        row = find_row("4a/nl_1")
        pooled = partial(NonLocalBlock, subsample="before")
        insert_blocks(model, pooled, row.stages, row.position, row.index)
    layers = _layers(model, NETWORKS["4a"][1])
    return (
        f"4.11 is {_products(layers) / 1e9:.4f} G: maps pooled by 2 before keys and values, and "
        "the attention's two products free; with the products it is "
        f"{multiply_adds(layers) / 1e9:.4f} G"
    )


def _without_norm_and_bias() -> int:
    with torch.device("meta"):
        model = build_resnet("resnet50")
        insert_blocks(model, partial(SEBlock, bias=False), ("c2", "c3", "c4", "c5"))
    return sum(p.numel() for p in model.parameters())


def _table_5() -> dict[str, str]:
    plain = row_layers("5/baseline")
    other = _slow_only("5/baseline", stride_in="1x1")
    # The temporal convolutions at the size of their output: two taps of three are new in 3D.
    temporal = [
        layer.operations["convolution"]
        for layer in other
        if layer.name.startswith(("layer3.", "layer4.")) and layer.name.endswith(".conv1")
    ]
    frame, taps = _products(_resnet50()), sum(temporal) * 2 // 3
    notes = {
        "5/baseline:gflops": (
            f"with stride in the 1×1 {multiply_adds(other) / 1e9:.2f} G; 39.29 is "
            f"{(8 * frame + taps) / 1e9:.4f} G, a sum of two networks: 8 frames of ResNet-50 with "
            f"stride in the 3×3 and 1000 classes ({8 * frame / 1e9:.3f}), and two more taps for "
            f"temporal convolutions of a network with stride in the 1×1 ({taps / 1e9:.3f})"
        )
    }
    for name, printed in (("nl_5", 20.31), ("snl_5", 0.03), ("gc_5", 0.02), ("gc_all", 0.06)):
        layers = row_layers(f"5/{name}")
        added = (multiply_adds(layers) - multiply_adds(plain)) / 1e9
        text = f"over the baseline {printed} G are printed, ours are {added:.3f} G"
        if name != "nl_5":
            free = (_without_fusion(layers) - _without_fusion(plain)) / 1e9
            text += f", or {free:.3f} G without the additions of fusion"
        notes[f"5/{name}:gflops"] = text
    notes["5/nl_5:gflops"] += "; " + _nl_of_table_5(row_layers("5/nl_5"), plain)
    return notes


def _nl_of_table_5(layers: Sequence[LayerCount], plain: Sequence[LayerCount]) -> str:
    def giga(found: Sequence[LayerCount]) -> float:
        counts = operations(found)
        products = _products(found) + counts.get("matrix product", 0)
        return (products + counts["bias"]) / 2**30

    return (
        f"59.60 is {giga(layers):.4f} in units of 2³⁰, with biases and without pooling, but the "
        f"baseline is {giga(plain):.2f} then"
    )


def main() -> None:
    """Write ``gclib/paper/counts.json``."""
    import gclib

    path = Path(gclib.__file__).parent / "paper" / "counts.json"
    path.write_text(json.dumps(recount(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
