"""The quantitative claims of the paper's text, and the comparisons that the lab makes in small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MARGIN = 0.03  # of accuracy: closer counts as equivalent; fixed before any run was looked at


@dataclass(frozen=True)
class Claim:
    """A number of the text.

    Attributes:
        id: short name.
        place: section of the paper.
        text: what is claimed, in our words.
        printed: the number.
        unit: of the number.
    """

    id: str
    place: str
    text: str
    printed: float
    unit: str


CLAIMS = (
    Claim("intro/nl_box", "1", "GCNet (r=4) over NLNet on COCO, box AP", 1.9, "AP"),
    Claim("intro/nl_mask", "1", "GCNet (r=4) over NLNet on COCO, mask AP", 1.5, "AP"),
    Claim("intro/se_box", "1", "GCNet (r=4) over SENet on COCO, box AP", 1.7, "AP"),
    Claim("intro/se_mask", "1", "GCNet (r=4) over SENet on COCO, mask AP", 1.5, "AP"),
    Claim("intro/baseline_box", "1", "GCNet (r=4) over Mask R-CNN, box AP", 2.7, "AP"),
    Claim("intro/baseline_mask", "1", "GCNet (r=4) over Mask R-CNN, mask AP", 2.4, "AP"),
    Claim("intro/coco_flops", "1", "multiply-adds added to Mask R-CNN", 0.07, "%"),
    Claim("intro/imagenet", "1", "GCNet over ResNet-50 on ImageNet, top-1", 0.8, "points"),
    Claim("intro/kinetics", "1", "GCNet over slow-only on Kinetics, top-1", 1.1, "points"),
    Claim("intro/flops", "1", "multiply-adds added, at most", 0.26, "%"),
    Claim("4.3/transform", "4.3", "share of the SNL transform's weights left at r=16", 0.125, ""),
    Claim("4.3/flops_before", "4.3", "multiply-adds of ResNet-50", 3.86, "G"),
    Claim("4.3/flops_after", "4.3", "multiply-adds of GC-ResNet-50", 3.87, "G"),
    Claim("4.3/params_before", "4.3", "parameters of ResNet-50", 25.56, "M"),
    Claim("4.3/params_added", "4.3", "parameters that 13 GC blocks add", 2.52, "M"),
    Claim("4.3/params_share", "4.3", "the same, of ResNet-50's", 9.86, "%"),
    Claim("5.1/all_box", "5.1.1", "GC in all residual blocks over one, box AP", 1.1, "AP"),
    Claim("5.1/all_mask", "5.1.1", "GC in all residual blocks over one, mask AP", 0.9, "AP"),
    Claim("5.1/stages_low", "5.1.1", "smallest gain of a single stage", 0.7, "AP"),
    Claim("5.1/stages_high", "5.1.1", "largest gain of a single stage", 1.7, "AP"),
    Claim("5.1/ratio_box", "5.1.1", "ratio 4 over ratio 32, box AP", 0.8, "AP"),
    Claim("5.1/ratio_mask", "5.1.1", "ratio 4 over ratio 32, mask AP", 0.5, "AP"),
    Claim("5.1/strong_box", "5.1.2", "GC on the strongest backbone, box AP", 0.8, "AP"),
    Claim("5.1/strong_mask", "5.1.2", "GC on the strongest backbone, mask AP", 0.5, "AP"),
    Claim("5.2/all", "5.2", "all GC over ResNet-50, top-1", 0.82, "points"),
    Claim("5.2/se", "5.2", "GC over average pooling with scaling, top-1", 0.44, "points"),
    Claim("5.3/snl_top1", "5.3", "SNL over NL on Kinetics, top-1", -0.19, "points"),
    Claim("5.3/gc_top1", "5.3", "GC over NL on Kinetics, top-1", -0.11, "points"),
    Claim("5.3/snl_top5", "5.3", "SNL over NL on Kinetics, top-5", 0.15, "points"),
    Claim("5.3/gc_top5", "5.3", "GC over NL on Kinetics, top-5", 0.14, "points"),
)


@dataclass(frozen=True)
class Comparison:
    """A claim of a table as a difference between two rows of the lab.

    Attributes:
        id: short name.
        table: the table whose claim it is.
        text: the claim.
        first, second: lab rows; the value is the accuracy of the first minus that of the second.
        printed: the two rows and the column of the paper whose difference is the claim.
        same: whether the claim is that they are alike (within :data:`MARGIN`).
    """

    id: str
    table: str
    text: str
    first: str
    second: str
    printed: tuple[str, str, str]
    same: bool = False


def _small(name: str, table: str, text: str, first: str, second: str, printed, same=False):
    row, other, column = printed
    row, other = (name if "/" in name else f"{table}/{name}" for name in (row, other))
    rows = (row, other, column)
    return Comparison(f"small/{name}", table, text, f"mini/{first}", f"mini/{second}", rows, same)


def _in_resnet() -> Iterator[Comparison]:
    """Tables 2(b), 2(c), 2(e) in the residual network; written down before it was trained.

    Its ``all`` has the lab's ratio 4, in the place of the paper's 8.
    """

    def small(name: str, table: str, text: str, first: str, second: str, row: str, other: str):
        printed = (row, other, "ap_box")
        same = table == "2b"
        words = f"{text}, in a residual network"
        rows = (f"resnet_{first}", f"resnet_{second}")
        return _small(f"resnet_{name}", table, words, *rows, printed, same)

    yield small("all", "2a", "GC in all stages helps", "all", "none", "gc_all", "baseline")
    text = "GC after the addition is as good as after the 1×1 convolution"
    yield small("after_add", "2b", text, "after_add", "all", "after_add", "after_1x1")
    for stage in ("c3", "c4", "c5"):
        yield small(stage, "2c", f"GC in {stage} alone helps", stage, "none", stage, "2a/baseline")
    for stage in ("c3", "c4", "c5"):
        text = f"all stages are better than {stage} alone"
        yield small(f"all_{stage}", "2c", text, "all", stage, "all", stage)
    for stage in ("c4", "c5"):
        text = f"{stage} alone is better than c3 alone"
        yield small(f"{stage}_c3", "2c", text, stage, "c3", stage, "c3")
    text = "a wide bottleneck is better than a narrow one"
    yield small("ratio_ends", "2e", text, "r2", "r16", "r4", "r32")
    yield small("ratio_wide", "2e", "one step wider is better", "r2", "all", "r4", "r8")
    yield small("ratio_narrow", "2e", "one step narrower is worse", "all", "r8", "r8", "r16")


_NL, _SNL = ("snl_1", "nl_1", "ap_box"), ("gc_1", "nl_1", "ap_box")
_GC = "majority_gc"
COMPARISONS = (
    _small(
        "nl_context",
        "2a",
        "NL helps, where one fact is shared",
        "context_nl",
        "context_none",
        ("nl_1", "baseline", "ap_box"),
    ),
    _small(
        "snl_context",
        "2a",
        "SNL is as good as NL, where one fact is shared",
        "context_snl",
        "context_nl",
        _NL,
        same=True,
    ),
    _small(
        "gc_context",
        "2a",
        "GC is as good as NL, where one fact is shared",
        "context_gc",
        "context_nl",
        _SNL,
        same=True,
    ),
    _small(
        "snl_pairing",
        "2a",
        "SNL is as good as NL, where every object needs another fact",
        "pairing_snl",
        "pairing_nl",
        _NL,
        same=True,
    ),
    _small(
        "gc_pairing",
        "2a",
        "GC is as good as NL, where every object needs another fact",
        "pairing_gc",
        "pairing_nl",
        _SNL,
        same=True,
    ),
    _small(
        "snl_majority",
        "2a",
        "SNL is as good as NL, where a count is needed",
        "majority_snl",
        "majority_nl",
        _NL,
        same=True,
    ),
    _small(
        "gc_majority",
        "2a",
        "GC is as good as NL, where a count is needed",
        _GC,
        "majority_nl",
        _SNL,
        same=True,
    ),
    *_in_resnet(),
    _small(
        "bottleneck",
        "2d",
        "a bottleneck alone is worse than one layer",
        "2d_no_ratio",
        "2d_r4",
        ("no_ratio", "r16", "ap_box"),
    ),
    _small(
        "relu",
        "2d",
        "a ReLU in the bottleneck changes nothing",
        "2d_r4_relu",
        "2d_r4",
        ("r16_relu", "r16", "ap_box"),
        same=True,
    ),
    _small(
        "layer_norm",
        "2d",
        "LayerNorm makes the bottleneck better",
        _GC,
        "2d_r4_relu",
        ("r16_ln_relu", "r16_relu", "ap_box"),
    ),
    _small(
        "layer_norm_alike",
        "2d",
        "with LayerNorm the bottleneck is as good as one layer",
        _GC,
        "2d_no_ratio",
        ("r16_ln_relu", "no_ratio", "ap_box"),
        same=True,
    ),
    _small(
        "ratio_ends",
        "2e",
        "a wide bottleneck is better than a narrow one",
        "2e_r2",
        "2e_r16",
        ("r4", "r32", "ap_box"),
    ),
    _small(
        "ratio_wide",
        "2e",
        "one step wider is better",
        "2e_r2",
        _GC,
        ("r4", "r8", "ap_box"),
    ),
    _small(
        "ratio_narrow",
        "2e",
        "one step narrower is worse",
        _GC,
        "2e_r8",
        ("r8", "r16", "ap_box"),
    ),
    _small(
        "add_average",
        "2f",
        "addition is better than scaling, average pooling",
        "2f_avg_add",
        "2f_avg_scale",
        ("avg_add", "avg_scale", "ap_box"),
    ),
    _small(
        "add_attention",
        "2f",
        "addition is better than scaling, attention pooling",
        _GC,
        "2f_att_scale",
        ("att_add", "att_scale", "ap_box"),
    ),
    _small(
        "add_average_fair",
        "2f",
        "the same against a scaling that starts at 1, average pooling",
        "2f_avg_add",
        "2f_avg_2scale",
        ("avg_add", "avg_scale", "ap_box"),
    ),
    _small(
        "add_attention_fair",
        "2f",
        "the same against a scaling that starts at 1, attention",
        _GC,
        "2f_att_2scale",
        ("att_add", "att_scale", "ap_box"),
    ),
    _small(
        "attention_pooling",
        "2f",
        "attention pooling is only a little better than average pooling",
        _GC,
        "2f_avg_add",
        ("att_add", "avg_add", "ap_box"),
    ),
    *(
        _small(
            f"nl_{name}_{task}",
            "1",
            f"{words} is as good as the embedded Gaussian, {where}",
            f"{task}_nl_{name}",
            f"{task}_nl",
            (f"coco_{name}", "coco_embedded_gaussian", "ap_box"),
            same=True,
        )
        for task, where in (
            ("context", "where one fact is shared"),
            ("pairing", "where every object needs another fact"),
        )
        for name, words in (
            ("gaussian", "the Gaussian"),
            ("dot_product", "the dot product"),
            ("concat", "concat"),
        )
    ),
)


@dataclass(frozen=True)
class DistanceClaim:
    """Table 1's observation in small: maps are closer to each other than inputs are.

    Attributes:
        id: short name.
        text: the claim.
        row: row of a non-local block: of the lab, or of CIFAR-10.
        where: ``"all"`` positions, or ``"objects"`` alone.
        printed: row of table 1 whose input and attention distances are compared.
    """

    id: str
    text: str
    row: str
    where: str
    printed: str


def _distances() -> Iterator[DistanceClaim]:
    places = {"all": "all positions", "objects": "objects"}
    for name in ("embedded_gaussian", "gaussian", "dot_product", "concat"):
        # The embedded Gaussian is the lab's plain NL, and its entries have no name in their id.
        suffix = "" if name == "embedded_gaussian" else f"_{name}"
        words = name.replace("_", " ")
        for task in ("context", "pairing"):
            for where, over in places.items():
                yield DistanceClaim(
                    f"small/distance_{task}{suffix}_{where}",
                    f"maps differ less than inputs: {words}, cosine over {over}, {task} task",
                    f"mini/{task}_nl{suffix}",
                    where,
                    f"1/coco_{name}",
                )
        yield DistanceClaim(
            f"small/distance_cifar10_{name}",
            f"maps differ less than inputs: {words}, cosine over all positions, CIFAR-10",
            f"cifar10/nl_{name}",
            "all",
            f"1/coco_{name}",
        )


DISTANCE_CLAIMS = tuple(_distances())
