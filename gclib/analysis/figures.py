"""Figures drawn from tensors.

Every figure is shown with an alt text and a summary in numbers, for readers who do not see it.
Colours are of the cividis map and the Okabe-Ito set, which colour-blind readers can tell apart.
Nothing here touches matplotlib's global state.
"""

from __future__ import annotations

import base64
import html
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # matplotlib takes half a second, and checks draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
HEAT = "cividis"
_LARGEST_WITH_NUMBERS = 64


@dataclass(frozen=True)
class Fold:
    """A figure that can be folded away.

    Attributes:
        title: what stands where the figure would.
        opened: whether it is unfolded at first.
    """

    title: str
    opened: bool


def show(
    figure: Figure,
    alt: str,
    *,
    width: int | None = None,
    fold: Fold | None = None,
    summary: str = "",
) -> None:
    """Display a figure in a notebook with its alt text; outside of one, do nothing.

    Args:
        figure: the figure.
        alt: one sentence that says what can be seen.
        width: width on the page in pixels; default: the figure's own.
        fold: fold the figure away; default: it stands there openly.
        summary: lines of numbers, folded away with the figure.
    """
    if not _in_ipython():
        return
    from IPython.display import display

    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=144, facecolor="white")
    width = width or round(figure.get_figwidth() * 96)
    image = (
        f'<img alt="{html.escape(alt)}" width="{width}" style="max-width:100%;background:white" '
        f'src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
    )
    plain = alt
    if fold:
        style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
        numbers = f'<pre style="{style}">{html.escape(summary)}</pre>' if summary else ""
        opened = "open " if fold.opened else ""
        title = f"<summary>{html.escape(fold.title)}</summary>"
        image = f'<details {opened}style="padding-left:5px">{title}{numbers}{image}</details>'
        plain = "\n".join(filter(None, (fold.title, summary, alt)))
    display({"text/html": image, "text/plain": plain}, raw=True)


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def describe(name: str, tensor: Tensor, *, sums: bool = True) -> str:
    """One line of numbers about a tensor; ``sums``: with the sums of its rows."""
    tensor = tensor.detach().double()
    line = f"{name}: shape {tuple(tensor.shape)}, from {tensor.min():.3g} to {tensor.max():.3g}"
    if sums and tensor.dim() >= 2:
        of_rows = tensor.sum(-1)
        low, high = of_rows.min().item(), of_rows.max().item()
        rows = f"{low:.3g}" if abs(high - low) < 1e-4 else f"{low:.3g} to {high:.3g}"
        line += f", rows sum to {rows}"
    return line


def matrices(
    panels: Mapping[str, Tensor],
    *,
    rows: str = "query position",
    columns: str = "key position",
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    alt: str,
    shared_scale: bool = True,
    sums: bool = True,
    fold: Fold | None = None,
) -> None:
    """Show matrices side by side as heat maps and print a line of numbers about each.

    Args:
        panels: title → matrix ``(rows, columns)``.
        rows: what a row stands for.
        columns: what a column stands for.
        row_names: a name beside each row; default: numbers.
        column_names: a name below each column; default: numbers.
        alt: what can be seen.
        shared_scale: one colour scale for all panels.
        sums: print the sums of the rows, too.
        fold: fold the figure away, and the lines of numbers with it.
    """
    panels = {title: matrix.detach().double().cpu() for title, matrix in panels.items()}
    low = min(matrix.min().item() for matrix in panels.values())
    high = max(matrix.max().item() for matrix in panels.values())
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(panels) + 0.6, 3.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    lines = []
    for axis, (title, matrix) in zip(axes, panels.items(), strict=True):
        limits = (low, high) if shared_scale else (matrix.min().item(), matrix.max().item())
        _heat(axis, matrix, limits)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(columns, fontsize=9)
        if column_names:
            axis.set_xticks(range(len(column_names)), column_names)
        if row_names:
            axis.set_yticks(range(len(row_names)), row_names)
        lines.append(describe(title, matrix, sums=sums))
    if not (fold and _in_ipython()):
        print(*lines, sep="\n")
    axes[0].set_ylabel(rows, fontsize=9)
    if shared_scale:
        figure.colorbar(axes[-1].images[0], ax=list(axes), shrink=0.8)
    show(figure, alt, fold=fold, summary="\n".join(lines))


