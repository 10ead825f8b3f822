"""Properties that many exercises share, phrased once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gclib.checks.handle import (
    Call,
    Handle,
    ModuleHandle,
    Opaque,
    StubReached,
    StudentError,
)
from gclib.checks.report import Mistakes, Report, fits, known_mistake
from gclib.checks.roles import Assignment, Shape, Slot, assignments, names_in, weights_for


def input_kept(report: Report, call: Call, *inputs: Tensor) -> None:
    """The call left its inputs as they were."""
    report.true(
        "the input is left as it was",
        all(torch.equal(a, b) for a, b in zip(call.inputs, inputs, strict=True)),
        expected="unchanged inputs",
        got="an input with new values",
        cause="an operation in place (+=, *=, exp_, ...) writes into the input",
    )


def gradient_arrives(report: Report, *gradients: Tensor | None) -> None:
    """Backward reached every input."""
    if any(g is not None and not bool(g.isfinite().all()) for g in gradients):
        report.fail(
            "gradients flow back to the input",
            expected="finite gradients",
            got="NaN or infinity",
            cause="0/0 or an overflow on the way: exp of large numbers, a root at 0",
        )
    report.true(
        "gradients flow back to the input",
        all(g is not None and bool(g.abs().max() > 0) for g in gradients),
        expected="a gradient for every input",
        got="none for at least one",
        cause="the result is cut off from the graph (detach, data, item, numpy or no_grad)",
    )


def examples_apart(report: Report, run, *batches: Tensor) -> None:
    """Each example gives the same alone and in a batch."""
    what = "each example is kept apart"
    together = run(*batches)
    alone = [run(*(b[n : n + 1] for b in batches)) for n in range(len(batches[0]))]
    if not isinstance(together, Tensor):
        report.tensor(what, together, ())
    for part in alone:
        report.tensor(
            what,
            part,
            (1, *together.shape[1:]),
            cause="a single example gives another shape: squeeze() drops axis 0 then, too, and "
            "sizes written as numbers do not fit",
        )
    cause = "examples are mixed: axis 0 must stay where it is"
    report.close(what, together, torch.cat(alone), cause=cause)


def raises_value_error(
    report: Report,
    what: str,
    function: Callable[[], Any],
    argument: str,
    *,
    later=None,
    returned: str = "",
) -> None:
    """An unknown option is refused with a ValueError.

    Args:
        report: where the property is noted.
        what: the property.
        function: the call that must raise.
        argument: what the option is called.
        later: a call that should not have been reached, for a class: its forward.
        returned: the likely cause where nothing is raised; default: an unknown name is taken for
            a known one.
    """
    cause = returned or (
        f"an unknown {argument} falls through to one of the known ones: end with raise "
        f"ValueError(...)"
    )
    got, refused = _refusal(function)
    if not refused and later is not None and _refusal(later)[1]:
        cause = f"refused too late: look at the {argument} in __init__ already"
    elif got.endswith("Error, returned"):
        cause = "the exception is returned: write raise in place of return"
    elif "Error" in got:
        cause = "the exercise asks for a ValueError: raise ValueError(...)"
    report.true(what, refused, expected="a ValueError", got=got, cause=cause)


def _refusal(function: Callable[[], Any]) -> tuple[str, bool]:
    """What a call gave, and whether that was a ValueError or a class derived from it."""
    try:
        result = function()
    except StudentError as error:
        return str(error), "ValueError" in error.kinds
    except StubReached:
        return "NotImplementedError", False
    if isinstance(result, Opaque) and result.type_name.endswith("Error"):
        return f"a {result.type_name}, returned", False
    return "a result", False


def build(report: Report, impl: Handle, *arguments: Any, **options: Any) -> ModuleHandle:
    """Build the student's module, in float64 unless ``dtype`` says otherwise."""
    module = impl.build(*arguments, **options)
    if isinstance(module, Opaque):
        report.fail(
            "is an nn.Module",
            expected="a class that derives from nn.Module",
            got=f"an object of type {module.type_name}",
            cause="the class does not derive from nn.Module, or a function returns something else",
        )
    return module


