"""An exercise's check as an object: what it needs, what it is worth, and how it runs."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from gclib.checks.cards import show_failed, show_not_attempted, show_passed
from gclib.checks.handle import Handle, StubReached, StudentError, wrap
from gclib.checks.outcome import CheckFailed, NotAttempted
from gclib.checks.report import Report

Body = Callable[[Handle, Report], None]


@dataclass(frozen=True)
class Exercise:
    """The check of one exercise; call it with the student's function or class.

    Attributes:
        id: for example ``"c01-e2"``; also the ``grade_id`` of the cell that holds the answer.
        title: a few words.
        needs: name of the function or class that the student writes.
        look: where to look again when the check fails.
        points: points of the visible and of the hidden check; (0, 0) for a bonus.
        minutes: time a student should plan.
        hidden: whether this is the hidden check.
        body: the properties, as a function of a handle and a report.
    """

    id: str
    title: str
    needs: str
    look: str
    points: tuple[int, int]
    minutes: int
    hidden: bool
    body: Body

    def __call__(self, implementation: Any, seed: int = 0) -> None:
        """Check ``implementation``: print an ``ok`` line per property, return None.

        The same seed gives the same verdict. No global state is changed, nothing is written to
        stderr.

        Raises:
            NotAttempted: the stub is still there.
            CheckFailed: a property does not hold.
        """
        report = Report(self.id, self.look, seed)
        try:
            with isolation():
                self.body(wrap(implementation), report)
        except StubReached:
            error = NotAttempted(self.id, self.needs)
            show_not_attempted(error, self.hidden)
            raise error from None
        except StudentError as error:
            failed = CheckFailed(
                self.id,
                "runs without an error",
                expected="a result",
                got=str(error),
                cause=_cause_of(error),
                look=self.look,
            )
            show_failed(failed, self.hidden)
            raise failed from None
        except CheckFailed as failed:
            show_failed(failed, self.hidden)
            raise failed from None
        except Exception as error:
            # A result so odd that the check itself stumbled: still a verdict, never a traceback.
            failed = CheckFailed(
                self.id,
                "gives a result that can be read",
                expected="plain tensors, as the docstring says",
                got=f"something on which the check fails ({type(error).__name__})",
                cause="look at the type of what the code returns",
                look=self.look,
            )
            show_failed(failed, self.hidden)
            raise failed from None
        show_passed(self.id, self.title, len(report.passed), self.hidden)


def exercise(
    id: str,
    title: str,
    *,
    needs: str,
    look: str,
    points: tuple[int, int],
    minutes: int,
    hidden: bool = False,
) -> Callable[[Body], Exercise]:
    """Turn the body of a check into an :class:`Exercise`; arguments as its attributes."""

    def decorate(body: Body) -> Exercise:
        return Exercise(id, title, needs, look, points, minutes, hidden, body)

    return decorate


def hidden_check(visible: Exercise) -> Callable[[Body], Exercise]:
    """Turn a body into the hidden check of the exercise whose visible check is ``visible``."""
    return exercise(
        visible.id,
        visible.title,
        needs=visible.needs,
        look=visible.look,
        points=visible.points,
        minutes=visible.minutes,
        hidden=True,
    )


def exercises_of(module: Any) -> tuple[Exercise, ...]:
    """The exercises that a module of checks defines, in order."""
    found = [value for value in vars(module).values() if isinstance(value, Exercise)]
    return tuple(sorted(found, key=lambda exercise: exercise.id))


@contextlib.contextmanager
def isolation() -> Iterator[None]:
    """Leave no trace: random states, dtype, grad mode and flags are restored, stderr is kept.

    nbgrader gives no points for a cell that wrote to stderr, a warning of a library included, so
    whatever the student's code writes there is printed to stdout.
    """
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy else None
    python_state = random.getstate()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    device = torch.get_default_device()
    deterministic = torch.are_deterministic_algorithms_enabled()
    stderr = io.StringIO()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(stderr),
        ):
            warnings.simplefilter("ignore")
            torch.set_default_dtype(torch.float32)
            if device.type != "cpu":
                torch.set_default_device(None)
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        # These two cost seconds or restart a thread pool, so only where the student changed them.
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if stderr.getvalue():
            print(stderr.getvalue(), end="")


_SIGNATURE = "the signature was changed: keep the one of the stub"
_LAYER = (
    "channels and positions in the wrong order for the layer, or a layer for another number of axes"
)
_CAUSES = {
    "'NoneType'": "a call above returned None: does every function end with return?",
    "should be the same": "a tensor made in a fixed dtype: let it follow the input's dtype",
    "same dtype": "a tensor made in a fixed dtype: let it follow the input's dtype",
    "mat1 and mat2": "two shapes that do not fit: print both shapes before the product",
    "batch1": "two shapes that do not fit: print both shapes before the product",
    "batch2": "two shapes that do not fit: print both shapes before the product",
    "must match the size of tensor": "two shapes that do not fit: print both before the operation "
    "(is keepdim=True missing, or are H and W swapped?)",
    "torch.return_types": "max(dim) and min(dim) give values and indices: use amax, amin",
    "as parameter": "a layer's weight cannot be replaced by a tensor: use nn.init.zeros_(weight)",
    "more than 1 value per channel": "norm over the wrong axes: a BatchNorm compares examples, "
    "LayerNorm does not",
    "to match num_features": "a norm over other axes: use LayerNorm on the channels",
    "found element of type float": "a size that is not an int: divide with // in place of /",
    "Dimension out of range": "an axis that this tensor does not have: print its shape first",
    "einsum": "the letters of einsum and the axes of its operands do not match",
    "is invalid for input of size": "view or reshape with the wrong number of elements",
    "view size is not compatible": "view after transpose: use .reshape(), or .contiguous() first",
    "expected scalar type": "a tensor made in a fixed dtype: let it follow the input's dtype",
    "expected m1 and m2": "a tensor made in a fixed dtype: let it follow the input's dtype",
    "modified by an inplace operation": "a tensor changed in place that backward still needs",
    "leaf Variable that requires grad": "the input is changed in place: work on a new tensor",
    "NameError": "a name that this notebook does not define: run the cells above, in order",
    "attribute '_modules'": "super().__init__() must be the first line of __init__",
    "has no attribute": "a name that was not set in __init__, or misspelt",
    "positional argument": "a call with too many or too few arguments",
    "unexpected keyword argument": "a call with an argument of another name",
    "missing 1 required": "a call with an argument missing",
    "cannot assign module before": "super().__init__() must be the first line of __init__",
    "cannot assign parameter": "super().__init__() must be the first line of __init__",
    "unflatten": "an axis that does not hold the positions: print the shape before unflatten",
    "Expected 2D": _LAYER,
    "expected input": _LAYER,
}


def _cause_of(error: StudentError) -> str:
    said = str(error).split("\n")[0]  # what was raised, not the student's line of code
    signature = any(text in said for text in ("argument", "missing 1 required"))
    if signature and not error.called and "TypeError" in error.kinds:
        return _SIGNATURE
    return next((cause for text, cause in _CAUSES.items() if text in said), "")
