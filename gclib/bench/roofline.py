"""``gclib bench roofline``: how much of a network's time its multiply-adds and bytes explain.

Roofline model (Williams, Waterman, Patterson 2009): a layer can be no faster than its arithmetic
at the machine's peak and than its traffic at the machine's bandwidth; the slower one limits it.

>>> roof = measure()                                                          # doctest: +SKIP
>>> roof.lower_bound(multiply_adds=3_866_700_000, bytes=180_000_000)          # doctest: +SKIP
0.041
>>> roof.limit(multiply_adds=1_000, bytes=1_000_000)                          # doctest: +SKIP
'memory'
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from gclib.analysis.networks import (
    LayerCount,
    layer_counts,
    moves_nothing,
    multiply_adds,
    tensor_bytes,
    tensors_in,
    tensors_read,
)
from gclib.bench.blocks import _forward, _training
from gclib.bench.measure import OtherLoad, median_interval, time_rounds
from gclib.models import inserted_blocks

MIB = 2**20
MAP = 8 * MIB  # a feature map: c2 of three images of 224² in float32
ROWS = ("4a/baseline", "4a/nl_1", "4a/snl_1", "4a/gc_1", "4a/gc_all")


@dataclass(frozen=True)
class Roofline:
    """What a machine can do at most.

    Attributes:
        multiply_adds_per_second: of a large matrix product.
        bytes_per_second: read and written, by operations on tensors far larger than the caches.
        cached_bytes_per_second: the same for tensors of 8 MiB, a feature map, which the caches of
            many machines hold from one layer to the next.
        device: where it was measured.
        dtype: of the numbers.
        threads: of torch.
    """

    multiply_adds_per_second: float
    bytes_per_second: float
    cached_bytes_per_second: float
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1

    def lower_bound(self, multiply_adds: float, bytes: float, *, cached: bool = False) -> float:
        """Seconds that one step needs at least.

        Args:
            multiply_adds: of the step; one counts 1.
            bytes: that it reads and writes.
            cached: use the bandwidth of the caches in place of the memory's.
        """
        return max(
            multiply_adds / self.multiply_adds_per_second, bytes / self._bandwidth(cached=cached)
        )

    def limit(self, multiply_adds: float, bytes: float, *, cached: bool = False) -> str:
        """``"compute"`` or ``"memory"``: which of the two makes the bound."""
        ridge = self.ridge(cached=cached)
        return "compute" if multiply_adds >= ridge * bytes else "memory"

    def ridge(self, *, cached: bool = False) -> float:
        """Multiply-adds per byte at which arithmetic and traffic take equally long."""
        return self.multiply_adds_per_second / self._bandwidth(cached=cached)

    def _bandwidth(self, *, cached: bool) -> float:
        return self.cached_bytes_per_second if cached else self.bytes_per_second


def measure(
    device: str = "cpu", dtype: torch.dtype = torch.float32, seconds: float = 2.0
) -> Roofline:
    """Measure this machine, with torch's present number of threads.

    Each figure is the best of many rounds, so that other programs change it little; on a machine
    that is busy all the time it is too low all the same.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        dtype: of the numbers.
        seconds: about how long it may take (default 2); up to 512 MiB of memory are used meanwhile.

    Raises:
        ValueError: ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"seconds={seconds}: expected more than 0")
    start = time.perf_counter()
    far = _bandwidth(device, dtype, _far(), start + 0.4 * seconds)
    near = _bandwidth(device, dtype, MAP, start + 0.6 * seconds)
    return Roofline(
        multiply_adds_per_second=_products(device, dtype, start + seconds),
        bytes_per_second=far,
        cached_bytes_per_second=max(near, far),
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
    )