def maps(
    panels: Mapping[str, Tensor],
    *,
    mark: tuple[int, int] | None = None,
    scale: bool = False,
    alt: str,
) -> None:
    """Show maps over height and width side by side, with one query position marked.

    Each panel has its own colours: from its smallest to its largest number, or from 0 to 1 for a
    map of zeros and ones.

    Args:
        panels: title → map ``(H, W)``.
        mark: row and column of the query; drawn as a ring.
        scale: draw a colour bar beside each panel.
        alt: what can be seen.
    """
    panels = {title: map_.detach().double().cpu() for title, map_ in panels.items()}
    width = 2.9 if scale else 2.4
    from matplotlib.figure import Figure

    flat = max(map_.shape[0] / map_.shape[1] for map_ in panels.values())
    height = min(2.7, 2.2 * flat + 0.5)  # no white below maps that are wider than high
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, map_) in zip(axes, panels.items(), strict=True):
        low, high = _limits(map_)
        image = axis.imshow(map_.numpy(), cmap=HEAT, vmin=low, vmax=high)
        if scale:
            figure.colorbar(image, ax=axis, shrink=0.7)
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        if mark:
            ring = {"s": 120, "facecolors": "none", "linewidths": 2}
            axis.scatter(mark[1], mark[0], edgecolors="white", **ring)
            axis.scatter(mark[1], mark[0], edgecolors=COLOURS[1], **(ring | {"linewidths": 1}))
        print(_describe_map(title, map_))
    show(figure, alt)


