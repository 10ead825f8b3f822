"""docs/PERFORMANCE.md and its figure from the measurements in docs/performance/."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from gclib.bench.blocks import HOWS
from gclib.bench.course import SECONDS
from gclib.bench.grading import TARGET as GRADING_TARGET

# glibc gives blocks of more than 32 MiB back to the system at once, so that each large result
# costs page faults anew. These settings keep them.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**35),
    "MALLOC_TOP_PAD_": str(2**29),
}

# What a column of graphs says.
GRAPH = (
    "the same work recorded once and replayed, without Python and without launches: the time of "
    "the GPU alone. Maps of up to some 50 MiB then stay in its cache from one call to the next."
)

ALIKE = 30.0  # dB: two decodings of a picture, and not two pictures

Record = Mapping[str, Any]


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on, without names of users or hosts."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    found = {
        "processor": name,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    for peer in ("mmcv", "timm", "torchvision"):
        try:
            found[peer] = __import__(peer).__version__
        except ImportError:
            found[peer] = "not installed"
    return found


def allocator() -> str:
    """``"tuned"`` where all settings of ``TUNED`` are in force."""
    tuned = all(os.environ.get(name) == value for name, value in TUNED.items())
    return "tuned" if tuned else "default"


def save(folder: Path, name: str, command: str, device: str, records: list[Record]) -> None:
    """Write one measurement, then the page and the figure from all of them.

    Args:
        folder: ``docs/``.
        name: file name without ending, for example ``"blocks-cpu-tuned"``.
        command: the command that repeats it.
        device: where it ran.
        records: of :func:`gclib.bench.blocks.run` or :func:`gclib.bench.networks.run`.
    """
    measured = {
        "command": command,
        "allocator": allocator(),
        "machine": machine(device),
        "records": [
            {key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in record.items()}
            for record in records
        ],
    }
    path = folder / "performance" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    runs = read(folder)
    (folder / "PERFORMANCE.md").write_text(as_markdown(runs), encoding="utf-8")
    figure(runs, folder / "figures" / "performance.svg")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """All measurements below ``docs/performance/``, by name."""
    paths = sorted((folder / "performance").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def pairs(records: Iterable[Record], how: str = "") -> list[dict[str, Any]]:
    """Each cell and mode with our time, the best peer's, and both peaks of memory.

    ``ratio`` is the best peer's median over ours: above 1 we are faster. Eager implementations
    stand beside eager ones; with ``how`` one of ``HOWS`` those that ran so stand beside each other.
    """
    grouped: dict[tuple, list[Record]] = {}
    for record in records:
        key = (record["group"], *record["shape"], record["dtype"], record["layout"], record["mode"])
        grouped.setdefault(key, []).append(record)
    found = []
    for same in grouped.values():
        chosen = [r for r in same if _ending(r["implementation"]) == how]
        if not chosen:
            continue
        (ours,) = (r for r in chosen if r["implementation"].startswith("gclib"))
        peers = [r for r in chosen if r is not ours]
        if not peers:
            found.append({**ours, "peer": None, "ratio": None})
            continue
        best = min(peers, key=lambda r: r["median"])
        least = min(peers, key=lambda r: r["peak"])
        found.append(
            {
                **ours,
                "peer": best["implementation"],
                "peer_median": best["median"],
                "peer_peak": least["peak"],
                "ratio": best["median"] / ours["median"],
                # Slower for certain: the intervals of the medians do not touch.
                "slower": ours["low"] > best["high"],
            }
        )
    return found


def geometric_mean(values: Iterable[float]) -> float:
    """Mean of ratios."""
    return statistics.geometric_mean(values)


def _targets(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The targets that this run speaks of: what, wanted, found, met."""
    lines = []

    def add(what: str, wanted: str, value: float | None, met: bool, form: str = "{:.2f}×") -> None:
        lines.append([what, wanted, form.format(value), "yes" if met else "no"])

    def select(mode: str, dtype: str = "fp32", groups: tuple[str, ...] = ("gc", "snl")) -> list:
        return [
            r
            for r in rows
            if r["mode"] == mode and r["dtype"] == dtype and r["group"] in groups and r["ratio"]
        ]

    for mode, dtype, wanted in (
        ("forward", "fp32", 3.5),
        ("training", "fp32", 3.0),
        ("training", "bf16", 2.0),
    ):
        ratios = [r["ratio"] for r in select(mode, dtype)]
        if ratios:
            mean, least = geometric_mean(ratios), min(ratios)
            add(f"GC, SNL {mode} {dtype}, geometric mean", f"{wanted}×", mean, mean >= wanted)
            add(f"GC, SNL {mode} {dtype}, smallest", "2×", least, least >= 2)
    large = [r for r in select("forward") if r["input"] > 32e6]
    if large:
        worst = max(r["median"] / r["floor"] for r in large)
        add("GC, SNL forward at 33 MiB, over the floor", "at most 1.6×", worst, worst <= 1.6)
    training = select("training")
    if training:
        # The output and the gradient of x must exist; the rest is extra.
        extra = max(
            (r["peak"] - 2 * r["input"]) / (r["peer_peak"] - 2 * r["input"]) for r in training
        )
        add("GC, SNL extra training memory over the peers'", "at most 0.5×", extra, extra <= 0.5)
    se = [r["ratio"] for mode in ("forward", "training") for r in select(mode, "fp32", ("se",))]
    if se:
        add("SE fp32, smallest", "1×", min(se), min(se) >= 1)
    dot = [
        r["ratio"]
        for mode in ("forward", "training")
        for r in select(mode, "fp32", ("nl_dot_product",))
        if r["shape"][2] * r["shape"][3] >= 2 * r["shape"][1]
    ]
    if dot:
        add("dot-product NL, N ≥ 4 × inner width, smallest", "2.5×", min(dot), min(dot) >= 2.5)
    for mode, wanted in (("forward", 8.0), ("training", 5.0)):
        concat = [r for r in select(mode, "fp32", ("nl_concat",)) if r["shape"][1] == 1024]
        if concat:
            least = min(r["ratio"] for r in concat)
            what = f"concat NL {mode} at 14×14 and 25×21, smallest"
            add(what, f"{wanted:g}×", least, least >= wanted)
    alone = [
        r
        for r in rows
        if r["group"] == "nl_concat" and r["ratio"] is None and r["mode"] == "training"
    ]
    if alone:
        most = max(r["peak"] for r in alone) / 2**30
        add("concat NL at 50×84, training memory", "under 1 GiB", most, most < 1, "{:.2f} GiB")
    for group in ("nl_embedded_gaussian", "nl_gaussian"):
        both = select("forward", "fp32", (group,)) + select("training", "fp32", (group,))
        if both:
            name, least = group[3:].replace("_", "-"), min(r["ratio"] for r in both)
            add(f"{name} NL fp32, smallest", "1×", least, least >= 1)
    memory = [
        r["peak"] / r["peer_peak"]
        for r in select("training", "fp32", ("nl_embedded_gaussian",))
        if r["shape"][2] == 56
    ]
    if memory:
        most = max(memory)
        add(
            "embedded-Gaussian NL training memory, 8 maps of 56×56",
            "at most 0.25×",
            most,
            most <= 0.25,
        )
    return lines


