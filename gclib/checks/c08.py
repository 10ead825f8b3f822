"""Visible checks of chapter 08: the parts of a detector's training, and their usual mistakes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Call, Handle, ModuleHandle, Opaque, StudentError
from gclib.checks.properties import build, input_kept, raises_value_error
from gclib.checks.report import Report

_NO_RETURN = "the function ends without a return statement"


def _kind(value: object) -> str:
    if isinstance(value, Opaque):
        return f"a {value.type_name}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _double(rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Matching --------------------------------------------------------------------------------------

# Name → detections, scores, objects, threshold, result, cause → what it gives.
_MATCH_CASES = {
    # IoU with (A, B): (0.8, 0), (0.6, 0), (0, 0.5), (0, 0).
    "two objects, threshold 0.5": (
        [[0, 0, 10, 8], [0, 0, 10, 6], [12, 0, 22, 5], [24, 0, 30, 10]],
        [0.6, 0.9, 0.7, 0.3],
        [[0, 0, 10, 10], [12, 0, 22, 10]],
        0.5,
        [-1, 0, 1, -1],
        {
            "the turns: the highest score chooses first, not the lowest or the first of the list": (
                [0, -1, 1, -1]
            ),
            "detection 2 fits with exactly 0.5, which counts (>=), or the loop ends too soon": (
                [-1, 0, -1, -1]
            ),
            "an object is found twice: once it is taken, it is gone": [0, 0, 1, -1],
            "the threshold is ignored": [-1, 0, 1, 0],
            "the result is in the order of the scores: put it back into the order of boxes": (
                [0, 1, -1, -1]
            ),
            "these are the turns, not the objects": [2, 0, 1, 3],
            "flags in place of the numbers of the objects": [0, 1, 1, 0],
            "each detection has chosen an object, the worst included: below the threshold, none": (
                [-1, 0, 1, 1]
            ),
        },
    ),
    "the same, threshold 0.75": (
        [[0, 0, 10, 8], [0, 0, 10, 6], [12, 0, 22, 5], [24, 0, 30, 10]],
        [0.6, 0.9, 0.7, 0.3],
        [[0, 0, 10, 10], [12, 0, 22, 10]],
        0.75,
        [0, -1, -1, -1],
        {
            "the threshold is fixed: take the argument": [-1, 0, 1, -1],
            "who fits too badly takes its object all the same: below the threshold it stays free": (
                [-1, -1, -1, -1]
            ),
        },
    ),
    # IoU: (1, 0.8), (0.9, 8/9), (0.5, 0.625)
    "two objects, one over the other": (
        [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5]],
        [0.8, 0.7, 0.9],
        [[0, 0, 10, 10], [0, 0, 10, 8]],
        0.5,
        [0, -1, 1],
        {
            "the lowest score chooses first: descending=True": [1, 0, -1],
            "the first object over the threshold is taken: take the one with the largest IoU": (
                [1, -1, 0]
            ),
            "the last object over the threshold is taken: take the one with the largest IoU": (
                [0, -1, 1],
            ),
        },
    ),
    # The best object is taken: the second best is still over the threshold.
    "the best object is gone, another one is not": (
        [[0, 0, 10, 9], [0, 0, 10, 10]],
        [0.5, 0.9],
        [[0, 0, 10, 10], [0, 0, 10, 8]],
        0.7,
        [1, 0],
        {
            "the best object is taken, and the next best is not asked: among the free ones": (
                [-1, 0]
            ),
            "an object is found twice: once it is taken, it is gone": [0, 0],
        },
    ),
    "three objects, four detections": (
        [[20, 0, 30, 10], [0, 0, 10, 10], [41, 0, 51, 10], [40, 0, 50, 10]],
        [0.1, 0.4, 0.2, 0.3],
        [[40, 0, 50, 10], [0, 0, 10, 10], [20, 0, 30, 9]],
        0.5,
        [2, 1, -1, 0],
        {
            "the lowest score chooses first: descending=True": [2, 1, 0, -1],
            "the axes of the IoU table are mixed: rows are detections": [2, 1, 3, 0],
        },
    ),
}


def check_match(
    report: Report,
    impl: Handle,
    what: str,
    arguments: tuple[Tensor, Tensor, Tensor, float],
    right: list[int],
    mistakes: Mapping[str, list[int]],
) -> None:
    """The objects that detections find."""
    boxes, _, truth, _ = arguments
    try:
        call = impl.inspect(*arguments)
    except StudentError as error:
        said = str(error).split("\n")[0]
        empty = "without objects" if len(truth) == 0 else "without detections"
        if len(boxes) and len(truth):
            raise
        cause = f"{empty} there is nothing to choose: answer that before the loop"
        report.fail(what, expected=str(right), got=said, cause=cause)
    got = call.result
    if isinstance(got, Tensor) and got.dtype in (torch.bool, torch.float64, torch.float32):
        cause = "return the numbers of the objects, as int64: torch.full((len(boxes),), -1)"
        report.fail(what, expected="int64", got=f"{got.dtype}".removeprefix("torch."), cause=cause)
    if isinstance(got, (list, tuple)):
        cause = "return the numbers as a tensor: torch.tensor(...)"
        report.fail(what, expected="a tensor, int64", got=_kind(got), cause=cause)
    cause = "one number for each detection" if isinstance(got, Tensor) else ""
    got = report.tensor(what, got, (len(boxes),), dtype=torch.int64, cause=cause).tolist()
    cause = next((cause for cause, wrong in mistakes.items() if got == wrong != right), "")
    report.true(
        what,
        got == right,
        expected=str(right),
        got=str(got),
        cause=cause or "go through the turns one by one, as in the table",
    )
    input_kept(report, call, *(a for a in arguments if isinstance(a, Tensor)))


@exercise(
    "c08-e1",
    "which object a detection finds",
    needs="match",
    look="section 2, the table of turns",
    points=(1, 1),
    minutes=20,
)
def e1(impl: Handle, report: Report) -> None:
    """Cases by hand; no detections; no objects."""
    for what, (boxes, scores, truth, threshold, right, mistakes) in _MATCH_CASES.items():
        arguments = (_double(boxes), _double(scores), _double(truth), threshold)
        with report.group(what):
            check_match(report, impl, "the objects found", arguments, right, mistakes)
    none, one = torch.zeros(0, 4).double(), _double([[0, 0, 1, 1]])
    with report.group("nothing to choose"):
        arguments = (one, _double([0.5]), none, 0.5)
        check_match(report, impl, "no objects", arguments, [-1], {})
        arguments = (none, none[:, 0], one, 0.5)
        check_match(report, impl, "no detections", arguments, [], {})


# Average precision -----------------------------------------------------------------------------

# Name → flags, scores, objects, AP · 101, cause → what it gives · 101.
_AP_CASES = {
    "four objects, five detections": (
        [1, 0, 1, 1, 0],
        [0.9, 0.8, 0.7, 0.6, 0.5],
        4,
        26 + 50 * 3 / 4,
        {},
    ),
    # Sorted: 1 0 1 1 0 again.
    "the same in another order": (
        [1, 1, 0, 1, 0],
        [0.6, 0.9, 0.5, 0.7, 0.8],
        4,
        26 + 50 * 3 / 4,
        {
            "the detections are not sorted by score": 51 + 25 * 3 / 4,
            "the lowest score comes first: descending=True": 76 * 3 / 5,
        },
    ),
    # Sorted: 0 1 1; recalls 0, 1/3, 2/3.
    "three objects, one never found": (
        [1, 0, 1],
        [0.2, 0.7, 0.4],
        3,
        67 * 2 / 3,
        {
            "recall by the number of detections or of hits: divide by the number of objects": 101
            * 2
            / 3
        },
    ),
    "every object found, nothing else": ([1, 1, 1], [0.5, 0.4, 0.3], 3, 101, {}),
    "nothing right": ([0, 0], [0.5, 0.4], 2, 0, {}),
    "no detections": ([], [], 2, 0, {}),
}
_AP_MISTAKES = {  # of the first case
    "the precision at this recall alone: the best precision at this recall or later counts": (
        26 + 25 * 2 / 3 + 25 * 3 / 4
    ),
    "the area under the staircase: COCO takes the mean over 101 points": 101 * 5 / 8,
    "eleven points: COCO takes 101, in steps of 0.01": 101 * (3 + 5 * 3 / 4) / 11,
    "divided by 100: there are 101 points, 0 and 1 included": 63.5 * 1.01,
    "the sum of the points: divide by 101": 63.5 * 101,
    "a recall equal to the point counts: >=, not >": 25 + 50 * 3 / 4,
    "the mean of the precisions of the hits: take 101 recalls": 101 * (1 + 2 / 3 + 3 / 4) / 3,
    "the mean of the precisions of the hits, by objects: take 101 recalls": (
        101 * (1 + 2 / 3 + 3 / 4) / 4
    ),
    "recall by the number of hits: divide by the number of objects": 34 + 67 * 3 / 4,
    "recall by the number of detections: divide by the number of objects": 21 + 40 * 3 / 4,
    "precision divides by the rank counted from 1": 0.0,
    "these are percent: return a number from 0 to 1": 6350,
    "the first recall, 0, is missing": 25 + 50 * 3 / 4,
    "the last precision, that of the whole list: the best at this recall or later counts": 76 * 0.6,
    "the lowest score comes first: descending=True": 51 * 2 / 3 + 25 * 3 / 5,
    "the recall of the whole list": 101 * 3 / 4,
    "one hit too few at each rank: the hit of a rank counts": 25 * 0.5 + 25 * 0.5,
}


def check_ap(
    report: Report,
    impl: Handle,
    what: str,
    arguments: tuple[Tensor, Tensor, int],
    right: float,
    mistakes: Mapping[str, float],
) -> None:
    """The AP of some flags."""
    try:
        call = impl.inspect(*arguments)
    except StudentError as error:
        if len(arguments[0]):
            said = str(error)
            if "max()" not in said and "empty" not in said:
                raise
            cause = "a recall that no rank reaches has no precision: its p is 0"
        else:
            cause = "without detections AP is 0: no recall is reached"
        report.fail(what, expected=f"{right:.4f}", got=str(error), cause=cause)
    got = call.result
    if type(got) not in (int, float):
        cause = "return the number, as a float"
        if got is None:
            cause = _NO_RETURN
        elif isinstance(got, Tensor):
            cause = "return a float, not a tensor: .item() of a tensor gives one"
        report.fail(what, expected=f"{right:.4f}", got=_kind(got), cause=cause)
    cause = next(
        (c for c, wrong in mistakes.items() if abs(wrong - got) < 1e-5 < abs(wrong - right)), ""
    )
    if got != got:
        cause = "0/0: without detections, and without hits, AP is 0"
    report.true(
        what,
        abs(got - right) < 1e-6,
        expected=f"{right:.6f}",
        got=f"{got:.6f}",
        cause=cause or "write T, precision and recall beside each rank, as in the table",
    )
    input_kept(report, call, *arguments[:2])


@exercise(
    "c08-e2",
    "average precision",
    needs="average_precision",
    look="section 3, four objects by hand",
    points=(1, 2),
    minutes=20,
)
def e2(impl: Handle, report: Report) -> None:
    """Lists by hand, sorted and not."""
    for what, (flags, scores, objects, right, mistakes) in _AP_CASES.items():
        arguments = (torch.tensor(flags, dtype=torch.bool), _double(scores), objects)
        known = _AP_MISTAKES if len(flags) == 5 else {}
        known = {cause: wrong / 101 for cause, wrong in {**mistakes, **known}.items()}
        with report.group(what):
            check_ap(report, impl, "AP", arguments, right / 101, known)


# Into the detector -----------------------------------------------------------------------------

_WIDTHS = {"c2": 5, "c3": 6, "c4": 8, "c5": 10}
_DEPTHS = {"c2": 1, "c3": 2, "c4": 3, "c5": 2}


def _backbone() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of Backbone."""
    layers: dict[str, tuple[int, ...]] = {"stem.0.weight": (4, 3, 3, 3)}
    layers |= {"stem.1.weight": (4,), "stem.1.bias": (4,)}
    inputs = 4
    for stage, width in _WIDTHS.items():
        for number in range(_DEPTHS[stage]):
            name = f"{stage}.{number}."
            layers[name + "conv1.weight"] = (width, inputs, 3, 3)
            layers[name + "conv2.weight"] = (width, width, 3, 3)
            for norm in ("bn1", "bn2"):
                layers |= {f"{name}{norm}.weight": (width,), f"{name}{norm}.bias": (width,)}
            if not number:
                layers[name + "shortcut.weight"] = (width, inputs, 1, 1)
            inputs = width
    return layers


