"""The ledger's one figure: what the lab found, claim by claim, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gclib.paper.claims import MARGIN
from gclib.paper.ledger import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, and a marker each: told apart without colour too.
STYLES = {
    "same direction in small": ("#0072B2", "o"),
    "equivalent in small": ("#009E73", "s"),
    "undecided": ("#999999", "D"),
    "not reproduced": ("#D55E00", "X"),
}


def draw(entries: Sequence[Entry]) -> Figure:
    """Draw every entry that was measured in small: value, 95 % interval, verdict.

    Raises:
        ValueError: no entry was measured in small.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    measured = [entry for entry in entries if entry.interval]
    if not measured:
        raise ValueError("no entry was measured in small: run gclib train scenes first")
    groups = [
        ("accuracy: first minus second", [e for e in measured if e.column == "accuracy"]),
        ("cosine: inputs minus maps", [e for e in measured if e.column != "accuracy"]),
    ]
    groups = [(title, found) for title, found in groups if found]
    heights = [len(found) + 2 for _, found in groups]
    figure = Figure(figsize=(11, 0.28 * sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(groups), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, found) in zip(axes, groups, strict=True):
        _draw_group(axis, title, found)
    shown = dict.fromkeys(entry.verdict for entry in measured)
    legend = [
        Line2D([], [], color=STYLES[name][0], marker=STYLES[name][1], label=name)
        for name in STYLES
        if name in shown
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), frameon=False)
    return figure


def _draw_group(axis: Axes, title: str, entries: Sequence[Entry]) -> None:
    axis.axvline(0, color="black", linewidth=0.8)
    if entries[0].column == "accuracy":
        axis.axvspan(-MARGIN, MARGIN, color="black", alpha=0.08, linewidth=0)
        title += f" (shaded: ±{MARGIN}, equivalent)"
    for y, entry in enumerate(entries):
        colour, marker = STYLES[entry.verdict]
        axis.plot(entry.interval, [y, y], color=colour, linewidth=2)
        axis.plot(entry.value, y, marker, color=colour, markersize=6)
    labels = [f"{entry.row} ({entry.table}, {entry.seeds} seeds)" for entry in entries]
    axis.set_yticks(range(len(entries)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_title(title, fontsize=10, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def save(entries: Sequence[Entry], path: Path) -> None:
    """Write the figure; the ending says the format (.svg, .png or .pdf).

    Raises:
        ValueError: another ending, or nothing was measured.
        OSError: the file cannot be written.
    """
    import matplotlib

    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"--figure {path}: expected a name that ends in .svg, .png or .pdf")
    figure = draw(entries)
    # Text stays text, and the same figure is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ledger"}):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=144, facecolor="white", metadata=metadata)
