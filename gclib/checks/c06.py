"""Visible checks of chapter 06: blocks in networks, counts, time, and their usual mistakes.

The numbers are small enough to follow by hand; what each check expects is written out, not
computed by a second implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle, ModuleHandle, Opaque, StudentError
from gclib.checks.properties import build, input_kept, keeps_float32, raises_value_error
from gclib.checks.report import Report


def _numbers(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# A block in a bottleneck -----------------------------------------------------------------------

POSITIONS = ("after_3x3", "after_1x1", "after_add")


def _block_map(channels: list) -> Tensor:
    """Rows are channels, columns are positions: ``(1, C, 1, 2)``."""
    return _numbers(channels)[None, :, None]


# Three channels, width 2, two positions. Behind the norms stand (6, 2), (-1, 1), then (-6, -4),
# (1, 2) and, for the branch, (1, 4), (2, -4), (-1, -2); the sums are (-1, 5), (3, -5), (1, -4).
_BLOCK_X = _block_map([[-2, 1], [1, -1], [2, -2]])
_BLOCK_CONVS = {
    "conv1": _numbers([[-1, 0, 1], [1, -2, 2]]),
    "conv2": _numbers([[-1, -1], [-1, 0]]),  # the centre of the 3×3; its rest is zero
    "conv3": _numbers([[-1, 2], [-2, -2], [1, -1]]),
}
_BLOCK_SHIFTS = {"bn1": [2, 2], "bn2": [2, 2], "bn3": [1, 2, -1]}
_BLOCK_GAINS = {3: _numbers([2, -1, 1 / 2]), 2: _numbers([3, -1])}  # 1 + g
_BLOCK_PLAIN = _block_map([[0, 5], [3, 0], [1, 0]])
_BLOCK_RESULTS = {
    "after_3x3": _block_map([[0, 0], [3, 0], [1, 2]]),
    "after_1x1": _block_map([[0, 9], [0, 3], [1.5, 0]]),
    "after_add": _block_map([[0, 10], [0, 5], [0.5, 0]]),
}
# What a block gives at a wrong place; first those with the channels of the 3×3.
_BLOCK_NARROW = {
    "the block stands before the 3×3 convolution": (
        _block_map([[0, 3], [3, 0], [1, 0]]),
        _block_map([[0, 6], [3, 0], [1, 0]]),
    ),
    "the block stands before the norm of the 3×3 convolution: behind its norm and its ReLU": (
        _block_map([[15, 6], [0, 0], [0, 0]])
    ),
    "the block stands before the ReLU of the 3×3 convolution: it belongs behind": (
        _block_map([[7, 0], [0, 0], [0, 0]])
    ),
    "the block stands behind the 3×3 convolution: that is after_3x3": _BLOCK_RESULTS["after_3x3"],
}
_BLOCK_WIDE = {
    "the block stands before the norm of the last 1×1 convolution: it belongs behind": (
        _block_map([[0, 8], [3, 7], [1, 0]])
    ),
    "the block stands before the addition: that is after_1x1": _BLOCK_RESULTS["after_1x1"],
    "the block stands behind the addition: that is after_add": _BLOCK_RESULTS["after_add"],
    "the block stands behind the last ReLU: it belongs before": (
        _block_map([[0, 10], [-3, 0], [0.5, 0]])
    ),
    "the block stands on the shortcut, on x: it belongs to the branch or to the sum": (
        _block_map([[0, 6], [1, 0], [0, 0]])
    ),
}
_BLOCK_STEPS = {
    "after_3x3": {
        "the block is called twice": [[0, 0], [3, 0], [1, 4]],
        "bn1 is not called": [[0, 0], [3, 0], [1, 5]],
        "bn2 is not called": [[0, 2], [3, 1], [1, 0]],
        "bn3 is not called": [[0, 0], [1, 0], [2, 3]],
        "the first ReLU is missing": [[0, 0], [3, 0], [1, 6]],
        "the ReLU of the 3×3 convolution is missing": [[25, 0], [31, 0], [0, 2]],
        "the last ReLU is missing": [[-1, -5], [3, -1], [1, 2]],
        "x is not added": [[1, 0], [2, 0], [0, 4]],
        "a ReLU stands before the addition: the branch may be negative": [[0, 1], [3, 0], [2, 2]],
    },
    "after_1x1": {
        "the block is called twice": [[2, 17], [3, 0], [1.75, 0]],
        "bn1 is not called": [[0, 7], [0, 5], [1.5, 0]],
        "bn2 is not called": [[0, 3], [0, 0], [1.5, 0]],
        "bn3 is not called": [[0, 7], [1, 5], [2, 0]],
        "the first ReLU is missing": [[0, 11], [0, 7], [1.5, 0]],
        "the ReLU of the 3×3 convolution is missing": [[0, 9], [0, 3], [0.5, 0]],
        "the last ReLU is missing": [[0, 9], [-1, 3], [1.5, -3]],
        "x is not added": [[2, 8], [0, 4], [0, 0]],
        "a ReLU stands before the addition: the branch may be negative": [[0, 9], [1, 3], [2, 0]],
        "the branch is added to what the block gives: the block takes its place": (
            [[1, 13], [1, 0], [0.5, 0]]
        ),
    },
    "after_add": {
        "the block is called twice": [[0, 20], [3, 0], [0.25, 0]],
        "bn1 is not called": [[0, 8], [0, 7], [0.5, 0]],
        "bn2 is not called": [[0, 4], [0, 0], [0.5, 0]],
        "bn3 is not called": [[0, 8], [0, 7], [1, 0]],
        "the first ReLU is missing": [[0, 12], [0, 9], [0.5, 0]],
        "the ReLU of the 3×3 convolution is missing": [[0, 10], [0, 5], [0, 0]],
        "the last ReLU is missing": [[-2, 10], [-3, 5], [0.5, -2]],
        "x is not added": [[2, 8], [0, 4], [0, 0]],
        "a ReLU stands before the addition: the branch may be negative": [[0, 10], [0, 1], [1, 0]],
        "the sum is added to what the block gives: the block takes its place": (
            [[0, 15], [0, 0], [1.5, 0]]
        ),
        "a ReLU stands between the addition and the block": [[0, 10], [0, 0], [0.5, 0]],
        "x is added behind the block too": [[0, 11], [0, 4], [2.5, 0]],
        "the block is called after the 1×1 convolution, too": [[0, 18], [1, 0], [0.75, 0]],
    },
}


def _block_mistakes(position: str) -> dict[str, Tensor | tuple[Tensor, ...]]:
    places = _BLOCK_NARROW if position == "after_3x3" else _BLOCK_WIDE
    right = _BLOCK_RESULTS[position]
    return {
        "the block is never called": _BLOCK_PLAIN,
        **{cause: wrong for cause, wrong in places.items() if wrong is not right},
        **{cause: _block_map(wrong) for cause, wrong in _BLOCK_STEPS[position].items()},
    }


def _block_layers(channels: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Bottleneck's parameters."""
    return {
        "conv1.weight": (width, channels, 1, 1),
        "bn1.weight": (width,),
        "bn1.bias": (width,),
        "conv2.weight": (width, width, 3, 3),
        "bn2.weight": (width,),
        "bn2.bias": (width,),
        "conv3.weight": (channels, width, 1, 1),
        "bn3.weight": (channels,),
        "bn3.bias": (channels,),
    }


