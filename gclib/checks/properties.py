"""Properties that many exercises share, phrased once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gclib.checks.handle import Call, Handle, ModuleHandle, Opaque, StudentError
from gclib.checks.report import Mistakes, Report, known_mistake
from gclib.checks.roles import Assignment, Shape, assignments, names_in, weights_for


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
        report.tensor(what, part, (1, *together.shape[1:]))
    cause = "examples are mixed: axis 0 must stay where it is"
    report.close(what, together, torch.cat(alone), cause=cause)


def raises_value_error(report: Report, what: str, function, argument: str) -> None:
    """An unknown option is refused with a ValueError."""
    try:
        function()
        got = "a result"
    except StudentError as error:
        got = str(error)
    report.true(
        what,
        got.startswith("ValueError"),
        expected="a ValueError",
        got=got,
        cause=f"an unknown {argument} falls through to one of the known ones: end with raise "
        f"ValueError(...)",
    )


def build(report: Report, impl: Handle, *arguments: Any, **options: Any) -> ModuleHandle:
    """Build the student's module, in float64."""
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
    mistakes: Mistakes | None = None,
    cause: str = "",
) -> Assignment:
    """Load ``values`` into the roles and compare the result of ``x``; the assignment that fits.

    Where names do not tell the roles, every assignment is tried and one must fit.
    """
    mistakes = mistakes or {}
    results = []
    for assignment in found:
        module.load(weights_for(assignment, values))
        results.append(report.tensor(what, module.forward(x), tuple(expected.shape)))
        if (results[-1] - expected).abs().max() < 1e-8:
            report.ok(what)
            return assignment
    # Show the assignment whose mistake is known, or the first.
    known = [result for result in results if known_mistake(result, mistakes)]
    report.close(what, (known or results)[0], expected, mistakes=mistakes, cause=cause)
    return found[0]


def identity_at_start(report: Report, module: ModuleHandle, x: Tensor) -> None:
    """A fresh additive block returns its input."""
    what = "a fresh block is the identity"
    start = report.tensor(what, module.forward(x), tuple(x.shape))
    if start.abs().max() == 0:
        cause = "the residual is forgotten: the input is not added back"
        report.fail(what, expected="z = x", got="z = 0 everywhere", cause=cause)
    report.close(
        what,
        start,
        x,
        mistakes={"the residual is counted twice": 2 * x, "the input is subtracted": -x},
        cause="the last layer does not start at zero: set its weight and its bias to zero",
    )


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
    report: Report, module: ModuleHandle, x: Tensor, assignment: Assignment
) -> None:
    """With random weights, backward reaches the input and every role."""
    found = module.gradients(x, cotangent=report.randn(*x.shape))
    missing = []
    for role, slot in assignment.items():
        gradient = found.parameters[slot.weight]
        if gradient is None or not bool(gradient.abs().max() > 1e-12):
            missing.append(role)
    report.true(
        "every weight learns",
        not missing and found.inputs[0] is not None,
        expected="a gradient for every weight and for the input",
        got="none for " + (", ".join(missing) or "the input"),
        cause="a part of the block is cut off from the graph (detach, data or no_grad), "
        "or its result is not used",
    )
