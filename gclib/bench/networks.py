"""``gclib bench networks``: ResNet-50 with each block, ours and the peers', in one run."""

from __future__ import annotations

import statistics
import sys
from typing import Any

import torch
from torch import nn

from gclib.bench.blocks import _forward, _peak, _training
from gclib.bench.measure import OtherLoad, graphed, median_interval, time_rounds
from gclib.bench.peers import OURS, PEERS, _random

# Rows of the paper's table 4: blocks in c3 to c5, or one before the last residual block of c4.
EVERYWHERE = ("gc", "se", "snl")
ONCE = ("nl_embedded_gaussian",)
GROUPS = EVERYWHERE + ONCE


def resnet50(build) -> nn.Module:
    """Torchvision's ResNet-50 with a block after the last 1×1 convolution and its norm.

    Args:
        build: channels → block, or None for the network itself.
    """
    from torchvision.models import resnet50 as plain

    network = plain(weights=None)
    if build is None:
        return network
    build, everywhere = build
    stages = (network.layer2, network.layer3, network.layer4) if everywhere else (network.layer3,)
    for stage in stages:
        for residual in stage if everywhere else [stage[-2]]:
            block = _random(build(residual.bn3.num_features))
            residual.bn3 = nn.Sequential(residual.bn3, block)
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
    """
    builds: dict[str, Any] = {"no block": None}
    for group in groups:
        builds[f"{group} · gclib"] = (OURS[group], group in EVERYWHERE)
        for name, peer in PEERS[group].items():
            builds[f"{group} · {name}"] = (peer.build, group in EVERYWHERE)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    networks = {}
    for name, build in builds.items():
        try:
            networks[name] = resnet50(build).to(device, dtype, memory_format=layout)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    x = torch.randn(examples, 3, size, size, device=device, dtype=dtype)
    x = x.contiguous(memory_format=layout)
    grad = torch.randn(examples, 1000, device=device, dtype=dtype)
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
            bare = [name for name in calls if name.startswith("no block")]
            names = [name for name in calls if name.startswith(f"{group} · ")]
            turns = {name: calls[name] for name in (*bare, *names)}
            print(f"{mode}, {group}: {rounds} rounds", file=sys.stderr, flush=True)
            seconds = time_rounds(turns, rounds, synchronise=synchronise, others=OtherLoad())
            for name in names if group != groups[0] else turns:
                how = max((b for b in bare if name.endswith(b[len("no block") :])), key=len)
                ratios = [a / b for a, b in zip(seconds[name], seconds[how], strict=True)]
                low, high = median_interval(ratios)
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
                    }
                )
    return records
