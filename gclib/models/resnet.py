"""ResNets, ResNeXts and Wide ResNets of torchvision with the paper's blocks.

>>> model = gc_resnet50()                                   # GC-ResNet-50, 28.08 M parameters
>>> model = gc_resnet50(weights="DEFAULT")                  # doctest: +SKIP
>>> model = build_resnet("resnet50", "4a/nl_1", stride_in="1x1")    # a row of table 4, 3.86 G + NL
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import Any

from torch import nn
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models._api import WeightsEnum
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.video.resnet import BasicBlock as VideoBasicBlock
from torchvision.models.video.resnet import Bottleneck as VideoBottleneck

from gclib.blocks._arguments import check_choice
from gclib.blocks.global_context import GCBlock
from gclib.blocks.registry import STAGES, find_row
from gclib.models.deformable import make_deformable
from gclib.models.insertion import Indices, insert_blocks, insert_row, stage_names
from gclib.models.slow_only import SlowBottleneck
from gclib.models.weights import load_weights, read_weights

_OWN: dict[str, Callable[..., ResNet]] = {
    # The X101 of table 3; torchvision has 32x8d and 64x4d alone.
    "resnext101_32x4d": partial(ResNet, Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4),
}
NAMES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)
STRIDES = ("3x3", "1x1")
Weights = WeightsEnum | str | PathLike[str] | None


def build_resnet(
    name: str,
    block: str | Callable[..., nn.Module] | None = None,
    *,
    weights: Weights = None,
    progress: bool = True,
    num_classes: int = 1000,
    stages: Iterable[str] = STAGES,
    position: str = "after_1x1",
    index: Indices | Mapping[str, Indices] | None = None,
    stride_in: str = "3x3",
    deformable: Iterable[str] = (),
    **options: Any,
) -> ResNet:
    """Build a network of torchvision with blocks.

    Args:
        name: one of :data:`NAMES`.
        block: a row of the paper's tables such as ``"4a/gc_all"``, which says where its blocks
            stand, or what :func:`gclib.models.insert_blocks` takes; None for no block.
        weights: None for random ones; torchvision's by name (``"IMAGENET1K_V1"``, ``"DEFAULT"``) or
            enum, downloaded into torch's cache; or the path of a file, with or without blocks, see
            :func:`gclib.models.load_weights`. Blocks that the weights lack start as the identity.
        progress: show the download.
        num_classes: classes; with another number than in the weights, the classifier is fresh.
        stages: of :func:`gclib.models.insert_blocks`; not with a row.
        position: likewise.
        index: likewise.
        stride_in: ``"3x3"`` as torchvision has it, or ``"1x1"``, as in the first ResNet and in the
            paper's 3.86 G (bottlenecks alone). Torchvision's weights belong to the first.
        deformable: stages whose 3×3 convolutions are deformable, for example ``("c3", "c4",
            "c5")``.
        options: of torchvision's ``ResNet``, for example ``norm_layer`` or ``zero_init_residual``.

    Returns:
        The network; ``.stride_in`` says where its strides are.

    Raises:
        ValueError, TypeError, FileNotFoundError: an argument or the weights do not fit.
    """
    check_choice("name", name, NAMES)
    check_choice("stride_in", stride_in, STRIDES)
    if "pretrained" in options:
        raise TypeError('pretrained= is of old torchvision: give weights="DEFAULT"')
    placed = {"stages": stage_names(stages), "position": position, "index": index}
    if isinstance(block, str) and placed != {
        "stages": STAGES,
        "position": "after_1x1",
        "index": None,
    }:
        raise ValueError(f"{block} says where its blocks stand: leave stages, position, index out")
    held = find_row(block).position if isinstance(block, str) else position
    state_dict = _read(name, weights, stride_in, None if block is None else held, progress)
    build = _OWN.get(name) or get_model_builder(name)
    model = build(num_classes=num_classes, **options)
    set_stride(model, stride_in)
    make_deformable(model, deformable)
    if isinstance(block, str):
        insert_row(model, block)
    elif block is not None:
        insert_blocks(model, block, **placed)
    if state_dict is not None:
        load_weights(model, state_dict)
    return model


def set_stride(model: nn.Module, stride_in: str) -> None:
    """Put the stride of every bottleneck into its 3×3 or its first 1×1 convolution, in place.

    Args:
        model: a network of torchvision, or :class:`gclib.models.SlowOnly`.
        stride_in: ``"3x3"`` or ``"1x1"``; afterwards in ``model.stride_in``.

    Raises:
        TypeError: the model has no residual blocks of these networks.
        ValueError: no such place; ``"1x1"`` for residual blocks without such a convolution, or for
            torchvision's 3D bottlenecks, which have no other form. The model is unchanged then.
    """
    check_choice("stride_in", stride_in, STRIDES)
    movable = (Bottleneck, SlowBottleneck)
    fixed = (BasicBlock, VideoBasicBlock, VideoBottleneck)
    residuals = [m for m in model.modules() if isinstance(m, movable + fixed)]
    if not residuals:
        raise TypeError(f"{type(model).__name__} has no residual blocks with a stride to move")
    if stride_in == "1x1" and any(isinstance(m, fixed) for m in residuals):
        kind = "are torchvision's 3D bottlenecks, which stride in the 3×3×3"
        if not any(isinstance(m, VideoBottleneck) for m in residuals):
            kind = "have no 1×1 convolution"
        raise ValueError(f"stride_in='1x1': the residual blocks {kind}")
    for bottleneck in (m for m in residuals if isinstance(m, movable)):
        stride = max(bottleneck.conv1.stride, bottleneck.conv2.stride)
        one = (1,) * len(stride)
        first, second = (one, stride) if stride_in == "3x3" else (stride, one)
        bottleneck.conv1.stride, bottleneck.conv2.stride = first, second
        if hasattr(bottleneck.conv2, "conv_offset"):
            bottleneck.conv2.conv_offset.stride = second
    model.stride_in = stride_in


def _read(name: str, weights: Weights, stride_in: str, position: str | None, progress: bool):
    """A state dict, or None."""
    if weights is None:
        return None
    known = [] if name in _OWN else list(get_model_weights(name).__members__)
    if isinstance(weights, WeightsEnum):
        if name in _OWN or weights not in get_model_weights(name):
            raise ValueError(f"weights={weights}: they are not weights of {name}")
        weights = weights.name
    if isinstance(weights, str) and weights in (*known, "DEFAULT"):
        if not known:
            raise ValueError(f"torchvision has no weights for {name}: give the path of a file")
        if stride_in != "3x3":
            raise ValueError(
                f"weights={weights!r} belong to stride_in='3x3': with {stride_in!r} the same "
                "weights are another function; train them, or give the path of a file"
            )
        return get_model_weights(name)[weights].get_state_dict(progress=progress, check_hash=True)
    return read_weights(weights, known=known, stride_in=stride_in, position=position)


def _gc(name: str) -> Callable[..., ResNet]:
    def build(
        weights: Weights = None,
        *,
        ratio: int = 16,
        progress: bool = True,
        num_classes: int = 1000,
        **options: Any,
    ) -> ResNet:
        return build_resnet(
            name,
            partial(GCBlock, ratio=ratio),
            weights=weights,
            progress=progress,
            num_classes=num_classes,
            **options,
        )

    build.__name__ = build.__qualname__ = f"gc_{name}"
    build.__doc__ = f"""{name} with a GC block in every residual block of c3 to c5.

    Args:
        weights: see :func:`build_resnet`.
        ratio: the paper's r.
        progress: show a download.
        num_classes: classes.
        options: of :func:`build_resnet`.
    """
    return build


gc_resnet18 = _gc("resnet18")
gc_resnet34 = _gc("resnet34")
gc_resnet50 = _gc("resnet50")
gc_resnet101 = _gc("resnet101")
gc_resnet152 = _gc("resnet152")
gc_resnext50_32x4d = _gc("resnext50_32x4d")
gc_resnext101_32x4d = _gc("resnext101_32x4d")
gc_resnext101_32x8d = _gc("resnext101_32x8d")
gc_resnext101_64x4d = _gc("resnext101_64x4d")
gc_wide_resnet50_2 = _gc("wide_resnet50_2")
gc_wide_resnet101_2 = _gc("wide_resnet101_2")
