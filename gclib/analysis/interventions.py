"""Change the map inside of a trained block, and leave everything else (the controls of chapter 02).

A distance compares maps with each other. Whether a network *uses* its different maps, only its
result can tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gclib.blocks.non_local import NonLocalBlock


def permuted(maps: Tensor) -> Tensor:
    """Each query gets the map of another one: ``(N, L, M)``, one fixed shuffle for each L."""
    order = torch.randperm(maps.shape[1], generator=torch.Generator().manual_seed(0))
    return maps[:, order.to(maps.device)]


def mean_of_all(maps: Tensor) -> Tensor:
    """Each query gets the mean of all maps: ``(N, L, M)``."""
    return maps.mean(dim=1, keepdim=True).expand_as(maps)


CHANGES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "as they are": None,
    "queries permuted": permuted,
    "the mean of all maps": mean_of_all,
}


def non_local_blocks(model: nn.Module) -> dict[str, NonLocalBlock]:
    """Name → each block of a model that has a map for each query."""
    return {n: m for n, m in model.named_modules() if isinstance(m, NonLocalBlock)}


@contextlib.contextmanager
def with_maps(model: nn.Module, change: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
    """Every non-local block below ``model`` uses ``change(map)`` while the context is open.

    Args:
        model: any module.
        change: maps ``(N, L, M)`` → maps; None leaves them.
    """
    blocks = list(non_local_blocks(model).values()) if change else []
    try:
        for block in blocks:
            own = block.attention
            block.attention = lambda query, key, own=own: change(own(query, key))
        yield
    finally:
        for block in blocks:
            vars(block).pop("attention", None)


@contextlib.contextmanager
def untrained(
    model: nn.Module,
    *,
    scale: float | Callable[[NonLocalBlock], float] | None = None,
    seed: int = 0,
) -> Iterator[None]:
    """The blocks below ``model`` start anew while the context is open; all else stays trained.

    The last weights of a fresh block are zero, so it has no output to measure. Here they are drawn
    with standard deviation 0.01, as the authors' later public code starts :math:`W_q` and
    :math:`W_k`.

    Args:
        model: any module with blocks.
        scale: of the products of the two Gaussians, or what gives it for a block; None for that of
            the block.
        seed: of the weights.
    """
    blocks = [m for m in model.modules() if hasattr(m, "reset_identity")]
    kept = [{k: v.clone() for k, v in block.state_dict().items()} for block in blocks]
    scales = {block: block.scale for block in blocks if isinstance(block, NonLocalBlock)}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for block in blocks:
                _start_anew(block)
                if scale is not None and block in scales:
                    block.scale = scale(block) if callable(scale) else scale
        yield
    finally:
        for block, state in zip(blocks, kept, strict=True):
            block.load_state_dict(state)
        for block, own in scales.items():
            block.scale = own


def _start_anew(block: nn.Module) -> None:
    """Draw on the CPU, so that every device has the same weights."""
    device = next(block.parameters()).device
    block.cpu()
    for module in reversed(list(block.modules())):  # a block's own way comes behind its layers'
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for module in block.modules():
        weight = module._parameters.get("weight")
        if weight is not None and not weight.any():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.01)
            else:  # of a norm
                nn.init.ones_(weight)
    block.to(device)
