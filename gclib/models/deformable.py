"""Deformable convolution, version 1, in residual blocks (the DCN rows of table 3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from gclib.models.insertion import LAYERS, STAGES, stage_names


class DeformableConv2d(nn.Conv2d):
    """A convolution that samples at learned offsets; torchvision's operator, mmcv's names.

    Offsets come from a convolution of the same kernel and stride, which starts at zero: a fresh
    module computes what the convolution with its weights computes. There is no modulation
    (``modulated=False`` in the official configurations).

    Args:
        As ``nn.Conv2d``; zero padding, which is the operator's.

    Shape: as ``nn.Conv2d``. Parameters: ``weight``, ``bias``, ``conv_offset.weight``,
    ``conv_offset.bias``; the offsets are pairs (row, column), as in mmcv.

    Raises:
        ValueError: another padding than zeros.
        FloatingPointError: an offset is not a number, on a CPU, where the operator would end the
            process.
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        _check_padding(self)
        self.conv_offset = _offsets_for(self)

    def reset_offsets(self) -> None:
        """Make it the plain convolution again."""
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` at the offsets that it gives."""
        offset = self.conv_offset(x)
        return _sample(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation)


def _sample(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Torchvision's operator; in float32 for narrower types, which it does not have everywhere."""
    from torchvision.ops import deform_conv2d

    looked_at = type(offset) is Tensor and not (
        torch.compiler.is_compiling() or torch.jit.is_tracing()
    )
    if looked_at and offset.device.type == "cpu" and offset.isnan().any():
        raise FloatingPointError(
            "offsets of a deformable convolution are not numbers: the training has diverged "
            "(lower the learning rate), or the input is NaN"
        )
    dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    z = deform_conv2d(
        x.to(dtype),
        offset.to(dtype),
        weight.to(dtype),
        None if bias is None else bias.to(dtype),
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    return z.to(x.dtype)


fx.wrap("_sample")  # a leaf of symbolic tracing: the check looks at numbers


def make_deformable(model: nn.Module, stages: Iterable[str] = STAGES) -> list[str]:
    """Make the 3×3 convolution of every bottleneck of some stages deformable, in place.

    Args:
        model: a ResNet or ResNeXt with bottlenecks, see :func:`gclib.models.insert_blocks`.
        stages: of ``"c2"`` to ``"c5"``; all three of the paper by default.

    Returns:
        Names of the convolutions. They keep their weights and hooks, and the network its function.

    Raises:
        TypeError: the model has no such stage; residual blocks without a bottleneck; a 3×3
            convolution of another class than ``nn.Conv2d``, or with a weight that is computed
            (parametrized, pruned).
        ValueError: ``stages`` names none of ``"c2"`` to ``"c5"``; a convolution is deformable
            already, or does not pad with zeros.

    The model is unchanged when an error is raised.
    """
    found: dict[str, nn.Conv2d] = {}
    for stage in stage_names(stages, none_is_fine=True):
        layer = getattr(model, LAYERS[stage], None)
        if layer is None:
            raise TypeError(f"{type(model).__name__} has no stage {LAYERS[stage]}")
        for number, residual in enumerate(layer):
            name = f"{LAYERS[stage]}.{number}"
            if not hasattr(residual, "conv3") or not isinstance(residual.conv2, nn.Conv2d):
                raise TypeError(f"{name}: expected a bottleneck with a 2D 3×3 convolution, conv2")
            _check_plain(f"{name}.conv2", residual.conv2)
            found[f"{name}.conv2"] = residual.conv2
    offsets = {name: _offsets_for(convolution) for name, convolution in found.items()}
    for name, convolution in found.items():
        # The class is exchanged, not the module: hooks and whoever holds it keep it.
        convolution.__class__ = DeformableConv2d
        convolution.conv_offset = offsets[name]
    return list(found)


def _check_plain(name: str, convolution: nn.Conv2d) -> None:
    if isinstance(convolution, DeformableConv2d):
        raise ValueError(f"{name} is deformable already")
    if not isinstance(convolution._parameters.get("weight"), nn.Parameter):
        raise TypeError(
            f"{name} has a weight that is computed (parametrized or pruned): remove that first, "
            "with torch.nn.utils.parametrize.remove_parametrizations or prune.remove"
        )
    if type(convolution) is not nn.Conv2d:
        raise TypeError(f"{name} is a {type(convolution).__name__}: expected an nn.Conv2d")
    _check_padding(convolution)


def _check_padding(convolution: nn.Conv2d) -> None:
    if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        raise ValueError("a deformable convolution pads with zeros, by numbers")


def _offsets_for(convolution: nn.Conv2d) -> nn.Conv2d:
    """The convolution that gives two offsets for each tap; zero."""
    made = nn.Conv2d(
        convolution.in_channels,
        2 * convolution.kernel_size[0] * convolution.kernel_size[1],
        convolution.kernel_size,
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made.train(convolution.training)