def _on_gpu(records: Iterable[Record]) -> bool:
    return any(r.get("device") == "cuda" for r in records)


def _gpu_targets(rows: list[dict[str, Any]], graphs: list[dict[str, Any]]) -> list[list[str]]:
    """On a GPU no block may be slower than a peer, neither with its launches nor without."""
    lines = []
    for how, found in (("", rows), (", as CUDA graph", graphs)):
        for group in dict.fromkeys(r["group"] for r in found):
            for mode in ("forward", "training"):
                same = [r for r in found if (r["group"], r["mode"]) == (group, mode) and r["ratio"]]
                if same:
                    least = min(r["ratio"] for r in same)
                    slower = sum(r["slower"] for r in same)
                    lines.append(
                        [
                            f"{group} {mode}{how}, smallest",
                            "1×",
                            f"{least:.2f}×" + f", slower in {slower} of {len(same)}" * bool(slower),
                            "no" if slower else "yes" if least >= 1 else "within the intervals",
                        ]
                    )
    return lines


def _launches(rows: list[dict[str, Any]], graphs: list[dict[str, Any]]) -> list[str]:
    """How much of the time on a GPU is the start of kernels and not their work."""
    if graphs:
        shares = [1 - g["median"] / r["median"] for r, g in zip(rows, graphs, strict=True)]
        most = sum(share > 0.5 for share in shares)
        text = (
            f"Launch-bound: in {most} of {len(rows)} cells more than half of our time is Python "
            f"and the start of kernels (median {100 * statistics.median(shares):.0f} %), during "
            f"which the GPU waits; the same work replayed as a CUDA graph does not need it. In a "
            f"network whose layers keep the GPU busy this time is hidden behind them."
        )
    else:
        over = [r["median"] / r["floor"] for r in rows if not r["group"].startswith("nl")]
        if not over:
            return []
        most = sum(value > 3 for value in over)
        text = (
            f"Launch-bound: in {most} of {len(over)} cells of GC, SNL and SE our time is more than "
            f"three times the floor, and the floor itself, a copy of a few microseconds, is mostly "
            f"its start. These times are those of Python and of the start of kernels, whatever "
            f"the size of the map; `--graph` measures the work without them."
        )
    return [text, ""]


def _numbers(record: Record) -> str:
    """What a network computes with."""
    return f"{record['dtype']}, {record['layout']}, {record['examples']} examples"


def _ending(name: str) -> str:
    """How it ran: "", " compiled", " graph" or " compiled graph"."""
    start = name
    while start.endswith(HOWS):
        start = start[: start.rindex(" ")]
    return name[len(start) :]


def _network_targets(records: list[Record]) -> list[list[str]]:
    """What the GC blocks may add to a training step, and that they add no more than the peers'."""
    lines = []
    for r in records:
        how = _ending(r["network"])
        block = r["network"].partition(" · ")[0]
        if block not in ("gc", "4a/gc_all") or r["mode"] != "training":
            continue
        if r["network"] != f"{block} · gclib{how}":
            continue
        most = 3 if r["device"] == "cuda" else 4
        found = 100 * (r["ratio"] - 1)
        what = f"GC-ResNet-50 training, {_numbers(r)}{',' * bool(how)}{how}"
        met = "yes" if found <= most else "no"
        lines.append([what, f"at most +{most} %", f"{found:+.1f} %", met])
        peers = [
            p
            for p in records
            if p["network"].startswith(f"{block} · ")
            and p is not r
            and (_ending(p["network"]), p["mode"], _numbers(p)) == (how, r["mode"], _numbers(r))
        ]
        if peers and r["device"] == "cuda":
            best = min(peers, key=lambda p: p["ratio"])
            name = best["network"].partition(" · ")[2].removesuffix(how)
            rest = f"{100 * (best['ratio'] - 1):+.1f} % ({name})"
            met = "within the intervals" if r["low"] <= best["high"] else "no"
            met = "yes" if r["ratio"] <= best["ratio"] else met
            lines.append(["– beside the best peer", rest, f"{found:+.1f} %", met])
    return lines


