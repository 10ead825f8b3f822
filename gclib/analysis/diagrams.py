"""The paper in one picture: four blocks as context modelling, transform, fusion (figures 3, 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEPS = (
    ("context modelling", "#cfe5f5"),
    ("transform", "#fbe3c8"),
    ("fusion", "#cdebdf"),
)
# Text of each step, and the shape that leaves it.
_BLOCKS = {
    "Non-local (NL)": (
        (
            "a map for every query:\n"
            "softmax over $\\langle W_q x_i, W_k x_j\\rangle$\n"
            "weights the values $W_v x_j$",
            "C/2 × HW",
        ),
        ("$W_z$\n1×1, C/2 → C", "C × HW"),
        ("$z_i = x_i + t_i$", "C × H × W"),
    ),
    "Simplified (SNL)": (
        ("one map for all queries:\nsoftmax over $W_k x_j$\nweights the inputs $x_j$", "C × 1"),
        ("$W_v$\n1×1, C → C", "C × 1"),
        ("$z_i = x_i + t$", "C × H × W"),
    ),
    "Squeeze-excitation (SE)": (
        ("the mean over positions:\nevery $x_j$ has weight 1/HW", "C × 1"),
        ("1×1, C → C/r\nReLU\n1×1, C/r → C, sigmoid", "C × 1"),
        ("$z_i = x_i \\cdot t$", "C × H × W"),
    ),
    "Global context (GC)": (
        ("one map for all queries:\nsoftmax over $W_k x_j$\nweights the inputs $x_j$", "C × 1"),
        ("$W_{v1}$: 1×1, C → C/r\nLayerNorm, ReLU\n$W_{v2}$: 1×1, C/r → C", "C × 1"),
        ("$z_i = x_i + t$", "C × H × W"),
    ),
}
ALT = (
    "Four columns, one for each block: non-local, simplified non-local, squeeze-excitation and "
    "global context. Each has three boxes from top to bottom: context modelling, transform and "
    "fusion. NL keeps one context for each of the HW positions; the other three reduce the map to "
    "one vector of C numbers. SE multiplies at the end, the others add. GC takes the first and "
    "last box of SNL and the bottleneck of SE, with a LayerNorm in it."
)


def three_steps() -> Figure:
    """Draw the four blocks of the paper side by side."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    figure = Figure(figsize=(11.5, 5.2), layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(-0.62, 4)
    axis.set_ylim(-0.3, 3.62)
    axis.axis("off")
    for row, (step, colour) in enumerate(_STEPS):
        bottom = 2.06 - row
        axis.add_patch(
            FancyBboxPatch(
                (-0.6, bottom),
                4.56,
                0.86,
                boxstyle="round,pad=0.0,rounding_size=0.06",
                facecolor=colour,
                edgecolor="none",
            )
        )
        axis.text(-0.35, bottom + 0.43, step.replace(" ", "\n"), ha="center", va="center", size=11)
    for column, (name, steps) in enumerate(_BLOCKS.items()):
        centre = column + 0.45
        axis.text(centre, 3.5, name, ha="center", va="center", size=12, weight="bold")
        axis.text(centre + 0.05, 3.15, "x: C × H × W", ha="left", va="center", size=9)
        _arrow(axis, centre, 3.36, 2.88)
        for row, (text, shape) in enumerate(steps):
            bottom = 2.1 - row
            axis.add_patch(
                FancyBboxPatch(
                    (centre - 0.44, bottom),
                    0.88,
                    0.78,
                    boxstyle="round,pad=0.0,rounding_size=0.05",
                    facecolor="white",
                    edgecolor="#444444",
                )
            )
            axis.text(centre, bottom + 0.39, text, ha="center", va="center", size=9)
            _arrow(axis, centre, bottom, bottom - 0.22)
            axis.text(centre + 0.05, bottom - 0.11, shape, ha="left", va="center", size=9)
    return figure


def _arrow(axis: Axes, x: float, top: float, bottom: float) -> None:
    from matplotlib.patches import FancyArrowPatch

    axis.add_patch(
        FancyArrowPatch((x, top), (x, bottom), arrowstyle="-|>", mutation_scale=10, color="#444444")
    )