def find_roles(
    report: Report, module: ModuleHandle, roles: Mapping[str, Shape], what: str
) -> list[Assignment]:
    """The ways in which the module's parameters can play ``roles``; fail if there is none."""
    parameters = module.parameters()
    found = assignments(parameters, roles)
    if found and names_in(found[0]) == set(parameters):
        report.ok(what)
        return found
    expected = ", ".join(f"{role} {shape}" for role, shape in roles.items())
    if set(module.weights()) - set(parameters):
        cause = "requires_grad is off for a layer: it could never learn"
    elif sum(len(shape) > 1 for shape in parameters.values()) < len(roles):
        cause = (
            "a layer is missing, or the module does not know it: set each one as self.name = "
            "nn.Conv2d(...) or nn.Parameter(...); a list, a dict or a plain tensor hides it"
        )
    elif not found:
        cause = (
            "a layer is missing, has other channels than the text says, or a kernel larger than 1"
        )
    else:
        extra = ", ".join(sorted(set(parameters) - names_in(found[0])))
        cause = f"layers that the formula does not have: {extra}"
    got = ", ".join(f"{name} {shape}" for name, shape in parameters.items())
    report.fail(
        what,
        expected=f"weights {expected} (outputs, inputs), with or without biases",
        got=got or "no trainable parameter",
        cause=cause,
    )


def forward_equals(
    report: Report,
    what: str,
    module: ModuleHandle,
    found: list[Assignment],
    values: Mapping[str, Tensor],
    x: Tensor,
    expected: Tensor,
    *,
    biases: Mapping[str, Tensor] | None = None,
    mistakes: Mistakes | None = None,
    cause: str = "",
) -> Assignment:
    """Load ``values`` into the roles and compare the result of ``x``; the assignment that fits.

    Where names do not tell the roles, every assignment is tried and one must fit.
    """
    mistakes = mistakes or {}
    results = []
    for assignment in found:
        module.load(weights_for(assignment, values, biases))
        results.append(report.tensor(what, module.forward(x), tuple(expected.shape)))
        if fits(results[-1], expected):
            report.ok(what)
            return assignment
    # Show the assignment whose mistake is known, or the first.
    known = [result for result in results if known_mistake(result, mistakes)]
    report.close(what, (known or results)[0], expected, mistakes=mistakes, cause=cause)
    return found[0]


def identity_at_start(report: Report, module: ModuleHandle, x: Tensor, last: Slot) -> None:
    """A fresh additive block returns its input; ``last`` is its zero-initialised layer."""
    weights = module.weights()
    zero = not any(weights[name].any() for name in (last.weight, last.bias) if name)
    what = "a fresh block is the identity"
    start = report.tensor(what, module.forward(x), tuple(x.shape))
    if start.abs().max() == 0:
        cause = "the residual is forgotten: the input is not added back"
        report.fail(what, expected="z = x", got="z = 0 everywhere", cause=cause)
    report.close(
        what,
        start,
        x,
        mistakes={
            "the residual is counted twice": 2 * x,
            "the input is subtracted": -x,
            "a ReLU stands behind the sum": x.relu(),
        },
        cause="the last layer starts at zero, so something else changes the input: a norm, an "
        "activation or dropout on the way of the residual"
        if zero
        else "the last layer does not start at zero: set its weight and its bias to zero",
    )


def learns_from_the_start(
    report: Report,
    module: ModuleHandle,
    x: Tensor,
    assignment: Assignment,
    *,
    dead: tuple[str, ...] = (),
) -> None:
    """A fresh block, its last layer alone at zero, gets gradients everywhere.

    The gradient of the last layer must not vanish at the start. With random numbers in the last
    layer, that of every other layer must not either: all zeros would never learn.
    """
    last = assignment["out"]
    first = module.gradients(x, cotangent=report.randn(*x.shape)).parameters[last.weight]
    cause = "only the last layer starts at zero: the others keep their random numbers"
    report.true(
        "a fresh block can learn",
        first is not None and bool(first.abs().max() > 1e-12),
        expected="a gradient for the last layer",
        got="none" if first is None else "zero",
        cause="the branch is skipped while the last layer is zero" if first is None else cause,
    )
    weights = module.weights()
    module.load({last.weight: report.randn(*weights[last.weight].shape)})
    every_weight_learns(
        report, module, x, assignment, dead=dead, what="none starts dead", why=cause
    )


def same_in_eval_mode(report: Report, module: ModuleHandle, x: Tensor) -> None:
    """Training and evaluation compute the same (there is no dropout or BatchNorm)."""
    what = "the same in training and in evaluation"
    training = report.tensor(what, module.forward(x), tuple(x.shape))
    module.train(False)
    evaluation = module.forward(x)
    module.train(True)
    cause = "the code asks for self.training, or holds dropout or a BatchNorm"
    report.close(what, evaluation, training, cause=cause)


