"""The norms of a network: batch statistics, those of all processes, or fixed ones.

>>> body = detector.backbone.body                            # doctest: +SKIP
>>> freeze(body, ("stem", "c2"))                             # the paper's detector: section 4.1
>>> convert_norms(body, "sync")                              # norms of the stem and c2 stay frozen
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclib.blocks._arguments import check_choice
from gclib.models.insertion import LAYERS

KINDS = ("batch", "sync", "frozen")
_BATCH: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


class FrozenBatchNorm(nn.Module):
    r"""Batch normalisation with fixed statistics and weights, for maps of any number of axes.

    .. math:: y = \gamma \, \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    As torchvision's ``FrozenBatchNorm2d``: nothing in it learns, and training mode changes
    nothing. Its state dict has the keys of ``nn.BatchNorm2d`` (``num_batches_tracked`` may be
    missing when it is loaded).

    Args:
        num_features: channels C.
        eps: as of the norm that it stands for.

    Shape: ``(N, C, *positions)``, also ``(N, C)``; the result has the dtype of the input.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.momentum: float | None = 0.1
        self.affine = self.track_running_stats = True
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.register_buffer("weight", torch.ones(num_features, **factory))
        self.register_buffer("bias", torch.zeros(num_features, **factory))
        self.register_buffer("running_mean", torch.zeros(num_features, **factory))
        self.register_buffer("running_var", torch.ones(num_features, **factory))
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, scale and shift ``(N, C, *positions)``."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def extra_repr(self) -> str:
        """Show the channels and the epsilon."""
        return f"{self.num_features}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict, prefix, *args, **options) -> None:
        # Torchvision's frozen norms and old files have no counter.
        counter = f"{prefix}num_batches_tracked"
        added = counter not in state_dict
        if added:
            state_dict[counter] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        if added:
            del state_dict[counter]


def convert_norms(model: nn.Module, kind: str, *, process_group: Any = None) -> nn.Module:
    """Make every batch norm of ``model`` one of another kind, in place.

    =============  ===============================================================================
    ``"batch"``    ``nn.BatchNorm1d``, ``2d`` or ``3d``: statistics of the batch of this process
    ``"sync"``     ``nn.SyncBatchNorm``: statistics of the batches of all processes
    ``"frozen"``   :class:`FrozenBatchNorm`: fixed statistics, no gradient
    =============  ===============================================================================

    A norm stays the same object with its weights, running statistics, epsilon, momentum, mode and
    hooks, also inside of inserted blocks; its class is exchanged. Other norms (LayerNorm,
    GroupNorm) are left alone, and so are norms that :func:`freeze` froze. Convert before the
    optimizer takes the parameters and before the network is wrapped or compiled: to and from
    frozen, weights become buffers and parameters anew.

    Args:
        model: with norms of torch or torchvision's ``FrozenBatchNorm2d``.
        kind: see above.
        process_group: of ``"sync"``: the processes that share statistics; None for all.

    Returns:
        ``model``.

    Raises:
        ValueError: no such kind; a norm without running statistics is to be frozen; for a
            ``SyncBatchNorm`` the model's convolutions do not tell the number of axes.
        TypeError: a norm is of a class derived from torch's (exchanged, parametrized, lazy).

    The model is unchanged when an error is raised.
    """
    check_choice("kind", kind, KINDS)
    _convert(_norms(model, ""), kind, model, process_group)
    return model


