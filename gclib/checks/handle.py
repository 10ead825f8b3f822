"""The only way a check reaches a student's work.

A check calls a function, builds a module, loads weights, runs forward and backward, and lists
parameters; it never touches the student's objects. So the same check runs on an object of this
process (notebook, pytest: :class:`Handle`) and on one that lives in a process of its own.

What comes back is plain: detached copies of tensors, numbers, strings, tuples of these. Anything
else comes back as :class:`Opaque`, which knows its type's name alone.
"""

from __future__ import annotations

import contextlib
import linecache
import numbers
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._python_dispatch import TorchDispatchMode

from gclib.checks.outcome import STUB_MESSAGE


class StubReached(Exception):
    """The student's code ran into the stub of an exercise."""


class StudentError(Exception):
    """The student's code raised; ``str()`` tells what and in which of their lines.

    Attributes:
        kinds: names of the classes of what was raised, the most special one first.
        called: whether the code was entered at all; if not, the call itself did not fit.
    """

    def __init__(self, text: str, kinds: tuple[str, ...] = (), called: bool = True) -> None:
        super().__init__(text)
        self.kinds = kinds
        self.called = called


@dataclass(frozen=True)
class Opaque:
    """A returned value that a check has no use for."""

    type_name: str


@dataclass(frozen=True)
class Call:
    """What one call did.

    Attributes:
        result: the plain result.
        inputs: copies of the tensors passed in, as the call left them.
        largest: number of elements of the largest tensor that the call created.
        total: number of elements of all tensors that the call created.
    """

    result: Any
    inputs: tuple[Tensor, ...]
    largest: int
    total: int


@dataclass(frozen=True)
class Gradients:
    """Result of one forward and backward pass.

    Attributes:
        result: the plain result of the forward pass.
        inputs: gradient of each floating-point input; None where none arrived.
        parameters: gradient of each parameter by name; None where none arrived.
    """

    result: Any
    inputs: tuple[Tensor | None, ...]
    parameters: dict[str, Tensor | None]