def block_parameters(
    report: Report, module: ModuleHandle, channels: int, width: int, position: str
) -> None:
    """The layers of Bottleneck under their names, and one block with the channels of its place."""
    found = module.parameters()
    size = width if position == "after_3x3" else channels
    expected = _block_layers(channels, width) | {"block.g": (size,)}
    what = f"the layers of Bottleneck and a block of {size} channels"
    if found == expected:
        report.ok(what)
        return
    _all_learn(report, what, module)
    gains = [name for name in found if name.split(".")[-1] == "g"]
    cause = "a layer too many, or one with other channels than Bottleneck has"
    if len(gains) > 1:
        cause = "more than one block: there is one, at the position asked for"
    elif not gains:
        cause = "there is no block: set self.block = make(...) in __init__"
    elif gains != ["block.g"]:
        cause = "the block has another name: set it as self.block"
    elif found["block.g"] != (size,):
        cause = f"after the last 1×1 convolution and after the addition there are {channels}"
        if position == "after_3x3":
            cause = f"after the 3×3 convolution there are {width} channels"
        cause += ": make(...) gets the channels of the place"
    elif set(expected) - set(found):
        cause = "layers of Bottleneck are missing: call super().__init__(channels, width)"
    shown = {name: shape for name, shape in found.items() if expected.get(name) != shape}
    missing = [name for name in expected if name not in found]
    got = [f"{name} {shape}" for name, shape in shown.items()] + [f"no {name}" for name in missing]
    report.fail(what, expected=f"block.g ({size},)", got=", ".join(got), cause=cause)


def _all_learn(report: Report, what: str, module: ModuleHandle) -> None:
    """A frozen parameter is not among those that learn; it is not missing either."""
    learning = module.parameters()
    frozen = [name for name in module.weights() if name not in learning]
    if frozen:
        report.fail(
            what,
            expected="every parameter with requires_grad=True",
            got="requires_grad=False for " + _first_names(frozen),
            cause="requires_grad is off for a layer: it could never learn",
        )


def _first_names(names: list[str]) -> str:
    """A long list by its first three."""
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[:3] if more else names) + more


def _block_toy(g: Tensor) -> dict[str, Tensor]:
    """The weights of the toy; a norm in evaluation divides by √(1 + 1e-5), its weight undoes it."""
    kernel = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    kernel[:, :, 1, 1] = _BLOCK_CONVS["conv2"]
    weights = {f"{n}.weight": w for n, w in _BLOCK_CONVS.items()} | {"conv2.weight": kernel}
    for name, shift in _BLOCK_SHIFTS.items():
        weights[f"{name}.bias"] = _numbers(shift)
        weights[f"{name}.weight"] = sqrt(1 + 1e-5) * torch.ones(len(shift), dtype=torch.float64)
    return weights | {"block.g": g}


def _block_forward(report: Report, what: str, module: ModuleHandle, x: Tensor) -> Tensor:
    """Forward; a block of the wrong size for its place becomes a cause."""
    try:
        return report.tensor(what, module.forward(x), tuple(x.shape))
    except StudentError as error:
        if "must match the size of tensor" not in str(error):
            raise
        report.fail(
            what,
            expected="a result",
            got=str(error),
            cause="the block stands at a place that has other channels than it was made for",
        )


def block_random(report: Report, channels: int, width: int, position: str) -> dict[str, Tensor]:
    """Random weights for every parameter; scales and gains are positive."""
    shapes = _block_layers(channels, width)
    shapes["block.g"] = (width if position == "after_3x3" else channels,)
    weights = {name: 0.7 * report.randn(*shape) for name, shape in shapes.items()}
    for name in ("bn1.weight", "bn2.weight", "bn3.weight"):
        weights[name] = 0.5 + weights[name].abs()
    return weights | {"block.g": 0.5 + weights["block.g"].abs()}


def _block_absorbed(
    position: str, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor | float]:
    """Weights without a gain that compute the same, but for a factor of the result.

    What multiplies the branch can move into the last norm; behind the 3×3 it can move into the
    filters of the last 1×1 convolution; behind the addition it passes the ReLU.
    """
    gain = 1 + weights["block.g"]
    plain = dict(weights) | {"block.g": torch.zeros_like(gain)}
    if position == "after_3x3":
        plain["conv3.weight"] = weights["conv3.weight"] * gain[:, None, None]
    elif position == "after_1x1":
        plain |= {name: weights[name] * gain for name in ("bn3.weight", "bn3.bias")}
    return plain, gain[:, None, None] if position == "after_add" else 1.0


def _block_learns(
    report: Report,
    module: ModuleHandle,
    x: Tensor,
    shape: tuple[int, ...],
    what: str = "every weight learns",
) -> None:
    """Backward from a result of ``shape`` reaches the input and every parameter."""
    found = module.gradients(x, cotangent=report.randn(*shape))
    none = [
        name
        for name, gradient in {"the input": found.inputs[0], **found.parameters}.items()
        if gradient is None or not bool(gradient.abs().max() > 1e-12)
    ]
    report.true(
        what,
        not none,
        expected="a gradient for every weight and for the input",
        got="none for " + ", ".join(none),
        cause="a part is cut off from the graph (detach, data or no_grad), or not used",
    )


def _block_position(impl: Handle, report: Report, position: str) -> None:
    module = build(report, impl, 3, 2, position)
    block_parameters(report, module, 3, 2, position)
    module.train(False)
    module.load(_block_toy(_BLOCK_GAINS[2 if position == "after_3x3" else 3] - 1))
    what = "two positions by hand"
    report.close(
        what,
        _block_forward(report, what, module, _BLOCK_X),
        _BLOCK_RESULTS[position],
        mistakes=_block_mistakes(position),
    )
    x = report.randn(2, 5, 3, 4)
    module = build(report, impl, 5, 3, position=position)
    weights = block_random(report, 5, 3, position)
    plain, factor = _block_absorbed(position, weights)
    for mode, training in (("training", True), ("evaluation", False)):
        module.train(training)
        module.load(weights)
        got = _block_forward(report, f"the same from other weights, in {mode}", module, x)
        module.load(plain)
        report.close(
            f"the same from other weights, in {mode}",
            got,
            factor * module.forward(x),
            cause="training and evaluation differ in the norms alone: no self.training, no clamp",
        )
    module.train(True)
    module.load(weights)
    input_kept(report, module.inspect(x), x)
    _block_learns(report, module, x, tuple(x.shape))


