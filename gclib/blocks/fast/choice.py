"""When a fast form may stand in for the plain formula."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

_plain = False


@contextlib.contextmanager
def plain_formulas() -> Iterator[None]:
    """Use the plain formulas of every block inside of the ``with``, to compare or to debug."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def usable(x: Tensor, *layers: nn.Module) -> bool:
    """Whether a block may compute with the weights of ``layers`` without calling them.

    Not while a graph is recorded, since compilers and exporters do better with the plain formula;
    not for subclasses of tensors; not where a hook waits for the call of a layer; not where the
    plain formula would refuse the dtype.
    """
    if _plain or torch.compiler.is_compiling() or type(x) is not Tensor or torch.jit.is_tracing():
        return False
    if _has_global_hooks() or any(_has_hooks(layer) for layer in layers):
        return False
    if torch.is_autocast_enabled(x.device.type):
        return True
    weights = (weight for layer in layers for weight in layer.parameters(recurse=False))
    return all(weight.dtype == x.dtype for weight in weights)


def _has_hooks(layer: nn.Module) -> bool:
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def _has_global_hooks() -> bool:
    return bool(
        _module._global_forward_hooks
        or _module._global_forward_pre_hooks
        or _module._global_backward_hooks
        or _module._global_backward_pre_hooks
    )


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype that autocast gives to products, where it is on."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)
