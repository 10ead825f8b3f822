"""Visible checks of chapter 07: the parts of a two-stage training, and their usual mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gclib.checks.exercise import exercise
from gclib.checks.handle import Handle, ModuleHandle, Opaque, StudentError
from gclib.checks.properties import build, raises_value_error
from gclib.checks.report import Report

_NO_RETURN = "the function ends without a return statement"


def _kind(value: object) -> str:
    if isinstance(value, Opaque):
        return f"a {value.type_name}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _number(report: Report, what: str, value: object, expected: str) -> float:
    """The value if it is a number."""
    if type(value) in (int, float):
        return value
    cause = "return the number, as a float"
    if value is None:
        cause = _NO_RETURN
    elif isinstance(value, Tensor):
        cause = "return a float, not a tensor: .item() of a tensor gives one"
    elif isinstance(value, (tuple, list)):
        cause = "return one number alone"
    report.fail(what, expected=expected, got=_kind(value), cause=cause)


def _same(got: float, right: float) -> bool:
    return abs(got - right) <= 1e-9 * max(1.0, abs(right))


def _cause(
    mistakes: Mapping[str, float],
    got: float,
    right: float,
    again: Callable[[], tuple[Any, Mapping[str, float]]],
) -> str:
    """The mistake that gives this number, and that of a second case: small numbers coincide.

    Args:
        mistakes: cause → what it gives.
        got: the wrong number.
        right: the right one.
        again: calls the student's code for the second case; its number and the mistakes there.
    """
    found = [cause for cause, wrong in mistakes.items() if _same(got, wrong) and wrong != right]
    if not found:
        return ""
    try:
        second, known = again()
        return next((cause for cause in found if _same(second, known[cause])), "")
    except (StudentError, TypeError, IndexError):  # then one number must do
        return found[0]


# Learning rate ---------------------------------------------------------------------------------

_RATE_CASES = (
    # step → rate for 12 updates, 4 of warm-up, largest rate 0.8
    (0, 0.2),
    (1, 0.4),
    (3, 0.8),
    (4, 0.8),
    (8, 0.4),
    (6, 0.4 * (1 + math.sqrt(0.5))),  # a quarter of the way
    (10, 0.4 * (1 - math.sqrt(0.5))),
)


def _rate_mistakes(step: int, steps: int, lr: float, warmup: int) -> dict[str, float]:
    rest, cos = steps - warmup, math.cos
    if step < warmup:
        share = (step + 1) / warmup
        return {
            "the warm-up starts at 0: update t has (t + 1) / w of the rate": lr * step / warmup,
            "the warm-up is missing: the rate starts at its largest": lr,
            "the warm-up is missing: a cosine from update 0": (
                lr / 2 * (1 + cos(math.pi * step / steps))
            ),
            "the warm-up is missing: update t < w is on a line": (
                lr / 2 * (1 + cos(math.pi * (step - warmup) / rest))
            ),
            "the warm-up runs to the last update: it ends after w updates": lr * (step + 1) / steps,
            "the warm-up rises to half of the rate": lr / 2 * share,
            "the warm-up is not a line": lr * share**2,
            "lr is missing: the share is returned": share,
            "the warm-up falls: it rises": lr * (1 - step / warmup),
            "the warm-up never ends at lr: divide by w": lr * (step + 1) / (warmup + 1),
        }
    progress = (step - warmup) / rest
    return {
        "the cosine starts at update 0: it starts behind the warm-up, at update w": (
            lr / 2 * (1 + cos(math.pi * step / steps))
        ),
        "the cosine is stretched over T updates: it has T - w": (
            lr / 2 * (1 + cos(math.pi * (step - warmup) / steps))
        ),
        "the cosine is as long as T - w, but starts at update 0": (
            lr / 2 * (1 + cos(math.pi * step / rest))
        ),
        "a whole period: half a cosine ends at angle π": lr / 2 * (1 + cos(2 * math.pi * progress)),
        "a quarter of a period: half a cosine ends at angle π": lr * cos(math.pi / 2 * progress),
        "the rate becomes negative: add 1 and halve": lr * cos(math.pi * progress),
        "twice too large: halve": lr * (1 + cos(math.pi * progress)),
        "π is missing: the angle goes from 0 to π": lr / 2 * (1 + cos(progress)),
        "the rate falls on a line: it falls on a cosine": lr * (1 - progress),
        "the rate stays at its largest: the cosine is missing": lr,
        "the cosine is upside down: it falls": lr / 2 * (1 - cos(math.pi * progress)),
        "lr is missing: the share is returned": (1 + cos(math.pi * progress)) / 2,
        "the cosine is one update ahead: update w is its first": (
            lr / 2 * (1 + cos(math.pi * (step + 1 - warmup) / rest))
        ),
        "the cosine ends one update too soon: update T - 1 is above zero": (
            lr / 2 * (1 + cos(math.pi * (step - warmup) / max(1, rest - 1)))
        ),
        "the angle is in radians, not in degrees": lr / 2 * (1 + cos(180 * progress)),
        "the warm-up never ends": lr * (step + 1) / max(1, warmup),
        "sin in place of cos": lr / 2 * (1 + math.sin(math.pi * progress)),
    }


def _second_rate(impl: Handle, warming: bool) -> tuple[Any, dict[str, float]]:
    other = (2 if warming else 11, 23, 0.7, 5)
    return impl.call(*other), _rate_mistakes(*other)


def check_rate(
    report: Report, impl: Handle, arguments: tuple[int, int, float, int], right: float
) -> None:
    """The learning rate of one update."""
    step, steps, lr, warmup = arguments
    what = f"update {step} of {steps}, rate {lr:.4g}, warm-up {warmup}"
    try:
        got = impl.call(*arguments)
    except StudentError as error:
        if "ZeroDivisionError" not in error.kinds:
            raise
        cause = "without a warm-up nothing is divided by w: ask whether step < warmup first"
        report.fail(what, expected=f"{right:.6g}", got=str(error), cause=cause)
    got = _number(report, what, got, f"{right:.6g}")
    report.true(
        what,
        _same(got, right),
        expected=f"{right:.6g}",
        got=f"{got:.6g}",
        cause=_cause(
            _rate_mistakes(*arguments), got, right, lambda: _second_rate(impl, step < warmup)
        )
        or "put the numbers into the two formulas, one by one",
    )


@exercise(
    "c07-e1",
    "warm-up and cosine",
    needs="learning_rate",
    look="section 3, the two formulas",
    points=(1, 1),
    minutes=15,
)
def e1(impl: Handle, report: Report) -> None:
    """Rates worked out by hand, with and without a warm-up."""
    for step, right in _RATE_CASES:
        check_rate(report, impl, (step, 12, 0.8, 4), right)
    check_rate(report, impl, (0, 8, 0.02, 0), 0.02)
    check_rate(report, impl, (4, 8, 0.02, 0), 0.01)
    check_rate(report, impl, (2, 3, 0.4, 0), 0.1)


# Top-k accuracy --------------------------------------------------------------------------------

# Five images, four classes; how many logits are larger than that of the right class.
_TOPK_LOGITS = torch.tensor(
    [[4.0, 1, 2, 3], [1, 3, 4, 2], [1, 2, 3, 4], [-1, 7, 0, 2], [5, 6, 0, 4]], dtype=torch.float64
)
_TOPK_LABELS = torch.tensor([0, 1, 0, 1, 3])
_TOPK_ABOVE = torch.tensor([0, 1, 3, 0, 2])
_TOPK_CASES = ((1, 40.0), (2, 60.0), (3, 80.0), (4, 100.0))


def _topk_mistakes(
    logits: Tensor, labels: Tensor, above: Tensor, k: int, right: float
) -> dict[str, float]:
    count, classes = logits.shape
    k = min(k, classes)

    def percent(hits: Tensor) -> float:
        return 100 * hits.sum().item() / count

    best, guesses = logits.topk(k)
    flat = k in (1, count)  # else the shapes do not fit
    return {
        "these are the largest logits, not their classes: take indices of topk": percent(
            best == labels[:, None]
        ),
        "labels (N,) beside guesses (N, k): write labels[:, None]": (
            percent(guesses == labels) if flat else -1.0
        ),
        "k is ignored: this is top-1": percent(above == 0),
        "a share: the result is in percent": right / 100,
        "this is the number of hits: divide by N, times 100": right * count / 100,
        "these are the k smallest logits: the largest are the guesses": percent(
            above >= classes - k
        ),
        "divided by N·k: there is one right class for each image": right / k,
        "only guess k is compared, not all k guesses": percent(above == k - 1),
        "one guess too many": percent(above <= k),
        "one guess too few": percent(above < k - 1),
        "this is the error: the accuracy counts hits": 100 - right,
        "divided by the number of classes: divide by the number of images": (
            right * count / classes
        ),
    }


def _second_topk(impl: Handle, k: int) -> tuple[Any, dict[str, float]]:
    """Thirteen images, six classes; each row counts down from its best class."""
    above = torch.tensor([0, 1, 2, 5, 3, 0, 1, 4, 2, 0, 3, 1, 5])
    labels = torch.arange(13) % 6
    best = (labels - above)[:, None]
    logits = -((torch.arange(6) - best) % 6).double()
    k, right = (1, 300 / 13) if k == 1 else (3, 800 / 13)
    return impl.call(logits, labels, k), _topk_mistakes(logits, labels, above, k, right)


def check_topk(
    report: Report,
    impl: Handle,
    logits: Tensor,
    labels: Tensor,
    above: Tensor,
    k: int,
    right: float,
) -> None:
    """Top-k accuracy of some images."""
    classes = logits.shape[1]
    what = f"{len(labels)} images, {classes} classes, k = {k}"
    try:
        call = impl.inspect(logits, labels, k)
    except StudentError as error:
        said = str(error)
        if "must match the size of tensor" in said:
            cause = "labels (N,) beside guesses (N, k): write labels[:, None]"
        elif k > classes and "out of range" in said:
            cause = "more guesses than classes: take min(k, number of classes)"
        else:
            raise
        report.fail(what, expected=f"{right:g}", got=said, cause=cause)
    got = _number(report, what, call.result, f"{right:g}")
    if not torch.equal(call.inputs[0], logits):
        cause = "the logits are changed in place: work on a new tensor"
        report.fail(what, expected="unchanged logits", got="new values", cause=cause)
    mistakes = {} if _same(got, right) else _topk_mistakes(logits, labels, above, k, right)
    cause = _cause(mistakes, got, right, lambda: _second_topk(impl, k))
    report.true(
        what,
        _same(got, right),
        expected=f"{right:g} %",
        got=f"{got:g}",
        cause=cause or "an image is a hit if its label is one of its own k guesses",
    )


@exercise(
    "c07-e2",
    "top-k accuracy",
    needs="topk_accuracy",
    look="section 4, five images by hand",
    points=(1, 1),
    minutes=10,
)
def e2(impl: Handle, report: Report) -> None:
    """Five images by hand; more guesses than classes; scores that are all negative."""

    def case(first: int, last: int, shift: float, k: int, right: float) -> None:
        rows = slice(first, last)
        logits, labels = _TOPK_LOGITS[rows] + shift, _TOPK_LABELS[rows]
        check_topk(report, impl, logits, labels, _TOPK_ABOVE[rows], k, right)

    for k, right in _TOPK_CASES:
        case(0, 5, 0, k, right)
    case(0, 5, 0, 5, 100.0)
    case(0, 5, -10, 2, 60.0)
    case(0, 2, 0, 2, 100.0)
    case(2, 3, 0, 3, 0.0)


# The second stage ------------------------------------------------------------------------------

_STAGE_SHAPES = {
    "stem.weight": (4, 3, 3, 3),
    "body.0.conv.weight": (4, 4, 3, 3),
    "body.0.norm.weight": (4,),
    "body.0.norm.bias": (4,),
    "body.0.norm.running_mean": (4,),
    "body.0.norm.running_var": (4,),
    "body.1.conv.weight": (4, 4, 3, 3),
    "body.1.norm.weight": (4,),
    "body.1.norm.bias": (4,),
    "body.1.norm.running_mean": (4,),
    "body.1.norm.running_var": (4,),
    "fc.weight": (3, 4),
    "fc.bias": (3,),
}
_STAGE_GAINS = ("body.0.1.g", "body.1.1.g")


def stage_one(report: Report) -> dict[str, Tensor]:
    """Random numbers as stage 1 could leave them."""
    weights = {name: 0.5 * report.randn(*shape) for name, shape in _STAGE_SHAPES.items()}
    for name in weights:
        if name.endswith(("norm.weight", "running_var")):
            weights[name] = 0.5 + weights[name].abs()
    for number in range(2):
        weights[f"body.{number}.norm.num_batches_tracked"] = torch.tensor(7)
    return weights


def stage_batch(report: Report, count: int = 6) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    return report.randn(count, 3, 4, 4), torch.arange(count) % 3


def _inserted(name: str) -> str:
    """Name of a plain network's number once the gains are there."""
    return name.replace("body.0.", "body.0.0.").replace("body.1.", "body.1.0.")


