r"""Global context block (paper section 4.3, equation 5, figure 4d)."""

from __future__ import annotations

import torch

from gclib.blocks.framework import (
    AddFusion,
    AttentionPooling,
    BottleneckTransform,
    ContextBlock,
)


class GCBlock(ContextBlock):
    r"""GC block: attention pooling, bottleneck with LayerNorm, addition.

    .. math:: z_i = x_i + W_{v2}\,\mathrm{ReLU}\Bigl(\mathrm{LN}\Bigl(W_{v1}
              \sum_{j=1}^{N_p} \frac{e^{W_k x_j}}{\sum_{m=1}^{N_p} e^{W_k x_m}}\,x_j
              \Bigr)\Bigr)

    It is ``ContextBlock(AttentionPooling(C), BottleneckTransform(C, ratio=ratio, norm=True),
    AddFusion())``, and the function of mmcv's ``ContextBlock(C, ratio=1/ratio)``.

    Args:
        in_channels: channels C of the feature map.
        ratio: the paper's r, an integer (mmcv and the official code take 1/r).
        ndim: number of position axes: 1, 2 (default) or 3.
        norm_eps: epsilon of the LayerNorm; 1e-5 as in the official code.
        bias: biases of the three maps. The formula has none; the printed parameter counts (28.08 M
            for GC-ResNet-50) include them.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError, ValueError: an argument or the input does not fit; the message says how.

    A fresh block is the identity (:math:`W_{v2}` starts at zero).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ratio: int = 16,
        ndim: int = 2,
        norm_eps: float = 1e-5,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"bias": bias, "device": device, "dtype": dtype}
        super().__init__(
            AttentionPooling(in_channels, **factory),
            BottleneckTransform(in_channels, ratio=ratio, norm=True, norm_eps=norm_eps, **factory),
            AddFusion(),
            ndim=ndim,
        )
