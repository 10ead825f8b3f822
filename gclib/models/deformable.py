"""Deformable convolution, version 1, in residual blocks (the DCN rows of table 3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gclib.blocks._arguments import check_choice
from gclib.models.insertion import LAYERS, STAGES


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
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError("a deformable convolution pads with zeros, by numbers")
        self.conv_offset = nn.Conv2d(
            self.in_channels,
            2 * self.kernel_size[0] * self.kernel_size[1],
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """Make it the plain convolution again."""
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` at the offsets that it gives."""
        from torchvision.ops import deform_conv2d

        offset = self.conv_offset(x)
        looked_at = type(offset) is Tensor and not torch.compiler.is_compiling()
        if looked_at and offset.device.type == "cpu" and offset.isnan().any():
            raise FloatingPointError(
                "offsets of a deformable convolution are not numbers: the training has diverged "
                "(lower the learning rate), or the input is NaN"
            )
        return deform_conv2d(
            x,
            offset,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


def make_deformable(model: nn.Module, stages: Iterable[str] = STAGES) -> list[str]:
    """Make the 3×3 convolution of every bottleneck of some stages deformable, in place.

    Args:
        model: a ResNet or ResNeXt with bottlenecks, see :func:`gclib.models.insert_blocks`.
        stages: of ``"c2"`` to ``"c5"``; all three of the paper by default.

    Returns:
        Names of the convolutions. They keep their weights, and the network its function.

    Raises:
        TypeError: no such stage, or residual blocks without a bottleneck.
        ValueError: a convolution is deformable already; the model is unchanged then.
    """
    found: dict[str, nn.Module] = {}
    for stage in (stages,) if isinstance(stages, str) else tuple(stages):
        check_choice("stages", stage, LAYERS)
        layer = getattr(model, LAYERS[stage], None)
        if layer is None:
            raise TypeError(f"{type(model).__name__} has no stage {LAYERS[stage]}")
        for number, residual in enumerate(layer):
            name = f"{LAYERS[stage]}.{number}"
            if not hasattr(residual, "conv3") or not isinstance(residual.conv2, nn.Conv2d):
                raise TypeError(f"{name}: expected a bottleneck with a 2D 3×3 convolution, conv2")
            if isinstance(residual.conv2, DeformableConv2d):
                raise ValueError(f"{name}.conv2 is deformable already")
            found[name] = residual
    for residual in found.values():
        residual.conv2 = _deformable(residual.conv2)
    return [f"{name}.conv2" for name in found]


def _deformable(plain: nn.Conv2d) -> DeformableConv2d:
    made = DeformableConv2d(
        plain.in_channels,
        plain.out_channels,
        plain.kernel_size,
        stride=plain.stride,
        padding=plain.padding,
        dilation=plain.dilation,
        groups=plain.groups,
        bias=plain.bias is not None,
        device=plain.weight.device,
        dtype=plain.weight.dtype,
    )
    made.weight, made.bias = plain.weight, plain.bias
    return made.train(plain.training)