def _bare_launches(records: list[Record]) -> list[str]:
    """Whether the bare network itself waits for its launches."""
    found = []
    for mode in ("inference", "training"):
        times = {r["network"]: r["median"] for r in records if r["mode"] == mode}
        if {"no block", "no block graph"} <= times.keys():
            eager, graph = times["no block"], times["no block graph"]
            busy = min(100, 100 * graph / eager)
            found.append(
                f"{mode}: the bare network takes {_ms(eager)} ms eagerly and {_ms(graph)} ms as a "
                f"graph, so the GPU works {busy:.0f} % of the time"
                + (" and each further launch adds its full cost" if busy < 90 else "")
            )
    if not found:
        return []
    return ["Launch-bound or not, " + "; ".join(found) + ".", ""]


def _bounds(rows: list[dict[str, Any]]) -> list[str]:
    """How much faster than the peers a block at the floor would be: no target can be above."""
    found = []
    for mode in ("forward", "training"):
        ratios = [
            r["peer_median"] / r["floor"]
            for r in rows
            if r["mode"] == mode
            and r["dtype"] == "fp32"
            and r["group"] in ("gc", "snl")
            and r["peer"]
        ]
        if ratios:
            found.append(f"{mode} {geometric_mean(ratios):.2f}×")
    lines = [
        f"Dot-product NL at {_shape(r)}: by association the block does {_products(r):.2f} times "
        f"fewer products, its convolutions included; found {r['ratio']:.2f}×."
        for r in rows
        if r["group"] == "nl_dot_product"
        and r["mode"] == "forward"
        and r["ratio"]
        and (r["dtype"], r["layout"]) == ("fp32", "nchw")
        and r["shape"][2] * r["shape"][3] >= 2 * r["shape"][1]
    ]
    groups = {r["group"] for r in rows}
    if "nl_concat" in groups:
        lines.append(
            "Concat NL: by sorting, nearly all that is left is its four convolutions, which the "
            "peers compute as well; so the more positions beside channels, the larger the gain."
        )
    if groups & {"nl_embedded_gaussian", "nl_gaussian"} and not any(r.get("slower") for r in rows):
        lines.append(
            "The Gaussians do the same products as the peers. Ratios of one run differ from 1 by a "
            "tenth or more to both sides; in no cell are the intervals of the medians apart."
        )
    if not found:
        return [line for text in lines for line in (text, "")]
    return [
        f"A GC or SNL block exactly at the floor would be faster than the best peer by "
        f"{' and '.join(found)} here (fp32, geometric means); the targets were set with an older "
        f"torch on another processor, where the peers' one-output convolution was slower.",
        "",
    ]


def _products(record: Record) -> float:
    """Products with the map over products by association, at half of the channels inside."""
    _, channels, height, width = record["shape"]
    inner, positions = channels // 2, height * width
    convolutions = 4 * channels
    return (convolutions + 2 * positions) / (convolutions + 2 * inner)


def as_markdown(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Performance",
        "",
        "Written by the commands named below from the files in `docs/performance/`; not edited by "
        "hand. Each figure is a median over rounds in which all implementations took turns in "
        "random order, on one machine, in one run; rounds that other programs disturbed were made "
        "again, at most as many as were asked for. Times of different runs must not be compared. "
        "All blocks of a row are the same function, which the command checks first. No library has "
        "SNL, and mmcv's concat cannot be trained: `as after mmcv` and `pair tensor` were written "
        "for this comparison after the published formulas.",
        "",
        "*Floor* is what memory traffic allows: 3 passes over the feature map forward, 7 for a "
        "training step, one pass being half of a copy of the same tensor in the same rounds. It "
        "means little for non-local blocks, whose time is arithmetic.",
        "",
        "![Time over the floor](figures/performance.svg)",
        "",
    ]
    blocks = {name: run for name, run in runs.items() if name.startswith("blocks")}
    rows = {name: pairs(run["records"]) for name, run in blocks.items()}
    lines += ["## Slower than a peer", ""]
    slower = [(name, r) for name, found in rows.items() for r in found if r.get("slower")]
    networks = {name: run for name, run in runs.items() if name.startswith("networks")}
    for name, run in networks.items():
        slower += [(name, r) for r in _slower_networks(run["records"])]
    if slower:
        lines += ["The intervals of the two medians do not touch in these cells.", ""]
        lines += _table(
            ["run", "block", "shape", "", "mode", "gclib ms", "best peer ms", "peer / gclib"],
            [
                [
                    name,
                    r["group"],
                    _shape(r),
                    f"{r['dtype']} {r['layout']}",
                    r["mode"],
                    _ms(r["median"]),
                    f"{_ms(r['peer_median'])} ({r['peer']})",
                    f"{r['ratio']:.2f}",
                ]
                for name, r in sorted(slower, key=lambda pair: pair[1]["ratio"])
            ],
        )
    else:
        lines += ["In no cell.", ""]
    lines += ["## Targets", ""]
    for name, found in rows.items():
        graphs = pairs(blocks[name]["records"], " graph")
        on_gpu = _on_gpu(found)
        if targets := _gpu_targets(found, graphs) if on_gpu else _targets(found):
            lines += [f"Run `{name}`:", ""]
            lines += _table(["what", "target", "found", "met"], targets)
            lines += _launches(found, graphs) if on_gpu else _bounds(found)
    for name, run in networks.items():
        if targets := _network_targets(run["records"]):
            lines += [f"Run `{name}`:", ""]
            lines += _table(["what", "target", "found", "met"], targets)
    for name, run in runs.items():
        if name.startswith("course"):
            lines += [f"## The course, run `{name}`", "", *_how(run), *_course(run["records"])]
    for name, run in runs.items():
        if name.startswith("grading"):
            lines += [f"## Grading, run `{name}`", "", *_how(run), *_grading(run["records"])]
    for name, run in runs.items():
        if name.startswith("training"):
            lines += [f"## Training, run `{name}`", "", *_how(run), *_training(run["records"])]
    for name, run in runs.items():
        if name.startswith("loaders"):
            lines += [f"## Videos, run `{name}`", "", *_how(run), *_loaders(run["records"])]
    for name, run in networks.items():
        lines += [f"## ResNet-50, run `{name}`", "", *_how(run), *_networks(run["records"])]
    for name, run in runs.items():
        if name.startswith("roofline"):
            lines += [f"## Roofline, run `{name}`", "", *_how(run), *_roofline(run["records"])]
    for name, run in blocks.items():
        lines += [f"## Blocks, run `{name}`", "", *_how(run)]
        lines += _table(
            [
                "block",
                "shape",
                "",
                "mode",
                "gclib ms",
                "over floor",
                "best peer ms",
                "peer / gclib",
                "gclib MiB",
                "peer MiB",
            ],
            [
                [
                    r["group"],
                    _shape(r),
                    f"{r['dtype']} {r['layout']}",
                    r["mode"],
                    _ms(r["median"]),
                    f"{r['median'] / r['floor']:.1f}×",
                    f"{_ms(r['peer_median'])} ({r['peer']})" if r["peer"] else "none runs",
                    f"{r['ratio']:.2f}" if r["peer"] else "",
                    f"{r['peak'] / 2**20:.0f}",
                    f"{r['peer_peak'] / 2**20:.0f}" if r["peer"] else "",
                ]
                for r in rows[name]
            ],
        )
        lines += _compiled(run["records"], rows[name])
        lines += _graphs(run["records"], rows[name])
    return "\n".join(lines).rstrip() + "\n"