@exercise(
    "c06-e1",
    "a place for a block",
    needs="BottleneckWithBlock",
    look="section 3, the three positions",
    points=(2, 3),
    minutes=25,
)
def e1(impl: Handle, report: Report) -> None:
    """A bottleneck on ``(N, C, H, W)`` with a block at each of three positions."""
    for position in POSITIONS:
        with report.group(position):
            _block_position(impl, report, position)
    module = build(report, impl, 3, 2)
    module.train(False)
    block_parameters(report, module, 3, 2, "after_1x1")
    module.load(_block_toy(_BLOCK_GAINS[3] - 1))
    report.close(
        "after_1x1 when no position is given",
        module.forward(_BLOCK_X),
        _BLOCK_RESULTS["after_1x1"],
        mistakes=_block_mistakes("after_1x1"),
        cause="the default of position was changed",
    )
    make_is_called(report, impl, 3, 2)
    with report.group("another position"):
        for other in ("after_2x2", "after", "", "AFTER_ADD"):
            raises_value_error(
                report,
                f"position={other!r} is refused",
                lambda other=other: impl.build(3, 2, other),
                "position",
                later=lambda other=other: build(report, impl, 3, 2, other).forward(_BLOCK_X),
            )
    _block_apart(report, impl)
    double, single = build(report, impl, 3, 2), build(report, impl, 3, 2, dtype=None)
    weights = block_random(report, 3, 2, "after_1x1")
    double.load(weights)
    single.load(weights)
    x = report.randn(2, 3, 4, 2)
    keeps_float32(report, lambda x: (single if x.dtype == torch.float32 else double).forward(x), x)


def make_is_called(report: Report, impl: Handle, *arguments) -> None:
    """A ``make`` that cannot be called raises; no other block can be sent to a sandbox."""
    what = "the block comes from make"
    try:
        impl.build(*arguments, make="no function")
    except StudentError:
        report.ok(what)
        return
    report.fail(
        what,
        expected="an error, because make is no function here",
        got="a network",
        cause="make is ignored: the block is make(channels), whatever make is",
    )


def _block_apart(report: Report, impl: Handle) -> None:
    """A second bottleneck leaves the first one as it was."""
    x = report.randn(2, 3, 2, 2)
    first = build(report, impl, 3, 2)
    first.load(block_random(report, 3, 2, "after_1x1"))
    before = first.forward(x)
    build(report, impl, 3, 2).load(block_random(report, 3, 2, "after_1x1"))
    report.close(
        "two bottlenecks have layers of their own",
        first.forward(x),
        before,
        cause="layers live outside of __init__ or in a default argument: make them in __init__",
    )


# Blocks in a network ---------------------------------------------------------------------------

INSERT_SIZES = {"c3": 2, "c4": 3, "c5": 2}  # residual blocks of each stage
NO_INDEX = "a stage has no residual block of this index: raise ValueError(...) for it"
_INSERT_ALL = ("c3.0", "c3.1", "c4.0", "c4.1", "c4.2", "c5.0", "c5.1")
_INSERT_CASES = (  # stages, index, places
    (("c4",), None, ("c4.0", "c4.1", "c4.2")),
    (("c3", "c4", "c5"), -2, ("c3.0", "c4.1", "c5.0")),
    (("c4", "c5"), -1, ("c4.2", "c5.1")),
    (("c5", "c3"), 1, ("c5.1", "c3.1")),
    (("c4",), 0, ("c4.0",)),
    (("c4",), -3, ("c4.0",)),
)