def _others() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of FPN and head."""
    found: dict[str, tuple[int, ...]] = {"head.weight": (5, 4, 3, 3), "head.bias": (5,)}
    for level, width in enumerate(_WIDTHS.values()):
        found |= {f"lateral.{level}.weight": (4, width, 1, 1), f"lateral.{level}.bias": (4,)}
    return found


def _norms(layers: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Name of each norm → its channels."""
    return {
        name.removesuffix(".bias"): shape[0]
        for name, shape in layers.items()
        if name.endswith(("stem.1.bias", "bn1.bias", "bn2.bias"))
    }


def _numbers(report: Report, layers: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random numbers as a training could leave them, those of the norms included."""
    weights = {}
    for name, shape in layers.items():
        weights[name] = report.randn(*shape) * (0.4 if len(shape) > 1 else 0.5)
    for name, channels in _norms(layers).items():
        weights[f"{name}.weight"] = 0.5 + report.randn(channels).abs()
        weights[f"{name}.running_mean"] = report.randn(channels)
        weights[f"{name}.running_var"] = 0.5 + report.randn(channels).abs()
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }


def classifier(report: Report) -> dict[str, Tensor]:
    """Random numbers as a training on ImageNet could leave them."""
    weights = _numbers(report, _backbone())
    return weights | {"fc.weight": report.randn(5, 10).float(), "fc.bias": report.randn(5).float()}


def _copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in weights.items()}


_LOAD_CAUSES = {
    "Missing key": "the names of the backbone have no backbone. in front: load them into "
    "net.backbone",
    "Unexpected key": "the backbone has no fc: leave fc.weight and fc.bias out",
    "not subscriptable": "a stage is an attribute of net.backbone: getattr(net.backbone, stage)",
    "'MiniDetector' object has no attribute": "the stages belong to net.backbone, not to net",
    "size mismatch": "these are the weights of other layers",
    "size of tensor": "a block of another size: it stands behind bn2, and has the channels of "
    "conv2",
}


def built(report: Report, impl: Handle, weights: Mapping[str, Tensor], *arguments) -> ModuleHandle:
    """What a function that makes a detector returns; usual errors get a cause."""
    what, given = "returns a detector", _copies(weights)
    try:
        network = build(report, impl, given, *arguments)
    except StudentError as error:
        said = str(error).split("\n")[0]
        cause = next((cause for text, cause in _LOAD_CAUSES.items() if text in said), "")
        if "ValueError" in error.kinds and not cause:
            cause = "these stages get blocks: refuse any other than c3, c4, c5"
        if not cause:
            raise
        report.fail(what, expected="a network", got=said, cause=cause)
    if any(not torch.equal(given[name], value) for name, value in weights.items()):
        cause = "the network works on the caller's tensors: load_state_dict copies them"
        report.fail(what, expected="weights left as they were", got="new numbers", cause=cause)
    return network


_PLACES = tuple(f"{stage}.{n}" for stage in ("c3", "c4", "c5") for n in range(_DEPTHS[stage]))
_PLACE_CASES = (  # stages, index, places
    (("c3", "c4", "c5"), None, _PLACES),
    ((), None, ()),
    (("c4",), None, ("c4.0", "c4.1", "c4.2")),
    (("c4",), -2, ("c4.1",)),
    (("c5", "c4"), 0, ("c4.0", "c5.0")),
    (("c3", "c4"), -1, ("c3.1", "c4.2")),
)


def _place_name(stages: tuple[str, ...], index: int | None) -> str:
    return f"stages={stages}" + ("" if index is None else f", index={index}")


def _place_cause(places: tuple[str, ...], got: list[str], index: int | None) -> str:
    """Why blocks are at other places than they should be."""
    if not got:
        return "no residual block has a block: residual.block = Gain(channels)"
    if any(name.split(".")[0] == "c2" for name in got):
        return "c2 is frozen and gets no block"
    wanted, reached = ({p.split(".")[0] for p in names} for names in (places, got))
    if reached < wanted:
        return "only one of the stages has blocks: does return stand inside of the loop?"
    if reached - wanted:
        return "a block in a stage that was not asked for"
    if index is None:
        return "index=None means all residual blocks of a stage, each with a Gain of its own"
    if index == 0 and len(got) > len(places):
        return "0 is an index, too: ask whether index is None"
    if len(got) > len(places):
        return "the index is ignored: one residual block of each stage gets a block"
    return "the index counts as in a list, in each stage anew: -1 is the last residual block"


def check_places(
    report: Report,
    network: ModuleHandle,
    stages: tuple[str, ...],
    index: int | None,
    places: tuple[str, ...],
    what: str = "",
    cause: str = "",
) -> None:
    """The layers of MiniDetector under their names, and gains at these places alone."""
    what = what or _place_name(stages, index)
    found = network.parameters()
    if set(network.weights()) - set(found):
        cause = "a detector that is not to be frozen here has frozen parameters"
        report.fail(what, expected="every parameter learns", got="requires_grad off", cause=cause)
    plain = {f"backbone.{name}": shape for name, shape in _backbone().items()} | _others()
    gains = {f"backbone.{p}.block.g": (_WIDTHS[p.split(".")[0]],) for p in places}
    extra = [name for name in found if name not in plain]
    lost = [name for name in plain if name not in found]
    got = [n.removeprefix("backbone.").removesuffix(".block.g") for n in extra]
    shown = "blocks at " + (", ".join(got) or "no place")
    expected = "blocks at " + (", ".join(sorted(places)) or "no place")
    if lost:
        shown = f"no {lost[0]}; {shown}"
        cause = "a layer is gone: a Gain goes to residual.block, the residual block itself stays"
    elif other := [name for name in extra if not name.endswith(".block.g")]:
        shown = f"a parameter {other[0]}"
        cause = "a block elsewhere: it goes to the attribute block of a residual block"
    elif other := [name for name in extra if name in gains and found[name] != gains[name]]:
        expected, shown = f"{other[0]} {gains[other[0]]}", f"{found[other[0]]}"
        cause = "a block of another size: behind bn2 are the channels of conv2, its outputs"
    elif set(extra) != set(gains):
        cause = cause or _place_cause(places, got, index)
    report.true(
        what,
        not lost and {n: found[n] for n in extra} == gains,
        expected=expected,
        got=shown,
        cause=cause,
    )


def _norm_rows(report: Report, network: ModuleHandle, what: str) -> dict[str, tuple]:
    """Name of each norm → its kind, running mean, running variance."""
    rows = network.forward(torch.zeros(1, 3, 4, 4).double(), "norms")
    if not isinstance(rows, list) or any(len(row) != 4 for row in rows):
        cause = "the detector is a MiniDetector: keep its forward"
        report.fail(what, expected="a list of norms", got=_kind(rows), cause=cause)
    return {name: (kind, mean, var) for name, kind, mean, var in rows}


def check_loaded(
    report: Report, network: ModuleHandle, weights: Mapping[str, Tensor], prefix: str
) -> None:
    """The trained numbers are in the network, statistics included; fresh gains are zero."""
    found, names = network.weights(), [n for n in weights if not n.startswith("fc.")]
    learned = [n for n in names if prefix + n in found]
    wrong = [n for n in learned if not torch.allclose(found[prefix + n], weights[n].double())]
    cause = (
        "nothing of the weights has arrived: strict=False hides names that do not fit; load them "
        "into net.backbone"
    )
    if len(wrong) < len(learned):
        cause = "some layers have other numbers: load all of them, and change none afterwards"
    report.true(
        "the trained weights are in the network",
        not wrong,
        expected="the numbers that were given",
        got=f"others in {len(wrong)} of {len(learned)}, first in {(wrong or [''])[0]}",
        cause=cause,
    )
    rows = _norm_rows(report, network, "the norms keep their statistics")
    moved = [
        name
        for name in names
        if name.endswith("running_mean")
        for _, mean, var in [
            rows.get(prefix + name.removesuffix(".running_mean"), ("", None, None))
        ]
        if mean is None
        or not torch.allclose(mean.double(), weights[name].double())
        or not torch.allclose(var.double(), weights[name.replace("mean", "var")].double())
    ]
    report.true(
        "the norms keep their statistics",
        not moved,
        expected="the running means and variances that were given",
        got=f"others in {len(moved)} norms, first in {(moved or [''])[0]}",
        cause="the running statistics are lost: load the whole state dict, not the parameters, and "
        "do not reset the norms",
    )
    gains = [name for name, value in found.items() if name.endswith(".g") and value.any()]
    cause = "a fresh Gain is the identity: nothing may give it numbers"
    report.true(
        "fresh blocks are the identity", not gains, expected="g = 0", got="g ≠ 0", cause=cause
    )


def levels(
    report: Report, network: ModuleHandle, images: Tensor, what: str = "head"
) -> list[Tensor]:
    """The four maps of a detector, or of its backbone."""
    found = network.forward(images, what)
    maps = isinstance(found, list) and len(found) == 4
    if not maps or not all(isinstance(x, Tensor) for x in found):
        cause = "the detector is a MiniDetector: keep its forward"
        report.fail("a detector", expected="a list of four maps", got=_kind(found), cause=cause)
    return found


def same_levels(
    report: Report, what: str, got: list[Tensor], right: list[Tensor], cause: str
) -> None:
    """Two lists of maps hold the same shapes and numbers."""
    shapes, wanted = ([tuple(x.shape) for x in found] for found in (got, right))
    if shapes != wanted:
        report.fail(what, expected=f"maps of {wanted}", got=f"{shapes}", cause=cause)
    report.close(
        what,
        torch.cat([x.flatten() for x in got]),
        torch.cat([x.flatten() for x in right]),
        cause=cause,
        atol=1e-6,
    )


def with_others(report: Report, *networks: ModuleHandle) -> None:
    """The same random FPN and head in all of them."""
    numbers = {name: 0.5 * report.randn(*shape) for name, shape in _others().items()}
    for network in networks:
        network.load(numbers)


def check_blocks(
    report: Report,
    impl: Handle,
    weights: Mapping[str, Tensor],
    stages: tuple[str, ...],
    index: int | None,
    places: tuple[str, ...],
    size: int = 16,
) -> None:
    """Fresh blocks change nothing; blocks with numbers do, and learn."""
    network = built(report, impl, weights, stages, index)
    plain = built(report, impl, weights, ())
    with_others(report, network, plain)
    images = report.randn(2, 3, size, size)
    for mode, training in (("evaluation", False), ("training", True)):
        network.train(training)
        plain.train(training)
        cause = "the blocks are fresh, so something else differs: weights, statistics, the mode"
        got, right = levels(report, network, images), levels(report, plain, images)
        same_levels(report, f"the same maps as without blocks, in {mode}", got, right, cause)
    gains = {f"backbone.{place}.block.g": report.randn(_width(place)) for place in places}
    network.load(gains)
    found = network.gradients(images, "finest", cotangent=report.randn(2, 5, size, size))
    dead = [n for n in gains if found.parameters[n] is None or not bool(found.parameters[n].any())]
    report.true(
        "every block learns",
        not dead,
        expected="a gradient for each g",
        got="none for " + ", ".join(dead[:3]),
        cause="a block that the forward pass does not call",
    )


def _width(place: str) -> int:
    return _WIDTHS[place.split(".")[0]]


@exercise(
    "c08-e3",
    "into the detector",
    needs="detector_with_blocks",
    look="section 4, the table of three ways to load",
    points=(1, 2),
    minutes=20,
)
def e3(impl: Handle, report: Report) -> None:
    """Places, weights, statistics; the same maps as without blocks."""
    weights = classifier(report)
    with report.group("blocks at the places asked for"):
        for stages, index, places in _PLACE_CASES:
            check_places(report, built(report, impl, weights, stages, index), stages, index, places)
        network = built(report, impl, weights)
        cause = 'the defaults were changed: stages=("c3", "c4", "c5") and index=None'
        check_places(report, network, (), None, _PLACES, "without arguments", cause)
    check_loaded(report, network, weights, "backbone.")
    check_blocks(report, impl, weights, ("c3", "c4", "c5"), None, _PLACES)
    with report.group("another stage"):
        for stages in (("c2",), ("c6",), ("stem",), ("c3", "c1")):
            raises_value_error(
                report,
                f"stages={stages} is refused",
                lambda stages=stages: impl.build(_copies(weights), stages),
                "stage",
            )


# What is trained -------------------------------------------------------------------------------

_EARLY = ("backbone.stem.", "backbone.c2.")
# One pixel, so of each 3×3 only the centre matters. Behind the stem's norm, 3 x - 8: (7, 4, 1, 28)
# and (1, 1, 1, 19). In c2: 2 (x - 1), a ReLU, then x/2 - 2; the shortcut; the ReLU of the sum.
_FROZEN_IMAGES = _double([[5, 4, 3], [3, 3, 3]])[:, :, None, None]
_FROZEN_CENTRES = {
    "stem.0": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]],
    "c2.0.conv1": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, -1, 0, 0]],
    "c2.0.conv2": torch.eye(5).tolist(),
    "c2.0.shortcut": torch.eye(5, 4).tolist(),
}
_FROZEN_NORMS = {  # weight, bias, mean, variance + epsilon
    "stem.1": (6.0, 1.0, 3.0, 4.0),
    "c2.0.bn1": (2.0, 0.0, 1.0, 1.0),
    "c2.0.bn2": (1.0, -1.0, 2.0, 4.0),
}
_FROZEN_RESULT = _double([[11, 5, 0, 53, 0], [0, 0, 0, 35, 0]])
_FROZEN_WRONG = {  # x, weight, bias, mean, variance → a wrong norm
    "the running mean is not subtracted": lambda x, w, b, m, v: w * x / v**0.5 + b,
    "the bias is not added": lambda x, w, b, m, v: w * (x - m) / v**0.5,
    "the weight is missing": lambda x, w, b, m, v: (x - m) / v**0.5 + b,
    "divided by the variance: by its root, the deviation": lambda x, w, b, m, v: (
        w * (x - m) / v + b
    ),
    "not divided by the deviation": lambda x, w, b, m, v: w * (x - m) + b,
    "multiplied by the deviation: divide": lambda x, w, b, m, v: w * (x - m) * v**0.5 + b,
    "the running mean is added: subtract it": lambda x, w, b, m, v: w * (x + m) / v**0.5 + b,
    "the bias is subtracted: add it": lambda x, w, b, m, v: w * (x - m) / v**0.5 - b,
    "the mean is subtracted without the scale: (x - mean) · scale": (
        lambda x, w, b, m, v: w * x / v**0.5 + b - m
    ),
    "weight and bias are exchanged": lambda x, w, b, m, v: b * (x - m) / v**0.5 + w,
    "mean and variance are exchanged": lambda x, w, b, m, v: w * (x - v) / m**0.5 + b,
    "the bias is scaled, too": lambda x, w, b, m, v: w * ((x - m) / v**0.5 + b),
    "the norm does nothing": lambda x, w, b, m, v: x,
}


def _frozen_weights(report: Report) -> dict[str, Tensor]:
    """A state dict whose stem and c2 can be worked out by hand."""
    layers = {f"backbone.{name}": shape for name, shape in _backbone().items()} | _others()
    weights = _numbers(report, layers)
    for name, rows in _FROZEN_CENTRES.items():
        kernel = torch.zeros_like(weights[f"backbone.{name}.weight"])
        kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2] = torch.tensor(rows)
        weights[f"backbone.{name}.weight"] = kernel
    for name, numbers in _FROZEN_NORMS.items():
        keys = ("weight", "bias", "running_mean", "running_var")
        for key, number in zip(keys, numbers, strict=True):
            number -= 1e-5 * (key == "running_var")
            weights[f"backbone.{name}.{key}"] = torch.full((5 if "c2" in name else 4,), number)
    return weights


def detector_weights(report: Report) -> dict[str, Tensor]:
    """A random state dict of a MiniDetector."""
    layers = {f"backbone.{name}": shape for name, shape in _backbone().items()} | _others()
    return _numbers(report, layers)


def _by_hand(norm) -> Tensor:
    """c2's map of the two pixels with another norm."""
    x = _FROZEN_IMAGES[:, :, 0, 0]
    rows = {name: _double(values) for name, values in _FROZEN_CENTRES.items()}
    x = norm(x @ rows["stem.0"].T, *_FROZEN_NORMS["stem.1"]).relu()
    out = norm(x @ rows["c2.0.conv1"].T, *_FROZEN_NORMS["c2.0.bn1"]).relu()
    out = norm(out @ rows["c2.0.conv2"].T, *_FROZEN_NORMS["c2.0.bn2"])
    return (x @ rows["c2.0.shortcut"].T + out).relu()


def check_trained(report: Report, network: ModuleHandle) -> None:
    """Which parameters learn: all but those of stem and c2."""
    found = network.parameters()
    names = {f"backbone.{name}" for name in _backbone()} | set(_others())
    frozen = {name for name in names if name.startswith(_EARLY)}
    learning = sorted(name for name in found if name.startswith(_EARLY))
    cause = "stem and c2 are frozen: requires_grad_(False) on both"
    if learning and all(".bn" in n or ".stem.1" in n for n in learning):
        cause = "the norms of stem and c2 still learn: put a FrozenNorm in the place of each"
    elif learning and not any(n.startswith(_EARLY[1]) for n in learning):
        cause = "the stem is frozen, too: its convolution and its norm"
    elif learning and not any(n.startswith(_EARLY[0]) for n in learning):
        cause = "c2 is frozen, too"
    report.true(
        "stem and c2 do not learn",
        not learning,
        expected="no parameter of them asks for a gradient",
        got=f"{len(learning)} do, first {(learning or [''])[0]}",
        cause=cause,
    )
    still = sorted(names - frozen - set(found))
    report.true(
        "everything else learns",
        not still and set(found) == names - frozen,
        expected="c3, c4, c5, FPN and head ask for gradients",
        got=f"{still[0]} does not" if still else "other parameters",
        cause="too much is frozen: stem and c2 alone; the norms of c3 to c5 keep scale and shift",
    )


def check_kinds(report: Report, network: ModuleHandle, kind: str) -> None:
    """Frozen norms in stem and c2, one kind in c3 to c5."""
    what = "the norms of stem and c2 are frozen"
    rows = _norm_rows(report, network, what)
    names = [f"backbone.{name}" for name in _norms(_backbone())]
    lost = [name for name in names if name not in rows]
    if lost:
        cause = f"{lost[0]} is gone: a norm's place holds another norm, with a running_mean"
        report.fail(what, expected=f"{len(names)} norms", got=f"no {lost[0]}", cause=cause)
    early = [n for n in names if n.startswith(_EARLY)]
    soft = [n for n in early if rows[n][0] in ("BatchNorm2d", "SyncBatchNorm")]
    cause = "SyncBN came first: a SyncBatchNorm is no nn.BatchNorm2d, so freeze first"
    if soft and rows[soft[0]][0] == "BatchNorm2d":
        cause = "a norm was passed over: those inside of the residual block, and that of the stem"
        if len(soft) == len(early):
            cause = "no norm was exchanged: module.add_module(name, FrozenNorm(child))"
    report.true(
        what,
        not soft,
        expected="FrozenNorm in stem and c2",
        got=", ".join(f"{n}: {rows[n][0]}" for n in soft[:2]),
        cause=cause,
    )
    what = f"the norms of c3 to c5 are {kind}"
    wrong = [n for n in names if n not in early and rows[n][0] != kind]
    cause = "with one process the norms of c3 to c5 stay as they are"
    if kind == "SyncBatchNorm":
        cause = (
            "with several processes: net = nn.SyncBatchNorm.convert_sync_batchnorm(net), and "
            "c3 to c5 are not frozen"
        )
    elif wrong and rows[wrong[0]][0] not in ("SyncBatchNorm", "BatchNorm2d"):
        cause = "the norms of c3 to c5 are frozen, too: only those of stem and c2"
    report.true(
        what,
        not wrong,
        expected=f"{kind} in c3 to c5",
        got=", ".join(f"{n}: {rows[n][0]}" for n in wrong[:2]),
        cause=cause,
    )


def check_frozen_modes(report: Report, network: ModuleHandle, images: Tensor) -> Tensor:
    """c2's map is the same in training and in evaluation, and its statistics stay; the map."""
    network.train(False)
    still = levels(report, network, images, "features")
    before = _norm_rows(report, network, "statistics")
    network.train(True)
    moving = levels(report, network, images, "features")
    what = "c2 gives the same in training"
    cause = (
        "training mode switches its norms to the statistics of the batch: .eval() does not last, "
        "a FrozenNorm has no mode"
    )
    report.close(what, moving[0], still[0], cause=cause, atol=1e-6)
    after = _norm_rows(report, network, "statistics")
    changed = {n for n, (_, mean, _) in after.items() if not torch.equal(mean, before[n][1])}
    report.true(
        "fixed statistics in stem and c2, running ones behind",
        changed == {n for n in after if not n.startswith(_EARLY)},
        expected="a step in training moves the running means of c3 to c5 alone",
        got="moved: " + (", ".join(sorted(changed)[:3]) or "none"),
        cause="norms of stem and c2 are FrozenNorm, those of c3 to c5 are not",
    )
    return still[0]


@exercise(
    "c08-e4",
    "what is trained",
    needs="recipe_detector",
    look="section 5, the three traps",
    points=(2, 2),
    minutes=30,
)
def e4(impl: Handle, report: Report) -> None:
    """Gradients, kinds of norms, numbers by hand, training mode; SyncBN for several processes."""
    weights = _frozen_weights(report)
    network = built(report, impl, weights, 1)
    check_trained(report, network)
    check_kinds(report, network, "BatchNorm2d")
    network.train(False)
    mistakes = {
        cause: _by_hand(norm).nan_to_num(0)[..., None, None]
        for cause, norm in _FROZEN_WRONG.items()
    }
    report.close(
        "frozen norms, by hand",
        levels(report, network, _FROZEN_IMAGES, "features")[0],
        _FROZEN_RESULT[:, :, None, None],
        mistakes=mistakes,
        cause="(x - mean) / root of (variance + eps), times weight, plus bias; each norm keeps its "
        "own numbers",
        atol=1e-3,
    )
    check_loaded(report, network, weights, "")
    check_frozen_modes(report, network, report.randn(3, 3, 16, 16))
    network = built(report, impl, weights, 1)
    found = network.gradients(
        report.randn(2, 3, 16, 16), "finest", cotangent=report.randn(2, 5, 16, 16)
    )
    dead = [n for n in network.parameters() if found.parameters[n] is None]
    cause = "a part is cut off from the graph (detach, no_grad)"
    got = "none for " + ", ".join(dead[:3])
    report.true("c3 to c5 get gradients", not dead, expected="a gradient", got=got, cause=cause)
    with report.group("8 processes"):
        check_several(report, impl, weights, 8)


def check_several(
    report: Report, impl: Handle, weights: Mapping[str, Tensor], processes: int
) -> None:
    """SyncBN in c3 to c5; the same function in evaluation."""
    alone, several = built(report, impl, weights, 1), built(report, impl, weights, processes)
    check_trained(report, several)
    check_kinds(report, several, "SyncBatchNorm")
    images = report.randn(2, 3, 16, 16)
    alone.train(False)
    several.train(False)
    cause = "SyncBN has other numbers: convert the norms, do not make new ones"
    got, right = levels(report, several, images), levels(report, alone, images)
    same_levels(report, "the same in evaluation", got, right, cause)


# Decode ----------------------------------------------------------------------------------------

STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
_TWICE = 0.6931471805599453  # ln 2
_LARGE = (1000, 1000)
# Name → box, deltas, stds, (height, width), result, cause → what it gives.
_DECODE_CASES = {
    "to the right": (
        [0, 0, 8, 8],
        [5, 0, 0, 0],
        STDS[0],
        _LARGE,
        [4, 0, 12, 8],
        {
            "the moves are in units of the box: times width, times height": [0.5, 0, 8.5, 8],
            "deltas are in units of stds: multiply": [40, 0, 48, 8],
            "deltas are in units of stds: multiply, do not divide": [400, 0, 408, 8],
            "to the left: the move is added": [0, 0, 4, 8],
            "the box does not move": [0, 0, 8, 8],
            "a corner is moved in place of the centre": [0, 0, 8, 4],
            "corners are half a width away from the centre, not a whole one": [0, 0, 16, 12],
            "exp is missing: the deltas of the size are logarithms": [8, 4, 8, 4],
            "left, right, top, bottom: the order is left, top, right, bottom": [4, 12, 0, 8],
            "centre and size are returned: return corners": [8, 4, 8, 8],
        },
    ),
    # Centre (20, 40), 20 wide, 40 high; moved to (22, 32), 40 wide, 10 high.
    "moved, wider and flatter": (
        [10, 20, 30, 60],
        [1, -2, _TWICE / 0.2, -2 * _TWICE / 0.2],
        STDS[0],
        _LARGE,
        [2, 27, 42, 37],
        {
            "the moves take the new size: they are in units of the old box": [4, 33, 44, 43],
            "width and height are exchanged in the moves": [4, 31, 44, 41],
            "the size stays the old one: times exp(dw), exp(dh)": [12, 12, 32, 52],
            "exp is missing: the deltas of the size are logarithms": [
                22 - 10 * _TWICE,
                32 + 40 * _TWICE,
                22 + 10 * _TWICE,
                32 - 40 * _TWICE,
            ],
            "the size is divided by the factor: multiply": [17, 0, 27, 112],
            "centre plus size is no corner: half a size to each side": [22, 32, 62, 42],
            "dw and dh are exchanged": [19.5, 0, 24.5, 72],
            "dw and dh are not in stds: multiply": [0, 31.98046875, 342, 32.01953125],
            "the old centre: the moves are lost": [0, 35, 40, 45],
        },
    ),
    "stds of stage 3": (
        [10, 10, 30, 20],
        [10, -10, 0, 0],
        STDS[2],
        _LARGE,
        [16.6, 6.7, 36.6, 16.7],
        {"stds are fixed: take the argument": [30, 0, 50, 10]},
    ),
    "clipped at the right and below": (
        [0, 0, 8, 8],
        [5, 5, 0, 0],
        STDS[0],
        (6, 10),
        [4, 4, 10, 6],
        {
            "nothing is clipped": [4, 4, 12, 12],
            "size is (height, width): left and right are clipped at the width": [4, 4, 6, 10],
            "clipped at the smaller side": [4, 4, 6, 6],
            "clipped at the larger side": [4, 4, 10, 10],
            "clipped at the last pixel: corners are places, up to the width itself": [4, 4, 9, 5],
        },
    ),
    "clipped at the left and above": (
        [1, 2, 5, 6],
        [-10, -10, 0, 0],
        STDS[0],
        (50, 60),
        [0, 0, 1, 2],
        {
            "nothing is clipped at 0": [-3, -2, 1, 2],
            "the box is shifted into the image: it is cut": [0, 0, 4, 4],
        },
    ),
    "outside": ([90, 0, 98, 8], [50, 0, 0, 0], STDS[0], (50, 100), [100, 0, 100, 8], {}),
}


def check_decode(
    report: Report, impl: Handle, what: str, arguments: tuple, right: Tensor, mistakes: dict
) -> None:
    """Boxes from deltas."""
    call = impl.inspect(*arguments)
    got = report.tensor(what, call.result, tuple(right.shape), cause=_decode_shape(call, right))
    cause = "write centre and size of the box, of the moved box, then its corners, one by one"
    if torch.allclose(got, right, rtol=1e-6, atol=1e-6):
        cause = "rounded: torch.tensor(stds) is float32, deltas.new_tensor(stds) is as the deltas"
    report.close(what, got, right, mistakes=mistakes, cause=cause)
    input_kept(report, call, *arguments[:2])


def _decode_shape(call: Call, right: Tensor) -> str:
    got = call.result
    if isinstance(got, Tensor) and tuple(got.shape) == tuple(right.shape)[::-1]:
        return "rows and columns are exchanged: torch.stack([...], dim=1)"
    return "one row of four corners for each box"


@exercise(
    "c08-e5",
    "decode",
    needs="decode",
    look="section 7, the four formulas",
    points=(1, 2),
    minutes=20,
)
def e5(impl: Handle, report: Report) -> None:
    """Boxes by hand: moved, enlarged, clipped; several at once; gradients."""
    for what, (box, deltas, stds, size, right, mistakes) in _DECODE_CASES.items():
        arguments = (_double([box]), _double([deltas]), stds, size)
        known = {cause: _double([wrong]) for cause, wrong in mistakes.items()}
        with report.group(what):
            check_decode(report, impl, "the box", arguments, _double([right]), known)
    boxes, deltas, rows = [], [], []
    for box, delta, stds, size, right, _ in _DECODE_CASES.values():
        if stds is STDS[0] and size is _LARGE:
            boxes.append(box)
            deltas.append(delta)
            rows.append(right)
    arguments = (_double(boxes), _double(deltas), STDS[0], _LARGE)
    check_decode(report, impl, "two boxes at once", arguments, _double(rows), {})
    arguments = (torch.zeros(0, 4).double(), torch.zeros(0, 4).double(), STDS[0], _LARGE)
    check_decode(report, impl, "no boxes", arguments, torch.zeros(0, 4).double(), {})
    arguments = (_double(boxes).float(), _double(deltas).float(), STDS[0], _LARGE)
    single = report.tensor(
        "float32 in, float32 out", impl.call(*arguments), (2, 4), dtype=torch.float32
    )
    report.close("the same in float32", single.double(), _double(rows), atol=1e-3)
    found = impl.gradients(
        _double([[10, 20, 30, 60]]),
        _double([[1, -2, 1, -1]]),
        STDS[0],
        _LARGE,
        cotangent=torch.ones(1, 4).double(),
    )
    # The sum of the corners is 2 x + 2 y: it follows the moves alone.
    report.gradient("deltas learn", found.inputs[1], _double([[4, 8, 0, 0]]))


# The cascade -----------------------------------------------------------------------------------

# Each stage goes half of the way: 8, 4, 2, 1 pixels are left, or 4, 2, 1, 1/2. The IoU with 8, 4,
# 2, 1 and 1/2 left is 0, 1/3, 3/5, 7/9 and 15/17.
_CASCADE_BOXES = _double([[0, 0, 8, 8], [20, 20, 28, 28]])
_CASCADE_TRUTH = _double([[8, 0, 16, 8], [20, 16, 28, 24]])
_CASCADE_IOUS = _double([[0, 1 / 3], [1 / 3, 3 / 5], [3 / 5, 7 / 9], [7 / 9, 15 / 17]])


def _moved(rest: float) -> Tensor:
    """The boxes with this part of the way left."""
    return _CASCADE_TRUTH + rest * (_CASCADE_BOXES - _CASCADE_TRUTH)


_CASCADE_MISTAKES = {
    "one stage alone, or each stage starts from the proposals: boxes = decode(...) in the loop": (
        _moved(1 / 2)
    ),
    "two stages: there are three": _moved(1 / 4),
    "four stages: there are three": _moved(1 / 16),
    "all stages decode with the stds of stage 1: stds_of(stage)": _moved(0),
    "all stages decode with the stds of stage 3: stds_of(stage)": _moved(0.835 * 0.67 * 0.5),
    "the stds are taken in the wrong order: stds_of(stage)": _moved(0.835 * 0.5 * (1 - 0.5 / 0.33)),
    "these are the proposals: return the boxes of the last stage": _CASCADE_BOXES,
    "the mean over the stages: each stage hands its boxes on": _moved(7 / 24),
}


def chances(logits: Tensor) -> Tensor:
    """Softmax of (0, logit) for each box."""
    return torch.stack([torch.zeros_like(logits), logits], dim=1).softmax(1)


def cascade_result(
    report: Report, impl: Handle, what: str, arguments: tuple
) -> tuple[object, object]:
    """The two parts of the result."""
    call = impl.inspect(*arguments)
    got = call.result
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        cause = _NO_RETURN if got is None else "return a pair: boxes, probabilities"
        report.fail(
            what, expected="boxes (N, 4), probabilities (N, 2)", got=_kind(got), cause=cause
        )
    input_kept(report, call, *arguments[:2])
    return got[0], got[1]


@exercise(
    "c08-e6",
    "the cascade",
    needs="cascade",
    look="section 7, the table of three stages",
    points=(1, 1),
    minutes=15,
)
def e6(impl: Handle, report: Report) -> None:
    """Two boxes by hand; clipping in each stage."""
    arguments = (_CASCADE_BOXES, _CASCADE_TRUTH, (40, 50))
    with report.group("an eighth of the way is left"):
        boxes, probabilities = cascade_result(report, impl, "returns a pair", arguments)
        report.close(
            "boxes",
            report.tensor("boxes", boxes, (2, 4), cause="boxes first, then probabilities"),
            _moved(1 / 8),
            mistakes=_CASCADE_MISTAKES,
            cause="each stage starts from the boxes of the one before, and decodes with its stds",
        )
    with report.group("the stages vote"):
        late = torch.arange(3)[:, None]
        votes, behind = 6 * _CASCADE_IOUS[:3] - late, 6 * _CASCADE_IOUS[1:] - late
        mean = votes.mean(0)
        flat = torch.stack([torch.zeros_like(mean), mean], dim=1)
        mistakes = {
            "the last stage alone: the mean of the logits of all three": chances(votes[2]),
            "the first stage alone: the mean of the logits of all three": chances(votes[0]),
            "the sum of the logits: their mean": chances(3 * mean),
            "the mean of the probabilities: one softmax, of the mean of the logits": (
                sum(chances(vote) for vote in votes) / 3
            ),
            "these are logits: softmax over the classes makes probabilities": (flat, 3 * flat),
            "softmax over the boxes: over the classes, dim=1": (flat.softmax(0)),
            "these are the logits of the boxes that go out: of those that come in": (
                chances(behind.mean(0))
            ),
            "two stages vote: all three do": (
                chances(votes[:2].mean(0)),
                chances(votes[1:].mean(0)),
            ),
        }
        right = chances(mean)
        cause = "collect the logits of each stage; their mean over the stages; softmax over classes"
        shape = "one row for each box, one number for each class"
        probabilities = report.tensor("probabilities", probabilities, (2, 2), cause=shape)
        report.close("probabilities", probabilities, right, mistakes=mistakes, cause=cause)
    with report.group("every stage clips to the image"):
        # (4, 0, 12, 8), then (6, 0, 14, 8), of which 13 is left: a width of 7, its centre at 9.5.
        # Half of the way to 12 is 10.75, half of the growth to 8 a width of the root of 56.
        arguments = (_CASCADE_BOXES[:1], _CASCADE_TRUTH[:1], (40, 13))
        boxes, _ = cascade_result(report, impl, "returns a pair", arguments)
        report.close(
            "the box",
            boxes,
            _double([[10.75 - 56**0.5 / 2, 0, 13, 8]]),
            mistakes={
                "clipped at the end alone: each stage clips": _double([[7, 0, 13, 8]]),
                "nothing is clipped: hand size on to decode": _double([[7, 0, 15, 8]]),
            },
            cause="hand size on to decode, in each stage",
        )