def _networks(records: list[Record]) -> list[str]:
    """Networks over the bare one, in inference and training."""
    counted = all("multiply_adds" in r for r in records)
    rows = any(r["network"].startswith("4") for r in records)
    places = (
        "Rows of table 4, with their strides in the 1×1 convolutions; `4a/gc_all` and `4b/att_add` "
        "are the same network, and so are `4a/baseline` and no block: their differences show what "
        "a difference here means."
        if rows
        else "GC, SE and SNL stand in every residual block of c3 to c5, NL once in c4."
    )
    lines = [
        "Time over the network without a block, run in the same way: the median of the rounds' "
        "ratios, and its 95 % interval. Each kind of block takes turns with its own runs of "
        f"the bare network. The step is forward and backward, without the optimiser. {places}",
        "",
    ]
    if counted:
        lines += [
            "Multiply-adds by the paper's convention, of one image; bytes that the operations of "
            "inference read and write, of the whole batch.",
            "",
        ]
    if any(r["network"].endswith(" graph") for r in records):
        lines += [f"*graph*: {GRAPH}", ""]
    for numbers in dict.fromkeys(_numbers(r) for r in records):
        same = [r for r in records if _numbers(r) == numbers]
        if _on_gpu(same) or (counted and len(same) < len(records)):
            lines += [f"In {numbers}:", ""]
        if counted:
            lines += _counted_networks(same)
        else:
            lines += _table(
                ["network", "mode", "ms", "over no block", "interval", "peak MiB"],
                [
                    [r["network"], r["mode"], *_over(r), _mebibytes(r["peak"])]
                    for r in sorted(
                        same, key=lambda r: (r["mode"], _ending(r["network"]), r["ratio"])
                    )
                ],
            )
        lines += _bare_launches(same)
    return lines


def _over(record: Record) -> list[str]:
    """Milliseconds, and percent over the bare network with their interval."""
    return [
        _ms(record["median"]),
        _percent(record["ratio"] - 1),
        f"{100 * (record['low'] - 1):+.1f} to {_percent(record['high'] - 1)}",
    ]


def _percent(fraction: float, digits: int = 1) -> str:
    return f"{100 * fraction:+.{digits}f} %"


def _counted_networks(records: list[Record]) -> list[str]:
    """A line for each network: what it has, and its time in both modes."""
    bare = records[0]
    lines = []
    for name in dict.fromkeys(r["network"] for r in records):
        modes = {r["mode"]: r for r in records if r["network"] == name}
        r = modes["inference"]
        more = r["bytes"] / bare["bytes"] - 1 if r["bytes"] else None
        lines.append(
            [
                name,
                f"{r['parameters'] / 1e6:.2f}",
                f"{r['multiply_adds'] / 1e9:.3f}",
                _percent(r["multiply_adds"] / bare["multiply_adds"] - 1, 2),
                _percent(more) if more is not None else "",
                *_over(r),
                *_over(modes["training"]),
                _mebibytes(modes["training"]["peak"]),
            ]
        )
    over = ["over no block", "interval"]
    head = ["network", "M parameters", "G multiply-adds", "more", "more bytes"]
    return _table([*head, "inference ms", *over, "training ms", *over, "peak MiB"], lines)