def _stage_network(
    report: Report, impl: Handle, weights: Mapping[str, Tensor], batches: list, lr: float
) -> ModuleHandle:
    given = {name: value.clone() for name, value in weights.items()}
    try:
        network = build(report, impl, given, list(batches), lr)
    except StudentError as error:
        said = str(error)
        if "Error(s) in loading" not in said and "state_dict" not in said:
            raise
        cause = (
            "the names do not fit: insertion renames body.0.conv.weight to body.0.0.conv.weight, "
            "so load the weights of stage 1 first"
        )
        report.fail("the weights load", expected="a network", got=said, cause=cause)
    if any(not torch.equal(given[name], value) for name, value in weights.items()):
        cause = "the network works on the caller's tensors: load_state_dict copies them"
        report.fail("weights are kept", expected="unchanged", got="new values", cause=cause)
    return network


def _stage_names(report: Report, network: ModuleHandle) -> None:
    found = network.parameters()
    named = [_inserted(name) for name in _STAGE_SHAPES if "running" not in name]
    missing = [name for name in (*named, *_STAGE_GAINS) if name not in found]
    extra = [name for name in found if name not in (*named, *_STAGE_GAINS)]
    cause = "insert_gains is called once, on a PlainNet"
    if set(network.weights()) - set(found):
        cause = "parameters are frozen: the paper trains the whole network on"
    elif set(_STAGE_GAINS) <= set(missing):
        cause = "there are no blocks: call insert_gains(network)"
    elif extra:
        cause = "blocks are inserted twice: call insert_gains(network) once"
    report.true(
        "a plain network with two gains",
        not missing and not extra,
        expected="body.0.1.g, body.1.1.g and the layers of PlainNet",
        got=", ".join([f"no {name}" for name in missing] + extra)[:200],
        cause=cause,
    )