def _insert_layers() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of TinyResNet."""
    layers = {
        f"{place}.{name}": shape
        for place in _INSERT_ALL
        for name, shape in _block_layers(6, 3).items()
    }
    return layers | {"stem.weight": (6, 3, 3, 3), "fc.weight": (4, 6), "fc.bias": (4,)}


_NETWORK_CAUSES = {
    "Missing key": "the old residual block has no numbers for the block: "
    "load_state_dict(..., strict=False)",
    "size mismatch": "the new residual block has other sizes than the old one: channels is "
    "old.conv1.in_channels, width is old.conv1.out_channels",
    "not subscriptable": "stage is a string: getattr(net, stage) gives its residual blocks",
    "no attribute 'stage'": "stage is a string: getattr(net, stage) gives its residual blocks",
    "leaf Variable": "a parameter is changed with nn.init.zeros_(...), or inside of "
    "torch.no_grad()",
}


def built_network(report: Report, impl: Handle, *arguments, **options) -> ModuleHandle:
    """What a function that makes a network returns; usual errors get a cause."""
    what, expected = "returns a network", "a network, an nn.Module"
    try:
        network = impl.build(*arguments, **options)
    except StudentError as error:
        said = str(error).split("\n")[0]
        cause = next((cause for text, cause in _NETWORK_CAUSES.items() if text in said), "")
        if "ValueError" in error.kinds:
            cause = "these stages and this index exist: -1 is the last residual block of a stage"
            if " of __init__" in str(error):
                cause = "the third argument of BottleneckWithBlock is its position: write make=make"
        if not cause:
            raise
        report.fail(what, expected=expected, got=str(error), cause=cause)
    if isinstance(network, Opaque):
        cause = "the function returns something else than the network"
        if network.type_name == "NoneType":
            cause = "the function ends without return net, or returns what gives nothing back"
        report.fail(what, expected=expected, got=f"{network.type_name}", cause=cause)
    return network


def insert_case(stages: tuple[str, ...], index: int | None) -> str:
    """How a call is shown to the student."""
    return f"stages={stages}" + ("" if index is None else f", index={index}")


def insert_places(
    report: Report,
    network: ModuleHandle,
    stages: tuple[str, ...],
    index: int | None,
    places: tuple[str, ...],
) -> None:
    """The layers of TinyResNet under their names, and blocks at these places alone."""
    _insert_places(report, network, insert_case(stages, index), stages, index, places)


def _insert_places(
    report: Report,
    network: ModuleHandle,
    what: str,
    stages: tuple[str, ...],
    index: int | None,
    places: tuple[str, ...],
    cause: str = "",
) -> None:
    """The same, with a name of the case, and the cause of blocks at other places."""
    found = network.parameters()
    blocks = {f"{place}.block.g": (6,) for place in places}
    if found == _insert_layers() | blocks:
        report.ok(what)
        return
    _all_learn(report, what, network)
    lost = [name for name in _insert_layers() if name not in found]
    gains = [name for name in found if name.split(".")[-1] == "g"]
    got = [name.removesuffix(".block.g") for name in gains]
    expected = "blocks at " + (", ".join(places) or "no place")
    shown = "blocks at " + (", ".join(got) or "no place")
    if lost:
        shown = f"no {lost[0]}; {shown}"
        cause = (
            f"{lost[0]} is gone: put the new residual block in the place of the old one "
            "(layers[number] = new); do not wrap, rename or leave out layers"
        )
    elif other := [name for name in gains if not name.endswith(".block.g")]:
        expected, shown = "blocks named c4.1.block and so on", f"a block named {other[0]}"
        cause = "a block has another name: it is self.block of a BottleneckWithBlock"
    elif other := [name for name in gains if found[name] != (6,)]:
        expected, shown = f"{other[0]} (6,)", f"{other[0]} {found[other[0]]}"
        cause = (
            "a block of another size: after the last 1×1 convolution there are 6 channels; "
            "position is after_1x1, the default"
        )
    elif set(got) != set(places):
        cause = cause or _insert_cause(stages, index, places, got)
    else:
        right = _insert_layers() | blocks
        other = [name for name, shape in found.items() if right.get(name) != shape]
        expected = "the layers of TinyResNet"
        shown = ", ".join(f"{name} {found[name]}" for name in other[:3])
        cause = "a layer too many, or one of another size"
    report.fail(what, expected=expected, got=shown, cause=cause)


def _insert_cause(
    stages: tuple[str, ...], index: int | None, places: tuple[str, ...], got: list[str]
) -> str:
    """Why blocks are at other places than they should be."""
    reached = {place.split(".")[0] for place in got}
    whole = {place for place in _INSERT_ALL if place.split(".")[0] in stages}
    if not got and index is not None and index < 0:
        return (
            "there is no block: a negative index counts from the end of the stage, -1 is the last"
        )
    if not got:
        return (
            "there is no block: put each new residual block into its stage (layers[number] = new)"
        )
    if set(got) - set(_INSERT_ALL):
        return "a stage has grown: the new residual block takes the place of the old one"
    if reached - set(stages):
        return "a block in a stage that was not asked for: only those in stages get one"
    if len(reached) == 1 and set(got) == {p for p in places if p.split(".")[0] in reached}:
        return "only one of the stages has blocks: does return stand inside of the loop?"
    if index is None and set(got) <= {place for place in places if place.endswith(".0")}:
        return (
            "one block is shared by several places, or only the first residual block of a stage "
            "has one: each place gets a block of its own"
        )
    if index is None:
        return "index=None means all residual blocks of a stage, the last one too"
    if set(got) == whole and index == 0:
        return "0 is an index too: ask whether index is None"
    if set(got) == whole:
        return "the index is ignored: with an index one residual block in each stage has a block"
    if index < 0:
        return "a negative index counts from the end of the stage: -1 is the last one"
    return "the index counts from 0, in each stage anew"


def _insert_weights(report: Report, plain: ModuleHandle, network: ModuleHandle) -> None:
    """The layers of both hold the same numbers, and gains are zero."""
    before, after = plain.weights(), network.weights()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    cause = (
        "a new residual block has random weights: copy those of the old one, "
        "new.load_state_dict(old.state_dict(), strict=False)"
    )
    if changed and all(".bn" in name for name in changed):
        cause = (
            "only the norms were not copied: a fresh one has scale 1 and shift 0; copy the whole "
            "residual block, new.load_state_dict(old.state_dict(), strict=False)"
        )
    elif changed and not any(".bn" in name for name in changed):
        cause = "some weights are drawn anew: copy all those of the old residual block"
        if not any(".conv" in name for name in changed):
            cause = "stem and fc stay those of TinyResNet(): only residual blocks are exchanged"
    report.true(
        "the layers keep their weights",
        not changed,
        expected="the numbers of TinyResNet()",
        got=f"others in {len(changed)} of {len(before)} weights, first in {(changed or [''])[0]}",
        cause=cause,
    )
    report.true(
        "fresh blocks are the identity",
        not any(after[name].any() for name in after if name not in before),
        expected="g = 0",
        got="other numbers",
        cause="a block is changed after make(...): it starts as the identity by itself",
    )


def insert_absorbed(
    report: Report,
    plain: ModuleHandle,
    network: ModuleHandle,
    places: tuple[str, ...],
    weights: Mapping[str, Tensor],
    images: Tensor,
) -> None:
    """Gains behind the last norms are the same as norms whose weights are multiplied."""
    gains = {place: 0.5 + report.randn(6).abs() for place in places}  # 1 + g
    network.load(dict(weights) | {f"{place}.block.g": gain - 1 for place, gain in gains.items()})
    scaled = dict(weights)
    for place, gain in gains.items():
        for name in (f"{place}.bn3.weight", f"{place}.bn3.bias"):
            scaled[name] = weights[name] * gain
    plain.load(scaled)
    for mode, training in (("training", True), ("evaluation", False)):
        network.train(training)
        plain.train(training)
        report.close(
            f"a block multiplies what the last norm gives, in {mode}",
            network.forward(images),
            plain.forward(images),
            cause="blocks stand at another position, or are not called: after the last 1×1 "
            "convolution and its norm, before the addition",
        )


def _insert_silent(report: Report, network: ModuleHandle) -> None:
    """With 1 + g = 0 in every block, only the stem and the classifier are left."""
    stem = torch.zeros(6, 3, 3, 3, dtype=torch.float64)
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0]]
    stem[:, :, 1, 1] = _numbers(rows)
    network.load(
        {f"{place}.block.g": -torch.ones(6) for place in _INSERT_ALL}
        | {"stem.weight": stem, "fc.weight": torch.eye(4, 6), "fc.bias": _numbers([0, 0, 0, 1])}
    )
    network.train(False)
    report.close(
        "blocks with 1 + g = 0 silence the branches",
        network.forward(_numbers([1, 2, -3])[None, :, None, None]),
        _numbers([[1, 2, 0, 4]]),  # channels 1, 2, -3 and 3, through a ReLU
        mistakes={
            "a block stands after the addition: it belongs after the last 1×1 convolution": (
                _numbers([[0, 0, 0, 1]])
            ),
        },
        cause="a block stands at another position, or is not called: after the last 1×1 "
        "convolution and its norm",
    )


@exercise(
    "c06-e2",
    "into a network",
    needs="with_blocks",
    look="section 4, stages and indices",
    points=(2, 3),
    minutes=25,
)
def e2(impl: Handle, report: Report) -> None:
    """Gains in the stages of a TinyResNet; images ``(N, 3, H, W)`` → ``(N, 4)``."""
    plain, every = built_network(report, impl, ()), tuple(INSERT_SIZES)
    with report.group("blocks at the places asked for"):
        insert_places(report, built_network(report, impl, every, None), every, None, _INSERT_ALL)
        insert_places(report, plain, (), None, ())
        for stages, index, places in _INSERT_CASES:
            network = built_network(report, impl, stages, index=index)
            insert_places(report, network, stages, index, places)
        cause = 'the defaults were changed: stages=("c3", "c4", "c5") and index=None'
        network = built_network(report, impl)
        _insert_places(report, network, "without arguments", every, None, _INSERT_ALL, cause)
    images, weights = report.randn(3, 3, 4, 5), plain.weights()
    _insert_weights(report, plain, network)
    for mode, training in (("evaluation", False), ("training", True)):
        plain.train(training)
        network.train(training)
        report.close(
            f"computes what TinyResNet() computes, in {mode}",
            network.forward(images),
            plain.forward(images),
            cause="the weights are the same: the running mean and variance of the norms are not; "
            "copy the whole state_dict"
            if mode == "evaluation"
            else "the code asks for self.training",
        )
    insert_absorbed(report, plain, network, _INSERT_ALL, weights, images)
    network.train(True)
    _block_learns(report, network, images, (3, 4))
    _insert_silent(report, network)
    make_is_called(report, impl)
    with report.group("another stage"):
        for stages in (("c2",), ("c6",), ("fc",), ("c3", "c1")):
            raises_value_error(
                report,
                f"stages={stages} is refused",
                lambda stages=stages: impl.build(stages),
                "stage",
            )
    with report.group("an index that a stage does not have"):
        for stages, index in ((("c4",), 3), (("c4",), -4), (("c4", "c5"), 2), (("c3",), -3)):
            raises_value_error(
                report,
                f"{insert_case(stages, index)} is refused",
                lambda stages=stages, index=index: impl.build(stages, index),
                "index",
                returned=NO_INDEX,
            )


# The identity again ----------------------------------------------------------------------------

_IDENTITY_GC = {  # names and shapes of the parameters of a TinyGC
    "key.weight": (1, 6, 1, 1),
    "key.bias": (1,),
    "reduce.weight": (4, 6),
    "reduce.bias": (4,),
    "norm.weight": (4,),
    "norm.bias": (4,),
    "expand.weight": (6, 4),
    "expand.bias": (6,),
}
_IDENTITY_BLOCKS = ("gc1", "gc2")
_IDENTITY_BRANCHES = ("first", "second")
_IDENTITY_LAST = tuple(
    f"{b}.expand.{part}" for b in _IDENTITY_BLOCKS for part in ("weight", "bias")
)


def _identity_layers() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of TinyGCNet."""
    layers = {"stem.weight": (6, 3, 3, 3), "fc.weight": (4, 6), "fc.bias": (4,)}
    for branch in _IDENTITY_BRANCHES:
        layers |= {f"{branch}.{name}": shape for name, shape in _block_layers(6, 3).items()}
    for block in _IDENTITY_BLOCKS:
        layers |= {f"{block}.{name}": shape for name, shape in _IDENTITY_GC.items()}
    return layers