def freeze(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Take parts of ``model`` out of the training, in place: no gradient, and frozen norms.

    ``model.train()`` and :func:`convert_norms` leave their norms frozen.

    Args:
        model: a ResNet or, for example, the ``backbone.body`` of a detector.
        names: of children, such as ``"layer1"`` or ``"layer1.0.conv1"``; also ``"stem"`` (the first
            convolution and its norm) and the paper's ``"c2"`` to ``"c5"``. The paper's detectors
            freeze the stem and c2.

    Returns:
        Names of the children.

    Raises:
        ValueError: there is no such child.
        TypeError, ValueError: a norm cannot be frozen, see :func:`convert_norms`.

    The model is unchanged when an error is raised.
    """
    children = {
        child: module
        for name in ((names,) if isinstance(names, str) else names)
        for child, module in _children(model, name).items()
    }
    norms = {n: m for child, module in children.items() for n, m in _norms(module, child).items()}
    _convert(norms, "frozen", model, None)
    for norm in norms.values():
        norm.held = True
    for module in children.values():
        module.requires_grad_(False)
    return list(children)


def _children(model: nn.Module, name: str) -> dict[str, nn.Module]:
    known = dict(model.named_modules())
    if name == "stem" and name not in known:
        found = [child for child in ("conv1", "bn1") if child in known]
    else:
        found = [n for n in (name, LAYERS.get(name)) if n and n in known][:1]
    if not found:
        children = [child for child, _ in model.named_children()]
        check_choice("names", name, ("stem", *LAYERS, *children))
        raise ValueError(f"names={name!r}: {type(model).__name__} has no such part")
    return {child: known[child] for child in found}


def _norms(module: nn.Module, prefix: str) -> dict[str, nn.Module]:
    """Name → norm, of every kind that can be converted."""
    from torchvision.ops import FrozenBatchNorm2d

    kinds = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm, FrozenBatchNorm2d)
    exact = (*_BATCH.values(), nn.SyncBatchNorm, FrozenBatchNorm, FrozenBatchNorm2d)
    found = {n: m for n, m in module.named_modules(prefix=prefix) if isinstance(m, kinds)}
    for name, norm in found.items():
        if type(norm) not in exact:
            raise TypeError(
                f"{name} is a {type(norm).__module__}.{type(norm).__name__}: expected a batch norm "
                "of torch itself"
            )
    return found


def _convert(norms: dict[str, nn.Module], kind: str, model: nn.Module, process_group: Any) -> None:
    wanted: dict[str, type[nn.Module]] = {}
    for name, norm in norms.items():
        if kind == "frozen" and getattr(norm, "running_mean", None) is None:
            raise ValueError(f"{name} has no running statistics: it cannot be frozen")
        if kind == "batch" and not getattr(norm, "held", False):
            wanted[name] = _BATCH[_axes(name, norm, model)]
    for name, norm in norms.items():
        if kind == "frozen":
            _become_frozen(norm)
        elif not getattr(norm, "held", False):
            _become_batch(norm, wanted.get(name, nn.SyncBatchNorm), process_group)


def _axes(name: str, norm: nn.Module, model: nn.Module) -> int:
    """Over how many axes of positions a norm goes; SyncBatchNorm does not say it."""
    for axes, cls in _BATCH.items():
        if cls in (type(norm), getattr(norm, "was", None)):
            return axes
    if type(norm).__name__ == "FrozenBatchNorm2d":
        return 2
    found = {
        axes for m in model.modules() for cls, axes in _CONVOLUTIONS.items() if isinstance(m, cls)
    }
    if len(found) != 1:
        raise ValueError(
            f"{name} is a {type(norm).__name__}, and the model's convolutions do not tell whether "
            "its maps have 1, 2 or 3 axes: build the network anew with nn.BatchNorm1d, 2d or 3d"
        )
    return found.pop()


def _remember(norm: nn.Module) -> None:
    if type(norm) in _BATCH.values():
        norm.was = type(norm)


def _become_frozen(norm: nn.Module) -> None:
    if type(norm) is FrozenBatchNorm:
        return
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        _remember(norm)
        # In the order of a batch norm's state dict.
        weights = {key: None if p is None else p.detach() for key, p in norm._parameters.items()}
        norm._parameters.clear()
        norm._buffers = {**weights, **norm._buffers}
    else:
        _complete(norm)
    norm.__class__ = FrozenBatchNorm


def _become_batch(norm: nn.Module, cls: type[nn.Module], process_group: Any) -> None:
    if type(norm) is cls and cls is not nn.SyncBatchNorm:
        return
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        if type(norm) is not FrozenBatchNorm:
            _complete(norm)
        for key in ("weight", "bias"):
            value = norm._buffers.pop(key)
            norm._parameters[key] = None if value is None else nn.Parameter(value)
    _remember(norm)
    norm.__class__ = cls
    if cls is nn.SyncBatchNorm:
        norm.process_group = process_group


def _complete(norm: nn.Module) -> None:
    """What torchvision's frozen norm lacks of a batch norm."""
    norm.num_features, norm.momentum = norm.weight.numel(), 0.1
    norm.affine = norm.track_running_stats = True
    norm.was = nn.BatchNorm2d
    norm.register_buffer("num_batches_tracked", torch.tensor(0, device=norm.weight.device))