def _stage_start(report: Report, network: ModuleHandle, weights: Mapping[str, Tensor]) -> None:
    """Without an update: the numbers of stage 1, and gains of zero."""
    found = network.weights()
    gains = [name for name in _STAGE_GAINS if bool(found[name].abs().max() > 0)]
    report.true(
        "fresh gains are the identity",
        not gains,
        expected="g = 0",
        got="other numbers",
        cause="the gains do not start at zero: nothing may initialise the network after insertion",
    )
    wrong = [
        name
        for name, value in weights.items()
        if "running" not in name
        and "num_" not in name
        and not torch.allclose(found[_inserted(name)], value, rtol=0, atol=1e-12)
    ]
    body = [name for name in wrong if name.startswith("body")]
    cause = "the weights of stage 1 are not loaded"
    if wrong and body == wrong:
        cause = (
            "the residual blocks have random weights: strict=False skips every renamed layer; load "
            "before the insertion"
        )
    report.true(
        "it starts from the weights of stage 1",
        not wrong,
        expected="the numbers that were given",
        got="other numbers in " + ", ".join(wrong[:3]),
        cause=cause,
    )


def _stage_statistics(
    report: Report, impl: Handle, network: ModuleHandle, weights: dict[str, Tensor], x: Tensor
) -> None:
    """A shift of a running mean that the norm's bias undoes leaves the function as it is."""
    shifted = dict(weights)
    for number in range(2):
        norm = f"body.{number}.norm."
        by = report.randn(4)
        scale = weights[norm + "weight"] / (weights[norm + "running_var"] + 1e-5).sqrt()
        shifted[norm + "running_mean"] = weights[norm + "running_mean"] + by
        shifted[norm + "bias"] = weights[norm + "bias"] + by * scale
    other = _stage_network(report, impl, shifted, [], 0.1)
    network.train(False)
    other.train(False)
    what = "the norms keep their running mean and variance"
    first = report.tensor(what, network.forward(x), (len(x), 3))
    cause = "the running statistics of stage 1 are lost: load the state dict, not the parameters"
    report.close(what, other.forward(x), first, cause=cause)


