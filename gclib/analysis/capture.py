"""Capture what a block sees and does, in any model (paper section 3.2).

>>> with capture(model) as captured:
...     model(images)
>>> captured["layer3.4.block"].attention.shape
torch.Size([2, 196, 196])
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

AttentionOf = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Captured:
    """What one block saw and did in one call.

    Attributes:
        input: ``(N, C, *positions)``.
        output: what the block adds to its input, z - x, of the same shape.
        attention: ``(N, queries, keys)``; one row where the block has one map for all queries.
    """

    input: Tensor
    output: Tensor
    attention: Tensor

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the position axes, (H, W) for an image."""
        return tuple(self.input.shape[2:])

    def vectors(self, what: str) -> Tensor:
        """``"input"``, ``"output"`` or ``"attention"`` as one vector per position ``(N, L, d)``.

        These are the vectors v_i of section 3.2.

        Raises:
            ValueError: another name.
        """
        if what == "attention":
            return self.attention
        if what not in ("input", "output"):
            raise ValueError(f"what={what!r}: expected 'input', 'output' or 'attention'")
        return getattr(self, what).flatten(2).transpose(1, 2)


@contextlib.contextmanager
def capture(
    model: nn.Module,
    *,
    attention_of: Callable[[nn.Module], AttentionOf | None] | None = None,
) -> Iterator[dict[str, Captured]]:
    """Capture the last call of every attention block below ``model`` while the context is open.

    The model computes what it always computes: the map of a block is taken out of the same call.
    Results are detached. When the context closes, the model is as it was, and nothing but the
    dictionary holds what was captured.

    Args:
        model: any module; it may be a block itself (its name is then ``""``).
        attention_of: for blocks of other libraries, a function that takes a module and returns
            a function ``(module, input) -> attention (N, queries, keys)``, or None for a module
            that is no block. Default: :func:`attention_of_peer`, which knows mmcv's and timm's.

    Yields:
        Name of each block that ran → :class:`Captured`.

    Raises:
        ValueError: no block below ``model``.
    """
    attention_of = attention_of or attention_of_peer
    captured: dict[str, Captured] = {}
    handles = []
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if is_block(module):
                handles += _hook_own(name, module, captured)
            elif function := attention_of(module):
                handles.append(_hook_peer(name, module, function, captured))
        if not handles:
            raise ValueError(
                f"{type(model).__name__} holds no attention block: expected a module whose forward "
                f"takes return_attention, or attention_of= that knows the block"
            )
        for handle in handles:
            stack.callback(handle.remove)
        yield captured


def is_block(module: nn.Module) -> bool:
    """Whether a module is one of the blocks here: its forward takes ``return_attention``."""
    forward = type(module).forward
    return "return_attention" in inspect.signature(forward).parameters


def _hook_own(name: str, module: nn.Module, captured: dict[str, Captured]) -> list:
    asked: list[bool] = []

    def before(_, args, kwargs):
        wanted = kwargs.get("return_attention", len(args) > 1 and args[1])
        asked.append(bool(wanted))
        return args[:1], {**kwargs, "return_attention": True}

    def after(_, args, result):
        z, attention = result
        captured[name] = _record(args[0], z, attention)
        return result if asked.pop() else z

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]


def _hook_peer(
    name: str, module: nn.Module, attention_of: AttentionOf, captured: dict[str, Captured]
):
    def after(_, args, z):
        with torch.no_grad():
            captured[name] = _record(args[0], z, attention_of(module, args[0]))

    return module.register_forward_hook(after)


def _record(x: Tensor, z: Tensor, attention: Tensor) -> Captured:
    x, z = x.detach(), z.detach()
    return Captured(x.clone(), z - x, attention.detach())


def attention_of_peer(module: nn.Module) -> AttentionOf | None:
    """How to compute the map of a block of mmcv (``NonLocalNd``) or timm (``NonLocalAttn``).

    Known by the names of their layers, so neither library has to be installed.
    """
    layers = {name for name, _ in module.named_children()}
    if {"theta", "phi", "g"} <= layers and hasattr(module, getattr(module, "mode", "?")):
        return _mmcv_attention
    if {"t", "p", "g", "z"} <= layers and hasattr(module, "scale"):
        return _timm_attention
    if {"g", "conv_out"} <= layers and getattr(module, "mode", "") == "gaussian":
        return _mmcv_attention
    return None


def _mmcv_attention(module: nn.Module, x: Tensor) -> Tensor:
    if module.mode == "gaussian":
        query, key = x.flatten(2), (module.phi(x) if module.sub_sample else x).flatten(2)
        return module.gaussian(query.transpose(1, 2), key)
    query, key = module.theta(x).flatten(2), module.phi(x).flatten(2)
    if module.mode == "concatenation":
        return module.concatenation(query[..., None], key[:, :, None])
    return getattr(module, module.mode)(query.transpose(1, 2), key)


def _timm_attention(module: nn.Module, x: Tensor) -> Tensor:
    query, key = module.t(x).flatten(2), module.p(x).flatten(2)
    return (query.transpose(1, 2) @ key * module.scale).softmax(2)
