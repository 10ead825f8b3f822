"""Visible checks of chapter 09: inflation, clips, views, blocks over space and time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import log, sqrt

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle, ModuleHandle, Opaque, StudentError
from gclib.checks.properties import (
    blocks_are_apart,
    build,
    every_weight_learns,
    examples_apart,
    find_roles,
    forward_equals,
    identity_at_start,
    input_kept,
    keeps_float32,
    large_inputs_stay_finite,
    learns_from_the_start,
    module_keeps_float32,
    raises_value_error,
    randomise,
    same_in_eval_mode,
)
from gclib.checks.report import Report

_NO_RETURN = "the function ends without a return statement"


def _kind(value: object) -> str:
    if isinstance(value, Opaque):
        return f"a {value.type_name}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _double(rows: Sequence) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Inflation --------------------------------------------------------------------------------------

KERNELS = {"conv1": (4, 3, 3, 3), "conv2": (5, 4, 1, 1), "conv3": (6, 5, 3, 3)}
STEPS = {"conv1": 1, "conv2": 3, "conv3": 5}  # of time, in Film
_NORMS = {"bn1": 4, "bn2": 5}
UNKNOWN = ("center", "mean", "")  # no inflation has these names


def photo_weights(report: Report, classes: int = 7) -> dict[str, Tensor]:
    """Random numbers as a training of Still could leave them."""
    weights = {f"{name}.weight": report.randn(*shape) for name, shape in KERNELS.items()}
    for name, channels in _NORMS.items():
        weights[f"{name}.weight"] = 0.5 + report.randn(channels).abs()
        weights[f"{name}.bias"] = report.randn(channels)
        weights[f"{name}.running_mean"] = report.randn(channels)
        weights[f"{name}.running_var"] = 0.5 + report.randn(channels).abs()
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)
    weights |= {"fc.weight": report.randn(classes, 6), "fc.bias": report.randn(classes)}
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in weights.items()
    }


_FILM_CAUSES = {
    "size mismatch": "a kernel still has no axis of time, or fc has other classes: inflate the "
    "one, leave the other out",
    "Missing key": "the film network has more than the weights have (gain, and fc of other "
    "classes): start from net.state_dict(), or load with strict=False",
    "expanded size": "a kernel (O, I, h, w) needs its new axis in place 2: kernel[:, :, None]",
    "number of sizes provided": "a kernel (O, I, h, w) needs its new axis in place 2: "
    "kernel[:, :, None]",
    "must match the size": "two shapes that do not fit: is it a kernel that has no axis of time "
    "yet, or fc of other classes?",
    "out of range": "a vector has no axis of time: inflate kernels (four axes) alone",
    "'NoneType'": "load_state_dict and copy_ do not return the network",
}


def built(
    report: Report, impl: Handle, weights: Mapping[str, Tensor], how: str, classes: int = 0
) -> ModuleHandle:
    """What film_of returns, by default for 5 classes; usual errors get a cause."""
    what = "returns a film network"
    given = {name: value.clone() for name, value in weights.items()}
    try:
        network = build(report, impl, given, how, *([classes] if classes else []))
    except StudentError as error:
        said = str(error).split("\n")[0]
        cause = next((cause for text, cause in _FILM_CAUSES.items() if text in said), "")
        if "ValueError" in error.kinds and not cause:
            cause = "centre and average are the two inflations: refuse any other"
        if not cause:
            raise
        report.fail(what, expected="a network", got=said, cause=cause)
    shape = network.parameters().get("fc.weight", network.weights().get("fc.weight"))
    if shape is None or "conv3.weight" not in network.weights():
        got = ", ".join(network.weights()) or "no parameters"
        report.fail(what, expected="a Film", got=got, cause="return the Film, net")
    frozen = set(network.weights()) - set(network.parameters())
    if frozen:
        cause = "requires_grad is off: a network that starts from a photograph's still learns"
        report.fail(what, expected="all parameters learn", got="frozen ones", cause=cause)
    wanted, found = classes or 5, network.weights()["fc.weight"].shape[0]
    if found != wanted:
        cause = "the number of classes is that of the argument, 5 by default: Film(classes)"
        report.fail(what, expected=f"{wanted} classes", got=f"{found} classes", cause=cause)
    if any(not torch.equal(given[name], value) for name, value in weights.items()):
        cause = "the caller's tensors are changed: load_state_dict copies them, /= does not"
        report.fail(what, expected="weights left as they were", got="new numbers", cause=cause)
    return network


def _one_step(steps: int, at: int) -> Tensor:
    return torch.eye(steps, dtype=torch.float64)[at]


def _share_mistakes(steps: int, how: str) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Wrong parts of the kernel that each step of time gets."""
    ones, middle = torch.ones(steps).double(), _one_step(steps, steps // 2)
    mistakes: dict[str, Tensor | tuple[Tensor, ...]] = {
        "each step has the whole kernel, so a constant clip gives T times as much: divide by T": (
            ones
        ),
        "the kernel stands in the first step: the middle one is step T // 2": _one_step(steps, 0),
        "the kernel stands in the last step: the middle one is step T // 2": _one_step(steps, -1),
        "the middle step has a part of the kernel: centre takes all of it": middle / steps,
        "the middle step of T is T // 2, counted from 0: it moves with T": tuple(
            _one_step(steps, at) for at in range(steps)
        ),
        "divided by a number that is not this kernel's number of steps": tuple(
            ones / number for number in (2, 3, 4, 5, 6, 9, 25, 45) if number != steps
        ),
    }
    other = middle if how == "average" else ones / steps
    return {"this is the other inflation: centre and average are exchanged": other} | mistakes


def check_inflated(
    report: Report, network: ModuleHandle, weights: Mapping[str, Tensor], how: str
) -> None:
    """Every kernel has the numbers of the 2D one, in the steps of time that they belong to."""
    found = network.weights()
    for name, steps in STEPS.items():
        given = weights[f"{name}.weight"].double()
        kernel = found[f"{name}.weight"]
        parts = (kernel * given[:, :, None]).sum(dim=(0, 1, 3, 4)) / given.square().sum()
        right = _one_step(steps, steps // 2)
        if how == "average":
            right = torch.ones(steps).double() / steps
        cause = "the kernel of the photograph's network is not in the film network: is it loaded?"
        report.close(
            f"{name}: the part of the 2D kernel in each of {steps} "
            f"{'step' if steps == 1 else 'steps'}",
            parts,
            right,
            mistakes=_share_mistakes(steps, how),
            cause=cause,
            atol=1e-6,
        )
        whole = right[:, None, None] * given[:, :, None]
        cause = "the numbers of the kernel are mixed: the new axis stands in place 2, behind O, I"
        report.close(f"{name}: all numbers", kernel, whole, cause=cause, atol=1e-6)


def check_rest(
    report: Report, network: ModuleHandle, weights: Mapping[str, Tensor], classes: int
) -> None:
    """Norms arrive with their statistics, fc if it fits; what is new keeps its fresh numbers."""
    found = network.weights()
    names = [f"{norm}.{part}" for norm in _NORMS for part in ("weight", "bias")]
    rows = network.forward(torch.zeros(1, 3, 1, 2, 2).double(), "norms")
    if not isinstance(rows, list) or len(rows) != 4:
        cause = "the result is a Film: keep its forward"
        report.fail("a film network", expected="a list of norms", got=_kind(rows), cause=cause)
    statistics = [f"{n}.{part}" for n in _NORMS for part in ("running_mean", "running_var")]
    same = {
        "the norms have their scales and shifts": (
            [(found[name], weights[name]) for name in names],
            "a tensor that has the same shape in both networks is taken as it is",
        ),
        "the norms have their statistics": (
            [(a, weights[name]) for name, a in zip(statistics, rows, strict=True)],
            "running_mean and running_var are no parameters, but they are in the state dict: load "
            "all of it",
        ),
    }
    if len(weights["fc.bias"]) == classes:
        pairs = [(found[n], weights[n]) for n in ("fc.weight", "fc.bias")]
        cause = "with as many classes, fc has the same shape: take it, too"
        same["fc of as many classes is taken"] = pairs, cause
    for what, (pairs, cause) in same.items():
        report.true(
            what,
            all(torch.allclose(a.double(), b.double(), atol=1e-6) for a, b in pairs),
            expected="the numbers that were given",
            got="other numbers",
            cause=cause,
        )
    cause = "gain belongs to a block that photographs do not have: leave it as it is, zero"
    fresh = not found["gain"].any() and bool(found["fc.weight"].any())
    report.true("what is new is fresh", fresh, expected="gain = 0", got="other", cause=cause)


def check_constant_clip(
    report: Report, impl: Handle, weights: Mapping[str, Tensor], frames: int = 8
) -> None:
    """A photograph, repeated: centre gives its features in every frame, average in the middle."""
    photos = report.randn(2, 3, 5, 4)
    clips = photos[:, :, None].expand(2, 3, frames, 5, 4).contiguous()
    networks = {how: built(report, impl, weights, how, 3) for how in ("centre", "average")}
    results = {}
    for how, network in networks.items():
        network.train(False)
        got = network.forward(clips, "frames")
        cause = "the result is a Film: keep its forward"
        results[how] = report.tensor(f"{how}: features of each frame", got, (2, 6, frames))
    one = networks["centre"].forward(photos[:, :, None], "frames")
    cause = "a frame sees its neighbours: with centre, all steps but the middle one are zero"
    report.close(
        "centre: each frame of a constant clip has the features of the photograph",
        results["centre"],
        one.expand(2, 6, frames),
        cause=cause,
        atol=1e-5,
    )
    inside = slice(3, frames - 3)  # 1 + 2 frames from the ends, zeros are seen
    report.close(
        "average: so have frames that no zeros reach",
        results["average"][:, :, inside],
        one.expand(2, 6, frames)[:, :, inside],
        cause="the steps of a kernel do not add up to the 2D kernel: divide by their number",
        atol=1e-5,
    )


@exercise(
    "c09-e1",
    "inflation",
    needs="film_of",
    look="section 2, the kernel 6 by hand",
    points=(1, 2),
    minutes=25,
)
def e1(impl: Handle, report: Report) -> None:
    """Parts of kernels by hand, norms, classifier, a constant clip."""
    weights = photo_weights(report)
    for how, classes in (("centre", 3), ("average", 7)):
        with report.group(how):
            network = built(report, impl, weights, how, classes)
            check_inflated(report, network, weights, how)
            check_rest(report, network, weights, classes)
    with report.group("a constant clip of 8 frames"):
        check_constant_clip(report, impl, weights)
    built(report, impl, weights, "centre")
    report.ok("5 classes by default")
    for name in UNKNOWN:
        what = f"how={name!r} is refused"
        raises_value_error(report, what, lambda name=name: impl.build(weights, name, 3), "how")


# Zeros in time ----------------------------------------------------------------------------------

# Name → frames, kernels, how, changed frames.
_CHANGED_CASES = {
    "one kernel of 5": (12, [5], "average", [0, 1, 10, 11]),
    "3, 9 and 1": (16, [3, 9, 1], "average", [0, 1, 2, 3, 4, 11, 12, 13, 14, 15]),
    "3, 1 and 5, as in Film": (8, [3, 1, 5], "average", [0, 1, 2, 5, 6, 7]),
    "two of 3": (8, [3, 3], "average", [0, 1, 6, 7]),
    "kernels of 1": (4, [1, 1], "average", []),
    "kernels longer than the clip": (3, [3, 7], "average", [0, 1, 2]),
    "the zeros of both ends meet": (5, [3, 5], "average", [0, 1, 2, 3, 4]),
    "centre": (8, [3, 3, 5], "centre", []),
}


def _changed_mistakes(frames: int, kernels: Sequence[int]) -> dict[str, list]:
    """Cause → what it gives."""
    ends = {
        "a kernel of size k sees k // 2 frames to each side, not k": sum(kernels),
        "a kernel of size k sees k // 2 frames to each side, not k - 1": sum(
            k - 1 for k in kernels
        ),
        "the largest kernel alone: each convolution carries the change further": max(
            (k // 2 for k in kernels), default=0
        ),
        "one frame for each convolution: a kernel of 5 sees two to each side, one of 1 none": len(
            kernels
        ),
        "the last kernel alone: add up all of them": sum(k // 2 for k in kernels[-1:]),
        "the first kernel alone: add up all of them": sum(k // 2 for k in kernels[:1]),
    }
    reach = sum(k // 2 for k in kernels)
    mistakes = {
        cause: [t for t in range(frames) if t < end or t >= frames - end]
        for cause, end in ends.items()
    }
    mistakes |= {
        "the last frames see zeros, too": [t for t in range(frames) if t < reach],
        "the first frames see zeros, too": [t for t in range(frames) if t >= frames - reach],
        "these are the frames that stay: return those that change": [
            t for t in range(frames) if reach <= t < frames - reach
        ],
        "one frame too many at the end": [
            t for t in range(frames) if t < reach or t >= frames - reach - 1
        ],
        "one frame too few at the end": [
            t for t in range(frames) if t < reach or t > frames - reach
        ],
        "one frame too many at the start": [
            t for t in range(frames) if t <= reach or t >= frames - reach
        ],
        "frames are counted from 0": [
            t + 1 for t in range(frames) if t < reach or t >= frames - reach
        ],
        "a frame that both ends reach is listed once": [
            *range(min(reach, frames)),
            *range(max(frames - reach, 0), frames),
        ],
        "frame numbers from 0 to T - 1 alone: no negative ones": [
            *range(reach),
            *range(frames - reach, frames),
        ],
    }
    return mistakes


def check_changed(
    report: Report, impl: Handle, what: str, case: tuple[int, list[int], str], right: list[int]
) -> None:
    """The frames that zeros reach."""
    frames, kernels, how = case
    got = impl.call(frames, list(kernels), how)
    if isinstance(got, (list, tuple)) and all(type(one) is int for one in got):
        got = list(got)
    else:
        cause = "return a list of integers"
        if got is None:
            cause = _NO_RETURN
        elif type(got) is int:
            cause = "this is a number: return the list of frames"
        elif isinstance(got, (list, tuple)) and all(type(one) is bool for one in got):
            cause = "flags: return the numbers of the frames"
        report.fail(what, expected=str(right), got=_kind(got), cause=cause)
    if how == "centre":
        cause = "with centre no frame looks at a neighbour: nothing changes"
    else:
        mistakes = _changed_mistakes(frames, kernels)
        cause = next((c for c, wrong in mistakes.items() if wrong == got != right), "")
        if sorted(got) == right:
            cause = "in ascending order"
        cause = cause or "how far do zeros reach behind each convolution? Add it up"
    report.true(what, got == right, expected=str(right), got=str(got), cause=cause)


@exercise(
    "c09-e2",
    "where zeros reach",
    needs="changed_frames",
    look="section 3, the table of changed pictures",
    points=(1, 1),
    minutes=10,
)
def e2(impl: Handle, report: Report) -> None:
    """Lists by hand."""
    for what, (frames, kernels, how, right) in _CHANGED_CASES.items():
        check_changed(report, impl, what, (frames, kernels, how), right)


# Clips ------------------------------------------------------------------------------------------

# Name → pictures, pictures per second, clips, rows of the result, cause → what it gives.
_TENTH = "clip k of n begins at k/n of the room: so the last one does not reach the end"
_CLIP_CASES = {
    "10 seconds, 30 per second, the first of 10 clips": (
        (300, 30, 10),
        0,
        [0, 8, 16, 24, 32, 40, 48, 56],
        {
            "pictures one after another: a stride of 8": [0, 1, 2, 3, 4, 5, 6, 7],
            "frames are counted from 0": [1, 9, 17, 25, 33, 41, 49, 57],
            "the first picture is at the start, not a stride later": [
                8,
                16,
                24,
                32,
                40,
                48,
                56,
                64,
            ],
            "spread with both ends: 8 pictures are 8 frames apart, not 64/7": (
                [0, 9, 18, 27, 36, 45, 54, 64]
            ),
            "spread with both ends, over 63 frames: 8 pictures are 8 frames apart": (
                [0, 9, 18, 27, 36, 45, 54, 63]
            ),
            "all over the video: a clip is 64/30 s long": [0, 37, 75, 112, 150, 187, 225, 262],
        },
    ),
    # Room for 300 - 64 = 236 pictures: 23.6 from one clip to the next.
    "the fourth of them": (
        (300, 30, 10),
        3,
        [70, 78, 86, 94, 102, 110, 118, 126],
        {
            _TENTH: (
                [78, 86, 94, 102, 110, 118, 126, 134],
                [64, 72, 80, 88, 96, 104, 112, 120],
            ),
            "places are shares of duration - 64/30 s, so that a clip fits behind each": (
                [90, 98, 106, 114, 122, 130, 138, 146]
            ),
            "a clip is 8 · 8 frames long, not 7 · 8": [73, 81, 89, 97, 105, 113, 121, 129],
            "the picture on the screen: floor, not round": [71, 79, 87, 95, 103, 111, 119, 127],
            "clips stand at even distances: the start is not used": (
                [0, 8, 16, 24, 32, 40, 48, 56]
            ),
            "clips one behind the other: spread them over the video": (
                [192, 200, 208, 216, 224, 232, 240, 248]
            ),
            "in the middle of its part of the video: clip k begins at k/n of the room": (
                [82, 90, 98, 106, 114, 122, 130, 138]
            ),
        },
    ),
    # Room for 20 pictures; the times are rounded numbers.
    "84 pictures, the second of two clips": (
        (84, 30, 2),
        1,
        [10, 18, 26, 34, 42, 50, 58, 66],
        {},
    ),
    # 25 · 8/30 = 6.67 pictures apart.
    "25 per second": (
        (100, 25, 1),
        0,
        [0, 6, 13, 20, 26, 33, 40, 46],
        {
            "8 pictures of this video are not 8/30 s: times first, then times fps": (
                [0, 8, 16, 24, 32, 40, 48, 56]
            ),
            "the picture on the screen: floor, not round": [0, 7, 13, 20, 27, 33, 40, 47],
            "the distance is rounded first: round the number of each picture alone": (
                [0, 6, 12, 18, 24, 30, 36, 42],
                [0, 7, 14, 21, 28, 35, 42, 49],
            ),
            "fps/30 is upside down: more pictures per second, more pictures from one to the next": (
                [0, 9, 19, 28, 38, 48, 57, 67]
            ),
        },
    ),
    "15 per second, the second of two clips": (
        # Room for 96 - 32 = 64 pictures.
        (96, 15, 2),
        1,
        [32, 36, 40, 44, 48, 52, 56, 60],
        {
            "the length of a clip is 64/30 s at any rate: 32 pictures here": (
                [16, 20, 24, 28, 32, 36, 40, 44]
            ),
            "8 pictures of this video are not 8/30 s: times first, then times fps": (
                [16, 24, 32, 40, 48, 56, 64, 72],
                [32, 40, 48, 56, 64, 72, 80, 88],
            ),
            _TENTH: [64, 68, 72, 76, 80, 84, 88, 92],
        },
    ),
    "a short video": (
        (40, 30, 2),
        1,
        [0, 8, 16, 24, 32, 39, 39, 39],
        {
            "a picture behind the end: the last one is repeated, clamp at count - 1": (
                [0, 8, 16, 24, 32, 40, 48, 56]
            ),
            "the last picture is count - 1": [0, 8, 16, 24, 32, 40, 40, 40],
            "it begins again from the first picture: repeat the last one": (
                [0, 8, 16, 24, 32, 0, 8, 16]
            ),
            "a negative room: a video shorter than a clip begins at 0, max(..., 0)": (
                [0, 0, 4, 12, 20, 28, 36, 39],
                [-12, -4, 4, 12, 20, 28, 36, 39],
            ),
        },
    ),
    "one picture": ((1, 30, 1), 0, [0] * 8, {}),
}


def clips_result(report: Report, impl: Handle, what: str, arguments: tuple) -> Tensor:
    """Numbers of pictures, int64 ``(clips, 8)``; a row for training, clips=0 or not given."""
    got = impl.call(*arguments)
    if isinstance(got, Tensor) and got.is_floating_point():
        cause = "numbers of pictures are integers: .floor().long()"
        report.fail(what, expected="int64", got=str(got.dtype).removeprefix("torch."), cause=cause)
    shape = (max(*arguments[2:], 1), 8) if arguments[2:] else (1, 8)
    cause = "a row for each clip, 8 numbers in it; one row for training"
    return report.tensor(what, got, shape, dtype=torch.int64, cause=cause)


def check_clip(
    report: Report,
    impl: Handle,
    what: str,
    arguments: tuple,
    row: int,
    right: Sequence[int],
    mistakes: Mapping[str, Sequence] | None = None,
) -> None:
    """One clip of an evaluation."""
    got = clips_result(report, impl, what, arguments)[row].tolist()
    cause = ""
    for one, wrong in (mistakes or {}).items():
        if got in ([*wrong] if isinstance(wrong[0], list) else [wrong]) and not cause:
            cause = one
    early = [b - a for a, b in zip(got, right, strict=True)]
    if not cause and set(early) <= {0, 1} and any(early):
        cause = "a picture too early: time · fps is a rounded number; add 0.001 before floor"
    if not cause and min(got) < 0:
        cause = "a negative number: a video shorter than a clip begins at 0, max(..., 0)"
    if not cause and max(got) >= arguments[0]:
        cause = "a picture behind the end: the last one is repeated, clamp at count - 1"
    report.true(
        what,
        got == list(right),
        expected=str(list(right)),
        got=str(got),
        cause=cause or "start = room · k/n; times start + j · 8/30; picture floor(time · fps)",
    )


def check_random(
    report: Report, impl: Handle, count: int, fps: float, *clips: int, draws: int = 60
) -> None:
    """One clip at random: anywhere where it fits, each a clip of this video."""
    room, apart = count - 64 * fps / 30, 8 * fps / 30
    starts = []
    for _ in range(draws):
        got = clips_result(report, impl, "a random clip", (count, fps, *clips))[0].tolist()
        starts.append(got[0])
        steps = [later - first for first, later in itertools.pairwise(got)]
        even = all(abs(step - apart) < 1.01 for step in steps)
        cause = "a clip: 8 pictures, 8/30 s apart, as in an evaluation"
        if max(got) >= count or got[-1] == got[-2]:
            cause = "a picture behind the end: the clip begins at most at duration - 64/30 s"
        elif len(set(steps)) > 2:
            cause = "one random start for a clip, not eight random pictures"
        report.true(
            "a random clip is a clip",
            even and min(got) >= 0 and max(got) < count,
            expected=f"8 pictures, {apart:.3g} apart, inside of {count}",
            got=str(got),
            cause=cause,
        )
    report.true(
        "another one each time",
        len(set(starts)) > draws // 6,
        expected="a new place for each call",
        got=f"{len(set(starts))} different in {draws} calls",
        cause="clips=0 is training: the place is drawn, torch.rand(1), in each call",
    )
    low, high = min(starts), max(starts)
    report.true(
        "from the start of the video to its end",
        low < 0.25 * room and 0.75 * room < high <= room,
        expected=f"first pictures from 0 to {room:.0f}",
        got=f"from {low} to {high} in {draws} calls",
        cause="the place is uniform: torch.rand, from 0 to 1, times the room that a clip leaves",
    )


@exercise(
    "c09-e3",
    "which pictures a network sees",
    needs="clip_frames",
    look="section 4, the table of a video with 25 pictures per second",
    points=(1, 2),
    minutes=25,
)
def e3(impl: Handle, report: Report) -> None:
    """Rows by hand; random clips."""
    for what, (arguments, row, right, mistakes) in _CLIP_CASES.items():
        check_clip(report, impl, what, arguments, row, right, mistakes)
    with report.group("random clips"):
        check_random(report, impl, 300, 30)  # training is the default


# Views ------------------------------------------------------------------------------------------


def _softmax(rows: Tensor) -> Tensor:
    return rows.softmax(1)


def _column_clip(columns: Sequence[Sequence[float]], frames: int = 2, rows: int = 2) -> Tensor:
    """A clip (3, T, rows, W) that is the same in all frames and rows; columns: one for each x."""
    clip = _double(columns).T[:, None, None]
    return clip.expand(3, frames, rows, len(columns)).contiguous()


# Four columns. Crops: the mean of columns 0 and 1, of 1 and 2, of 2 and 3.
_WIDE = [[9, 0, 0], [9, 0, 0], [-13, 0, 0], [7, 0, 0]]
_CROPS = _double([[9, 0, 0], [-2, 0, 0], [-3, 0, 0]])
# A second clip, in which all three see green.
_GREEN = [[0, log(8), 0]] * 4


def _view_mistakes(views: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """Wrong results from the logits of views (V, 3); a third of them for each crop."""
    third = len(views) // 3
    left, middle, right = (views[c * third : (c + 1) * third] for c in range(3))
    mean = views.mean(0, keepdim=True)
    chances = _softmax(views)
    winners = torch.eye(3).double()[views.argmax(1)]
    return {
        "the softmax of the mean of the logits: softmax first, for each view, then the mean": (
            _softmax(mean)[0]
        ),
        "these are logits: softmax makes probabilities of each view": (mean[0], views.sum(0)),
        "the middle crop alone": _softmax(middle).mean(0),
        "the first crop alone": _softmax(left).mean(0),
        "the last crop alone": _softmax(right).mean(0),
        "two crops: the middle one is missing": _softmax(torch.cat([left, right])).mean(0),
        "two crops: the last one is missing": _softmax(torch.cat([left, middle])).mean(0),
        "two crops: the first one is missing": _softmax(torch.cat([middle, right])).mean(0),
        "the sum of the probabilities: their mean": chances.sum(0),
        "the sum over the crops: the mean over all views": 3 * chances.mean(0),
        "the sum over the clips: the mean over all views": third * chances.mean(0),
        "the largest probability of any view: the mean": (
            chances.amax(0),
            chances.amax(0) / chances.amax(0).sum(),
        ),
        "each view votes for one class: the mean of the probabilities": winners.mean(0),
        "softmax over the views: over the classes, dim=1": (
            views.softmax(0).mean(0),
            views.softmax(0).sum(0),
        ),
        "the mean of the logarithms: of the probabilities": (
            chances.log().mean(0),
            chances.log().mean(0).exp(),
        ),
        "one clip alone: all clips are views": tuple(
            _softmax(views[k::third]).mean(0) for k in range(third)
        ),
    }


_VIEW_CAUSES = {
    "square": "the crops are not size × size: cut them along the long side, clips (…, H, W)",
    "nan": "an empty crop: the last one begins at the long side minus size",
    "Sizes of tensors": "crops of several sizes: cut along the long side, and let the last one "
    "begin at the long side minus size",
}


def check_views(
    report: Report,
    impl: Handle,
    what: str,
    clips: Tensor,
    size: int,
    views: Tensor,
    cause: str = "",
) -> None:
    """The probabilities of a video, from the logits of its views: all clips, crop by crop."""
    try:
        call = impl.inspect(clips, size)
    except StudentError as error:
        said = str(error)
        cause = next((cause for text, cause in _VIEW_CAUSES.items() if text in said), "")
        if not cause:
            raise
        report.fail(what, expected="probabilities (3,)", got=said.split("\n")[0], cause=cause)
    shapes = {
        (3, 3): "one row for each crop: take the mean over them, too",
        (len(clips), 3): "one row for each clip: take the mean over them, too",
        (len(views), 3): "one row for each view: take their mean",
        (1, 3): "a row too many: the mean over all crops and clips leaves (3,)",
        (): "one number: keep the classes, mean(0)",
    }
    got = call.result
    if isinstance(got, Tensor) and got.isnan().any():
        cause = _VIEW_CAUSES["nan"]
        report.fail(what, expected="probabilities (3,)", got="NaN", cause=cause)
    got = report.tensor(what, got, (3,), causes=shapes, cause="one number for each class")
    report.close(
        what,
        got,
        _softmax(views).mean(0),
        mistakes=_view_mistakes(views),
        cause=cause or "crops begin at 0, in the middle of what is left, and at the end of it",
    )
    input_kept(report, call, clips)


@exercise(
    "c09-e4",
    "thirty views",
    needs="video_scores",
    look="section 5, the three views by hand",
    points=(1, 2),
    minutes=20,
)
def e4(impl: Handle, report: Report) -> None:
    """Columns by hand: wide, high, square; one clip and several."""
    wide = _column_clip(_WIDE)
    with report.group("a wide clip"):
        check_views(report, impl, "three crops of one clip", wide[None], 2, _CROPS)
    with report.group("two clips"):
        both = torch.stack([wide, _column_clip(_GREEN)])
        views = torch.stack([_CROPS, _double(_GREEN[:3])], dim=1).flatten(0, 1)
        check_views(report, impl, "six views", both, 2, views)
    with report.group("a high clip"):
        high = wide.transpose(2, 3).contiguous()
        cause = "H is the long side here: crops go from top to bottom"
        check_views(report, impl, "three crops of one clip", high[None], 2, _CROPS, cause)
    with report.group("a square clip"):
        square = wide[:, :, :, :2].contiguous()
        check_views(report, impl, "three times the same", square[None], 2, _CROPS[:1].expand(3, 3))
    with report.group("crops that do not touch"):
        # Columns 0, 1; 3, 4; 6, 7 of 8.
        columns = _double([[5, 0, 1], [3, 0, 1], [9, 9, 9]])[[0, 1, 2, 1, 0, 2, 1, 1]]
        columns[6:, 2] = 4
        views = torch.stack([columns[at : at + 2].mean(0) for at in (0, 3, 6)])
        clip = _column_clip(columns.tolist())
        check_views(report, impl, "three crops of one clip", clip[None], 2, views)
    clips = report.randn(2, 3, 2, 4, 6)
    got = report.tensor("probabilities", impl.call(clips, 4), (3,))
    cause = "softmax over the classes of each view, then the mean"
    one = abs(got.sum().item() - 1) < 1e-9
    report.true("they sum to 1", one, expected="1", got=f"{got.sum():.4g}", cause=cause)
    keeps_float32(report, lambda clips: impl.call(clips, 4), clips)


# A non-local block over space and time -----------------------------------------------------------

SHAPES = {"query": (2, 4), "key": (2, 4), "value": (2, 4), "out": (4, 2)}
_L3 = log(3)
# Channel → frame → its four positions (0, 0), (0, 1), (1, 0), (1, 1).
_X = _double(
    [
        [[0, 1, 1, 0], [1, 0, 0, 0]],  # read by the query
        [[0, _L3, -_L3, 0], [-_L3, 0, -2 * _L3, -_L3]],  # by the key: largest ln 3 and 0
        [[4, 0, 2, -2], [0, -4, -8, 0]],  # by the value: largest 4 and 0
        [[-4, 0, -2, -6], [-8, -12, -10, -10]],  # with a minus: largest 0 and -8
    ]
)
_WEIGHTS = {
    "query": _double([[sqrt(2), 0, 0, 0], [0, 0, 0, 0]]),  # the scale takes √2 away again
    "key": _double([[0, 1, 0, 0], [0, 0, 0, 0]]),
    "value": _double([[0, 0, 1, 0], [0, 0, 0, -1]]),
    "out": _double([[1, 0], [0, 1], [1, -1], [0, 2]]),
}
_QUERIES = _X[0].flatten()  # 0 or 1
_VALUES = _double([[4, 0], [0, 8]])  # of the two keys: frame 0, frame 1
_DEAD = ("query", "key", "value")  # biases that are often zero at the start


def _result(attention: Tensor, values: Tensor = _VALUES) -> Tensor:
    """Z of attention (8, M) and values (M, 2)."""
    return _with_branch((attention @ values) @ _WEIGHTS["out"].T)


def _with_branch(branch: Tensor, residual: float = 1) -> Tensor:
    return (residual * _X.flatten(1) + branch.T).reshape(1, 4, 2, 2, 2)


def _attention(keys: Sequence[float] | Tensor, scale: float = 1, axis: int = 1) -> Tensor:
    keys = torch.as_tensor(keys, dtype=torch.float64)
    return (scale * _QUERIES[:, None] * keys).softmax(axis)


def _values(reduce) -> Tensor:
    """Values (2, 2) of another way to pool."""
    return torch.stack([reduce(_X[2]), -reduce(_X[3])], dim=1)


def _block_mistakes() -> dict[str, Tensor | tuple[Tensor, ...]]:
    right = _attention([_L3, 0])
    branch = (right @ _VALUES) @ _WEIGHTS["out"].T
    every = torch.stack([_X[2].flatten(), -_X[3].flatten()], dim=1)
    frames = _VALUES.repeat_interleave(4, dim=0)
    corner = slice(0, 1)

    def mean(x: Tensor) -> Tensor:
        return x.mean(1)

    return {
        "nothing is pooled: keys and values come from max-pooled x": _result(
            _attention(_X[1].flatten()), every
        ),
        "the mean is pooled: the text asks for the maximum": _result(
            _attention(mean(_X[1])), _values(mean)
        ),
        "every second position is taken: max-pool": _result(
            _attention(_X[1][:, corner].flatten()), _values(lambda x: x[:, 0])
        ),
        "time is pooled, too: the window is (1, 2, 2)": (
            _result(_attention([_L3]), _double([[4, 0]])),
            _result(_attention([_L3]), _double([[4, 12]])),
        ),
        "pooled behind the projections: the text pools x first": _result(
            right, _double([[4, 6], [0, 12]])
        ),
        "keys come from pooled x, but values do not, or the other way round": (
            _result(right.repeat_interleave(4, dim=1) / 4, every),
        ),
        "each frame sees itself alone: the keys of all frames stand in one list": _with_branch(
            frames @ _WEIGHTS["out"].T
        ),
        "the scale is missing: 1/√C' before softmax": _result(_attention([_L3, 0], sqrt(2))),
        "divided by C', not by its root": _result(_attention([_L3, 0], sqrt(2) / 2)),
        "divided by √C: the scale has the inner width C'": _result(
            _attention([_L3, 0], sqrt(2) / 2)
        ),
        "multiplied by √C': divide": _result(_attention([_L3, 0], 2)),
        "softmax over the queries: each query's row sums to 1": _result(
            _attention([_L3, 0], axis=0)
        ),
        "softmax is missing": (
            _result(_QUERIES[:, None] * _double([_L3, 0])),
            _result(_QUERIES[:, None] * _double([_L3, 0]) / 2),
        ),
        "the attention of all queries is the same: is the query used?": _result(_attention([0, 0])),
        "the residual is forgotten: the input is added back": _with_branch(branch, 0),
        "the residual is counted twice": _with_branch(branch, 2),
        "the residual is subtracted": _with_branch(branch, -1),
        "the branch is not added": _with_branch(0 * branch),
        "a ReLU stands behind W_z": _with_branch(branch.relu()),
        "a ReLU stands behind the sum": _with_branch(branch).relu(),
        "positions and channels are mixed when the sum becomes a map again: (N, C', L) before "
        "unflatten": _with_branch((right @ _VALUES).reshape(2, 8).T @ _WEIGHTS["out"].T),
    }


_BLOCK_CAUSES = {
    "(batch mode) tensor": "the window of a clip has three numbers: max_pool3d(x, (1, 2, 2))",
    "is invalid for input": "there are fewer keys than queries: T·H·W queries, a quarter of keys",
    "unflatten": "the result has T·H·W positions, those of the queries: x.shape[2:], not pooled",
}


def _calls(report: Report, what: str, run) -> object:
    """A call whose usual errors get a cause."""
    try:
        return run()
    except StudentError as error:
        said = str(error).split("\n")[0]
        cause = next((cause for text, cause in _BLOCK_CAUSES.items() if text in said), "")
        if not cause:
            raise
        report.fail(what, expected="a result", got=said, cause=cause)


def check_map(
    report: Report, module: ModuleHandle, x: Tensor, sizes: tuple[int, int], what: str = ""
) -> tuple[Tensor, Tensor]:
    """Result and attention of ``with_attention=True``."""
    what = what or "with_attention=True gives the result and the map"
    got = _calls(report, what, lambda: module.forward(x, True))
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        cause = "return (z, attention) if with_attention else z"
        report.fail(what, expected="a pair", got=_kind(got), cause=cause)
    z = report.tensor(what, got[0], tuple(x.shape), cause="the first is z, of the shape of x")
    queries, keys = sizes
    causes = {
        (len(x), keys, queries): "rows belong to queries: the map is transposed",
        (len(x), queries, queries): "nothing is pooled: a quarter as many keys as queries",
        (len(x), keys, keys): "the queries are pooled, too: only keys and values are",
        (queries, keys): "the axis of examples is gone",
        (len(x), queries, x.shape[2] // 2 * (keys // x.shape[2])): "time is pooled, too: (1, 2, 2)",
    }
    causes.pop((len(x), queries, keys), None)
    attention = report.tensor(what, got[1], (len(x), queries, keys), causes=causes)
    rows = attention.sum(2)
    cause = "return the weights behind softmax, over the keys"
    report.close("each row of the map sums to 1", rows, torch.ones_like(rows), cause=cause)
    return z, attention


def check_time_order(report: Report, module: ModuleHandle, x: Tensor) -> None:
    """Frames in another order give the result in that order: no frame is special."""
    order = report.permutation(x.shape[2])
    report.close(
        "frames in another order give the result in that order",
        module.forward(x[:, :, order]),
        module.forward(x)[:, :, order],
        cause="frames are mixed when the map is folded or unfolded, or a frame is treated apart",
    )


def check_block_properties(report: Report, impl: Handle, x: Tensor) -> None:
    """What holds with any numbers (random weights in float64)."""
    channels = x.shape[1]
    module = build(report, impl, channels)
    inner = channels // 2
    shapes = dict.fromkeys(("query", "key", "value"), (inner, channels))
    shapes["out"] = (channels, inner)
    found = find_roles(report, module, shapes, "four 1×1×1 maps")
    _calls(report, "a fresh block is the identity", lambda: module.forward(x))
    identity_at_start(report, module, x, found[0]["out"])
    randomise(report, module, x)
    check_time_order(report, module, x)
    examples_apart(report, module.forward, x)
    every_weight_learns(report, module, x, found[0], dead=("key",))
    same_in_eval_mode(report, module, x)
    large_inputs_stay_finite(report, module, x)
    learns_from_the_start(report, build(report, impl, channels), x, found[0], dead=_DEAD)


@exercise(
    "c09-e5",
    "the non-local block over space and time",
    needs="SpaceTimeNonLocal",
    look="section 6, the table of shapes",
    points=(2, 2),
    minutes=30,
)
def e5(impl: Handle, report: Report) -> None:
    """Two frames of 2×2 by hand; properties with random numbers."""
    module = build(report, impl, 4)
    what = "four 1×1×1 maps: query, key, value to C/2, out back to C"
    found = find_roles(report, module, SHAPES, what)
    x = _X.reshape(1, 4, 2, 2, 2)
    _calls(report, "runs on a clip", lambda: module.forward(x))
    cause = "write the shapes of the table beside each line: 8 queries, 2 keys"
    forward_equals(
        report,
        "two frames by hand",
        module,
        found,
        _WEIGHTS,
        x,
        _result(_attention([_L3, 0])),
        mistakes=_block_mistakes(),
        cause=cause,
    )
    _, attention = check_map(report, module, x, (8, 2))
    report.close(
        "a query of 1 looks at the frames with weights 3/4 and 1/4",
        attention[0],
        _attention([_L3, 0]),
        cause="the map belongs to the result: the same weights that read the values",
    )
    with report.group("random numbers"):
        check_block_properties(report, impl, report.randn(2, 4, 3, 4, 6))
        blocks_are_apart(report, impl, report.randn(2, 4, 2, 4, 4), 4)
        module_keeps_float32(report, impl, report.randn(2, 4, 2, 4, 4), 4)


# A context over space and time --------------------------------------------------------------------

# Channel 0 is read by the key: ln 1, ln 2 | ln 4, ln 1 | ln 1, ln 1. The weights are tenths.
_SEEN = _double(
    [
        [[0, log(2)], [log(4), 0], [0, 0]],
        [[10, 0], [20, -10], [0, 30]],
    ]
)
_WEIGHT = _double([[0.1, 0.2], [0.4, 0.1], [0.1, 0.1]])


def _context(weights: Tensor) -> Tensor:
    """Sums of both channels with weights (3, 2), for one example."""
    return (_SEEN * weights).sum(dim=(1, 2))[None]


def frame_result(
    report: Report, impl: Handle, what: str, x: Tensor, key: Tensor
) -> tuple[Tensor, Tensor]:
    """Context and shares."""
    call = impl.inspect(x, key)
    got = call.result
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        cause = _NO_RETURN if got is None else "return a pair: context, shares"
        report.fail(what, expected="(N, C) and (N, T)", got=_kind(got), cause=cause)
    examples, channels, frames = x.shape[:3]
    causes = {
        (examples, channels, frames): "one context for each frame: there is one for the clip",
        (examples, channels, 1): "an axis of size 1 is left",
        (examples, channels, 1, 1, 1): "axes of size 1 are left: the sum runs over T, H, W",
        (channels,): "the axis of examples is gone",
        (examples, frames): "context first, then shares",
    }
    causes.pop((examples, channels), None)
    context = report.tensor("the context", got[0], (examples, channels), causes=causes)
    causes = {
        (examples, frames, *x.shape[3:]): "these are the weights: sum them over H and W",
        (frames,): "the axis of examples is gone",
        (examples, x[0, 0].numel()): "these are the weights: sum them over H and W",
    }
    causes.pop((examples, frames), None)
    shares = report.tensor("the shares", got[1], (examples, frames), causes=causes)
    input_kept(report, call, x, key)
    return context, shares


def check_still_and_frames(report: Report, impl: Handle, x: Tensor, key: Tensor) -> None:
    """Properties: shares, constant clips, frames in another order, large numbers."""
    context, shares = frame_result(report, impl, "random numbers", x, key)
    sums = shares.sum(1)
    cause = "softmax over all T·H·W positions of an example: its weights sum to 1"
    report.close("shares sum to 1", sums, torch.ones_like(sums), cause=cause)
    order = report.permutation(x.shape[2])
    other, moved = frame_result(report, impl, "other order", x[:, :, order], key)
    cause = "no frame is special: the context is one sum over all positions"
    report.close("frames in another order: the same context", other, context, cause=cause)
    report.close("and the shares in that order", moved, shares[:, order], cause=cause)
    still = x[:, :, :1].expand_as(x).contiguous()
    one, _ = frame_result(report, impl, "one frame", x[:, :, :1], key)
    repeated, equal = frame_result(report, impl, "a constant clip", still, key)
    frames = x.shape[2]
    cause = "the context is divided by the number of frames, or multiplied: weights sum to 1"
    report.close("a constant clip has the context of its photograph", repeated, one, cause=cause)
    report.close("and equal shares", equal, torch.full_like(equal, 1 / frames), cause=cause)
    large = impl.call(1000 * x, key)
    finite = isinstance(large, (tuple, list)) and all(
        isinstance(part, Tensor) and bool(part.isfinite().all()) for part in large
    )
    cause = "exp overflows: use softmax"
    report.true("large inputs do not overflow", finite, expected="finite", got="not", cause=cause)


@exercise(
    "c09-e6",
    "a context over space and time",
    needs="frame_context",
    look="section 7, six positions by hand",
    points=(1, 1),
    minutes=15,
)
def e6(impl: Handle, report: Report) -> None:
    """Six positions by hand, then properties."""
    key = _double([1, 0])
    x = _SEEN[None, :, :, None]
    context, shares = frame_result(report, impl, "three frames by hand", x, key)
    apart = _double([[1 / 3, 2 / 3], [4 / 5, 1 / 5], [1 / 2, 1 / 2]])
    over_time = _double([[1 / 6, 2 / 4], [4 / 6, 1 / 4], [1 / 6, 1 / 4]])
    ones = torch.ones(3, 2).double()
    report.close(
        "the context",
        context,
        _context(_WEIGHT),
        mistakes={
            "softmax within each frame: one softmax over all T·H·W positions": (
                _context(apart),
                _context(apart / 3),
            ),
            "softmax over the frames alone: one softmax over all T·H·W positions": (
                _context(over_time),
                _context(over_time / 2),
            ),
            "the mean of all positions: where is the attention?": _context(ones / 6),
            "the sum of all positions: where is the attention?": _context(ones),
            "divided by the number of positions: the weights sum to 1 already": _context(
                _WEIGHT / 6
            ),
            "divided by the number of frames: the weights sum to 1 already": _context(_WEIGHT / 3),
            "the exponentials are not divided by their sum": _context(10 * _WEIGHT),
            "softmax is missing": _context(_SEEN[0]),
            "the key reads another channel": _context(
                (_SEEN[1].flatten().softmax(0)).reshape(3, 2)
            ),
            "every channel of x has the weights of its own": torch.stack(
                [
                    _context(_WEIGHT)[:, 0],
                    (_SEEN[1].flatten().softmax(0) * _SEEN[1].flatten()).sum()[None],
                ],
                dim=1,
            ),
            "softmax with a minus": _context((-_SEEN[0]).flatten().softmax(0).reshape(3, 2)),
            "divided by √C: a GC block has no scale": _context(
                (_SEEN[0] / sqrt(2)).flatten().softmax(0).reshape(3, 2)
            ),
        },
        cause="logits: key · x at each position; softmax over all of them; the weighted sum",
    )
    right = _WEIGHT.sum(1)
    report.close(
        "the shares of the frames",
        shares,
        right[None],
        mistakes={
            "the mean of the weights: their sum over H and W": (right[None] / 2,),
            "the largest weight: the sum over H and W": _WEIGHT.amax(1)[None],
            "each frame has its own softmax: one over all positions": ones[:, 0][None],
            "these are the shares of logits: sum the weights behind softmax": (
                _SEEN[0].sum(1)[None],
                _SEEN[0].sum(1)[None].softmax(1),
            ),
            "the same share for each frame": torch.ones(1, 3).double() / 3,
        },
        cause="sum the weights of a frame over H and W",
    )
    with report.group("random numbers"):
        x, key = report.randn(2, 3, 4, 2, 3), report.randn(3)
        check_still_and_frames(report, impl, x, key)
        examples_apart(report, lambda x: impl.call(x, key)[0], x)
        constant_goes_through(report, impl, x, key)
        keeps_float32(report, lambda x, key: impl.call(x, key)[0], x, key)


def constant_goes_through(report: Report, impl: Handle, x: Tensor, key: Tensor) -> None:
    """A constant on every position changes all logits alike, and the context by itself."""
    shift = report.randn(x.shape[1])
    moved, _ = frame_result(report, impl, "shifted", x + shift[:, None, None, None], key)
    context, _ = frame_result(report, impl, "not shifted", x, key)
    cause = "weights that sum to 1, and the same for all channels: a constant goes through"
    report.close("a constant that is added goes through", moved, context + shift, cause=cause)