def _stage_gradients(
    network: ModuleHandle, weights: Mapping[str, Tensor], batch: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Gradients of the cross-entropy, in training mode, at some weights."""
    images, labels = batch
    network.train(True)
    network.load(weights)
    logits = network.forward(images)
    slope = (logits.softmax(1) - torch.eye(3, dtype=torch.float64)[labels]) / len(labels)
    return network.gradients(images, cotangent=slope).parameters


def _stage_update_cause(start: Mapping, got: Mapping, right: Mapping, lr: float) -> str:
    def far(a: Mapping, b: Mapping) -> list[str]:
        return [name for name in right if not torch.allclose(a[name], b[name], rtol=0, atol=1e-9)]

    wrong, still = far(got, right), [n for n in right if torch.equal(got[n], start[n])]
    if len(still) == len(right):
        return "nothing was trained: one update for each batch, and lr as given"
    if still and set(still) <= set(_STAGE_GAINS) and set(wrong) <= set(still):
        return "the gains do not move: the optimizer was made before the insertion"
    if wrong and not set(wrong) & set(_STAGE_GAINS):
        if set(wrong) == set(still):
            return "the optimizer holds the blocks alone: the paper trains the whole network on"
        return "layers have different learning rates, or a weight decay that is not asked for"
    ratios = [
        float((got[n] - start[n]).norm() / (right[n] - start[n]).norm().clamp(min=1e-12))
        for n in right
    ]
    spread = max(ratios) - min(ratios)
    if spread < 1e-6:
        return f"the step is {ratios[0]:.3g} times as large: is it the lr of the arguments?"
    return "SGD with momentum 0.9 and lr, nothing else, over all parameters"


@exercise(
    "c07-e3",
    "the second stage",
    needs="second_stage",
    look="section 5, the order of four lines",
    points=(1, 2),
    minutes=20,
)
def e3(impl: Handle, report: Report) -> None:
    """The start is stage 1; an update moves every number as SGD does."""
    weights, batch = stage_one(report), stage_batch(report)
    network = _stage_network(report, impl, weights, [], 0.1)
    _stage_names(report, network)
    _stage_start(report, network, weights)
    first = network.weights()
    _stage_network(report, impl, stage_one(report), [batch], 0.1)
    report.true(
        "two networks share nothing",
        all(torch.equal(value, first[name]) for name, value in network.weights().items()),
        expected="the first network as it was",
        got="a network that a second call changed",
        cause="a network or layer lives outside of the function: make it inside",
    )
    _stage_statistics(report, impl, network, weights, batch[0])
    stage_updates(report, impl, weights, [batch], 0.1)


def stage_updates(
    report: Report, impl: Handle, weights: dict[str, Tensor], batches: list, lr: float
) -> None:
    """Every parameter after each number of updates, by SGD with momentum 0.9."""
    network = _stage_network(report, impl, weights, [], lr)
    now, speed = network.weights(), {}
    start = now
    for number, batch in enumerate(batches, start=1):
        slopes = _stage_gradients(network, now, batch)
        speed = {name: slopes[name] + 0.9 * speed.get(name, 0) for name in now}
        before, now = now, {name: value - lr * speed[name] for name, value in now.items()}
        got = _stage_network(report, impl, weights, batches[:number], lr).weights()
        plain = {name: before[name] - lr * slopes[name] for name in now}
        wrong = [n for n in now if not torch.allclose(got[n], now[n], rtol=0, atol=1e-9)]
        cause = ""
        if wrong and number == 1:
            cause = _stage_update_cause(start, got, now, lr)
        elif wrong:
            cause = "the first update is right, a later one is not: one optimizer for all of them"
            if all(torch.allclose(got[n], plain[n], rtol=0, atol=1e-9) for n in now):
                cause = "without momentum: SGD(..., momentum=0.9), one optimizer for all updates"
            elif all(torch.allclose(got[n], before[n], rtol=0, atol=1e-9) for n in now):
                cause = "only the first batch is trained: does return stand in the loop?"
        report.true(
            f"every number after {number} update{'s' if number > 1 else ''}",
            not wrong,
            expected="SGD with momentum 0.9 on all parameters",
            got="other numbers in " + ", ".join(wrong[:3]),
            cause=cause,
        )


# A batch, shared out ---------------------------------------------------------------------------

_SPLIT_CASES = (
    # batch, processes, micro batch, rate, its batch → parts, rate
    ((512, 8, 64, 0.1, 256), 1, 0.2),
    ((512, 1, 64, 0.1, 256), 8, 0.2),
    ((96, 2, 8, 0.4, 32), 6, 1.2),
    ((24, 4, 3, 0.1, 240), 2, 0.01),
)
_SPLIT_REFUSED = (
    (100, 3, 10),
    (512, 8, 48),
    (64, 8, 64),  # fewer examples than the processes take at once
    (40, 3, 20),  # whole parts, but not for each process
)


def _split_parts_mistakes(batch: int, processes: int, micro: int) -> dict[str, float]:
    return {
        "the parts of all processes: each takes its share": batch / micro,
        "micro_batch is missing: a process takes it in each pass": batch / processes,
        "processes are multiplied: they share the batch": batch * processes / micro,
        "the number of processes": processes,
        "upside down: the batch is divided": processes * micro / batch,
        "the examples of a pass, not the number of passes": processes * micro,
        "one part too many": batch / (processes * micro) + 1,
    }


def _split_rate_mistakes(
    batch: int, processes: int, micro: int, lr: float, lr_batch: int
) -> dict[str, float]:
    parts = batch / (processes * micro)
    return {
        "the rate is not scaled": lr,
        "upside down: a larger batch takes a larger rate": lr * lr_batch / batch,
        "the rate of a part: the update takes the whole batch": lr * micro / lr_batch,
        "the root of the ratio: the rule is linear": lr * math.sqrt(batch / lr_batch),
        "the rate of one process: gradients are averaged over all": (
            lr * batch / processes / lr_batch
        ),
        "the rate of one pass in all processes: parts are accumulated": (
            lr * batch / parts / lr_batch
        ),
        "times the number of parts, too: the mean over parts does not grow": (
            lr * batch / lr_batch * parts
        ),
        "times the number of processes, too: the mean does not grow": (
            lr * batch / lr_batch * processes
        ),
        "lr is missing": batch / lr_batch,
        "lr_batch is missing": lr * batch,
        "rounded down: divide with /": lr * (batch // lr_batch),
    }


_SPLIT_SECOND = (240, 4, 10, 0.3, 70)


def check_split(report: Report, impl: Handle, arguments: tuple, parts: int, rate: float) -> None:
    """Parts and rate of one batch."""
    batch, processes, micro, lr, lr_batch = arguments
    what = f"batch {batch}, {processes} processes, micro-batch {micro}, {lr:.4g} for {lr_batch}"
    try:
        got = impl.call(*arguments)
    except StudentError as error:
        if "ValueError" not in error.kinds:
            raise
        cause = "this batch splits: ask for the rest of batch_size / (processes · micro_batch)"
        report.fail(what, expected=f"({parts}, {rate:g})", got=str(error), cause=cause)
    pair = isinstance(got, (tuple, list)) and len(got) == 2
    if not pair or any(type(n) not in (int, float) for n in got):
        cause = _NO_RETURN if got is None else "return a pair: parts, rate"
        report.fail(what, expected=f"({parts}, {rate:g})", got=_kind(got), cause=cause)
    if not _same(parts, rate) and _same(got[0], rate) and _same(got[1], parts):
        cause = "the two numbers are exchanged: parts first"
        report.fail(what, expected=f"({parts}, {rate:g})", got=str(tuple(got)), cause=cause)
    cause = "parts are counted, as an int: divide with //"
    if not _same(got[0], parts):
        cause = _cause(
            _split_parts_mistakes(batch, processes, micro),
            got[0],
            parts,
            lambda: (impl.call(*_SPLIT_SECOND)[0], _split_parts_mistakes(*_SPLIT_SECOND[:3])),
        )
    report.true(
        f"{what}: parts",
        got[0] == parts and type(got[0]) is int,
        expected=str(parts),
        got=f"{got[0]}",
        cause=cause or "batch_size / (processes · micro_batch)",
    )
    cause = _cause(
        _split_rate_mistakes(*arguments),
        got[1],
        rate,
        lambda: (impl.call(*_SPLIT_SECOND)[1], _split_rate_mistakes(*_SPLIT_SECOND)),
    )
    report.true(
        f"{what}: rate",
        _same(got[1], rate),
        expected=f"{rate:g}",
        got=f"{got[1]:g}",
        cause=cause or "lr · batch_size / lr_batch",
    )


def check_refused(report: Report, impl: Handle, sizes: tuple[int, int, int]) -> None:
    """A batch that does not split."""
    batch, processes, micro = sizes
    what = f"batch {batch}, {processes} processes, micro-batch {micro} is refused"
    cause = (
        f"{batch} images do not make whole passes of {processes} · {micro}: raise ValueError(...) "
        "where the division leaves a rest"
    )
    raises_value_error(
        report, what, lambda: impl.call(*sizes, 0.1, 256), "size of the batch", returned=cause
    )


@exercise(
    "c07-e4",
    "a batch, shared out",
    needs="split_batch",
    look="section 6, parts and the linear scaling rule",
    points=(1, 1),
    minutes=15,
)
def e4(impl: Handle, report: Report) -> None:
    """Parts and rates by hand; batches that do not split."""
    for arguments, parts, rate in _SPLIT_CASES:
        check_split(report, impl, arguments, parts, rate)
    with report.group("what does not split is refused"):
        for sizes in _SPLIT_REFUSED:
            check_refused(report, impl, sizes)


# A run that resumes ----------------------------------------------------------------------------


def run_losses(report: Report, what: str, run: ModuleHandle, count: int) -> list[float]:
    """Losses of some updates."""
    got = run.forward("train", count)
    if not isinstance(got, (list, tuple)) or any(type(loss) is not float for loss in got):
        shown, cause = _kind(got), "return the list of the losses, as floats"
        if got is None:
            cause = _NO_RETURN
        elif isinstance(got, float):
            cause = "one loss alone: return the list of all losses"
        elif isinstance(got, (list, tuple)):
            shown = "a list of " + ", ".join(sorted({_kind(loss) for loss in got}))
        report.fail(what, expected=f"a list of {count} floats", got=shown, cause=cause)
    report.true(
        what,
        len(got) == count,
        expected=f"{count} losses",
        got=f"{len(got)}",
        cause="one loss for each update, and as many updates as asked for",
    )
    return list(got)


def _flat(weights: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in weights.values()])


def _run_learns(report: Report, impl: Handle) -> None:
    run = build(report, impl, 0, dtype=None)
    losses = run_losses(report, "twenty updates give twenty losses", run, 20)
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    report.true(
        "the loss falls",
        last < 0.8 * first,
        expected=f"less than 0.8 of {first:.3f} in the last five updates",
        got=f"{last:.3f}",
        cause="are the optimizer and the network those of this run, with a new batch each time?",
    )
    run_losses(report, "nineteen more", run, 19)
    before = _flat(run.weights())
    run_losses(report, "the 40th", run, 1)
    after = _flat(run.weights())
    cause = "the rate of the 40th update is 1/40: count self.step after the update, not before"
    report.true(
        "the rate falls with the updates",
        not torch.equal(before, after),
        expected="a small step in update 39, counted from 0",
        got="none",
        cause=cause,
    )
    run_losses(report, "the 41st", run, 1)
    cause = (
        "each update takes self.rate() as its learning rate, and adds 1 to self.step: put the rate "
        "into every group of self.optimizer.param_groups"
    )
    report.true(
        "the rate ends at zero",
        torch.equal(after, _flat(run.weights())),
        expected="no step in update 40, whose rate is 0",
        got="new weights",
        cause=cause,
    )


def _run_loaded(report: Report, then: dict[str, Tensor], found: dict[str, Tensor], late: dict):
    """Weights right behind load_state."""
    got = _flat(found)
    cause = "load_state does not load the network"
    if torch.equal(got, _flat(late)):
        cause = (
            "the saved numbers went on changing: state_dict() holds the network's own tensors, so "
            "copy them (copy.deepcopy)"
        )
    report.true(
        "the weights come back",
        torch.equal(got, _flat(then)),
        expected="the weights of the moment of save_state",
        got="other weights",
        cause=cause,
    )


def run_resumes(report: Report, impl: Handle, seeds: tuple[int, int, int], done: int) -> None:
    """A run that goes on in another one, to the last bit."""
    x = report.randn(5, 3, 4, 4)
    whole, run = (
        build(report, impl, seeds[0], dtype=None),
        build(report, impl, seeds[0], dtype=None),
    )
    right = run_losses(report, "a run without a stop", whole, done + 8)
    begun = run_losses(report, "the same in two calls", run, done)
    then, shown = run.weights(), run.forward("logits", x)
    number = run.forward("save")
    one = run_losses(report, "one more update", run, 1)
    moved = run.weights()
    rest = one + run_losses(report, "seven more", run, 7)
    late = run.weights()
    report.true(
        "in two calls as in one",
        begun + rest == right,
        expected="the same losses",
        got="others",
        cause="a second call of train_steps, or save_state, starts something anew",
    )
    for name, seed in (("another run", seeds[1]), ("a third run", seeds[2])):
        with report.group(f"{name} goes on where the first was saved"):
            other = build(report, impl, seed, dtype=None)
            other.forward("load", number)
            _run_loaded(report, then, other.weights(), late)
            report.true(
                "the running statistics come back",
                _equal(other.forward("logits", x), shown),
                expected="the logits of the moment of save_state",
                got="others",
                cause="running mean and variance of the norms are missing, or not copied: take "
                "state_dict(), which holds parameters and buffers",
            )
            got = run_losses(report, "one update", other, 1)
            report.true(
                "the same examples",
                got == rest[:1],
                expected=f"a loss of {rest[0]:.6f} in the next update",
                got=f"{got[0]:.6f}",
                cause="the next batch is another: save and load the state of self.generator",
            )
            _run_step(report, _flat(then), _flat(moved), _flat(other.weights()), name)
            got = run_losses(report, "seven updates", other, 7)
            report.true(
                "bit-equal to the end",
                got == rest[1:] and torch.equal(_flat(other.weights()), _flat(late)),
                expected="the losses and weights of a run that was never stopped",
                got="others after the second update",
                cause="self.step goes back too: the rates are those of other updates",
            )


def _run_step(report: Report, start: Tensor, right: Tensor, got: Tensor, name: str) -> None:
    """The first update behind load_state."""
    mine, theirs = right - start, got - start
    cosine = float(mine @ theirs / (mine.norm() * theirs.norm()).clamp(min=1e-30))
    cause = "the momentum is missing: save, copy and load the optimizer's state_dict()"
    if cosine > 1 - 1e-9:
        cause = "the step has another size: save and load self.step, which the rate depends on"
    elif name == "a third run":
        cause = (
            "the state was changed by the run that loaded it: the optimizer takes the momentum's "
            "tensors as they are, so copy in load_state, too"
        )
    report.true(
        "the same update",
        torch.equal(right, got),
        expected="bit-equal weights",
        got="other weights after one update",
        cause=cause,
    )


def _equal(got: object, right: object) -> bool:
    return isinstance(got, Tensor) and isinstance(right, Tensor) and torch.equal(got, right)


@exercise(
    "c07-e5",
    "a run that resumes",
    needs="ResumableRun",
    look="section 7, what an update depends on",
    points=(1, 2),
    minutes=30,
)
def e5(impl: Handle, report: Report) -> None:
    """Twenty updates whose loss falls; the same numbers after a stop."""
    with report.group("twenty updates"):
        _run_learns(report, impl)
    with report.group("no update"):
        run = build(report, impl, 0, dtype=None)
        run_losses(report, "no losses", run, 0)
    run_resumes(report, impl, (0, 5, 6), 6)


# Cost ------------------------------------------------------------------------------------------

_COST_CASES = (
    # images, epochs, images/s, GPUs, W, price → hours, kWh, money
    ((7200, 10, 5, 4, 250, 3), 1.0, 1.0, 12.0),
    ((36000, 3, 10, 1, 500, 2), 3.0, 1.5, 6.0),
    ((1_800_000, 4, 250, 8, 300, 0), 1.0, 2.4, 0.0),
)


def _cost_mistakes(n: int, e: int, v: float, g: int, w: float, p: float) -> tuple[dict, ...]:
    hours = n * e / (v * g) / 3600
    kwh, money = hours * g * w / 1000, hours * g * p
    clock = {
        "these are seconds: an hour has 3600": hours * 3600,
        "these are minutes: an hour has 3600 seconds": hours * 60,
        "one epoch alone": hours / e,
        "the GPUs work at once: divide by their number": hours * g,
        "multiplied by the speed: divide": n * e * v / g / 3600,
        "multiplied by the GPUs: divide": hours * g * g,
        "these are days": hours / 24,
        "upside down: images / (images per second) are seconds": 1 / (hours * 3600 * 3600),
    }
    energy = {
        "the energy of one GPU: there are more": kwh / g,
        "these are Wh: a kWh has 1000": kwh * 1000,
        "divided by the power: energy is power · time": hours * g / w * 1000,
        "divided by the power: multiply": hours * g / w,
        "hours alone: times the power": hours * g,
        "seconds in place of hours": kwh * 3600,
        "the GPUs count twice": kwh * g,
        "the power is missing: GPU hours / 1000": hours * g / 1000,
        "these are J or kJ: a kWh has 3600 kJ": kwh * 3600 * 1000,
    }
    price = {
        "the price of one GPU: there are more": money / g,
        "the price is for an hour, not for a second": money * 3600,
        "the price is for an hour, not for a kWh": kwh * p,
        "the GPUs count twice": money * g,
        "the price is missing: these are GPU hours": hours * g,
    }
    return clock, energy, price


_COST_SECOND = (5000, 7, 11, 3, 270, 1.7)


def check_cost(report: Report, impl: Handle, arguments: tuple, right: tuple) -> None:
    """Hours, energy and money of one training."""
    n, e, v, g, w, p = arguments
    what = f"{n:,} images, {e} epochs, {v:.4g}/s, {g} GPUs, {w:.4g} W, {p:.4g} per hour"
    got = impl.call(*arguments)
    shown = ", ".join(f"{number:g}" for number in right)
    three = isinstance(got, (tuple, list)) and len(got) == 3
    if not three or any(type(number) not in (int, float) for number in got):
        cause = _NO_RETURN if got is None else "return three numbers: hours, kwh, money"
        report.fail(what, expected=f"({shown})", got=_kind(got), cause=cause)
    if sorted(got) == sorted(right) and tuple(got) != tuple(right):
        cause = "the numbers are in another order: hours, kwh, money"
        report.fail(what, expected=f"({shown})", got=str(tuple(got)), cause=cause)
    names, tables = ("hours", "kWh", "money"), _cost_mistakes(*arguments)
    with report.group(what):
        for k, (name, number, wanted) in enumerate(zip(names, got, right, strict=True)):
            cause = _cause(
                tables[k],
                number,
                wanted,
                lambda k=k: (impl.call(*_COST_SECOND)[k], _cost_mistakes(*_COST_SECOND)[k]),
            )
            report.true(
                name,
                _same(number, wanted),
                expected=f"{wanted:g}",
                got=f"{number:g}",
                cause=cause or "write the units beside each number",
            )


@exercise(
    "c07-e6",
    "what it costs",
    needs="cost",
    look="section 8, units",
    points=(1, 1),
    minutes=10,
)
def e6(impl: Handle, report: Report) -> None:
    """Three trainings by hand."""
    for arguments, *right in _COST_CASES:
        check_cost(report, impl, arguments, tuple(right))