def _slower_networks(records: list[Record]) -> list[dict[str, Any]]:
    """Networks with our block whose intervals lie above the best peer's, as cells of a block."""
    found = []
    for ours in records:
        block, _, name = ours["network"].partition(" · ")
        how = _ending(ours["network"])
        if name.removesuffix(how) != "gclib":
            continue
        peers = [
            r
            for r in records
            if r["network"].startswith(f"{block} · ")
            and r is not ours
            and (_ending(r["network"]), r["mode"], _numbers(r))
            == (how, ours["mode"], _numbers(ours))
        ]
        best = min(peers, key=lambda r: r["ratio"], default=None)
        if best is None or ours["low"] <= best["high"]:
            continue
        found.append(
            {
                **ours,
                "group": f"{block} in ResNet-50",
                "shape": [ours["examples"], 3, ours["size"], ours["size"]],
                "mode": ours["mode"] + f",{how}" * bool(how),
                "peer": best["network"].partition(" · ")[2].removesuffix(how),
                "peer_median": best["median"],
                "ratio": best["ratio"] / ours["ratio"],
            }
        )
    return found


def _roofline(records: list[Record]) -> list[str]:
    """The machine, what bounds say of each row, and where they hold."""
    lines = []
    for start, machine in enumerate(records):
        if machine["part"] == "machine":
            same = [machine]
            for record in records[start + 1 :]:
                if record["part"] == "machine":
                    break
                same.append(record)
            lines += _one_roofline(same)
    return lines


def _one_roofline(records: list[Record]) -> list[str]:
    machine, *rest = records
    networks = [r for r in rest if r["part"] == "network"]
    about = networks[0]
    lines = [
        f"{_peaks(machine)} {about['examples']} images of {about['size']}², {machine['dtype']}, "
        f"{about['layout']}; training is forward and backward. A *bound* is the sum over "
        "operations of the longer of arithmetic and traffic, each reading its inputs and writing "
        "its outputs once; *cached* takes the second bandwidth. *In "
        "blocks* is the time measured inside of them, in inference; *explained* is what each bound "
        "adds over it, and in training over the additional time where its interval excludes zero.",
        "",
    ]
    lines += _table(
        [
            *("network", "mode", "multiply-adds", "bytes", "time", "interval", "ms"),
            *("arithmetic ms", "bound ms", "bound cached ms", "in blocks ms", "explained"),
        ],
        [
            [
                r["network"],
                r["mode"],
                _percent(r["more_multiply_adds"], 2),
                _percent(r["more_bytes"]),
                _percent(r["more_time"]),
                f"{100 * r['low']:+.1f} to {_percent(r['high'])}",
                *map(_ms, (r["median"], r["compute"], r["memory"], r["cached"])),
                _ms(r["inside"]) if r["inside"] else "",
                _explained(r),
            ]
            for r in networks
        ],
    )
    for r in networks:
        if r["inside"]:
            lines += [_gap(r), ""]
    beaten = [f"`{r['network']}` in {r['mode']}" for r in networks if "memory" in r["beaten"]]
    if beaten:
        lines += [
            f"Faster than the whole bound: {', '.join(beaten)}. It does not hold on this machine, "
            "for maps stay in a cache.",
            "",
        ]
    for network in dict.fromkeys(r["network"] for r in rest if r["part"] == "kind"):
        kinds = [r for r in rest if r["part"] == "kind" and r["network"] == network]
        lines += [f"`{network}` by kind of layer:", ""]
        lines += _table(
            [
                *("kind", "layers", "limited by compute", "G multiply-adds", "MB"),
                *("bound ms", "share", "measured ms", "over bound"),
            ],
            [
                [
                    *(r["kind"], str(r["layers"]), str(r["compute_bound"])),
                    f"{r['multiply_adds'] / 1e9:.3g}",
                    f"{r['bytes'] / 1e6:.3g}",
                    _ms(r["bound"]),
                    f"{100 * r['share']:.1f} %",
                    _ms(r["measured"]) if r["measured"] else "",
                    f"{r['measured'] / r['bound']:.1f}×" if r["measured"] else "",
                ]
                for r in kinds
            ],
        )
        lines += _fits(kinds)
    return lines


def _peaks(machine: Record) -> str:
    return (
        f"At most {machine['multiply_adds_per_second'] / 1e9:.3g} G multiply-adds/s (matrix "
        f"product), {machine['bytes_per_second'] / 1e9:.3g} GB/s from memory, "
        f"{machine['cached_bytes_per_second'] / 1e9:.3g} GB/s for maps of 8 MiB "
        f"({machine['device']}, {machine['dtype']}, {machine['threads']} threads): what does fewer "
        f"than {machine['multiply_adds_per_second'] / machine['bytes_per_second']:.2g} "
        "multiply-adds for a byte is limited by memory."
    )


def _gap(record: Record) -> str:
    """Time against multiply-adds, in words."""
    found = record["explained"]
    rest = 1 - found["memory"]
    return (
        f"`{record['network']}`: {_percent(record['more_multiply_adds'], 2)} multiply-adds, "
        f"{_percent(record['more_bytes'])} bytes, {_percent(record['inside'] / _bare(record))} "
        f"time in its blocks; their arithmetic at the machine's peak would be "
        f"{_percent(found['compute'] * record['inside'] / _bare(record), 2)}, with the bytes "
        f"{_percent(found['memory'] * record['inside'] / _bare(record))}. "
        + (
            f"{100 * rest:.0f} % of the time in blocks is explained by neither."
            if rest > 0
            else "Less time than the bound: a cache held the maps."
        )
    )


def _bare(record: Record) -> float:
    """Seconds of the bare network in the rounds of a row."""
    return record["median"] / (1 + record["more_time"])


def _explained(record: Record) -> str:
    """Shares of the time in blocks."""
    found = record["explained"]
    if not found:
        return ""
    return (
        f"arithmetic {100 * found['compute']:.2g} %, bound {100 * found['memory']:.0f} %, "
        f"cached {100 * found['cached']:.0f} %"
    )


