"""``gclib bench networks``: ResNet-50 with each block, ours and the peers', in one run."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gclib.analysis.networks import layer_counts, multiply_adds
from gclib.bench.blocks import _forward, _peak, _training
from gclib.bench.measure import OtherLoad, graphed, median_interval, time_rounds
from gclib.bench.peers import OURS, PEERS, Peer, randomise, row_peers, same_function
from gclib.bench.roofline import step_work
from gclib.blocks.registry import ROWS, STAGES, Row, find_row
from gclib.models import insert_blocks, insert_row, inserted_blocks

# Blocks in c3 to c5, or one before the last residual block of c4.
_ONCE = {"stages": ("c4",), "index": -2}
PLACES: Mapping[str, Mapping[str, Any]] = {
    "gc": {"stages": STAGES},
    "se": {"stages": STAGES},
    "snl": {"stages": STAGES},
    "nl_embedded_gaussian": _ONCE,
}
GROUPS = tuple(PLACES)
BARE = "no block"
# Table 4(b)'s baseline is 4(a)'s.
TABLE_4 = tuple(row for row in ROWS if row.startswith("4") and row != "4b/baseline")


@dataclass(frozen=True)
class Contest:
    """One block at one place of ResNet-50, built by us and by the peers.

    Attributes:
        name: of a group of blocks, or of a row of table 4.
        builds: implementation → channels → block, ours first; None for a baseline.
        place: of :func:`gclib.models.insert_blocks`.
        stride_in: where the network strides, see :func:`gclib.models.set_stride`.
    """

    name: str
    builds: Mapping[str, Callable[..., nn.Module] | None]
    place: Mapping[str, Any] = field(default_factory=dict)
    stride_in: str = "3x3"


def contest(name: str) -> Contest:
    """The contest of a group of blocks, or of a row of table 4.

    Args:
        name: one of ``GROUPS``, in torchvision's ResNet-50, or a row such as ``"4a/gc_all"``, in
            the paper's with its stride in the 1×1 convolution.

    Raises:
        ValueError: no such group or row; a row of another table.
        RuntimeError: a peer of a row is another function than our block.
    """
    if name in PLACES:
        builds = _builds(name, OURS[name], PEERS[name])
        return Contest(name, builds, PLACES[name])
    row = table_row(name)
    if row.block is None:
        return Contest(name, {"gclib": None}, {}, "1x1")
    place = {"stages": row.stages, "position": row.position, "index": row.index}
    return Contest(name, _builds(name, row.block, row_peers(name)), place, "1x1")


def table_row(row_id: str) -> Row:
    """A row of table 4.

    Raises:
        ValueError: no such row, or one of another table.
    """
    row = find_row(row_id)
    if not row.table.startswith("4"):
        raise ValueError(f"{row_id}: expected a row of table 4, one of {', '.join(TABLE_4)}")
    return row


def _builds(
    name: str, ours: Callable[..., nn.Module], peers: Mapping[str, Peer]
) -> dict[str, Callable[..., nn.Module]]:
    """Implementation → channels → block, without the peers that are not installed."""
    builds = {"gclib": ours}
    for peer, found in peers.items():
        try:
            same_function(name, ours, peer, found)
            builds[peer] = found.build
        except ImportError as error:
            print(f"{name} · {peer} is left out: {error}", file=sys.stderr)
    return builds


def resnet50(
    block: Callable[..., nn.Module] | None = None, *, stride_in: str = "3x3", **place: Any
) -> nn.Module:
    """ResNet-50 with blocks whose weights are random, none zero: all of their work is real.

    Args:
        block: channels → block, ours or a peer's; None for the network itself.
        stride_in: ``"3x3"`` as torchvision has it, or ``"1x1"`` as in the paper's 3.86 G.
        place: of :func:`gclib.models.insert_blocks`.
    """
    network = _plain(stride_in)
    if block is not None:
        insert_blocks(network, block, **place)
    return _with_weights(network)


def build_row(row_id: str) -> nn.Module:
    """ResNet-50 of a row of table 4, with our blocks, as it is measured.

    Raises:
        ValueError: no such row, or one of another table.
    """
    network = _plain("1x1")
    insert_row(network, table_row(row_id).id)
    return _with_weights(network)


def _plain(stride_in: str) -> nn.Module:
    from gclib.models import build_resnet

    return build_resnet("resnet50", stride_in=stride_in)


def _with_weights(network: nn.Module) -> nn.Module:
    for block in inserted_blocks(network).values():
        # Of the size that the authors start with: large weights would saturate a softmax, and
        # processors are slow with the denormal numbers beside its maximum.
        randomise(block, std=0.01)
    return network


def settle(network: nn.Module, x: Tensor) -> nn.Module:
    """Give the norms the statistics of ``x``, so that in evaluation mode maps keep their size."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network


