"""When a fast form may stand in for the plain formula."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as _module

_plain = 0  # how many ``plain_formulas`` are open, in all threads

_lock = threading.Lock()


@contextlib.contextmanager
def plain_formulas() -> Iterator[None]:
    """Use the plain formulas of every block inside of the ``with``, to compare or to debug.

    It holds for all threads. What checkpointing computes again must be inside of it too.
    """
    global _plain
    with _lock:
        _plain += 1
    try:
        yield
    finally:
        with _lock:
            _plain -= 1


def usable(x: Tensor, *layers: nn.Module) -> bool:
    """Whether a block may compute with the weights of ``layers`` without calling them.

    Not while a graph is recorded, since compilers and exporters do better with the plain formula;
    not for subclasses of tensors; not where a hook waits for the call of a layer or its method was
    replaced; not where the plain formula would refuse the dtype or the device.
    """
    if torch.compiler.is_compiling() or _plain or type(x) is not Tensor or torch.jit.is_tracing():
        return False
    if _has_global_hooks():
        return False
    device, dtype = x.device, x.dtype
    # Not on the meta device, for example.
    if not torch.amp.is_autocast_available(device.type):
        return False
    if torch.is_autocast_enabled(device.type):
        dtype = None  # any
    for layer in layers:
        if _is_changed(layer):
            return False
        for weight in layer._parameters.values():
            if weight is None:
                continue
            # On another device it is loaded when the layer is called.
            if weight.device != device or (dtype is not None and weight.dtype != dtype):
                return False
    return True


def _is_changed(layer: nn.Module) -> bool:
    own = layer.__dict__
    return bool(
        "forward" in own
        or "attention" in own
        or layer._forward_hooks
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


def differentiates_again() -> bool:
    """Whether what is computed now may be differentiated by more than one backward pass.

    True in a backward pass with ``create_graph``, in forward mode and inside of ``torch.func``.
    """
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype that autocast gives to products, where it is on."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)  # float64 is left alone, as autocast does
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)