def _fits(kinds: list[Record]) -> list[str]:
    """Which kinds the bound describes, and which it does not."""
    measured = [r for r in kinds if r["measured"]]
    if not measured:
        return []
    # Nobody misses what is under a hundredth of the time.
    least = 0.01 * sum(r["measured"] for r in measured)
    large = [r for r in measured if r["measured"] >= least]
    groups = {
        "Within twice the bound": [r for r in large if 1 <= r["measured"] / r["bound"] <= 2],
        "Slower than twice the bound, for reasons that it does not know": [
            r for r in large if r["measured"] > 2 * r["bound"]
        ],
        "Faster than the bound, so a cache held the map": [
            r for r in large if r["measured"] < r["bound"]
        ],
    }
    texts = [f"{text}: {', '.join(r['kind'] for r in found)}" for text, found in groups.items()]
    return [
        ". ".join(t for t, found in zip(texts, groups.values(), strict=True) if found) + ".",
        "",
    ]


def _course(records: list[Record]) -> list[str]:
    """Whole processes: commands, notebooks and tests."""
    lines = [
        "Wall-clock seconds of whole processes, the start of Python included, and the memory of "
        "the largest. Notebooks are the solutions, run from the first cell to the last; the tests "
        "are the quick ones. A notebook may take 60 s and 2 GiB, all of them 10 minutes.",
        "",
    ]
    lines += _table(
        ["what", "s", "interval", "allowed", "met", "MiB"],
        [
            [
                f"`{r['task']}`",
                f"{r['median']:.3g}",
                f"{r['low']:.3g} to {r['high']:.3g}" if r["rounds"] > 1 else "one run",
                *(_allowed(r) if not r["task"].startswith("import") else ("", "")),
                _mebibytes(r["peak"]),
            ]
            for r in records
        ],
    )
    notebooks = [r["median"] for r in records if r["part"] == "notebooks"]
    if notebooks:
        lines += [f"All notebooks: {sum(notebooks):.0f} s.", ""]
    return lines


def _grading(records: list[Record]) -> list[str]:
    """A class graded both ways."""
    plain, ours = records
    ratio = ours["per_minute"] / plain["per_minute"]
    lines = [
        f"{ours['submissions']} submissions of chapter {ours['chapter']}, between none and all of "
        f"the right answers, on {ours['cores']} cores. Each half of the class is graded by one, "
        "then by the other, in the opposite order; the points are compared. Plain nbgrader runs "
        "students' code beside the gradebook; `gclib grade` runs it in sandboxes, makes pages of "
        "what it prints, and writes the class report.",
        "",
    ]
    lines += _table(
        ["", "s", "submissions a minute"],
        [[f"`{r['way']}`", f"{r['seconds']:.0f}", f"{r['per_minute']:.1f}"] for r in records],
    )
    met = "met" if ratio >= GRADING_TARGET else "missed"
    return [*lines, f"{ratio:.1f} times as many; the target of {GRADING_TARGET:g} is {met}.", ""]


_JPEGS = "generated JPEGs of 500×375 pixels"


def _training(records: list[Record]) -> list[str]:
    """Whole trainings beside torchvision's script."""
    ours = records[0]
    lines = [
        f"{ours['network']}, batches of {ours['batch']} {ours.get('data', _JPEGS)}, "
        f"{ours['workers']} processes that read them, {ours['rounds']} runs of each in turns; the "
        "first updates of a run do not count. Both decode, augment, train, and print as they do by "
        "default; reading is part of the time. Other programs kept at most "
        f"{ours['other_load']:.1f} processors busy.",
        "",
    ]
    lines += _table(
        ["", "dtype", "images/s", "interval"],
        [
            [
                f"`{r['way']}`",
                r["dtype"],
                f"{r['median']:.3g}",
                f"{r['low']:.3g} to {r['high']:.3g}",
            ]
            for r in records
        ],
    )
    met = "met" if ours["ratio"] >= 1 else "missed"
    found = (
        f"{ours['ratio']:.2f} times as fast ({ours['ratio_low']:.2f} to {ours['ratio_high']:.2f})"
    )
    return [*lines, f"{found}; the target of 1 is {met}.", ""]


def _loaders(records: list[Record]) -> list[str]:
    """Reading of clips beside the other ways."""
    measured = [r for r in records if "left_out" not in r]
    lines = [
        "Clips of 8 pictures of H.264 videos, cut as in training (one clip, one crop of 224×224) "
        "or in evaluation (10 clips, three crops of 256×256 each). Each way has one thread, as a "
        "training has a process for each core, and the same crops follow. Processor seconds are of "
        f"a clip, medians of {measured[0]['rounds']} rounds in turns with their interval; the "
        "ratio is that of the rounds, above 1 where ours is faster. Pictures a second are of the "
        "clock, which other programs slow down (they kept at most "
        f"{max(r['other_load'] for r in measured):.1f} processors busy). Memory is the most that "
        "reading one file adds to the process, its result included.",
        "",
    ]
    for kind, task in dict.fromkeys((r["files"], r["task"]) for r in records):
        same = [r for r in records if (r["files"], r["task"]) == (kind, task)]
        read = [r for r in same if "left_out" not in r]
        lines += [f"{task.capitalize()}, {same[0]['count']} files, {kind}:", ""]
        lines += _table(
            ["", "CPU ms a clip", "interval", "over ours", "pictures/s", "MiB", "pictures"],
            [
                [
                    r["way"],
                    _ms(r["median"]),
                    f"{_ms(r['low'])} to {_ms(r['high'])}",
                    f"{r['ratio']:.2f}×" if r is not read[0] else "",
                    f"{r['frames_per_s']:.0f}",
                    _mebibytes(r["peak"]),
                    _alike(r) if r is not read[0] else "",
                ]
                for r in read
            ],
        )
        lines += [f"{_best(read)} {_least(read)}".strip(), ""]
    out = dict.fromkeys(f"{r['way']}: {r['left_out']}" for r in records if "left_out" in r)
    return lines + [line for text in out for line in (f"Not measured: {text}.", "")]


