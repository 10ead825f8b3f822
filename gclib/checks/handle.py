"""The only way a check reaches a student's work.

A check calls a function, builds a module, loads weights, runs forward and backward, and lists
parameters; it never touches the student's objects. So the same check runs on an object of this
process (notebook, pytest: :class:`Handle`) and on one that lives in a process of its own.

What comes back is plain: detached copies of tensors, numbers, strings, tuples of these. Anything
else comes back as :class:`Opaque`, which knows its type's name alone.
"""

from __future__ import annotations

import linecache
import numbers
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gclib.checks.outcome import STUB_MESSAGE


class StubReached(Exception):
    """The student's code ran into the stub of an exercise."""


class StudentError(Exception):
    """The student's code raised; ``str()`` tells what and in which of their lines."""


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
    """

    result: Any
    inputs: tuple[Tensor, ...]
    largest: int


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

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the trainable parameters, in order."""
        named = self._module.named_parameters()
        return {name: tuple(p.shape) for name, p in named if p.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters' values."""
        return {name: plain(p) for name, p in self._module.named_parameters()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy values into the parameters of these names; shapes may differ by axes of size 1."""
        parameters = dict(self._module.named_parameters())
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
        for parameter in self._module.parameters():
            parameter.grad = None
        found = _gradients(self._module, inputs, options, cotangent)
        grads = {name: plain(p.grad) for name, p in self._module.named_parameters()}
        return Gradients(found.result, found.inputs, grads)


class Handle:
    """A function or class of the student, in this process."""

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

    def build(self, *arguments: Any, dtype=torch.float64, **options: Any) -> ModuleHandle | Opaque:
        """Build a module and convert it to ``dtype``; Opaque if it is not an ``nn.Module``."""
        module = _run(self._implementation, arguments, options)
        if not isinstance(module, nn.Module):
            return Opaque(type(module).__name__)
        return ModuleHandle(module.to(dtype))


def wrap(implementation: Any) -> Handle:
    """Return a handle: the argument itself if it is one already."""
    return implementation if hasattr(implementation, "inspect") else Handle(implementation)


def plain(value: Any) -> Any:
    """Reduce a value to what may leave the student's code."""
    if isinstance(value, Tensor):
        copy = value.detach().clone()
        return copy.as_subclass(Tensor)  # a subclass could lie in its operators
    if isinstance(value, (tuple, list)):
        return tuple(plain(item) for item in value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    return Opaque(type(value).__name__)


def _inspect(function: Callable, inputs: tuple, options: dict) -> Call:
    inputs = tuple(plain(item) for item in inputs)
    with _Sizes() as sizes:
        result = _run(function, inputs, options)
    tensors = tuple(item for item in inputs if isinstance(item, Tensor))
    return Call(plain(result), tuple(plain(t) for t in tensors), sizes.largest)


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


class _Sizes(TorchFunctionMode):
    """Record the size of the largest tensor that any torch function returns."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, (tuple, list)) else (result,):
            # An expanded view has many elements and no memory.
            if isinstance(leaf, Tensor) and not _is_expanded(leaf):
                self.largest = max(self.largest, leaf.numel())
        return result


def _is_expanded(tensor: Tensor) -> bool:
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and stride == 0 for size, stride in pairs)


def _run(function: Callable, inputs: tuple, options: dict) -> Any:
    try:
        return function(*inputs, **options)
    except NotImplementedError as error:
        if str(error) in ("", STUB_MESSAGE):  # torch raises this type too, with a message
            raise StubReached from None
        raise StudentError(_describe(error)) from None
    except KeyboardInterrupt:
        raise
    except SystemExit:
        raise StudentError("SystemExit: the code calls exit()") from None
    except RecursionError as error:
        raise StudentError(f"RecursionError: {error}: does the code call itself?") from None
    except Exception as error:
        raise StudentError(_describe(error)) from None


def _describe(error: Exception) -> str:
    """Say what was raised and in which line of the student's code, without any path."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    libraries = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(libraries):
            line = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
            where = f"line {frame.lineno} of {frame.name}"
            return f"{text}\nin {where}: {line}" if line else f"{text}\nin {where}"
    return text