def run(
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    examples: int = 4,
    size: int = 224,
    rounds: int = 7,
    groups: tuple[str, ...] = GROUPS,
    compiled: bool = False,
    graph: bool = False,
) -> list[dict[str, Any]]:
    """Inference and training step (forward and backward) of every network, taking turns.

    Networks are in evaluation mode for inference and in training mode for the step. Blocks have
    random weights, none is zero. The step includes the gradient of the images.

    With ``compiled`` each also runs under ``torch.compile``, with ``graph`` each (the compiled too)
    also as a CUDA graph, in which launches cost nothing; both stand over the bare network that is
    run in the same way.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        dtype: of weights and images.
        channels_last: layout of weights and images.
        examples: images in a batch.
        size: their height and width.
        rounds: rounds in which all of a group take turns.
        groups: of ``GROUPS``, or rows of table 4; not both, for their bare networks differ in the
            place of the stride.
        compiled: see above.
        graph: see above.

    Returns:
        One record for each network and mode. ``ratio`` is over the bare network; ``parameters``
        are the whole network's; ``multiply_adds`` (paper's convention, one image) and ``bytes``
        (read and written by each operation, whole batch) are those of inference. A compiled
        network joins operations, so its ``bytes`` are None.

    Raises:
        ValueError: groups and rows are mixed; no such group or row; no row of table 4.
        RuntimeError: a peer is another function than our block.
    """
    contests = [contest(name) for name in groups]
    strides = {found.stride_in for found in contests}
    if len(strides) > 1:
        raise ValueError("rows of table 4 and other blocks: measure them in two runs")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(examples, 3, size, size, device=device, dtype=dtype)
    x = x.contiguous(memory_format=layout)
    networks = {BARE: resnet50(stride_in=strides.pop())}
    for found in contests:
        for name, build in found.builds.items():
            network = resnet50(build, stride_in=found.stride_in, **found.place)
            networks[f"{found.name} · {name}"] = network
    grad = torch.randn(examples, 1000, device=device, dtype=dtype)
    counts = {}
    for name, network in networks.items():
        settle(network.to(device, dtype, memory_format=layout), x).eval()
        step = _forward(network, x, grad)
        counts[name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "multiply_adds": multiply_adds(layer_counts(network, x)) // examples,
            "bytes": sum(bytes for _, bytes in step_work(step)),
        }
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    pool = torch.cuda.graph_pool_handle() if graph else None
    records: list[dict[str, Any]] = []
    for mode, make in (("inference", _forward), ("training", _training)):
        calls: dict[str, Any] = {}
        if compiled:
            torch._dynamo.reset()
            torch._dynamo.config.recompile_limit = 2 * len(networks)  # all share one forward()
        for name, network in networks.items():
            network.train(mode == "training")
            calls[name] = make(network, x, grad)
            if compiled:
                calls[f"{name} compiled"] = make(torch.compile(network, fullgraph=True), x, grad)
        peaks = {name: _peak(call, device) for name, call in calls.items()}
        if graph:
            graphs = {f"{name} graph": graphed(call, pool=pool) for name, call in calls.items()}
            peaks |= {name: peaks[name.removesuffix(" graph")] for name in graphs}
            calls |= graphs
        # Each group beside its own runs of the bare network: seconds later the machine may be busy.
        for group in groups:
            bare = [name for name in calls if name.startswith(BARE)]
            names = [name for name in calls if name.startswith(f"{group} · ")]
            turns = {name: calls[name] for name in (*bare, *names)}
            print(f"{mode}, {group}: {rounds} rounds", file=sys.stderr, flush=True)
            seconds = time_rounds(turns, rounds, synchronise=synchronise, others=OtherLoad())
            for name in names if group != groups[0] else turns:
                how = max((b for b in bare if name.endswith(b[len(BARE) :])), key=len)
                ratios = [a / b for a, b in zip(seconds[name], seconds[how], strict=True)]
                low, high = median_interval(ratios)
                plain = name.removesuffix(" graph").removesuffix(" compiled")
                records.append(
                    {
                        "network": name,
                        "mode": mode,
                        "device": device,
                        "dtype": str(dtype).removeprefix("torch."),
                        "layout": "nhwc" if channels_last else "nchw",
                        "examples": examples,
                        "size": size,
                        "median": statistics.median(seconds[name]),
                        "ratio": statistics.median(ratios),
                        "low": low,
                        "high": high,
                        "peak": peaks[name],
                        "stride_in": networks[plain].stride_in,
                        **counts[plain],
                        **({"bytes": None} if " compiled" in name else {}),
                    }
                )
    return records