class ModuleHandle:
    """A built module of the student, in this process."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def _named(self) -> dict[str, nn.Parameter]:
        named = _run(lambda: dict(nn.Module.named_parameters(self._module)), (), {})
        if any(isinstance(p, UninitializedParameter) for p in named.values()):
            raise StudentError(
                "a lazy layer has no weights before its first call: name its input channels"
            )
        return named

    def train(self, mode: bool) -> None:
        """Switch to training (True) or evaluation (False)."""
        _run(nn.Module.train, (self._module, mode), {})

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the trainable parameters, in order."""
        return {name: tuple(p.shape) for name, p in self._named().items() if p.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters' values."""
        return {name: plain(p) for name, p in self._named().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy values into the parameters of these names; shapes may differ by axes of size 1."""
        parameters = self._named()
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(value.reshape(parameters[name].shape))

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Run the module on copies of ``inputs``; the plain result."""
        return self.inspect(*inputs, **options).result

    def inspect(self, *inputs: Any, **options: Any) -> Call:
        """Run the module on copies of ``inputs`` and tell what the call did."""
        return _inspect(self._module, inputs, options)

    def gradients(self, *inputs: Any, cotangent: Tensor, **options: Any) -> Gradients:
        """Run forward, then backward from ``cotangent``, which has the result's shape."""
        for parameter in self._named().values():
            parameter.grad = None
        found = _gradients(self._module, inputs, options, cotangent)
        grads = {name: plain(p.grad) for name, p in self._named().items()}
        return Gradients(found.result, found.inputs, grads)


class Handle:
    """A function or class of the student, in this process."""

    is_check_handle = True

    def __init__(self, implementation: Callable) -> None:
        self._implementation = implementation
        self.name = getattr(implementation, "__name__", type(implementation).__name__)

    def call(self, *inputs: Any, **options: Any) -> Any:
        """Call the function on copies of ``inputs``; the plain result."""
        return self.inspect(*inputs, **options).result

    def inspect(self, *inputs: Any, **options: Any) -> Call:
        """Call the function on copies of ``inputs`` and tell what the call did."""
        return _inspect(self._implementation, inputs, options)

    def gradients(self, *inputs: Any, cotangent: Tensor, **options: Any) -> Gradients:
        """Call the function, then run backward from ``cotangent``."""
        return _gradients(self._implementation, inputs, options, cotangent)

    def build(
        self, *arguments: Any, dtype: torch.dtype | None = torch.float64, **options: Any
    ) -> ModuleHandle | Opaque:
        """Build a module, Opaque if it is not an ``nn.Module``; None leaves its dtype alone."""
        module = _run(self._implementation, arguments, options)
        if not isinstance(module, nn.Module):
            return Opaque(type(module).__name__)
        return ModuleHandle(_run(nn.Module.to, (module, dtype), {}) if dtype else module)


def wrap(implementation: Any) -> Handle:
    """Return a handle: the argument itself if it is one already."""
    known = getattr(type(implementation), "is_check_handle", False) is True
    return implementation if known else Handle(implementation)


_DEPTH = 3  # of tuples and lists in a result


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """Reduce a value to what may leave the student's code."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            return Opaque(f"{str(value.layout).removeprefix('torch.')} tensor on {value.device}")
        copy = value.detach().clone()
        return copy.as_subclass(Tensor)  # a subclass could lie in its operators
    if isinstance(value, (tuple, list)) and depth:
        items = [plain(item, depth - 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, numbers.Real):
        with contextlib.suppress(Exception):
            return float(value)
    return Opaque(type(value).__name__)


def _inspect(function: Callable, inputs: tuple, options: dict) -> Call:
    inputs = tuple(plain(item) for item in inputs)
    with _Sizes() as sizes:
        result = _run(function, inputs, options)
    tensors = tuple(item for item in inputs if isinstance(item, Tensor))
    return Call(plain(result), tuple(plain(t) for t in tensors), sizes.largest, sizes.total)


def _gradients(function: Callable, inputs: tuple, options: dict, cotangent: Tensor) -> Gradients:
    inputs = tuple(
        plain(item).requires_grad_() if isinstance(item, Tensor) else item for item in inputs
    )
    result = _run(function, inputs, options)
    tensors = [item for item in inputs if isinstance(item, Tensor)]
    if isinstance(result, Tensor) and result.requires_grad and result.shape == cotangent.shape:
        # From a scalar: backward of a given cotangent would import sympy, a second at first use.
        _run((result * cotangent.to(result.dtype)).sum().backward, (), {})
    return Gradients(plain(result), tuple(plain(t.grad) for t in tensors), {})


class _Sizes(TorchDispatchMode):
    """Record the sizes of the tensors that operations make, those inside of einsum included."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and the guard against it imports the compiler: two seconds."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, (tuple, list)) else (result,):
            # An expanded view has many elements and no memory.
            if isinstance(leaf, Tensor) and not function.is_view and not _is_expanded(leaf):
                self.largest = max(self.largest, leaf.numel())
                self.total += leaf.numel()
        return result


def _is_expanded(tensor: Tensor) -> bool:
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in pairs)


def _run(function: Callable, inputs: tuple, options: dict) -> Any:
    try:
        return function(*inputs, **options)
    except (KeyboardInterrupt, StudentError, StubReached):
        raise
    except NotImplementedError as error:
        if _text(error) in ("", STUB_MESSAGE):  # torch raises this type too, with a message
            raise StubReached from None
        raise _student_error(error) from None
    except SystemExit:
        raise StudentError("SystemExit: the code calls exit()", ("SystemExit",)) from None
    except RecursionError as error:
        text = f"RecursionError: {_text(error)}: does the code call itself?"
        raise StudentError(text, ("RecursionError",)) from None
    except BaseException as error:
        raise _student_error(error) from None
    finally:
        if torch.get_default_device().type != "cpu":  # the checker's own tensors live on the CPU
            torch.set_default_device(None)


def _text(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:
        return "(its message cannot be printed)"


def _student_error(error: BaseException) -> StudentError:
    """Say what was raised and in which line of the student's code, without any path."""
    text = _text(error)
    text = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    kinds = tuple(kind.__name__ for kind in type(error).__mro__)
    where = _line_of(error)
    return StudentError(f"{text}\n{where}" if where else text, kinds, called=bool(where))


def _line_of(error: BaseException) -> str:
    """The line that raised, and where the check's call entered if that is another function."""
    libraries = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(libraries)]
    if not theirs:
        return ""
    places = [theirs[-1]]
    if theirs[0].name != theirs[-1].name:
        places.append(theirs[0])
    return "\ncalled ".join(map(_place, places))


def _place(frame: traceback.FrameSummary) -> str:
    line = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
    where = f"in line {frame.lineno} of {frame.name}"
    return f"{where}: {line}" if line else where