POSITIONS_ALT = (
    "A chain of boxes from left to right: the input x, a 1×1 convolution with norm and ReLU, a 3×3 "
    "convolution with norm and ReLU, a 1×1 convolution with norm, a plus sign, a last ReLU. An arc "
    "leads from x to the plus sign: the shortcut. Three marks below: after_3x3 between the 3×3 and "
    "the second 1×1, after_1x1 before the plus sign, after_add between the plus sign and the ReLU."
)
_CHAIN = (
    ("1×1 conv\nnorm, ReLU", 1.0),
    ("3×3 conv\nnorm, ReLU", 2.3),
    ("1×1 conv\nnorm", 3.9),
    ("+", 5.35),
    ("ReLU", 6.6),
)
_MARKS = {
    "after_3x3": (3.1, "C/4 channels"),
    "after_1x1": (4.72, "C channels"),
    "after_add": (5.95, "C channels"),
}


def positions() -> Figure:
    """Draw the three places for a block in a bottleneck (section 4.3, table 2b)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    figure = Figure(figsize=(9.5, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(-0.35, 7.5)
    axis.set_ylim(-1.25, 1.35)
    axis.axis("off")
    line = {"arrowstyle": "-|>", "mutation_scale": 10, "color": "#444444"}
    axis.add_patch(FancyArrowPatch((0.1, 0), (7.4, 0), zorder=0, **line))
    shortcut = {**line, "connectionstyle": "arc3,rad=-0.22"}
    axis.add_patch(FancyArrowPatch((0.2, 0.05), (5.35, 0.27), **shortcut))
    axis.text(2.7, 1.12, "shortcut", ha="center", size=9)
    axis.text(-0.05, 0, "x", ha="center", va="center", size=13, weight="bold")
    for text, x in _CHAIN:
        wide = 0.24 if text == "+" else 0.48
        axis.add_patch(
            FancyBboxPatch(
                (x - wide, -0.26),
                2 * wide,
                0.52,
                boxstyle="round,pad=0.0,rounding_size=0.08",
                facecolor="#cdebdf" if text == "+" else "white",
                edgecolor="#444444",
            )
        )
        axis.text(x, 0, text, ha="center", va="center", size=9)
    for name, (x, channels) in _MARKS.items():
        axis.add_patch(FancyArrowPatch((x, -0.72), (x, -0.04), **{**line, "color": "#D55E00"}))
        axis.text(x, -0.86, name, ha="center", va="center", size=10, weight="bold")
        axis.text(x, -1.12, channels, ha="center", va="center", size=9)
    return figure


TWO_STAGES_ALT = (
    "A bar from left to right, stage 1: the plain network, once, 120 epochs. From its end, arrows "
    "lead to four bars of 40 epochs, stage 2: the baseline without blocks, one NL block, one GC "
    "block, GC blocks in c3 to c5. Each starts from the same weights."
)
_SECOND_STAGES = ("baseline, no blocks", "+ 1 NL", "+ 1 GC", "+ GC in c3 to c5")


def two_stages() -> Figure:
    """Draw how the rows of table 4 share their first stage (section 5.2)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    figure = Figure(figsize=(8.0, 2.9), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    axis.set_xlim(0, 180)
    axis.set_ylim(-0.6, 4.4)

    def bar(left: float, middle: float, width: float, text: str, colour: str) -> None:
        style = "round,pad=0,rounding_size=0.15"
        box = FancyBboxPatch((left, middle - 0.35), width, 0.7, style, fc=colour, ec="#444444")
        axis.add_patch(box)
        axis.text(left + width / 2, middle, text, ha="center", va="center", fontsize=9)

    bar(2, 2, 104, "stage 1: the plain network, once, 120 epochs", "#dce6f2")
    for number, text in enumerate(_SECOND_STAGES):
        middle = 3.5 - number
        bar(130, middle, 48, text, "#eeeeee" if not number else "#fbe5d0")
        arrow = {"arrowstyle": "-|>", "mutation_scale": 10, "color": "#444444"}
        axis.add_patch(FancyArrowPatch((106, 2), (130, middle), **arrow))
    axis.text(118, 4.0, "the same\nweights", ha="center", va="center", fontsize=8)
    axis.text(154, -0.3, "stage 2: 40 epochs each", ha="center", va="center", fontsize=9)
    return figure
