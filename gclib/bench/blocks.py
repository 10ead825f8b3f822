"""``gclib bench blocks``: each block beside its peers and the memory-traffic floor, in one run."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gclib.bench.measure import OtherLoad, graphed, median_interval, peak_bytes, time_rounds
from gclib.bench.peers import PEERS, build_all

# C4 of ImageNet, C4 and C5 of COCO, C2 of ImageNet: from 12 to 33 MiB in float32.
SHAPES = ((16, 1024, 14, 14), (2, 1024, 50, 84), (8, 256, 56, 56), (2, 2048, 25, 42))
# Non-local blocks: C4 of ImageNet and of small COCO images, C2 of ImageNet, C4 of COCO.
NL_SHAPES = ((4, 1024, 14, 14), (1, 1024, 25, 21), (8, 256, 56, 56), (1, 1024, 50, 84))
QUICK_SHAPES = ((2, 64, 14, 14),)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
MODES = ("forward", "training")
LARGEST = 4 * 2**30  # bytes of a pair tensor that is still tried
HOWS = (" compiled", " graph")  # endings of names of implementations that do not run eagerly
REPEAT = 10  # calls in one CUDA graph


def cells(
    groups: tuple[str, ...], dtypes: tuple[str, ...], shapes: tuple[tuple[int, ...], ...] = ()
) -> Iterator[dict]:
    """Every combination that is measured, at ``shapes`` or at those of each group."""
    for group in groups:
        for shape in shapes or (NL_SHAPES if group.startswith("nl") else SHAPES):
            for dtype in dtypes:
                for layout in LAYOUTS:
                    if group.startswith("nl") and (dtype, layout) == ("bf16", "nchw"):
                        continue  # networks in bf16 are channels-last; this halves the time
                    yield {"group": group, "shape": shape, "dtype": dtype, "layout": layout}


def measure(
    cell: dict[str, Any],
    *,
    device: str = "cpu",
    rounds: int = 7,
    compiled: bool = False,
    graph: bool = False,
) -> list[dict[str, Any]]:
    """Time and peak memory of every implementation in one cell.

    Args:
        cell: ``{"group", "shape", "dtype", "layout"}``.
        device: ``"cpu"`` or ``"cuda"``.
        rounds: rounds in which all take turns in random order.
        compiled: also measure each under ``torch.compile``.
        graph: also measure each as a CUDA graph, in which launches cost nothing.

    Returns:
        One record for each mode and implementation, with ``median``, ``low``, ``high`` (bounds of
        the median at 95 %) and ``floor`` in seconds, ``peak`` in bytes without the input.
    """
    torch.manual_seed(0)
    dtype, layout = DTYPES[cell["dtype"]], LAYOUTS[cell["layout"]]
    shape = tuple(cell["shape"])
    modules, _ = build_all(cell["group"], shape[1])
    too_large = 4 * shape[0] * shape[1] * (shape[2] * shape[3]) ** 2 > LARGEST
    if cell["group"] == "nl_concat" and too_large:  # every peer makes the tensor of pairs
        modules = {"gclib": modules["gclib"]}
    modules = {name: module.to(device, dtype) for name, module in modules.items()}
    for name in [*modules] if compiled else []:
        torch._dynamo.reset()
        modules[f"{name} compiled"] = torch.compile(modules[name])
    # Logits of size one, as networks have them. With larger ones most of a map is denormal numbers,
    # which processors multiply ten times slower.
    scale = shape[1] ** -0.25 if cell["group"].startswith("nl") else 1.0
    x = scale * torch.randn(shape, device=device)
    x = x.to(dtype).contiguous(memory_format=layout)
    grad = torch.randn_like(x)
    copy = torch.empty_like(x)
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    records = []
    for mode in MODES:
        calls: dict[str, Callable] = {"copy": lambda: copy.copy_(x)}
        for name, module in modules.items():
            peer = PEERS[cell["group"]].get(name.removesuffix(" compiled"))
            if mode == "forward" or peer is None or peer.trains:
                calls[name] = (_forward if mode == "forward" else _training)(module, x, grad)
        plain = dict(calls)
        if graph:
            calls |= {f"{name} graph": graphed(call, REPEAT) for name, call in plain.items()}
        seconds = time_rounds(calls, rounds, synchronise=synchronise, others=OtherLoad())
        for name in seconds.keys() - plain.keys():
            seconds[name] = [value / REPEAT for value in seconds[name]]
        # A pass reads or writes x once; a copy is two.
        passes = 3 if mode == "forward" else 7
        copies = {name: seconds.pop(name) for name in ("copy", "copy graph") if name in seconds}
        for name, values in seconds.items():
            low, high = median_interval(values)
            same = copies["copy graph" if name.endswith(" graph") else "copy"]
            floor = passes * statistics.median(same) / 2
            records.append(
                {
                    **cell,
                    "device": device,
                    "mode": mode,
                    "implementation": name,
                    "median": statistics.median(values),
                    "low": low,
                    "high": high,
                    "floor": floor,
                    "peak": _peak(plain[name.removesuffix(" graph")], device),
                    "input": x.numel() * x.element_size(),
                }
            )
    return records


def _forward(module: nn.Module, x: Tensor, grad: Tensor) -> Callable:
    def call() -> Tensor:
        with torch.no_grad():
            return module(x)

    return call


def _training(module: nn.Module, x: Tensor, grad: Tensor) -> Callable:
    leaf = x.detach().requires_grad_()

    def call() -> list[Tensor | None]:
        module(leaf).backward(grad)
        found = [leaf, *module.parameters()]
        gradients = [tensor.grad for tensor in found]
        for tensor in found:  # nothing stays for the next call to free
            tensor.grad = None
        return gradients

    return call


def _peak(call: Callable, device: str) -> int:
    if device == "cpu":
        return peak_bytes(call)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def run(
    *,
    groups: tuple[str, ...] = tuple(PEERS),
    dtypes: tuple[str, ...] = tuple(DTYPES),
    device: str = "cpu",
    rounds: int = 7,
    shapes: tuple[tuple[int, ...], ...] = (),
    compiled: bool = False,
    graph: bool = False,
) -> list[dict[str, Any]]:
    """Measure all cells, with a line on stderr after each."""
    todo = list(cells(groups, dtypes, shapes))
    records = []
    for count, cell in enumerate(todo, start=1):
        found = measure(cell, device=device, rounds=rounds, compiled=compiled, graph=graph)
        records += found
        best = {}
        for how in ("", " graph") if graph else ("",):
            for mode in MODES:
                of_mode = {
                    r["implementation"].removesuffix(how): r["median"]
                    for r in found
                    if r["mode"] == mode and r["implementation"].endswith(how)
                }
                of_mode = {n: value for n, value in of_mode.items() if not n.endswith(HOWS)}
                ours = of_mode.pop("gclib")
                ratio = f"{min(of_mode.values()) / ours:.2f}×" if of_mode else "no peer"
                best[mode + how] = f"{mode}{how} {ratio}"
        shape = "×".join(map(str, cell["shape"]))
        print(
            f"{count}/{len(todo)} {cell['group']} {shape} {cell['dtype']} {cell['layout']}: best "
            f"peer / gclib: {', '.join(best.values())}",
            file=sys.stderr,
            flush=True,
        )
    return records
