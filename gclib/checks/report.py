"""Properties of a student's work: one ``ok`` line each, or the reason why it does not hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from gclib.checks.handle import Opaque, StudentError
from gclib.checks.outcome import CheckFailed

# Likely cause → the result that it gives; a cause may show in several ways.
Mistakes = Mapping[str, Tensor | Sequence[Tensor]]
ATOL = 1e-8  # float64: identities hold to about 1e-14, mistakes are larger than 1e-3


class Report:
    """Collects what a check found; handed to the body of every check.

    Args:
        exercise: for example ``"c01-e2"``.
        look: where the student should look when nothing more precise is said.
        seed: seed of :meth:`randn`; the same seed gives the same verdict.
    """

    def __init__(self, exercise: str, look: str, seed: int) -> None:
        self.exercise = exercise
        self.look = look
        self.passed: list[str] = []
        self._group: list[str] | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> Tensor:
        """Random float64 numbers."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)

    def permutation(self, n: int) -> Tensor:
        """A random order of n things that is not the given one."""
        order = torch.randperm(n, generator=self._generator)
        return order.roll(1) if torch.equal(order, torch.arange(n)) else order

    def ok(self, what: str) -> None:
        """Note that a property holds."""
        self.passed.append(what)
        if self._group is None:
            print(f"ok  {what}")
        else:
            self._group.append(what)

    @contextlib.contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Print one line for all properties of one case, and name the case when one fails."""
        self._group = []
        try:
            yield
            count = len(self._group)
            print(f"ok  {name}: {count} {'property' if count == 1 else 'properties'}")
        except CheckFailed as failed:
            raise failed.in_case(name) from None
        except StudentError as error:
            text = f"{error}\nwhile checking {name}"
            raise StudentError(text, error.kinds, error.called) from None
        finally:
            self._group = None

    def fail(
        self, what: str, *, expected: str, got: str, cause: str = "", look: str = ""
    ) -> NoReturn:
        """Raise CheckFailed."""
        look = look or self.look
        raise CheckFailed(self.exercise, what, expected=expected, got=got, cause=cause, look=look)

    def true(self, what: str, condition: bool, *, expected: str, got: str, cause: str = "") -> None:
        """Note the property if ``condition`` holds, fail otherwise."""
        if not condition:
            self.fail(what, expected=expected, got=got, cause=cause)
        self.ok(what)

    def tensor(
        self,
        what: str,
        value: Any,
        shape: tuple[int, ...],
        *,
        cause: str = "",
        causes: Mapping[tuple[int, ...], str] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Return ``value`` if it is a finite tensor of ``shape``, fail otherwise.

        Args:
            what: the property.
            value: what came back from the student.
            shape: expected shape.
            cause: likely cause of any other shape.
            causes: likely causes of particular wrong shapes.
            dtype: expected dtype, that of the input.
        """
        if not isinstance(value, Tensor):
            name = value.type_name if isinstance(value, Opaque) else type(value).__name__
            reason = "the function ends without a return statement" if value is None else ""
            if isinstance(value, tuple):
                reason = "return one tensor alone"
                if len(value) == 1:
                    reason = "a comma at the end of the return line makes a tuple"
            elif name == "ndarray":
                reason = "remove .numpy(): return the tensor"
            self.fail(what, expected="a torch.Tensor", got=name, cause=reason)
        if tuple(value.shape) != shape:
            cause = (causes or {}).get(tuple(value.shape), cause)
            got = f"shape {tuple(value.shape)}"
            self.fail(what, expected=f"shape {shape}", got=got, cause=cause)
        if value.dtype != dtype:
            self.fail(
                what,
                expected=f"{str(dtype).removeprefix('torch.')}, the dtype of the input",
                got=str(value.dtype).removeprefix("torch."),
                cause="the code converts to a fixed dtype; let results follow the input",
            )
        if not value.isfinite().all():
            self.fail(what, expected="finite numbers", got=show(value), cause="overflow or 0/0")
        return value

    def close(
        self,
        what: str,
        got: Any,
        expected: Tensor,
        *,
        mistakes: Mistakes | None = None,
        cause: str = "",
        atol: float = ATOL,
    ) -> None:
        """Note the property if ``got`` equals ``expected``, fail with the likely cause otherwise.

        Args:
            what: the property.
            got: what came back from the student.
            expected: float64 tensor.
            mistakes: likely cause → the result it would give, or several.
            cause: likely cause when no mistake matches.
            atol: largest absolute difference allowed.
        """
        if isinstance(got, Tensor) and not got.isfinite().all() and got.shape == expected.shape:
            reason = cause or "overflow or 0/0"
            self.fail(what, expected=show(expected), got=show_beside(got, expected), cause=reason)
        got = self.tensor(what, got, tuple(expected.shape))
        if _equal(got, expected, atol):
            self.ok(what)
            return
        cause = known_mistake(got, mistakes or {}, max(atol, 1e-6)) or cause
        shown, beside = show(expected), show_beside(got, expected)
        if shown == beside:  # they agree in the digits shown
            difference = (got - expected).abs().max().item()
            beside = f"{beside}, up to {difference:.2g} away"
            cause = cause or "a small number added where the formula has none?"
        self.fail(what, expected=shown, got=beside, cause=cause)

    def gradient(self, what: str, got: Any, expected: Tensor) -> None:
        """Note the property if a gradient arrived and equals ``expected``."""
        if got is None:
            cause = "the result is cut off from the graph (detach, data, item, numpy or no_grad)"
            self.fail(what, expected="a gradient", got="none", cause=cause)
        cause = "a part of the formula is cut off from the graph (detach, data or no_grad)"
        self.close(what, got, expected, cause=cause)