def identity_network(report: Report, impl: Handle) -> ModuleHandle:
    """Build the network; its parameters must be those of TinyGCNet."""
    network = built_network(report, impl)
    what = "the layers of TinyGCNet"
    found, expected = network.parameters(), _identity_layers()
    if found == expected:
        report.ok(what)
        return network
    _all_learn(report, what, network)
    lost = [name for name in expected if name not in found]
    cause = "a layer too many, or one of another size"
    if any(name.startswith(_IDENTITY_BLOCKS) for name in lost):
        cause = "a GC block is gone: it stays, and starts as the identity"
    elif lost:
        cause = "a layer is gone: change numbers, not layers"
    got = f"no {_first_names(lost)}" if lost else ", ".join(set(found) - set(expected)) or "others"
    report.fail(what, expected=f"{len(expected)} parameters by name", got=got, cause=cause)


def identity_zeros(report: Report, weights: Mapping[str, Tensor]) -> None:
    """The last layer of each block is zero, all of it."""
    wrong = [name for name in _IDENTITY_LAST if weights[name].any()]
    cause = "a last layer is not zero: nn.init.zeros_ for its weight and for its bias"
    if len(wrong) == len(_IDENTITY_LAST):
        cause = (
            "no last layer is zero: initialise() wrote over the zeros of TinyGC; set the last "
            "layer of each block to zero again, after it"
        )
    elif all(name.endswith("bias") for name in wrong):
        cause = "the bias of the last layer is not zero: a block would add it"
    elif all(name.endswith("weight") for name in wrong):
        cause = "the weight of the last layer is not zero"
    elif len({name.split(".")[0] for name in wrong}) == 1:
        cause = "only one of the two blocks starts as the identity: go through all of them"
    report.true(
        "the last layer of each block is zero",
        not wrong,
        expected="expand.weight and expand.bias of gc1 and gc2 at zero",
        got="numbers in " + ", ".join(wrong),
        cause=cause,
    )


def identity_others(report: Report, weights: Mapping[str, Tensor]) -> None:
    """What initialise() set to random numbers is not zero; norms have 1 and 0."""
    what = "the other layers are left as initialise() leaves them"
    for name, value in weights.items():
        if name in _IDENTITY_LAST:
            continue
        part, kind = name.split(".")[-2:]
        norm = part in ("bn1", "bn2", "bn3", "norm")
        right = bool((value == (kind == "weight")).all()) if norm else bool(value.all())
        if right:
            continue
        cause = "only the last layer of each block changes: this one keeps its random numbers"
        expected = "random numbers, none of them 0"
        if norm:
            expected = "1" if kind == "weight" else "0"
            cause = "initialise() leaves norms alone: scale 1 and shift 0"
            if part == "bn3":
                cause = (
                    "a zero here silences a residual branch, not a GC block: this norm keeps "
                    "scale 1 and shift 0"
                )
            elif part == "norm" and not value.any() and kind == "weight":
                cause = "LayerNorm at zero blocks the gradient: only the last layer starts at zero"
        elif name == "fc.weight" or name == "fc.bias":
            cause = "fc is the last layer of the network, not of a block: it keeps its numbers"
        elif not value.any() and part == "key":
            cause = "the key is not the last layer: it keeps its numbers"
        elif not value.any() and part == "reduce":
            cause = "both maps of a block at zero would never learn: only the last one is zero"
        got = "zeros" if not value.any() else f"{name} with other numbers"
        report.fail(what, expected=f"{name}: {expected}", got=got, cause=cause)
    report.ok(what)


def identity_kaiming(report: Report, networks: list[Mapping[str, Tensor]]) -> None:
    """The size of the numbers in several networks: √(2 / n), n numbers in a filter.

    PyTorch's default gives √(1 / 3n), less than half of it. Both bounds are far from what chance
    does with the numbers of 12 networks.
    """
    what = "Kaiming numbers in convolutions and linear layers"
    for name, shape in _identity_layers().items():
        if name in _IDENTITY_LAST or len(shape) < 2:
            continue
        values = torch.stack([weights[name] for weights in networks]).double()
        right = sqrt(2 / values[0, 0].numel())
        size = values.square().mean().sqrt().item()
        cause = "initialise() must run for the whole network, and once is enough"
        if size < 0.7 * right:
            cause = "these are PyTorch's default numbers, or smaller ones: is initialise() called?"
        if not 0.6 * right < size < 1.5 * right:
            report.fail(what, expected=f"{name}: about {right:.3g}", got=f"{size:.3g}", cause=cause)
        if torch.equal(values[0], values[1]):
            cause = "every call makes a new network: a seed, or a network that is kept, fixes it"
            report.fail(what, expected="fresh numbers", got=f"{name} twice the same", cause=cause)
    report.ok(what)


