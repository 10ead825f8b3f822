"""Checks of arguments and inputs, shared by every block.

Each message names the value that was given, what was expected, and the nearest valid choice.
"""

from __future__ import annotations

import difflib
import numbers
import operator
from collections.abc import Iterable

import torch
from torch import Tensor, fx

AXES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, T, H, W)"}


def check_choice(name: str, value: object, choices: Iterable[str | None]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``, naming the nearest one."""
    choices = tuple(choices)
    if value in choices:
        return
    names = [choice for choice in choices if isinstance(choice, str)]
    if len(choices) > 20:  # row ids: those of the same table are enough
        table = str(value).split("/")[0]
        choices = tuple(n for n in names if n.startswith(f"{table}/")) or ("<table>/<row>",)
    message = f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}"
    near = difflib.get_close_matches(str(value).lower().replace("-", "_"), names, n=1, cutoff=0.5)
    raise ValueError(f"{message}; did you mean {near[0]!r}?" if near else message)


def check_integer(name: str, value: object, hint: str = "") -> int:
    """Return ``value`` as a positive int; TypeError or ValueError with ``hint`` otherwise."""
    hint = f"; {hint}" if hint else ""
    try:
        if isinstance(value, bool):
            raise TypeError
        value = operator.index(value)  # takes numpy integers too, refuses 2.0
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected a positive integer{hint}") from None
    if value < 1:
        raise ValueError(f"{name}={value}: expected a positive integer{hint}")
    return value


def check_ndim(ndim: object) -> int:
    """Return ``ndim`` if it is 1, 2 or 3."""
    shapes = ", ".join(f"{k} for {v}" for k, v in AXES.items())
    hint = f"the number of position axes: {shapes}"
    value = check_integer("ndim", ndim, hint)
    if value not in AXES:
        raise ValueError(f"ndim={ndim!r}: expected {hint}")
    return value


def check_bool(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False: the string "none" is true for Python."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False")
    return value


def check_positive(name: str, value: object, also: str = "") -> float:
    """Return ``value`` as a float if it is a positive finite number."""
    expected = f"{name}={value!r}: expected {also}a positive number"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(expected)
    if not 0 < value < float("inf"):
        raise ValueError(expected)
    return float(value)


def check_divisor(name: str, value: object, in_channels: int) -> int:
    """Return the width ``in_channels // value`` of a bottleneck, at least 1.

    ``value`` is a divisor as in the paper (C/r); code that multiplies by 1/r gets told so.
    """
    hint = ""
    if isinstance(value, float) and 1e-6 < value < 1:
        hint = f"the width is in_channels // {name}, so did you mean {name}={round(1 / value)}?"
    elif isinstance(value, float) and value.is_integer():
        hint = f"did you mean {name}={int(value)}?"
    value = check_integer(name, value, hint)
    if value > in_channels:
        raise ValueError(
            f"{name}={value}: leaves no channels of in_channels={in_channels}; "
            f"expected at most {name}={in_channels}"
        )
    return in_channels // value


def check_input(x: object, in_channels: int | None, ndim: int, block: str) -> None:
    """Refuse anything but a floating-point feature map ``(N, in_channels, *positions)``.

    N may be 0; the map must hold at least one position, since a mean over none is undefined.
    ``in_channels=None`` leaves the channels to the parts of the block.
    """
    if isinstance(x, fx.Proxy):  # symbolic tracing has no values to look at
        return
    if not isinstance(x, Tensor):
        raise TypeError(f"{block}: expected a tensor {AXES[ndim]}, got {type(x).__name__}")
    if x.dim() != ndim + 2:
        hint = ""
        if x.dim() == ndim + 1 and x.shape[0] == in_channels:
            hint = "; the axis of the examples is missing: pass x[None]"
        elif x.dim() - 2 in AXES and in_channels in (None, x.shape[1]):
            hint = f"; pass ndim={x.dim() - 2} to the constructor"
        raise ValueError(
            f"{block}(ndim={ndim}): expected {ndim + 2} axes {AXES[ndim]}, "
            f"got {x.dim()} axes {tuple(x.shape)}{hint}"
        )
    if in_channels is not None and x.shape[1] != in_channels:
        raise ValueError(
            f"{block}: expected in_channels={in_channels} on axis 1 of {AXES[ndim]}, "
            f"got {x.shape[1]} in {tuple(x.shape)}"
        )
    if not torch.is_floating_point(x):
        raise TypeError(
            f"{block}: expected a floating-point tensor, got {x.dtype}; did you mean x.float()?"
        )
    if 0 in x.shape[2:]:
        raise ValueError(f"{block}: expected at least one position, got {tuple(x.shape)}")