def large_inputs_stay_finite(report: Report, module: ModuleHandle, x: Tensor) -> None:
    """Similarities in the thousands do not overflow (random weights loaded before)."""
    result = module.forward(100 * x)
    report.true(
        "large inputs do not overflow",
        isinstance(result, Tensor) and bool(result.isfinite().all()),
        expected="finite numbers for an input of size 100",
        got="infinity or NaN",
        cause="exp overflows: use softmax, or subtract the maximum of each row first",
    )


def keeps_float32(report: Report, run: Callable[..., Any], *inputs: Tensor) -> None:
    """A float32 input gives a float32 result, equal to the float64 one within its precision."""
    what = "float32 in, float32 out"
    expected = run(*inputs)
    if not isinstance(expected, Tensor):
        report.tensor(what, expected, ())
    single = run(*(x.float() if isinstance(x, Tensor) else x for x in inputs))
    single = report.tensor(what, single, tuple(expected.shape), dtype=torch.float32)
    scale = expected.abs().max().item() + 1
    report.close(what, single.double(), expected, atol=1e-4 * scale)


def module_keeps_float32(
    report: Report, impl: Handle, x: Tensor, *arguments: Any, **options: Any
) -> None:
    """The same for a module as it is built, in float32, with the same random weights."""
    double = build(report, impl, *arguments, **options)
    single = build(report, impl, *arguments, **options, dtype=None)
    weights = {n: 0.3 * report.randn(*shape) for n, shape in double.parameters().items()}
    double.load(weights)
    single.load(weights)
    keeps_float32(report, lambda x: (single if x.dtype == torch.float32 else double).forward(x), x)


def blocks_are_apart(
    report: Report, impl: Handle, x: Tensor, *arguments: Any, **options: Any
) -> None:
    """A second block leaves the first one as it was."""
    what = "two blocks have layers of their own"
    first = build(report, impl, *arguments, **options)
    first.load({n: 0.7 * report.randn(*s) for n, s in first.parameters().items()})
    before = report.tensor(what, first.forward(x), tuple(x.shape))
    second = build(report, impl, *arguments, **options)
    second.load({n: 0.7 * report.randn(*s) for n, s in second.parameters().items()})
    second.forward(x)
    cause = "layers live outside of __init__ or in a default argument: make them in __init__"
    report.close(what, first.forward(x), before, cause=cause)


def randomise(report: Report, module: ModuleHandle, x: Tensor) -> None:
    """Give every parameter a random value; only now could the block change its input."""
    module.load({name: 0.7 * report.randn(*shape) for name, shape in module.parameters().items()})
    input_kept(report, module.inspect(x), x)


def positions_are_a_set(report: Report, module: ModuleHandle, x: Tensor) -> None:
    """Permuting the positions of the input permutes the result (random weights loaded before)."""
    order = report.permutation(x[0, 0].numel())
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    expected = module.forward(x)
    what = "shuffled positions give the shuffled result"
    expected = report.tensor(what, expected, tuple(x.shape))
    report.close(
        what,
        module.forward(shuffled),
        expected.flatten(2)[:, :, order].reshape(x.shape),
        cause="positions and channels are mixed when the map is folded or unfolded: flatten to "
        "(N, C', L), move axes with transpose, and go back the same way",
    )


def every_weight_learns(
    report: Report,
    module: ModuleHandle,
    x: Tensor,
    assignment: Assignment,
    *,
    dead: tuple[str, ...] = (),
    what: str = "every weight learns",
    why: str = "",
) -> None:
    """With random weights, backward reaches the input, every weight and every bias.

    Args:
        report: where the property is noted.
        module: the block.
        x: an input.
        assignment: the block's layers.
        dead: roles whose bias has no gradient by construction, a key before softmax for example.
        what: the property.
        why: likely cause; default: cut off from the graph.
    """
    found = module.gradients(x, cotangent=report.randn(*x.shape))
    missing = []
    for role, slot in assignment.items():
        names = {role: slot.weight}
        if slot.bias and role not in dead:
            names[f"the bias of {role}"] = slot.bias
        for label, name in names.items():
            gradient = found.parameters[name]
            if gradient is None or not bool(gradient.abs().max() > 1e-12):
                missing.append(label)
    report.true(
        what,
        not missing and found.inputs[0] is not None,
        expected="a gradient for every weight and for the input",
        got="none for " + (", ".join(missing) or "the input"),
        cause=why
        or "a part of the block is cut off from the graph (detach, data or no_grad), "
        "or its result is not used",
    )