def _alike(record: Record) -> str:
    if record["psnr"] is None:
        return "the same"
    other = " (others)" if record["psnr"] < ALIKE else ""
    return f"{record['psnr']:.0f} dB at least{other}"


def _best(read: list[Record]) -> str:
    """Whether ours needs no more of the processor than the best other way."""
    others = [r for r in read[1:] if r["psnr"] is None or r["psnr"] >= ALIKE]
    if not others:
        return ""
    best = min(others, key=lambda r: r["ratio"])
    close = best["ratio_low"] <= 1 <= best["ratio_high"]
    met = "met" if best["ratio"] >= 1 else "within the interval" if close else "missed"
    return (
        f"The best of the others, {best['way']}, takes {best['ratio']:.2f} times our processor "
        f"time ({best['ratio_low']:.2f} to {best['ratio_high']:.2f}); the target of 1 is {met}."
    )


def _least(read: list[Record]) -> str:
    others = [r for r in read[1:] if r["peak"] is not None]
    if not others or read[0]["peak"] is None:
        return ""
    least = min(others, key=lambda r: r["peak"])
    return (
        f"Of the others, {least['way']} takes the least memory, {_mebibytes(least['peak'])} MiB; "
        f"ours takes {_mebibytes(read[0]['peak'])} MiB."
    )


def _allowed(record: Record) -> tuple[str, str]:
    seconds = SECONDS[record["part"]]
    small = record["part"] != "notebooks" or (record["peak"] or 0) < 2**31
    return f"{seconds:g} s", "yes" if record["median"] < seconds and small else "no"


def _mebibytes(number: int | None) -> str:
    return "" if number is None else f"{number / 2**20:.0f}"


def _compiled(records: list[Record], eager: list[dict[str, Any]]) -> list[str]:
    """Compiled blocks beside compiled peers, and over our eager block of the same run."""
    rows = pairs(records, " compiled")
    if not rows:
        return []
    lines = ["Under `torch.compile`, where our blocks run the plain formula:", ""]
    return lines + _table(
        ["block", "shape", "", "mode", "compiled ms", "eager ms", "best compiled peer ms", "ratio"],
        [
            [
                r["group"],
                _shape(r),
                f"{r['dtype']} {r['layout']}",
                r["mode"],
                _ms(r["median"]),
                _ms(e["median"]),
                f"{_ms(r['peer_median'])} ({r['peer'].removesuffix(' compiled')})"
                if r["peer"]
                else "none runs",
                f"{r['ratio']:.2f}" if r["peer"] else "",
            ]
            for r, e in zip(rows, eager, strict=True)
        ],
    )


def _graphs(records: list[Record], eager: list[dict[str, Any]]) -> list[str]:
    """Blocks as CUDA graphs beside their peers, and beside our eager time of the same run."""
    rows = pairs(records, " graph")
    if not rows:
        return []
    lines = [f"As CUDA graphs: {GRAPH}", ""]
    return lines + _table(
        [
            "block",
            "shape",
            "",
            "mode",
            "graph µs",
            "eager µs",
            "over floor",
            "best peer µs",
            "ratio",
        ],
        [
            [
                r["group"],
                _shape(r),
                f"{r['dtype']} {r['layout']}",
                r["mode"],
                f"{1e6 * r['median']:.3g}",
                f"{1e6 * e['median']:.3g}",
                f"{r['median'] / r['floor']:.1f}×",
                f"{1e6 * r['peer_median']:.3g} ({r['peer'].removesuffix(' graph')})"
                if r["peer"]
                else "none runs",
                f"{r['ratio']:.2f}" if r["peer"] else "",
            ]
            for r, e in zip(rows, eager, strict=True)
        ],
    )


def as_lines(what: str, records: list[Record]) -> list[str]:
    """A short table for the terminal."""
    if what == "course":
        return [
            f"{r['task']:<50}{r['median']:8.2f} s  {_mebibytes(r['peak']):>6} MiB" for r in records
        ]
    if what == "grading":
        return [
            f"{r['way']:<22}{r['seconds']:8.1f} s  {r['per_minute']:6.1f} a minute" for r in records
        ]
    if what == "training":
        return [
            f"{r['way']:<26}{r['dtype']}  {r['median']:8.2f} images/s "
            f"({r['low']:.2f} to {r['high']:.2f})  {r['ratio']:.2f}×"
            for r in records
        ]
    if what == "loaders":
        return _loader_lines(records)
    if what == "networks":
        return _network_lines(records)
    if what == "roofline":
        return _roofline_lines(records)
    return [
        f"{r['group']:<22}{_shape(r):<16}{r['dtype']} {r['layout']}  {r['mode']:<9}"
        f"{r['implementation']:<16}{_ms(r['median']):>8} ms  {r['median'] / r['floor']:5.1f}× floor"
        f"  {r['peak'] / 2**20:6.1f} MiB"
        for r in records
    ]