def _bandwidth(device: str, dtype: torch.dtype, size: int, deadline: float) -> float:
    """Bytes per second of a change in place and of a copy, whichever is faster.

    A processor reads what a copy is about to overwrite, which is not counted; so the change in
    place often has more.
    """
    x = torch.ones(2, size // dtype.itemsize // 2, device=device, dtype=dtype)
    moved = x.numel() * x.element_size()
    calls = {lambda: x.neg_(): 2 * moved, lambda: x[0].copy_(x[1]): moved}
    return max(bytes / seconds for bytes, seconds in _best(calls, device, deadline))


def _products(device: str, dtype: torch.dtype, deadline: float) -> float:
    """Multiply-adds per second of square matrix products."""
    n = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    ((products, seconds),) = _best({lambda: torch.mm(a, b, out=out): n**3}, device, deadline)
    return products / seconds


def _best(
    calls: Mapping[Callable[[], object], int], device: str, deadline: float
) -> list[tuple[int, float]]:
    """Work and least seconds of each call; each is made three times at least."""
    repeat = 1 if device == "cpu" else 20  # on a GPU the start of one call takes as long
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    best, rounds = dict.fromkeys(calls, float("inf")), 0
    while rounds < 3 or time.perf_counter() < deadline:
        for call in calls:
            synchronise()
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            synchronise()
            best[call] = min(best[call], (time.perf_counter() - start) / repeat)
        rounds += 1
    return [(work, best[call]) for call, work in calls.items()]


def _far() -> int:
    """Bytes of a tensor that no cache holds: 256 MiB, where the cache is large 512."""
    size = min(max(256 * MIB, 2 * _largest_cache()), 512 * MIB)
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        size = min(size, memory // 16)
    return size


def _largest_cache() -> int:
    """Bytes; 0 where Linux is not."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii").strip().removesuffix("K")) * 1024)
    return max(sizes)


@dataclass(frozen=True)
class LayerBound:
    """One layer under the roofline.

    Attributes:
        name: path of the module.
        kind: of layer, for people: ``"1×1 convolution"``, ``"BatchNorm2d"``, ``"block"``.
        multiply_adds: by the paper's convention.
        bytes: read and written.
        limit: ``"compute"`` or ``"memory"``.
        seconds: the bound.
        share: of the sum of all bounds.
    """

    name: str
    kind: str
    multiply_adds: int
    bytes: int
    limit: str
    seconds: float
    share: float


def layer_bounds(
    model: nn.Module, layers: Iterable[LayerCount], roofline: Roofline, *, cached: bool = False
) -> list[LayerBound]:
    """The bound of each layer that runs; their sum is the bound of a network run layer by layer.

    Args:
        model: the network, which knows the kernels of its convolutions.
        layers: from :func:`gclib.analysis.networks.layer_counts`.
        roofline: from :func:`measure`.
        cached: see :meth:`Roofline.lower_bound`.
    """
    kinds = layer_kinds(model)
    found = []
    for layer in layers:
        work = multiply_adds([layer]), layer.bytes
        if any(work):
            seconds = roofline.lower_bound(*work, cached=cached)
            limit = roofline.limit(*work, cached=cached)
            found.append((layer.name, kinds[layer.name], *work, limit, seconds))
    whole = sum(seconds for *_, seconds in found)
    return [LayerBound(*bound, bound[-1] / whole) for bound in found]


def layer_kinds(model: nn.Module) -> dict[str, str]:
    """Path of each module → its kind: one line in a table."""
    inside = tuple(f"{name}.block" for name in inserted_blocks(model))
    kinds = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        if any(name == path or name.startswith(f"{path}.") for path in inside):
            kind = "block"
        elif isinstance(module, nn.Conv2d):
            kind = "×".join(map(str, module.kernel_size)) + " convolution"
        elif "Bottleneck" in kind or "BasicBlock" in kind:
            kind = "addition"
        kinds[name] = kind
    return kinds


def layer_seconds(model: nn.Module, x: Tensor, rounds: int = 5) -> dict[str, float]:
    """Median seconds of each module by itself, without the modules inside of it; on the CPU.

    Inserted blocks are measured as one: a hook inside of them would keep them from their faster
    forms.

    Args:
        model: in the mode that is to be measured; run without gradients.
        x: images.
        rounds: forward passes, after one that is not counted.
    """
    passes: list[dict[str, float]] = []
    with torch.no_grad():
        model(x)
        for _ in range(rounds):
            own: dict[str, float] = {}
            with _clocks(model, own):
                model(x)
            passes.append(own)
    return {name: statistics.median(own[name] for own in passes) for name in passes[0]}


@contextlib.contextmanager
def _clocks(model: nn.Module, own: dict[str, float]) -> Iterator[None]:
    """Add the seconds of each module to ``own`` as long as the context is open."""
    running: list[list[float]] = []  # start, and seconds of the modules inside

    def enter(*_: object) -> None:
        running.append([time.perf_counter(), 0.0])

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            start, inside = running.pop()
            elapsed = time.perf_counter() - start
            own[name] = own.get(name, 0.0) + elapsed - inside
            if running:
                running[-1][1] += elapsed

        return hook

    with contextlib.ExitStack() as stack:
        inside = tuple(f"{name}.block." for name in inserted_blocks(model))
        for name, module in model.named_modules():
            if name.startswith(inside):
                continue
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave(name)).remove)
        yield


def step_work(step: Callable[[], object]) -> list[tuple[int, int]]:
    """Multiply-adds and bytes of every operation that ``step`` runs, backward ones too.

    Multiply-adds are those of torch's own counter: convolutions and matrix products, and their
    gradients. Each operation reads its inputs once and writes its outputs once; views and memory
    that is only allocated are free.
    """
    work = _Work()
    with work:
        step()
    return work.operations


class _Work(TorchDispatchMode):
    """Notes the work of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if not moves_nothing(func):
            flops = _FLOPS.get(func._overloadpacket)
            # torch counts a multiply-add as two.
            products = flops(*args, **(kwargs or {}), out_val=output) // 2 if flops else 0
            moved = [*tensors_read(func, args, kwargs or {}), *tensors_in(output)]
            self.operations.append((products, sum(map(tensor_bytes, moved))))
        return output


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_flops(grad, query, key, value, *args, out_val=None, **kwargs) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


# Torch's counter does not know the fused attention of processors.
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLOPS = {
    **flop_registry,
    _CPU_ATTENTION: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def explain(
    bare: Mapping[str, Any], row: Mapping[str, Any], seconds: Mapping[str, list[float]]
) -> dict[str, Any]:
    """What a row costs beside the bare network, and how much of it each bound explains.

    Args:
        bare: ``network``, ``multiply_adds``, ``bytes``, the bounds ``compute``, ``memory`` and
            ``cached`` in seconds, and ``inside``, the seconds in blocks (None if not measured), of
            the network without blocks.
        row: the same of a row.
        seconds: network → measured seconds of each round.

    Returns:
        The row with its ``median``; ``more_multiply_adds``, ``more_bytes``, ``more_time`` with its
        interval ``low`` to ``high``, fractions of the bare network's; ``explained``: bound →
        seconds that it adds over the seconds in blocks, or, where these were not measured, over
        the additional time of the network if that is certain; and ``beaten``: the bounds that the
        network was faster than, which shows that they do not hold on this machine.
    """
    of_row, of_bare = seconds[row["network"]], seconds[bare["network"]]
    ratios = [a / b for a, b in zip(of_row, of_bare, strict=True)]
    low, high = median_interval(ratios)
    bounds = ("compute", "memory", "cached")
    median = statistics.median(of_row)
    cost = row["inside"]
    if cost is None and low > 1:
        cost = statistics.median(a - b for a, b in zip(of_row, of_bare, strict=True))
    return {
        **row,
        "median": median,
        "more_multiply_adds": row["multiply_adds"] / bare["multiply_adds"] - 1,
        "more_bytes": row["bytes"] / bare["bytes"] - 1,
        "more_time": statistics.median(ratios) - 1,
        "low": low - 1,
        "high": high - 1,
        "explained": {bound: (row[bound] - bare[bound]) / cost for bound in bounds if cost},
        "beaten": [bound for bound in bounds if median < row[bound]],
    }


def run(
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    examples: int = 4,
    size: int = 224,
    rounds: int = 7,
    rows: tuple[str, ...] = ROWS,
    seconds: float = 4.0,
) -> list[dict[str, Any]]:
    """The machine, then each row of table 4: bounds, measured time, kinds of layers.

    Args:
        device: ``"cpu"``, or ``"cuda"``, where the time of single layers is not measured.
        dtype: of weights and images.
        channels_last: layout of weights and images.
        examples: images in a batch.
        size: their height and width.
        rounds: rounds in which the networks take turns.
        rows: of table 4; the bare network is added.
        seconds: for the measurement of the machine.

    Returns:
        Records with ``part`` ``"machine"``, ``"network"`` (in inference and training: forward and
        backward) or ``"kind"`` (in inference).

    Raises:
        ValueError: no such row, or one of another table.
    """
    from gclib.bench.networks import build_row, settle, table_row

    rows = tuple(dict.fromkeys(("4a/baseline", *(table_row(row).id for row in rows))))
    roof = measure(device, dtype, seconds)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(examples, 3, size, size, device=device, dtype=dtype)
    x = x.contiguous(memory_format=layout)
    grad = torch.randn(examples, 1000, device=device, dtype=dtype)
    networks, works, kinds = {}, {}, {}
    inside: dict[tuple[str, str], float] = {}
    for row in rows:
        print(f"{row}, layer by layer", file=sys.stderr, flush=True)
        network = build_row(row).to(device, dtype, memory_format=layout)
        networks[row] = settle(network, x).eval()
        clocked = None
        if device == "cpu":
            clocked = kind_seconds(network, layer_seconds(network, x, rounds))
            inside[row, "inference"] = clocked.get("block", 0.0)
        layers = layer_counts(network, x)
        kinds[row] = by_kind(layer_bounds(network, layers, roof), clocked)
        works[row, "inference"] = step_work(_forward(network, x, grad))
        works[row, "training"] = step_work(_training(network.train(), x, grad))
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    about = {"examples": examples, "size": size, "layout": "nhwc" if channels_last else "nchw"}
    records: list[dict[str, Any]] = [{"part": "machine", **asdict(roof)}]
    for mode, make in (("inference", _forward), ("training", _training)):
        calls = {
            row: make(network.train(mode == "training"), x, grad)
            for row, network in networks.items()
        }
        print(f"{mode}: {len(calls)} networks, {rounds} rounds", file=sys.stderr, flush=True)
        measured = time_rounds(calls, rounds, synchronise=synchronise, others=OtherLoad())
        bounds = [
            {
                "network": row,
                "mode": mode,
                "parameters": sum(p.numel() for p in networks[row].parameters()),
                **_network_bounds(works[row, mode], roof),
                "inside": inside.get((row, mode)),
            }
            for row in rows
        ]
        for row in bounds:
            records.append({"part": "network", **explain(bounds[0], row, measured), **about})
    for row in dict.fromkeys((rows[0], rows[-1])):
        records += [{"part": "kind", "network": row, **kind} for kind in kinds[row]]
    return records


def _network_bounds(work: list[tuple[int, int]], roof: Roofline) -> dict[str, float]:
    """Sums over operations or layers that run one after the other."""
    products = sum(products for products, _ in work)
    return {
        "multiply_adds": products,
        "bytes": sum(bytes for _, bytes in work),
        "compute": products / roof.multiply_adds_per_second,
        "memory": sum(roof.lower_bound(*one) for one in work),
        "cached": sum(roof.lower_bound(*one, cached=True) for one in work),
    }


def by_kind(
    bounds: Iterable[LayerBound], seconds: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Sums over the layers of a kind, the longest bound first.

    Args:
        bounds: of one network.
        seconds: kind → measured seconds.
    """
    found: dict[str, dict[str, Any]] = {}
    for bound in bounds:
        kind = found.setdefault(
            bound.kind,
            {"kind": bound.kind, "layers": 0, "multiply_adds": 0, "bytes": 0, "compute_bound": 0}
            | {"bound": 0.0, "share": 0.0, "measured": seconds[bound.kind] if seconds else None},
        )
        kind["layers"] += 1
        kind["multiply_adds"] += bound.multiply_adds
        kind["bytes"] += bound.bytes
        kind["compute_bound"] += bound.limit == "compute"
        kind["bound"] += bound.seconds
        kind["share"] += bound.share
    return sorted(found.values(), key=lambda kind: -kind["bound"])


def kind_seconds(model: nn.Module, seconds: Mapping[str, float]) -> dict[str, float]:
    """Kind of layer → seconds, of those of :func:`layer_seconds`."""
    found: dict[str, float] = {}
    for name, kind in layer_kinds(model).items():
        found[kind] = found.get(kind, 0.0) + seconds.get(name, 0.0)
    return found
