"""``gclib analyse``: what the blocks of a trained network look at (section 3.2, table 1).

.. code-block:: bash

    gclib analyse coco --checkpoint runs/coco/2a-nl_1/seed-0/best.pt --data DIR
    gclib analyse kinetics --checkpoint runs/kinetics/5-nl_5/seed-0/best.pt --data DIR
    gclib analyse folder --checkpoint runs/imagenet/4a-nl_1/stage-2/seed-0/best.pt --data PHOTOS
    torchrun --nproc-per-node 8 -m gclib.training.analyse coco --images 0 ...    # all images

Every distance stands beside its controls, those of chapter 02: the same network with blocks that
start anew, with three scales of their products; and, with ``--effect yes``, what the network
reaches when its maps are permuted or are all the same. Images come one by one, and nothing of them
is kept but numbers, so memory does not grow with the data.

Of a video, one clip from its middle is looked at, cropped as in training. A position is a place at
a time, so the distances are averaged over all pairs in space and time. Table 1 does not say which
of the five blocks its rows for Kinetics are of: each has its own line here. Where keys are
max-pooled, a map has fewer keys than queries; that changes nothing in the distances, which compare
rows of the map, one for each query. The five maps of a clip take 82 MiB in the full network: in c3
they have 6272 queries and 1568 keys.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from gclib.analysis.capture import Captured, capture, is_block
from gclib.analysis.interventions import CHANGES, non_local_blocks, untrained, with_maps
from gclib.analysis.running import KINDS, RunningDistances
from gclib.blocks.non_local import NonLocalBlock
from gclib.datasets.files import BrokenData
from gclib.datasets.images import SUFFIXES, BrokenImage, Example, eval_transform, read_image
from gclib.training import distributed
from gclib.training.command import TASKS, Refused, guarded, load, recipe_in
from gclib.training.distributed import World
from gclib.training.options import help_lines, option, override, parse
from gclib.training.progress import duration
from gclib.training.reading import in_order
from gclib.training.recipe import Machine
from gclib.training.runs import write_json
from gclib.training.trainer import prepared

NAMES = ("coco", "folder", "kinetics")
FILE = "analysis.json"
_LINE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """Options of ``gclib analyse``."""

    checkpoint: str | None = option(None, "a checkpoint, best.pt or model.pt of a run")
    data: str | None = option(None, "folder of the data set; for folder: any folder of images")
    out: str | None = option(None, "folder for results; default: analysis/<row>")
    images: int = option(100, "test images or videos, spread over the data; 0: all", least=0)
    pairs: int = option(20_000, "pairs of positions for the JSD of an image; 0: all", least=0)
    maps: int = option(4, "images or videos whose maps are drawn", least=0)
    queries: int = option(3, "maps of an image", least=1)
    controls: bool = option(True, "measure blocks that start anew, too")
    effect: bool = option(False, "evaluate with permuted maps and with one map for all, too")


def main(arguments: Sequence[str], *, program: str = "gclib analyse") -> int:
    """Analyse; the exit status: 0, or 2 for what cannot be."""
    return guarded(_analyse, list(arguments), program)


def _analyse(arguments: list[str], program: str) -> int:
    name = arguments.pop(0) if arguments else ""
    kind = "imagenet" if name == "folder" else name
    if name not in NAMES or kind not in TASKS:
        known = [n for n in NAMES if n == "folder" or n in TASKS]
        raise Refused(f"{program}: expected one of {', '.join(known)}, got {name!r}")
    if set(arguments) & {"--help", "-h"}:
        print(f"usage: {program} {name} --checkpoint P --data DIR [...]\n")
        print("\n".join([*help_lines(Analysed()), *help_lines(Machine())]))
        return 0
    values, machine_values = parse(arguments, Analysed, Machine)
    wanted, machine = Analysed(**values), override(Machine(), machine_values)
    for field in ("checkpoint", "data"):
        if getattr(wanted, field) is None:
            raise Refused(f"--{field} is missing")
    if name == "folder" and wanted.effect:
        raise Refused("--effect: a folder of images has no labels to evaluate with")
    module = import_module(TASKS[kind])
    world = distributed.start(machine.device)
    one_size = getattr(module.open_task, "one_size", True)
    with prepared(machine, world.device, one_size=one_size):
        seen = _open(module, name, wanted, machine, world)
        result = analyse(seen, wanted, world, machine)
    if world.leads:
        out = Path(wanted.out) if wanted.out else Path("analysis", seen.row.replace("/", "-"))
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / FILE, result)
        print("\n".join(lines_of(result)))
        print(f"written: {out / FILE}" + (f", maps in {out}" if wanted.maps else ""))
    return 0


@dataclass(frozen=True)
class _Seen:
    """A trained network and the images that it is to look at."""

    module: Any
    task: Any  # None for a folder of images
    model: nn.Module
    data: Dataset
    row: str

    @property
    def unit(self) -> str:
        """What it looks at."""
        return "videos" if self.module.open_task.name == "kinetics" else "images"


class _Photos(Dataset):
    """Images anywhere below a folder, cropped as in the test of the network."""

    def __init__(self, folder: Path, transform: nn.Module) -> None:
        if not folder.is_dir():
            raise BrokenData(f"{folder} is not a folder of images")
        found = (p for p in sorted(folder.rglob("*")) if p.name.lower().endswith(SUFFIXES))
        self.paths, self.transform = [p for p in found if p.is_file()], transform
        if not self.paths:
            raise BrokenData(f"{folder} holds no image ({', '.join(SUFFIXES)})")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        try:
            image = self.transform(read_image(self.paths[index]))
        except BrokenImage as error:
            return Example(None, -1, index, (error.path,))
        return Example(image, 0, index)


def _open(module: Any, name: str, wanted: Analysed, machine: Machine, world: World) -> _Seen:
    path, data = Path(wanted.checkpoint), Path(wanted.data)
    recipe, state = recipe_in(module, path)
    if name == "folder":
        task = None
        photos = _Photos(data, eval_transform(recipe.resize, recipe.image_size))
        model = module.build(recipe, _classes(state))
    else:
        task = module.open_task(recipe, data, state.get("started_from"))
        photos = getattr(task, "seen_data", task.test_data)
        model = task.build_model(fresh=False)
    if not any(map(is_block, model.modules())):
        raise Refused(f"{recipe.row} has no block that could look at anything: take another row")
    if wanted.effect and not non_local_blocks(model):
        raise Refused(f"--effect: the blocks of {recipe.row} have one map for all queries already")
    load(model, state, path, data, task)
    model = model.to(world.device).eval()
    return _Seen(module, task, model, photos, recipe.row)


def _classes(state: dict[str, Any]) -> int:
    """How many classes the network of a checkpoint tells apart: rows of its last layer."""
    return len(state["model"]["fc.weight"])


def analyse(seen: _Seen, wanted: Analysed, world: World, machine: Machine) -> dict[str, Any]:
    """Measure, draw, and say how far it is.

    Returns:
        Plain values: ``trained`` and the controls, each as
        :meth:`gclib.analysis.running.RunningDistances.as_dict` gives them, and ``effect``.
    """
    count = len(seen.data) if not wanted.images else min(wanted.images, len(seen.data))
    chosen = [i * len(seen.data) // count for i in range(count)]
    result: dict[str, Any] = {
        "row": seen.row,
        "unit": seen.unit,
        "checkpoint": wanted.checkpoint,
        "images": count,
        "of": len(seen.data),
        "pairs": wanted.pairs or None,
    }
    measured = partial(_measure, seen, chosen, wanted, world, machine)
    result["maps"] = {}
    result["trained"], result["broken"] = measured("trained", result["maps"], draw=True)
    if wanted.controls:
        for name, scale in _scales(seen.model).items():
            with untrained(seen.model, scale=scale):
                result[name], _ = measured(name, {})
    if wanted.effect:
        result["effect"] = {}
        for name, change in CHANGES.items():
            with with_maps(seen.model, change):
                result["effect"][name] = seen.task.evaluate(seen.model, world, machine)
            if world.leads:
                print(f"{name}: {result['effect'][name]}", flush=True)
    return result


def _scales(model: nn.Module) -> dict[str, Callable[[NonLocalBlock], float] | None]:
    """The controls: blocks that start anew; the two Gaussians also with other scales."""
    gaussian = [
        block
        for block in non_local_blocks(model).values()
        if block.instantiation in ("gaussian", "embedded_gaussian")
    ]
    found: dict[str, Callable[[NonLocalBlock], float] | None] = {"untrained": None}
    if gaussian:
        own = gaussian[0].scale
        others = {
            "untrained, scale 1": lambda block: 1.0,
            "untrained, scale 1/√d": lambda block: _width(block) ** -0.5,
            # a mistake of a widely used release
            "untrained, scale × √d": lambda block: _width(block) ** 0.5,
        }
        found |= {name: scale for name, scale in others.items() if scale(gaussian[0]) != own}
    return found


def _width(block: NonLocalBlock) -> int:
    """How many channels the products of a block are over."""
    return block.in_channels if block.instantiation == "gaussian" else block.out.in_channels


def _measure(
    seen: _Seen,
    chosen: list[int],
    wanted: Analysed,
    world: World,
    machine: Machine,
    label: str,
    sizes: dict[str, Any],
    *,
    draw: bool = False,
) -> tuple[dict[str, Any], int]:
    """Distances over the chosen images, over all processes; how many could not be read.

    ``sizes`` gets queries and keys of each block's map, of the first image.
    """
    running = RunningDistances(wanted.pairs or None)
    start = said = time.perf_counter()
    broken = 0
    collate = seen.task.collate if seen.task else seen.module.open_task.collate
    # One at a time: beside a larger image it would be padded, and have other positions.
    for number, batch in enumerate(in_order(seen.data, collate, world, machine, chosen=chosen)):
        broken += len(batch.broken)
        if not len(batch):
            continue
        batch = batch.to(world.device)
        with torch.no_grad(), capture(seen.model) as captured:
            seen.module.predict(seen.model, batch, "fp32")
        running.add(captured)
        for name, block in captured.items() if not sizes else ():
            _, queries, keys = block.attention.shape
            places = list(block.positions)
            sizes[name] = {"positions": places, "queries": queries, "keys": keys}
        if draw and world.leads and number < wanted.maps:
            _draw(seen, batch, captured, wanted, number)
        now = time.perf_counter()
        if world.leads and now - said > _LINE_SECONDS:
            said, done = now, (number + 1) * world.size
            left = (now - start) / done * (len(chosen) - done)
            print(f"{label}: {done}/{len(chosen)} {seen.unit}, {duration(left)} left", flush=True)
    whole = RunningDistances()
    for part in world.gather(running):
        whole.merge(part)
    sizes |= next((found for found in world.gather(dict(sizes)) if found), {})
    (broken,) = world.total(broken)
    if not whole.means:
        raise BrokenData(f"none of the {seen.unit} can be read")
    return whole.as_dict(), int(broken)


def _draw(
    seen: _Seen, batch: Any, captured: dict[str, Captured], wanted: Analysed, number: int
) -> None:
    """The maps of some queries over an image or a clip, as a PNG for each block."""
    from gclib.analysis.maps import draw_grid, draw_space_time

    image, places = seen.module.looked_at(seen.model, batch)
    out = Path(wanted.out) if wanted.out else Path("analysis", seen.row.replace("/", "-"))
    out.mkdir(parents=True, exist_ok=True)
    for name, block in captured.items():
        *times, height, width = block.positions
        chosen = (places or _SPREAD)[: wanted.queries]
        queries = [
            (min(int(y * height), height - 1), min(int(x * width), width - 1)) for y, x in chosen
        ]
        attention = block.attention[0].float().cpu()
        if times:  # a query each in the first, the middle and the last frame
            last = times[0] - 1
            queries = [
                (round(last * number / max(1, len(chosen) - 1)), *query)
                for number, query in enumerate(queries)
            ]
            figure, _, _ = draw_space_time(image.cpu(), attention, block.positions, queries)
            figure.suptitle(name, fontsize=9)
        else:
            short = name.removesuffix(".block").rpartition("body.")[2]  # a narrow image's title
            figure, _, _ = draw_grid({short: (image.cpu(), attention)}, block.positions, queries)
        plain = name.replace(".", "-")
        figure.savefig(out / f"maps-{number:03d}-{plain}.png", dpi=144, facecolor="white")


_SPREAD = ((0.3, 0.3), (0.5, 0.7), (0.75, 0.4))  # queries where no object is known


def lines_of(result: dict[str, Any]) -> Iterator[str]:
    """The table: a line for each block and control, as table 1 has its columns."""
    unit = result["unit"]
    yield (
        f"{result['row']}: average distances over {result['images']} of {result['of']} {unit}"
        + (f", JSD from {result['pairs']:,} pairs of each" if result["pairs"] else "")
    )
    yield f"{'':44}" + "".join(f"{kind:>20}" for kind in KINDS)
    for block, size in result["maps"].items():
        if 1 < size["keys"] < size["queries"] > 1:
            yield (
                f"{block}: maps of {size['queries']} queries over {size['keys']} keys, which are "
                "max-pooled"
            )
    controls = [k for k in result if k == "trained" or k.startswith("untrained")]
    for block in result["trained"]:
        for control in controls:
            means = result[control][block]
            cells = [f"{means[kind]['mean']:.4f}" if kind in means else "-" for kind in KINDS]
            label = f"{block}, {control}"
            yield f"{label:44}" + "".join(f"{cell:>20}" for cell in cells)
    for name, figures in result.get("effect", {}).items():
        shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        yield f"maps {name}: {shown}"
    if result["broken"]:
        yield f"{result['broken']} {unit} could not be read and are left out"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="python -m gclib.training.analyse"))
