r"""Global context modelling framework (paper section 4.2, equation 4, figure 4a).

.. math:: z_i = F\Bigl(x_i,\ \delta\bigl(\textstyle\sum_{j=1}^{N_p} \alpha_j x_j\bigr)\Bigr)

A block has three parts, each an ordinary module:

=================  ============================  ==========================================
step               symbol                        here
=================  ============================  ==========================================
context modelling  :math:`\sum_j \alpha_j x_j`   ``AttentionPooling``, ``AveragePooling``
transform          :math:`\delta`                ``LinearTransform``, ``BottleneckTransform``
fusion             :math:`F`                     ``AddFusion``, ``ScaleFusion``
=================  ============================  ==========================================

The context is one vector per example, so a transform maps ``(N, C)`` to ``(N, C)`` and does not
know how many axes the feature map has. ``SimplifiedNonLocalBlock``, ``SEBlock`` and ``GCBlock``
are choices of the three parts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gclib.blocks import fast
from gclib.blocks._arguments import (
    check_bool,
    check_choice,
    check_divisor,
    check_input,
    check_integer,
    check_ndim,
    check_positive,
)


class AveragePooling(nn.Module):
    r"""Context modelling with the same weight everywhere: :math:`\alpha_j = 1/N_p`.

    The *squeeze* of SE; the special case of attention pooling with constant logits (section 4.3).
    """

    def attention(self, x: Tensor) -> Tensor:
        """Map ``(N, C, *positions)`` to the constant weights ``(N, 1, N_p)``."""
        examples, _, positions = x.flatten(2).shape
        return x.new_full((examples, 1, positions), 1 / positions)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(N, C, *positions)`` to the context ``(N, C)`` and the weights ``(N, 1, N_p)``."""
        return x.flatten(2).mean(dim=2), self.attention(x)


class KeyLogits(nn.Linear):
    """W_k on a feature map: ``(N, C, L)`` to logits ``(N, 1, L)``."""

    def forward(self, features: Tensor) -> Tensor:
        """Multiply a row with each example's matrix.

        A one-output convolution or a column-shaped product would take a matrix-vector path that is
        several times slower than memory allows.
        """
        row = self.weight.expand(features.shape[0], 1, self.in_features)  # (N, 1, C)
        logits = torch.bmm(row, features)  # (N, 1, L)
        return logits if self.bias is None else logits + self.bias.to(logits.dtype)


class AttentionPooling(nn.Module):
    r"""Global attention pooling (equations 3 and 5).

    .. math:: \alpha_j = \frac{e^{W_k x_j}}{\sum_{m=1}^{N_p} e^{W_k x_m}}, \qquad
              \text{context} = \sum_{j=1}^{N_p} \alpha_j x_j

    Args:
        in_channels: channels C of the feature map.
        bias: add a bias to the logits. Softmax cancels it, so its gradient is zero by
            construction; the official code has it and the printed parameter counts include it.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Initialisation as in the official code: Kaiming normal (fan in, gain of ReLU), bias 0.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        check_bool("bias", bias)
        self.key = KeyLogits(self.in_channels, 1, bias=bias, device=device, dtype=dtype)  # W_k
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.kaiming_normal_(self.key.weight, mode="fan_in", nonlinearity="relu")
        if self.key.bias is not None:
            nn.init.zeros_(self.key.bias)

    def attention(self, x: Tensor) -> Tensor:
        """Map ``(N, C, *positions)`` to the attention map ``(N, 1, N_p)``; each row sums to 1."""
        return self.key(x.flatten(2)).softmax(dim=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(N, C, *positions)`` to the context ``(N, C)`` and the weights ``(N, 1, N_p)``."""
        attention = self.attention(x)  # (N, 1, L)
        context = torch.bmm(attention, x.flatten(2).transpose(1, 2))  # (N, 1, C)
        return context.squeeze(1), attention


class LinearTransform(nn.Module):
    r"""Transform with one linear layer, :math:`\delta(c) = W_v c` (the SNL block, equation 3).

    Table 2(d) calls it *w/o ratio*. It has C·C weights.

    Args:
        in_channels: channels C.
        bias: add a bias; the formula has none, the printed parameter counts include it.
        device: device of the parameters.
        dtype: dtype of the parameters.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        channels = self.in_channels
        check_bool("bias", bias)
        self.value = nn.Linear(channels, channels, bias=bias, device=device, dtype=dtype)  # W_v
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the map to zero; under additive fusion a fresh block is then the identity."""
        self.reset_identity()

    def reset_identity(self) -> None:
        """Set the output of the transform to zero."""
        _zero(self.value)

    def forward(self, context: Tensor) -> Tensor:
        """Map ``(..., C)`` to ``(..., C)``."""
        return self.value(context)


