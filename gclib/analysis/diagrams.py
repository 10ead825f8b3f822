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
    "convolution with norm and ReLU, a 1×1 convolution with norm, a plus sign, a last ReLU. A line "
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

    figure = Figure(figsize=(9.5, 2.4), layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(-0.35, 7.5)
    axis.set_ylim(-1.25, 1.05)
    axis.axis("off")
    line = {"arrowstyle": "-|>", "mutation_scale": 10, "color": "#444444"}
    axis.add_patch(FancyArrowPatch((0.1, 0), (7.4, 0), zorder=0, **line))
    axis.plot([0.25, 0.25, 5.35], [0, 0.7, 0.7], color="#444444", linewidth=1)
    axis.add_patch(FancyArrowPatch((5.35, 0.7), (5.35, 0.24), shrinkA=0, **line))
    axis.text(2.8, 0.78, "shortcut", ha="center", size=9)
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


DETECTOR_ALT = (
    "Left, a column of boxes from bottom to top: image, stem, c2, c3, c4, c5, each stage smaller. "
    "Stem and c2 are grey: frozen. Inside of c3, c4 and c5 is an orange mark: GC blocks. From c2, "
    "c3, c4 and c5 an arrow each leads to the right, to p2 to p5, the feature pyramid; arrows lead "
    "down from p5 to p2. A last arrow leads from the pyramid to the heads: proposals, boxes and "
    "classes, masks."
)
_STAGES = (
    # name, width, height of its map for an image of 800 × 1333, frozen
    ("stem", 3.1, "400 × 667", True),
    ("c2", 2.8, "200 × 334", True),
    ("c3", 2.5, "100 × 167", False),
    ("c4", 2.2, "50 × 84", False),
    ("c5", 2.0, "25 × 42", False),
)


def detector() -> Figure:
    """Draw Mask R-CNN with its feature pyramid, and where blocks stand (section 5.1)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    axis.set_xlim(-2.0, 8.2)
    axis.set_ylim(-0.6, 5.7)
    line = {"arrowstyle": "-|>", "mutation_scale": 10, "color": "#444444"}

    def box(x: float, y: float, width: float, text: str, colour: str) -> None:
        style = "round,pad=0,rounding_size=0.08"
        place = (x - width / 2, y - 0.3)
        patch = FancyBboxPatch(place, width, 0.6, style, fc=colour, ec="#444444")
        axis.add_patch(patch)
        axis.text(x, y, text, ha="center", va="center", fontsize=9)

    axis.text(0, -0.45, "image, 800 × 1333", ha="center", va="center", fontsize=9)
    axis.text(0, 5.4, "backbone: ResNet", ha="center", fontsize=10, weight="bold")
    axis.text(3.9, 5.4, "FPN", ha="center", fontsize=10, weight="bold")
    for level, (name, width, size, frozen) in enumerate(_STAGES):
        y = 0.5 + level
        box(0, y, width, "", "#dddddd" if frozen else "#cfe5f5")
        middle = 0 if frozen else -0.32
        axis.text(middle, y, f"{name}  {size}", ha="center", va="center", fontsize=9)
        axis.add_patch(FancyArrowPatch((0, y - 0.7 if level else -0.25), (0, y - 0.3), **line))
        if name == "stem":
            continue
        box(3.9, y, 1.5, f"p{level + 1}  256 channels", "#cdebdf")
        axis.add_patch(FancyArrowPatch((width / 2, y), (3.15, y), **line))
        if not frozen:  # inside of the stage, in each of its residual blocks
            style = "round,pad=0,rounding_size=0.08"
            place = (width / 2 - 0.6, y - 0.2)
            axis.add_patch(FancyBboxPatch(place, 0.5, 0.4, style, fc="#fbe3c8", ec="#D55E00"))
            axis.text(width / 2 - 0.35, y, "GC", ha="center", va="center", fontsize=9)
        if name != "c5":
            axis.add_patch(FancyArrowPatch((3.9, y + 0.7), (3.9, y + 0.3), **line))
    axis.text(-1.8, 1.0, "frozen", ha="center", va="center", fontsize=9, rotation=90)
    axis.text(-1.8, 3.5, "trained", ha="center", va="center", fontsize=9, rotation=90)
    axis.add_patch(FancyArrowPatch((4.75, 3.0), (5.75, 3.0), **line))
    for number, text in enumerate(("proposals (RPN)", "boxes and classes", "masks")):
        box(6.85, 3.7 - 0.7 * number, 2.1, text, "#ffffff")
    axis.text(6.85, 4.3, "heads", ha="center", fontsize=10, weight="bold")
    return figure