def pictures(panels: Mapping[str, Tensor], *, alt: str) -> None:
    """Show colour images side by side.

    Args:
        panels: title → image ``(H, W, 3)``, uint8 or 0 to 1.
        alt: what can be seen.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(panels), 2.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, image) in zip(axes, panels.items(), strict=True):
        axis.imshow(image.detach().cpu().numpy())
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    show(figure, alt)


def film(strips: Mapping[str, Tensor], *, alt: str) -> None:
    """Show the pictures of clips, a row for each clip, numbered from 0.

    Args:
        strips: title → clip ``(T, H, W, 3)``, uint8 or 0 to 1, all with the same T.
        alt: what can be seen.
    """
    from matplotlib.figure import Figure

    clips = [clip.detach().cpu().numpy() for clip in strips.values()]
    size = (1.05 * max(map(len, clips)) + 0.2, 1.4 * len(clips) + 0.1)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(clips), max(map(len, clips)), squeeze=False)
    for axes, title, clip in zip(rows, strips, clips, strict=True):
        for number, (axis, picture) in enumerate(zip(axes, clip, strict=True)):
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(str(number), fontsize=8, labelpad=1)
        axes[0].set_title(title, fontsize=9, loc="left")
    show(figure, alt)


def boxes(panels: Mapping[str, Tensor], *, alt: str) -> None:
    """Show boxes on white, numbered, and print their corners.

    Args:
        panels: title → boxes ``(N, 4)`` as left, top, right, bottom.
        alt: what can be seen.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    panels = {title: found.detach().double().cpu() for title, found in panels.items()}
    low = min(found.min().item() for found in panels.values())
    high = torch.stack([found.amax(0)[2:] for found in panels.values()]).amax(0).tolist()
    figure = Figure(figsize=(3.4 * len(panels), 2.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        for number, (left, top, right, bottom) in enumerate(found.tolist()):
            colour, line = COLOURS[number % len(COLOURS)], ("-", "--", "-.", ":")[number % 4]
            place, size = (left, top), (right - left, bottom - top)
            axis.add_patch(Rectangle(place, *size, fill=False, ec=colour, ls=line, lw=2))
            at = {"color": colour, "ha": "center", "va": "center", "size": 10}
            at["bbox"] = {"fc": "white", "ec": "none", "pad": 0.5}  # over lines of other boxes
            middle = left + size[0] * (0.3 + 0.2 * (number % 3))  # boxes may cover one another
            axis.text(middle, bottom - size[1] / 5, str(number), **at)
        axis.set_xlim(low - 1, high[0] + 1)
        axis.set_ylim(high[1] + 1, low - 1)  # rows of an image count downwards
        axis.set_aspect("equal")
        axis.set_title(title, fontsize=10)
        corners = "; ".join(", ".join(f"{x:.4g}" for x in box) for box in found.tolist())
        print(f"{title}: {corners}")
    show(figure, alt)


def _is_binary(map_: Tensor) -> bool:
    return bool(((map_ == 0) | (map_ == 1)).all())


def _limits(map_: Tensor) -> tuple[float, float]:
    """Colour limits; a constant map gets the middle of the scale."""
    if _is_binary(map_):
        return 0.0, 1.0
    low, high = map_.min().item(), map_.max().item()
    return (low, high) if high > low else (low - 1, high + 1)


def _describe_map(name: str, map_: Tensor) -> str:
    if _is_binary(map_):
        return f"{name}: 1 at {int(map_.sum())} of {map_.numel()} positions, 0 at the others"
    row, column = divmod(int(map_.argmax()), map_.shape[1])
    low, high = map_.min().item(), map_.max().item()
    return (
        f"{name}: from {low:.3g} to {high:.3g}, largest at ({row}, {column}), sum {map_.sum():.3g}"
    )


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    log: bool = True,
) -> None:
    """Show lines over ``x``; on logarithmic axes, print the slope of each, its power of x.

    Args:
        x: values on the horizontal axis.
        lines: label → values.
        xlabel: label of the horizontal axis, with its unit.
        ylabel: label of the vertical axis, with its unit.
        alt: what can be seen.
        log: logarithmic axes.
    """
    from matplotlib.figure import Figure

    many = len(lines) > 5  # a legend among them would cover one
    figure = Figure(figsize=(5.2, 4.0 if many else 3.4), layout="constrained")
    axis = figure.subplots()
    styles = ("o-", "s--", "^-.", "D:", "v-", "x--")
    for number, (label, values) in enumerate(lines.items()):
        style = styles[number % len(styles)]
        axis.plot(x, values, style, color=COLOURS[number % len(COLOURS)], label=label, ms=5)
        if log:
            print(f"{label}: follows the power {slope(x, values):.2f} (last two points)")
    if log:
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(list(x), [f"{value:g}" for value in x])
        _plain_ticks(axis, [value for values in lines.values() for value in values])
    elif all(value == int(value) for value in x):
        axis.locator_params(axis="x", integer=True)  # no epoch 5.5
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    if many:
        figure.legend(fontsize=9, loc="outside lower center", ncols=3)
    else:
        axis.legend(fontsize=9)
    show(figure, alt)


def _plain_ticks(axis: Axes, values: Sequence[float]) -> None:
    """Plain numbers where a logarithmic y axis spans few decades: 12, not 1.2 x 10^1."""
    low, high = min(values), max(values)
    if low <= 0 or high >= 100 * low:
        return
    # 1, 2, 5, 10 ... are too few within one decade
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    locator = MaxNLocator(6) if high < 10 * low else LogLocator(subs=(1, 2, 5))
    axis.yaxis.set_major_locator(locator)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The power of x that y follows between the last two points."""
    last, before = torch.tensor([x[-1], y[-1]]).log(), torch.tensor([x[-2], y[-2]]).log()
    run, rise = last - before
    return (rise / run).item()


def _heat(axis: Axes, matrix: Tensor, limits: tuple[float, float]) -> None:
    low, high = limits
    axis.imshow(matrix.numpy(), cmap=HEAT, vmin=low, vmax=high, aspect="equal")
    height, width = matrix.shape
    axis.set_xticks(range(0, width, max(1, width // 8)))
    axis.set_yticks(range(0, height, max(1, height // 8)))
    if matrix.numel() > _LARGEST_WITH_NUMBERS:
        return
    digits = 3 if matrix.numel() <= 16 else 2  # 1/8 is 0.125 where there is room
    for i in range(height):
        for j in range(width):
            value = matrix[i, j].item()
            if abs(value) < 1e-6 * max(abs(low), abs(high)):
                value = 0.0  # rounding: "6e-08" would only puzzle
            dark = (value - low) < 0.55 * ((high - low) or 1)
            axis.text(
                j,
                i,
                f"{value:.{digits}g}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