def _loader_lines(records: list[Record]) -> list[str]:
    lines = []
    for r in records:
        start = f"{r['files']:<32}{r['task']:<14}{r['way']:<26}"
        if "left_out" in r:
            lines.append(f"{start}not measured: {r['left_out']}")
            continue
        lines.append(
            f"{start}{_ms(r['median']):>6} ms CPU a clip  {r['ratio']:5.2f}×  "
            f"{r['frames_per_s']:6.0f} pictures/s  {_mebibytes(r['peak']):>4} MiB  {_alike(r)}"
        )
    return lines


def _network_lines(records: list[Record]) -> list[str]:
    """Time beside multiply-adds and bytes, over the bare network of the same numbers."""
    lines = []
    for r in records:
        bare = next(b for b in records if _numbers(b) == _numbers(r))
        products = r["multiply_adds"] / bare["multiply_adds"] - 1
        moved = _percent(r["bytes"] / bare["bytes"] - 1) if r["bytes"] else ""
        lines.append(
            f"{r['mode']:<10}{r['network']:<32}{r['parameters'] / 1e6:6.2f} M"
            f"{r['multiply_adds'] / 1e9:7.3f} G{_percent(products, 2):>10}"
            f"{moved:>9} bytes{_ms(r['median']):>8} ms{_percent(r['ratio'] - 1):>9} time "
            f"({100 * (r['low'] - 1):+.1f} to {100 * (r['high'] - 1):+.1f}){r['peak'] / 2**20:6.0f}"
            " MiB"
        )
    return lines


def _roofline_lines(records: list[Record]) -> list[str]:
    lines = []
    for r in records:
        if r["part"] == "machine":
            lines.append(_peaks(r))
        elif r["part"] == "network":
            lines.append(
                f"{r['mode']:<10}{r['network']:<14}"
                f"{_percent(r['more_multiply_adds'], 2):>9} multiply-adds"
                f"{_percent(r['more_bytes']):>9} bytes{_percent(r['more_time']):>9} time "
                f"({100 * r['low']:+.1f} to {100 * r['high']:+.1f}), {_ms(r['median'])} ms; "
                f"arithmetic {_ms(r['compute'])}, bound {_ms(r['memory'])}, cached "
                f"{_ms(r['cached'])} ms"
                + (f"; {_ms(r['inside'])} ms in blocks" if r["inside"] else "")
                + (f"; explained by {_explained(r)}" if r["explained"] else "")
            )
        else:
            measured = f", measured {_ms(r['measured'])} ms" if r["measured"] is not None else ""
            lines.append(
                f"{r['network']:<14}{r['kind']:<20}{r['layers']:>4} layers, {r['compute_bound']} "
                f"limited by compute, {r['multiply_adds'] / 1e9:.3g} G, {r['bytes'] / 1e6:.4g} MB, "
                f"bound {_ms(r['bound'])} ms ({100 * r['share']:.1f} %){measured}"
            )
    return lines


def _how(run: Mapping[str, Any]) -> list[str]:
    about = ", ".join(f"{key} {value}" for key, value in run["machine"].items())
    lines = [f"`{run['command']}`, allocator {run['allocator']}; {about}.", ""]
    paged = run["allocator"] == "default" and not _on_gpu(run["records"])
    if paged and run["records"] and "floor" in run["records"][0]:
        lines += [
            "Results above 32 MiB take one of two times here, with page faults or without; which "
            "one depends on what ran before, so single ratios of these cells say little.",
            "",
        ]
    return lines


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def _shape(record: Record) -> str:
    return "×".join(map(str, record["shape"]))


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 0.9995 else f"{1000 * seconds:.0f}"


def figure(runs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Times of the GC block over the floor, for every implementation and shape, as a chart."""
    import matplotlib

    wanted = {
        name: [r for r in run["records"] if r.get("group") == "gc" and r["dtype"] == "fp32"]
        for name, run in sorted(runs.items(), key=lambda pair: pair[1]["allocator"], reverse=True)
    }
    name = next((name for name, records in wanted.items() if records), None)
    if name is None:
        return
    from matplotlib.figure import Figure

    records = wanted[name]
    implementations = list(dict.fromkeys(r["implementation"] for r in records))
    places = list(dict.fromkeys((tuple(r["shape"]), r["layout"]) for r in records))
    colours = dict(zip(implementations, ("#0072b2", "#e69f00", "#009e73", "#cc79a7"), strict=False))
    with matplotlib.rc_context({"svg.hashsalt": "gclib", "svg.fonttype": "none"}):
        drawing = Figure(figsize=(9, 0.42 * len(places) + 1.6), layout="constrained")
        axes = drawing.subplots(1, 2, sharey=True)
        for axis, mode in zip(axes, ("forward", "training"), strict=True):
            for record in records:
                if record["mode"] == mode:
                    row = places.index((tuple(record["shape"]), record["layout"]))
                    axis.plot(
                        record["median"] / record["floor"],
                        row,
                        "o",
                        color=colours.get(record["implementation"], "#555555"),
                    )
            axis.axvline(1, color="black", linewidth=1)
            axis.set_xlim(left=0)
            axis.set_title(mode)
            axis.set_xlabel("time over the memory-traffic floor")
            axis.grid(axis="x", color="#dddddd")
        labels = ["×".join(map(str, shape)) + f" {layout}" for shape, layout in places]
        axes[0].set_yticks(range(len(places)), labels)
        axes[0].invert_yaxis()
        for implementation, colour in colours.items():
            axes[1].plot([], [], "o", color=colour, label=implementation)
        axes[1].legend(loc="lower right")
        drawing.suptitle(f"GC block, fp32, run {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, metadata={"Date": None})