class BottleneckTransform(nn.Module):
    r"""Transform with a bottleneck of C/r channels (figure 4c and 4d, table 2(d) and 2(e)).

    .. math:: \delta(c) = W_{v2}\,\mathrm{ReLU}(\mathrm{LN}(W_{v1}\, c))

    It has 2·C·C/r weights: one eighth of :class:`LinearTransform` at r = 16.

    Args:
        in_channels: channels C.
        ratio: the paper's r, an integer; the hidden width is ``in_channels // ratio``.
        hidden: the hidden width itself, in place of ``ratio``; for weights of networks that round
            it (EfficientNet, RegNet). Default None: by the ratio.
        norm: LayerNorm after the first layer (the GC block). False gives SE's transform.
        relu: ReLU after the norm. False only for the row ``2d/r16``.
        norm_eps: epsilon of the LayerNorm; 1e-5 as in the official code (timm uses 1e-6).
        bias: biases of both maps; the formula has none, the printed parameter counts include them.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError: ``ratio`` is not an integer, 1/16 in place of 16 for example; ``norm``, ``relu``
            or ``bias`` is not a bool.
        ValueError: ``ratio`` leaves no channels.

    The first layer keeps PyTorch's initialisation, the last one starts at zero (official code).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ratio: int = 16,
        hidden: int | None = None,
        norm: bool = False,
        relu: bool = True,
        norm_eps: float = 1e-5,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels)
        for name, value in (("norm", norm), ("relu", relu), ("bias", bias)):
            check_bool(name, value)
        check_positive("norm_eps", norm_eps)
        if hidden is None:
            hidden = check_divisor("ratio", ratio, self.in_channels)
        hidden = check_integer("hidden", hidden)
        factory = {"device": device, "dtype": dtype}
        self.reduce = nn.Linear(self.in_channels, hidden, bias=bias, **factory)  # W_v1
        self.norm = nn.LayerNorm(hidden, eps=norm_eps, **factory) if norm else nn.Identity()
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.expand = nn.Linear(hidden, self.in_channels, bias=bias, **factory)  # W_v2
        self.reset_identity()

    def reset_parameters(self) -> None:
        """Draw the first layer anew, reset the norm, set the last layer to zero."""
        self.reduce.reset_parameters()
        if isinstance(self.norm, nn.LayerNorm):
            self.norm.reset_parameters()
        self.reset_identity()

    def reset_identity(self) -> None:
        """Set the output of the transform to zero."""
        _zero(self.expand)

    def forward(self, context: Tensor) -> Tensor:
        """Map ``(..., C)`` to ``(..., C)``."""
        return self.expand(self.activation(self.norm(self.reduce(context))))


class AddFusion(nn.Module):
    r"""Fusion by addition, :math:`F(x_i, t) = x_i + t` (NL, SNL, GC)."""

    def forward(self, x: Tensor, transformed: Tensor) -> Tensor:
        """Add ``(N, C, 1, ..., 1)`` to every position of ``(N, C, *positions)``."""
        transformed = transformed.to(x.dtype)
        if fast.usable(x) and fast.addition_wins(x, transformed):
            return fast.add(x, transformed)
        return x + transformed


class ScaleFusion(nn.Module):
    r"""Fusion by channel-wise scaling, :math:`F(x_i, t) = x_i \cdot \sigma(t)` (SE).

    Args:
        gate: ``"sigmoid"`` as in SE and the official code: with a zero transform the fresh block
            multiplies its input by 1/2. ``"2sigmoid"`` starts at the identity, the fair start
            beside additive fusion.
    """

    def __init__(self, gate: str = "sigmoid") -> None:
        super().__init__()
        check_choice("gate", gate, ("sigmoid", "2sigmoid"))
        self.gate = gate

    def forward(self, x: Tensor, transformed: Tensor) -> Tensor:
        """Scale ``(N, C, *positions)`` by the gate of ``(N, C, 1, ..., 1)``."""
        gate = transformed.sigmoid()
        if self.gate == "2sigmoid":
            gate = 2 * gate
        return x * gate.to(x.dtype)

    def extra_repr(self) -> str:
        """Show the gate."""
        return f"gate={self.gate!r}"


class ContextBlock(nn.Module):
    r"""A block of the framework: context modelling, transform, fusion (equation 4).

    >>> block = ContextBlock(AttentionPooling(64), BottleneckTransform(64, norm=True), AddFusion())
    >>> block(torch.randn(2, 64, 14, 14)).shape
    torch.Size([2, 64, 14, 14])

    Args:
        context_modelling: any module that maps ``(N, C, *positions)`` to a context ``(N, C)`` and
            its weights ``(N, 1, N_p)``.
        transform: any module that maps ``(N, C)`` to ``(N, C)``; with a method
            ``reset_identity()`` if the block's own is to be used.
        fusion: any module that maps ``(N, C, *positions)`` and ``(N, C, 1, ..., 1)`` to
            ``(N, C, *positions)``.
        ndim: number of position axes: 1, 2 (default) or 3.

    Raises:
        TypeError: a part is not a module, or the input is not a floating-point tensor.
        ValueError: the parts disagree on the channels, or the input does not fit.

    mmcv's class of the same name is the GC block; ours is the frame that holds any block.
    """

    def __init__(
        self,
        context_modelling: nn.Module,
        transform: nn.Module,
        fusion: nn.Module,
        *,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        self.ndim = check_ndim(ndim)
        parts = {
            "context_modelling": context_modelling,
            "transform": transform,
            "fusion": fusion,
        }
        for name, part in parts.items():
            if not isinstance(part, nn.Module):
                raise TypeError(
                    f"{name}={part!r}: expected a module; for mmcv's ContextBlock(in_channels, "
                    f"ratio) use GCBlock(in_channels, ratio=...)"
                )
        pooled = getattr(context_modelling, "in_channels", None)
        self.in_channels = getattr(transform, "in_channels", pooled)
        if pooled not in (None, self.in_channels):
            raise ValueError(
                f"context_modelling has in_channels={pooled}, transform has "
                f"in_channels={self.in_channels}; expected the same number"
            )
        self.context_modelling = context_modelling
        self.transform = transform
        self.fusion = fusion

    def reset_parameters(self) -> None:
        """Draw the weights of all parts anew."""
        for part in (self.context_modelling, self.transform, self.fusion):
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()

    def reset_identity(self) -> None:
        """Make additive fusion the identity again, after a model-level initialisation for example.

        With scale fusion the block then multiplies by its gate at 0 (``gate="2sigmoid"``: by 1).

        Raises:
            TypeError: the transform has no ``reset_identity()``.
        """
        self.check_resettable()
        self.transform.reset_identity()

    def check_resettable(self) -> None:
        """Raise TypeError unless the transform knows how to give zero."""
        if not hasattr(self.transform, "reset_identity"):
            raise TypeError(
                f"the transform {type(self.transform).__name__} has no method reset_identity(): "
                f"give it one that makes its output zero"
            )

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""Apply equation 4.

        Args:
            x: feature map ``(N, C, *positions)`` in the dtype of the parameters (any under
                autocast) and any memory format. To trace with FX, fix the other argument:
                ``symbolic_trace(block, concrete_args={"return_attention": False})``.
            return_attention: also return the weights :math:`\alpha` as ``(N, 1, N_p)``.

        Returns:
            ``(N, C, *positions)`` in the dtype of ``x``, or the pair of it and the weights.
        """
        check_input(x, self.in_channels, self.ndim, type(self).__name__)
        x, context, attention = self._pool(x, return_attention)  # (N, C), (N, 1, L) or None
        transformed = self.transform(context)  # (N, C)
        z = self.fusion(x, _over_positions(transformed, self.ndim))  # (N, C, *positions)
        return (z, attention) if return_attention else z

    def _pool(self, x: Tensor, return_attention: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Context modelling, and the ``x`` for fusion: its own, or that of the faster form."""
        part, fusion = self.context_modelling, self.fusion
        if type(fusion) in (AddFusion, ScaleFusion):
            if type(part) is AttentionPooling:
                key = part.key
                if type(key) is KeyLogits and fast.usable(x, part, key, fusion):
                    return fast.attention_pooling(x, key.weight, key.bias, return_attention)
            elif type(part) is AveragePooling and fast.usable(x, part, fusion):
                x, context = fast.average_pooling(x)
                return x, context, part.attention(x) if return_attention else None
        context, attention = part(x)
        return x, context, attention

    def extra_repr(self) -> str:
        """Show the channels and the number of position axes."""
        return f"in_channels={self.in_channels}, ndim={self.ndim}"


def _over_positions(vector: Tensor, ndim: int) -> Tensor:
    """Append ``ndim`` axes of size 1 to ``(N, C)``, so that it broadcasts over positions."""
    return vector.view(vector.shape + (1,) * ndim)


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
