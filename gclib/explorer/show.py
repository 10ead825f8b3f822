"""The explorer in a notebook, as a page that needs no kernel, and as a figure."""

from __future__ import annotations

import base64
import html
import json
from importlib.resources import files
from typing import Any

from gclib.datasets.files import BrokenData
from gclib.explorer.recording import SCENES, SIZE, TASKS, Recorded, recorded
from gclib.later import NotReleased

ALT = (
    "Attention explorer: a scene of 32 by 32 pixels, and beside it the maps of one query for the "
    "four instantiations of the non-local block; a slider over the training, a table of distances."
)


def show(task: str = "pairing", scene: int = 0) -> None:
    """Show the explorer in a notebook; outside of one, do nothing.

    Every click is answered in the browser. The kernel is asked for another task or scene alone.
    Where widgets are off, there is a figure of the trained networks; where their snapshots are not
    at hand, a sentence.

    Args:
        task: ``"context"`` or ``"pairing"``.
        scene: number of the scene, from 0 to 23.

    Raises:
        ValueError: no such task or scene.
    """
    import sys

    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        return
    from IPython.display import display

    try:
        first = recorded(task, scene)
    except BrokenData as error:
        print(error)
        return
    try:
        figure, alt = static_figure(first)
        still = _as_image(figure, alt)
    except NotReleased:  # a class that is to draw such a map itself
        alt = ALT
        still = f"<p>{alt} This page does not show widgets.</p>"
    try:
        import anywidget  # noqa: F401
    except ImportError:
        print("The explorer needs one more package: pip install anywidget. Here is a figure:")
        display({"text/html": still, "text/plain": alt}, raw=True)
        return
    from gclib.explorer.widget import Explorer

    widget = Explorer(first)
    bundle = widget._repr_mimebundle_()
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    display({**data, "text/html": still, "text/plain": alt}, metadata=metadata, raw=True)


def static_figure(seen: Recorded, step: int = -1) -> tuple[Any, str]:
    """The maps of the first two objects at one step; the figure and its alt text.

    Args:
        seen: what is shown.
        step: index into its steps; default: the last one.
    """
    import torch

    from gclib.analysis.maps import draw_grid

    image = torch.from_numpy(seen.image)
    rows = {
        name.replace("_", " "): (image, seen.attention[number, step])
        for number, name in enumerate(seen.blocks)
    }
    figure, alt, _ = draw_grid(rows, (SIZE, SIZE), seen.objects[:2])
    return figure, f"After {seen.steps[step]} updates. {alt}"


def offline_page(tasks: tuple[str, ...] = TASKS, scenes: int = 2) -> str:
    """The explorer as a whole HTML page, with all that it needs inside.

    It works from a folder, without a kernel and without a network.

    Args:
        tasks: tasks to choose from.
        scenes: how many scenes of each, from the first on.
    """
    kept = {}
    for task in tasks:
        for scene in range(min(scenes, SCENES)):
            about, arrays = recorded(task, scene).packed()
            kept[f"{task}/{scene}"] = [about, base64.b64encode(arrays).decode()]
    data = json.dumps(kept, separators=(",", ":")).replace("</", "<\\/")
    module = source("explorer.js").replace("export default", "window.explorer =")
    return source("page.html").format(
        title=html.escape(ALT), style=source("explorer.css"), data=data, module=module
    )


def source(name: str) -> str:
    """A file of the explorer's page."""
    return (files("gclib.explorer") / name).read_text(encoding="utf-8")


def _as_image(figure: Any, alt: str) -> str:
    import io

    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=144, facecolor="white")
    return (
        f'<img alt="{html.escape(alt)}" style="max-width:100%;background:white" '
        f'src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
    )