def identity_forward(
    report: Report, network: ModuleHandle, weights: Mapping[str, Tensor], x: Tensor
) -> None:
    """With zeros in the last layers, the other numbers of the blocks change nothing."""
    network.load(weights)
    for mode, training in (("training", True), ("evaluation", False)):
        network.train(training)
        network.load(weights)
        what = f"blocks start as the identity, in {mode}"
        before = report.tensor(what, network.forward(x), (len(x), 4))
        network.load(
            {
                name: report.randn(*shape)
                for name, shape in _identity_layers().items()
                if name.startswith(_IDENTITY_BLOCKS) and name not in _IDENTITY_LAST
            }
        )
        cause = "something of a block reaches the result: its forward was changed"
        report.close(what, network.forward(x), before, cause=cause)
    network.train(True)
    network.load(weights)


def _identity_learns(report: Report, network: ModuleHandle, x: Tensor) -> None:
    """At the start the last layers get gradients; once they are not zero, every layer does."""
    found = network.gradients(x, cotangent=report.randn(len(x), 4)).parameters
    none = [name for name in _IDENTITY_LAST if found[name] is None or not found[name].any()]
    report.true(
        "the last layers learn from the first step",
        not none,
        expected="gradients of expand",
        got="none for " + ", ".join(none),
        cause="something cuts the blocks off: another layer at zero, or a forward that was changed",
    )
    network.load({name: report.randn(*_identity_layers()[name]) for name in _IDENTITY_LAST})
    found = network.gradients(x, cotangent=report.randn(len(x), 4)).parameters
    dead = ("key.bias",)  # softmax cancels it
    none = [
        name
        for name, gradient in found.items()
        if not name.endswith(dead) and (gradient is None or not gradient.any())
    ]
    report.true(
        "then every layer learns",
        not none,
        expected="a gradient for every weight",
        got="none for " + ", ".join(none),
        cause="a layer is cut off, or starts at zero where it should not",
    )


@exercise(
    "c06-e3",
    "the identity again",
    needs="network_from_scratch",
    look="section 5, the last layer",
    points=(1, 2),
    minutes=15,
)
def e3(impl: Handle, report: Report) -> None:
    """Zeros in the last layer of each block, everything else as initialise() leaves it."""
    network = identity_network(report, impl)
    weights = network.weights()
    identity_zeros(report, weights)
    identity_others(report, weights)
    identity_kaiming(report, [built_network(report, impl).weights() for _ in range(12)])
    x = report.randn(4, 3, 5, 5)
    identity_forward(report, network, weights, x)
    _identity_learns(report, network, x)


# A stage by hand -------------------------------------------------------------------------------

# (inputs, width, blocks, size) → parameters, multiply-adds with the stride in the 1×1, in the 3×3.
# The first is the table of the notebook; the others are stages c4 and c3 of ResNet-50.
_STAGE_CASES = {
    (3, 4, 2, 4): (668, 2_160, 2_304),
    (512, 256, 6, 28): (7_098_368, 1_387_266_048, 1_464_336_384),
    (256, 128, 4, 56): (1_219_584, 950_534_144, 1_027_604_480),
}


def _stage_parameter_mistakes(i: int, w: int, b: int, right: int) -> dict[str, tuple[int, ...]]:
    o = 4 * w
    norms = 2 * b * (2 * w + o) + 2 * o
    later = 2 * o * w + 9 * w * w + 2 * (2 * w + o)  # a residual block behind the first
    mistakes = {
        "the norms are missing: a scale and a shift for each channel": right - norms,
        "a norm has two numbers for each channel, a scale and a shift": right - norms // 2,
        "the norm on the shortcut is missing": right - 2 * o,
        "the shortcut of the first residual block is missing": right - i * o - 2 * o,
        "the convolutions have no biases": right + b * (2 * w + o) + o,
        "only the first residual block has a convolution on its shortcut": (
            right + (b - 1) * (o * o + 2 * o),  # from 4·width channels, or always from `inputs`
            right + (b - 1) * (i * o + 2 * o),
            right + (b - 1) * o * o,
            right + (b - 1) * i * o,
            right + (b - 1) * 2 * o,
        ),
        "from the second residual block on, 4·width channels enter": right - (b - 1) * (o - i) * w,
        "a 3×3 filter has 9 numbers for each input channel": right - 6 * b * w * w,
        "a 3×3 filter has a number for each input channel and place": right - 9 * b * (w * w - w),
        "the residual blocks behind the first are missing": right - (b - 1) * later,
        "the last 1×1 convolution gives 4·width channels": (
            right - b * (w * o - w * w) - 2 * b * (o - w)
        ),
        "the first residual block is counted like the others: `inputs` channels enter it": (
            right + (o - i) * w
        ),
    }
    return _as_tuples(mistakes)