def fits(value: Any, expected: Tensor, atol: float = ATOL) -> bool:
    """Whether a value is a tensor like ``expected`` in shape, dtype and numbers."""
    same = isinstance(value, Tensor) and value.shape == expected.shape
    return same and value.dtype == expected.dtype and _equal(value, expected, atol)


def distance(got: Any, expected: Tensor) -> float:
    """How far a result is from the expected one: infinitely if it has another shape."""
    if not isinstance(got, Tensor) or got.shape != expected.shape:
        return float("inf")
    return (got - expected).abs().max().nan_to_num(float("inf")).item()


def known_mistake(got: Tensor, mistakes: Mistakes, atol: float = 1e-6) -> str:
    """The cause that gives this result, or an empty string."""
    for cause, results in mistakes.items():
        for result in [results] if isinstance(results, Tensor) else results:
            if result.shape == got.shape and _equal(got, result, atol):
                return cause
    return ""


def _equal(a: Tensor, b: Tensor, atol: float) -> bool:
    return bool(((a - b).abs() <= atol).all())


def show(tensor: Tensor) -> str:
    """Print a small tensor whole and a large one by shape and range."""
    if tensor.numel() <= 16:
        return _numbers(tensor)
    low, high = tensor.min().item(), tensor.max().item()
    return f"shape {tuple(tensor.shape)}, values from {low:.4g} to {high:.4g}"


def show_beside(got: Tensor, expected: Tensor) -> str:
    """Print a small tensor whole; of a large one, the first entry that differs most."""
    if got.numel() <= 16:
        return _numbers(got)
    difference = (got - expected).abs()
    index = torch.unravel_index(difference.argmax(), difference.shape)
    index = tuple(int(i) for i in index)
    return (
        f"up to {difference.max().item():.3g} away; at {list(index)}: "
        f"{got[index].item():.4g}, expected {expected[index].item():.4g}"
    )


def _numbers(tensor: Tensor) -> str:
    """Nested lists of short numbers, without the word tensor."""
    if tensor.dim() == 0:
        value = tensor.item()
        return f"{value:.4g}"
    return "[" + ", ".join(_numbers(part) for part in tensor) + "]"
