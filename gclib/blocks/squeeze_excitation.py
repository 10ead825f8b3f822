r"""Squeeze-excitation block as an instance of the framework (paper section 4.2, figure 4c)."""

from __future__ import annotations

import torch

from gclib.blocks.framework import (
    AveragePooling,
    BottleneckTransform,
    ContextBlock,
    ScaleFusion,
)


class SEBlock(ContextBlock):
    r"""SE block: average pooling, bottleneck without norm, scaling.

    .. math:: z_i = x_i \cdot \sigma\Bigl(W_2\,\mathrm{ReLU}\bigl(W_1
              \tfrac{1}{N_p}\textstyle\sum_{j=1}^{N_p} x_j\bigr)\Bigr)

    It is ``ContextBlock(AveragePooling(), BottleneckTransform(C, ratio=ratio), ScaleFusion())``.
    The paper's table rows *avg+scale*, made with the released code, have a LayerNorm in the
    bottleneck: that other block is the registry's ``2f/avg_scale``.

    Args:
        in_channels: channels C of the feature map.
        ratio: the paper's r, an integer; the hidden width is ``in_channels // ratio``.
        ndim: number of position axes: 1, 2 (default) or 3.
        gate: ``"sigmoid"`` (default) or ``"2sigmoid"``, see :class:`ScaleFusion`.
        bias: biases of both maps (default True).
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError, ValueError: an argument or the input does not fit; the message says how.

    :math:`W_2` starts at zero, so that a fresh block multiplies by 1/2 (by 1 with ``"2sigmoid"``).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ratio: int = 16,
        ndim: int = 2,
        gate: str = "sigmoid",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            AveragePooling(),
            BottleneckTransform(in_channels, ratio=ratio, bias=bias, device=device, dtype=dtype),
            ScaleFusion(gate),
            ndim=ndim,
        )