def _as_tuples(mistakes: Mapping[str, int | tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        cause: wrong if isinstance(wrong, tuple) else (wrong,) for cause, wrong in mistakes.items()
    }


def _stage_multiply_add_mistakes(
    i: int, w: int, b: int, size: int, right: int, stride_in: str
) -> dict[str, tuple[int, ...]]:
    o, full, half = 4 * w, size * size, (size // 2) ** 2
    first = i * w * (full - half)  # what the stride in the 3×3 costs
    large = i * w * full if stride_in == "3x3" else 0
    other = "3×3: the first 1×1 runs on half the size" if stride_in == "1x1" else "1×1"
    # Numbers that the norms write: all on the small map, or the first one where its layer runs.
    small = (b * (2 * w + o) + o) * half
    normed = (small, small + w * (full - half)) if stride_in == "3x3" else (small,)
    mistakes = {
        f"this is the stride in the {other}": right + (first if stride_in == "1x1" else -first),
        "only one convolution runs on the size that enters; behind the stride there are "
        "(size / 2)² positions": (right - large) * 4 + large,
        "a map has (size / 2)² positions, not size / 2": right // half * (size // 2)
        if stride_in == "1x1"
        else (right - large) // half * (size // 2) + i * w * size,
        "the shortcut of the first residual block is missing": right - i * o * half,
        "the shortcut has a stride too: its result has (size / 2)² positions": (
            right + i * o * (full - half)
        ),
        "the 3×3 convolution with the stride has (size / 2)² output positions": (
            right + 9 * w * w * (full - half)
        ),
        "a multiply-add counts 1, not 2": 2 * right,
        "from the second residual block on, 4·width channels enter": (
            right - (b - 1) * (o - i) * w * half
        ),
        "only the first residual block has a convolution on its shortcut": (
            right + (b - 1) * o * o * half,
            right + (b - 1) * i * o * half,
        ),
        "only the first residual block has a stride: the others run on (size / 2)² positions": (
            right + (b - 1) * o * w * (full - half)
        ),
        "a 3×3 filter has 9 numbers for each input channel": right - 6 * b * w * w * half,
        "the residual blocks behind the first are missing": (
            right - (b - 1) * (2 * o * w + 9 * w * w) * half
        ),
        "the first residual block is counted like the others: `inputs` channels enter it": (
            right + (o - i) * w * (full if stride_in == "3x3" else half)
        ),
        "the first 1×1 convolutions are missing": (
            right - i * w * (full if stride_in == "3x3" else half) - (b - 1) * o * w * half
        ),
        "norms are free in this count: only their parameters count": tuple(
            right + times * (numbers - without)
            for numbers in normed
            for times in (1, 2)  # one for each number, or one for its scale and one for its shift
            for without in (0, o * half)  # that on the shortcut counted or not
        ),
    }
    return _as_tuples(mistakes)


def _stage_kind(value: object) -> str:
    if isinstance(value, Opaque):
        return f"a {value.type_name}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _stage_mistakes(
    column: int, sizes: tuple[int, int, int, int], right: int, stride_in: str
) -> dict[str, tuple[int, ...]]:
    if column == 0:
        return _stage_parameter_mistakes(*sizes[:3], right)
    return _stage_multiply_add_mistakes(*sizes, right, stride_in)


def _stage_cause(
    impl: Handle,
    column: int,
    sizes: tuple[int, int, int, int],
    number: int,
    right: int,
    stride_in: str,
) -> str:
    """A mistake that explains this number and that of a large stage: small numbers coincide."""
    known = _stage_mistakes(column, sizes, right, stride_in)
    causes = [cause for cause, wrong in known.items() if number in wrong]
    other = next(large for large in list(_STAGE_CASES)[1:] if large != sizes)
    parameters, *works = _STAGE_CASES[other]
    right = (parameters, works[stride_in == "3x3"])[column]
    try:
        second = impl.call(*other, stride_in=stride_in)[column]
    except (StudentError, TypeError, IndexError):  # then one number must do
        return next(iter(causes), "")
    known = _stage_mistakes(column, other, right, stride_in)
    return next((cause for cause in causes if second in known[cause]), "")


def check_stage(
    report: Report,
    impl: Handle,
    sizes: tuple[int, int, int, int],
    expected: tuple[int, int],
    stride_in: str | None,
) -> None:
    """Both numbers of one stage; ``stride_in`` None: not given, which means the 1×1."""
    inputs, width, blocks, _ = sizes
    given = {} if stride_in is None else {"stride_in": stride_in}
    got = impl.call(*sizes, **given)
    where = stride_in or "1x1"
    shown = f"stride_in={stride_in!r}" if stride_in else "stride_in not given"
    what = f"inputs {inputs}, width {width}, {blocks} blocks, size {sizes[3]}, {shown}"
    if not isinstance(got, (tuple, list)) or len(got) != 2 or any(type(n) is not int for n in got):
        cause = "return parameters, multiply_adds: two ints, in this order"
        shown = _stage_kind(got)
        if got is None:
            cause = "the function ends without a return statement"
        elif isinstance(got, (tuple, list)) and any(type(n) is float for n in got):
            shown = "a float"
            cause = (
                "the numbers are counted, as ints: divide with // in place of /, and put int() "
                "around a number of NumPy"
            )
        report.fail(what, expected="a pair of ints", got=shown, cause=cause)
    if tuple(got) == expected[::-1]:
        cause = "the two numbers are exchanged: parameters first"
        report.fail(what, expected=f"{expected[0]:,} parameters", got=f"{got[0]:,}", cause=cause)
    for column, unit in enumerate(("parameters", "multiply-adds")):
        number, right, cause = got[column], expected[column], ""
        if stride_in is None:  # with stride_in="1x1" the number was right
            cause = 'the default of stride_in was changed: it is "1x1"'
        elif number != right:
            cause = _stage_cause(impl, column, sizes, number, right, where)
        report.true(
            f"{what}: {unit}",
            number == right,
            expected=f"{right:,} {unit}",
            got=f"{number:,}",
            cause=cause or "go through the table of layers, one by one, with inputs 3 and width 4",
        )


@exercise(
    "c06-e4",
    "a stage by hand",
    needs="count_stage",
    look="section 6, the table of layers",
    points=(1, 2),
    minutes=20,
)
def e4(impl: Handle, report: Report) -> None:
    """Parameters and multiply-adds of a stage of bottlenecks, for both strides."""
    for sizes, (parameters, first, second) in _STAGE_CASES.items():
        check_stage(report, impl, sizes, (parameters, first), "1x1")
        check_stage(report, impl, sizes, (parameters, second), "3x3")
    sizes, (parameters, first, _) = next(iter(_STAGE_CASES.items()))
    check_stage(report, impl, sizes, (parameters, first), None)


# Multiply-adds of a layer ----------------------------------------------------------------------

_LAYER_CASES = (
    # name, weight, output, multiply-adds; sizes differ, so that mistakes do
    ("a convolution", (5, 2, 3, 4), (3, 5, 7, 6), 3 * 5 * 42 * 24),
    ("a 3D convolution", (5, 7, 3, 2, 4), (3, 5, 4, 6, 2), 3 * 5 * 48 * 168),
    ("a convolution with groups", (6, 1, 3, 3), (3, 6, 4, 5), 3 * 6 * 20 * 9),
    ("a 1D convolution", (3, 2, 5), (1, 3, 7), 3 * 7 * 10),
    ("a linear layer", (7, 5), (3, 7), 3 * 7 * 5),
    ("the first convolution of ResNet-50", (64, 3, 7, 7), (1, 64, 112, 112), 118_013_952),
)


def _layer_mistakes(weight: tuple[int, ...], output: tuple[int, ...]) -> dict[str, int]:
    def product(sizes: tuple[int, ...]) -> int:
        found = 1
        for size in sizes:
            found *= size
        return found

    numbers, filter_size, places = product(output), product(weight[1:]), product(output[2:])
    right = numbers * filter_size
    return {
        "C_out is counted twice: it is in the weight and in the result": right * weight[0],
        "the images of a batch count too: N": right // output[0],
        "biases are free in this count": right + numbers,
        "a multiply-add counts 1, not 2": 2 * right,
        "two for each product but the first: a multiply-add counts 1": numbers
        * (2 * filter_size - 1),
        "the positions of the result are missing": right // places,
        "the kernel is missing: a filter has C_in / groups × kernel numbers": numbers * weight[1],
        "C_in is missing: a filter has C_in / groups × kernel numbers": right // weight[1],
        "one image and one output channel alone": places * filter_size,
        "the sizes of the weight are added: they multiply": numbers * sum(weight[1:]),
        "the sizes of the result are added: they multiply": filter_size * sum(output),
        "only the numbers of the result are counted": numbers,
        "these are the weights: each is used at every position": product(weight),
        "the sizes of a filter are added: they multiply": numbers * (1 + sum(weight[1:])),
        "the kernel is square in 2D alone: multiply all sizes from axis 2 on": (
            numbers * weight[1] * weight[2] ** 2 if len(weight) > 2 else -1
        ),
        "only two axes of positions are counted: 1D and 3D have others": (
            output[0] * output[1] * product(output[2:4]) * filter_size if len(output) > 4 else -1
        ),
        "the last axis of the kernel is missing": right // weight[-1] if len(weight) > 2 else -1,
        "the last axis of the result is missing": right // output[-1],
    }


def _layer_cause(error: StudentError, weight: tuple) -> str:
    """Why code stumbles over a shape."""
    if {"ValueError", "IndexError"} & set(error.kinds):
        return (
            f"this shape has {len(weight)} axes, {weight}; a linear layer has 2, convolutions in "
            "1D, 2D, 3D have 3, 4, 5: multiply over weight[1:] and over output, whatever their "
            "length"
        )
    if "NameError" in error.kinds and "'math'" in str(error):
        return "write import math in the cell, above the function"
    if "AttributeError" in error.kinds and "'tuple'" in str(error):
        return "weight and output are shapes, tuples of ints: multiply their sizes, math.prod"
    return ""


def check_layer(
    report: Report, impl: Handle, what: str, weight: tuple, output: tuple, right: int
) -> None:
    """The number of one layer."""
    try:
        got = impl.call(weight, output)
    except StudentError as error:
        cause = _layer_cause(error, weight)
        if not cause:
            raise
        report.fail(what, expected=f"{right:,}", got=str(error), cause=cause)
    if type(got) is not int:
        cause = "return the number, as an int"
        if got is None:
            cause = "the function ends without a return statement"
            if len(weight) != 4:
                cause += f", for a shape of {len(weight)} axes"
        elif isinstance(got, Tensor):
            cause = "return an int, not a tensor: math.prod of a shape gives one"
        elif type(got) is float:
            cause = (
                "the number is counted, as an int: sizes multiply, nothing is divided; put int() "
                "around a number of NumPy"
            )
        report.fail(what, expected=f"{right:,}", got=_stage_kind(got), cause=cause)
    known = _layer_mistakes(weight, output)
    cause = next((c for c, wrong in known.items() if wrong == got != right), "")
    report.true(
        what,
        got == right,
        expected=f"{right:,} multiply-adds for weight {weight} and output {output}",
        got=f"{got:,}",
        cause=cause or "numbers of the result × numbers of one filter",
    )


@exercise(
    "c06-e5",
    "multiply-adds of a layer",
    needs="layer_multiply_adds",
    look="section 7, shapes",
    points=(1, 1),
    minutes=10,
)
def e5(impl: Handle, report: Report) -> None:
    """Multiply-adds from the shapes of a weight and of a result."""
    for name, weight, output, right in _LAYER_CASES:
        check_layer(report, impl, name, weight, output, right)


# The roofline ----------------------------------------------------------------------------------

_ROOF_CASES = (
    # multiply-adds, bytes, peak, bandwidth → seconds, limit
    ((15, 20, 3, 5), 5.0, "compute"),  # 5 s of arithmetic, 4 s of traffic
    ((6, 20, 3, 5), 4.0, "memory"),  # 2 s and 4 s
    ((12, 20, 3, 5), 4.0, "compute"),  # 4 s and 4 s
    ((0, 3, 5, 2), 1.5, "memory"),
    ((5_000_000, 25_000_000, 50_000_000_000, 10_000_000_000), 0.0025, "memory"),
)


def _roof_seconds_mistakes(m: float, q: float, p: float, b: float) -> dict[str, float]:
    found = {
        "the longer of the two times counts: the step needs both": min(m / p, q / b),
        "the two times are not added: arithmetic and traffic go on at once": m / p + q / b,
        "the bandwidth is missing: bytes / bandwidth are seconds": max(m / p, q),
        "the peak is missing: multiply-adds / peak are seconds": max(m, q / b),
        "peak and bandwidth are exchanged": max(m / b, q / p),
        "multiplied: multiply-adds / (multiply-adds per second) = seconds": max(m * p, q * b),
        "the mean of the two times: the longer one counts": (m / p + q / b) / 2,
        "the seconds are rounded down: divide with /": max(m // p, q // b),
        "a multiply-add counts 1, not 2": max(2 * m / p, q / b),
    }
    if m and q:
        found["upside down: divide the work by the speed"] = max(p / m, b / q)
    return found


def check_bound(report: Report, impl: Handle, arguments: tuple, right: float, limit: str) -> None:
    """Seconds and limit of one step."""
    got = impl.call(*arguments)
    m, q, p, b = arguments
    what = f"{m:,} multiply-adds, {q:,} bytes, peak {p:,}, bandwidth {b:,}"
    pair = isinstance(got, (tuple, list)) and len(got) == 2
    if not pair or type(got[0]) not in (int, float) or type(got[1]) is not str:
        cause = 'return a pair: seconds, and "compute" or "memory"'
        if got is None:
            cause = "the function ends without a return statement"
        elif pair and type(got[0]) is str:
            cause = "the pair is the other way round: seconds first"
        report.fail(what, expected=f"({right:g}, {limit!r})", got=_stage_kind(got), cause=cause)
    seconds, word = got
    known = _roof_seconds_mistakes(*arguments)
    same = abs(seconds - right) <= 1e-9 * max(1.0, abs(right))
    cause = next((c for c, wrong in known.items() if not same and seconds == wrong), "")
    report.true(
        f"{what}: seconds",
        same,
        expected=f"{right:g} s",
        got=f"{seconds:g} s",
        cause=cause or "the longer of multiply_adds / peak and bytes_moved / bandwidth",
    )
    cause = 'the words are "compute" and "memory"'
    if word in ("compute", "memory"):
        cause = "the limit is what takes longer"
        if m / p == q / b:
            cause = 'both take the same: the text asks for "compute" then'
    report.true(
        f"{what}: limit", word == limit, expected=repr(limit), got=repr(word[:40]), cause=cause
    )


@exercise(
    "c06-e6",
    "the roofline",
    needs="lower_bound",
    look="section 8, the two times",
    points=(1, 1),
    minutes=10,
)
def e6(impl: Handle, report: Report) -> None:
    """The longer of two times, and its name."""
    for arguments, right, limit in _ROOF_CASES:
        check_bound(report, impl, arguments, right, limit)
