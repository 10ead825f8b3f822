r"""Simplified non-local block (paper section 4.1, equations 2 and 3, figures 3b and 4b)."""

from __future__ import annotations

import torch
from torch import Tensor

from gclib.blocks._arguments import check_choice, check_input
from gclib.blocks.framework import (
    AddFusion,
    AttentionPooling,
    ContextBlock,
    LinearTransform,
    _over_positions,
)


class SimplifiedNonLocalBlock(ContextBlock):
    r"""SNL block: one attention map shared by every query position.

    Equation 2 transforms every position, then pools:

    .. math:: z_i = x_i + \sum_{j=1}^{N_p}
              \frac{e^{W_k x_j}}{\sum_{m=1}^{N_p} e^{W_k x_m}}\,(W_v x_j)

    Equation 3 pools, then transforms one vector. It is the same function by the distributive law
    (the weights sum to 1, so this holds with a bias too), at O(C²) in place of O(HWC²):

    .. math:: z_i = x_i + W_v \sum_{j=1}^{N_p}
              \frac{e^{W_k x_j}}{\sum_{m=1}^{N_p} e^{W_k x_m}}\,x_j

    In form eq3 it is
    ``ContextBlock(AttentionPooling(C), LinearTransform(C), AddFusion())``. Both forms have the
    same parameters and state dict.

    Args:
        in_channels: channels C of the feature map.
        ndim: number of position axes: 1, 2 (default) or 3.
        form: ``"eq3"`` (default) or ``"eq2"``, kept to measure what the distributive law saves.
        bias: biases of :math:`W_k` and :math:`W_v`. The formulas have none, the printed parameter
            counts include them.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError, ValueError: an argument or the input does not fit; the message says how.

    A fresh block is the identity (:math:`W_v` starts at zero).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ndim: int = 2,
        form: str = "eq3",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_choice("form", form, ("eq3", "eq2"))
        factory = {"bias": bias, "device": device, "dtype": dtype}
        super().__init__(
            AttentionPooling(in_channels, **factory),
            LinearTransform(in_channels, **factory),
            AddFusion(),
            ndim=ndim,
        )
        self.form = form

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Apply equation 3 or 2; shapes as in :meth:`ContextBlock.forward`."""
        if self.form == "eq3":
            return super().forward(x, return_attention)
        check_input(x, self.in_channels, self.ndim, type(self).__name__)
        attention = self.context_modelling.attention(x)  # (N, 1, L)
        value = self.transform(x.flatten(2).transpose(1, 2))  # (N, L, C): W_v on every position
        transformed = torch.bmm(attention, value).squeeze(1)  # (N, C)
        z = self.fusion(x, _over_positions(transformed, self.ndim))  # (N, C, *positions)
        return (z, attention) if return_attention else z

    def extra_repr(self) -> str:
        """Show the options."""
        return f"{super().extra_repr()}, form={self.form!r}"
