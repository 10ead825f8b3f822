r"""Non-local block (paper section 3.1, equation 1, figure 3a; Wang et al., 2018).

.. math:: z_i = x_i + W_z \sum_{j=1}^{N_p} \omega_{ij}\,(W_v\, x_j), \qquad
          \omega_{ij} = \frac{f(x_i, x_j)}{\mathcal{C}(x)}
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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

INSTANTIATIONS = ("embedded_gaussian", "gaussian", "dot_product", "concat")

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
# Pooling by 2 in space, never in time: every public implementation agrees on this.
_MAX_POOL = {1: (nn.MaxPool1d, 2), 2: (nn.MaxPool2d, 2), 3: (nn.MaxPool3d, (1, 2, 2))}


def dot_product_similarity(query: Tensor, key: Tensor) -> Tensor:
    r"""Return :math:`f_{ij} = \langle q_i, k_j \rangle`.

    Args:
        query: ``(N, C', L)``.
        key: ``(N, C', M)``.

    Returns:
        ``(N, L, M)``.
    """
    return torch.bmm(query.transpose(1, 2), key)


def concat_similarity(query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
    r"""Return :math:`f_{ij} = \mathrm{ReLU}(w^\top [q_i, k_j])`.

    The product with a concatenation is a sum of two products, so the ``(N, 2C', L, M)`` tensor of
    pairs is never built.

    Args:
        query: ``(N, C', L)``.
        key: ``(N, C', M)``.
        weight: ``(1, 2C')``, the query's half first.

    Returns:
        ``(N, L, M)``.
    """
    query_term, key_term = concat_terms(query, key, weight)  # (N, 1, L), (N, 1, M)
    return F.relu(query_term.transpose(1, 2) + key_term)


def concat_terms(query: Tensor, key: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the two products that :math:`w^\top [q_i, k_j]` is the sum of.

    Args:
        query: ``(N, C', L)``.
        key: ``(N, C', M)``.
        weight: ``(1, 2C')``, the query's half first.

    Returns:
        ``(N, 1, L)`` and ``(N, 1, M)``.
    """
    halves = weight.expand(query.shape[0], 1, -1).chunk(2, dim=2)  # rows: see KeyLogits
    return torch.bmm(halves[0], query), torch.bmm(halves[1], key)


class PairSimilarity(nn.Linear):
    r"""The weight w of concat as a layer, so that hooks, pruning and the like see its call."""

    def forward(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """Return :func:`concat_similarity` times a positive scale."""
        return concat_similarity(query, key, scale * self.weight)  # ReLU lets the scale through


class NonLocalBlock(nn.Module):
    r"""Non-local block, equation 1.

    ======================  ==============================================================
    instantiation           :math:`\omega_{ij}`
    ======================  ==============================================================
    ``embedded_gaussian``   softmax over j of :math:`\langle W_q x_i, W_k x_j \rangle`
    ``gaussian``            softmax over j of :math:`\langle x_i, x_j \rangle`
    ``dot_product``         :math:`\langle W_q x_i, W_k x_j \rangle / N_p`
    ``concat``              :math:`\mathrm{ReLU}(w^\top [W_q x_i, W_k x_j]) / N_p`
    ======================  ==============================================================

    The paper writes concat as :math:`\mathrm{ReLU}(W_q [x_i, x_j])`; the factored form is that of
    Wang et al. and of all public code and gives the same functions.

    >>> block = NonLocalBlock(64)
    >>> z, attention = block(torch.randn(2, 64, 7, 9), return_attention=True)
    >>> z.shape, attention.shape
    (torch.Size([2, 64, 7, 9]), torch.Size([2, 63, 63]))

    Args:
        in_channels: channels C of the feature map.
        ndim: number of position axes: 1, 2 (default) or 3.
        instantiation: one of the four above.
        reduction: the inner width C' is ``in_channels // reduction``; the printed parameter counts
            need the default 2.
        scale: positive factor on the similarity before it is normalised. None (default): 1, as in
            the formulas. ``"sqrt"``: 1/√C' (1/√C for ``gaussian``), as in video-nonlocal-net,
            SlowFast and mmcv. A float: any other, for example √C' for the released detection code,
            which multiplies where it should divide.
        subsample: max-pool keys and values by 2 in space: ``"before"`` their projections
            (video-nonlocal-net, SlowFast), ``"after"`` them (mmcv, AlexHex7), or None (default).
        norm: ``"batch"`` puts a BatchNorm after :math:`W_z` (video models), None (default) nothing.
        norm_eps: epsilon of that BatchNorm (default 1e-5).
        bias: biases of the projections. The formula has none; the printed parameter counts
            include them.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        TypeError, ValueError: an argument or the input does not fit; the message says how.

    In pure float16, logits of the two Gaussians above 65,504 overflow (wide ``gaussian`` blocks
    reach that); ``scale="sqrt"`` or bfloat16 helps.

    Initialisation as in the official code: projections normal with standard deviation 0.01, biases
    0; :math:`W_z`, or the scale of the BatchNorm behind it, 0. A fresh block is the identity.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ndim: int = 2,
        instantiation: str = "embedded_gaussian",
        reduction: int = 2,
        scale: str | float | None = None,
        subsample: str | None = None,
        norm: str | None = None,
        norm_eps: float = 1e-5,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_bool("bias", bias)
        check_positive("norm_eps", norm_eps)
        self.in_channels = check_integer("in_channels", in_channels)
        self.ndim = check_ndim(ndim)
        check_choice("instantiation", instantiation, INSTANTIATIONS)
        check_choice("subsample", subsample, (None, "before", "after"))
        check_choice("norm", norm, (None, "batch"))
        inner = check_divisor("reduction", reduction, self.in_channels)
        self.instantiation = instantiation
        self.scale = _scale(scale, self.in_channels if instantiation == "gaussian" else inner)
        self.subsample = subsample

        factory = {"device": device, "dtype": dtype}
        conv = _CONV[self.ndim]
        embeds = instantiation != "gaussian"

        def project(inputs: int, outputs: int) -> nn.Module:
            return conv(inputs, outputs, kernel_size=1, bias=bias, **factory)

        self.query = project(self.in_channels, inner) if embeds else nn.Identity()  # W_q
        self.key = project(self.in_channels, inner) if embeds else nn.Identity()  # W_k
        self.value = project(self.in_channels, inner)  # W_v
        if instantiation == "concat":
            self.pair = PairSimilarity(2 * inner, 1, bias=False, **factory)  # w
        pool, kernel = _MAX_POOL[self.ndim]
        self.pool = pool(kernel) if subsample else nn.Identity()
        self.out = project(inner, self.in_channels)  # W_z
        self.norm = nn.Identity()
        if norm:
            self.norm = _BATCH_NORM[self.ndim](self.in_channels, eps=norm_eps, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; the block is then the identity."""
        for layer in (self.query, self.key, self.value, self.out):
            if not isinstance(layer, nn.Identity):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if self.instantiation == "concat":
            self.pair.reset_parameters()
        if not isinstance(self.norm, nn.Identity):
            self.norm.reset_parameters()
        self.reset_identity()

    def reset_identity(self) -> None:
        """Make the block the identity again, after a model-level initialisation for example."""
        last = self.out if isinstance(self.norm, nn.Identity) else self.norm
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def attention(self, query: Tensor, key: Tensor) -> Tensor:
        r"""Return :math:`\omega` as ``(N, L, M)`` for query ``(N, C', L)`` and key ``(N, C', M)``.

        Rows belong to queries. They sum to 1 for the two Gaussians; dot product and concat divide
        by the number of keys M instead.
        """
        if self.instantiation in ("embedded_gaussian", "gaussian"):
            return dot_product_similarity(self.scale * query, key).softmax(dim=2)
        positions = key.shape[2]
        if self.instantiation == "concat":
            return self.pair(query, key, self.scale) / positions
        # Half of the factor on each side: in float16 the product alone could overflow.
        half = (self.scale / positions) ** 0.5
        return dot_product_similarity(half * query, half * key)

    def forward(self, x: Tensor, return_attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Apply equation 1.

        Args:
            x: feature map ``(N, C, *positions)`` in the dtype of the parameters (any under
                autocast) and any memory format.
            return_attention: also return the attention map ``(N, N_p, N_p)``; with ``subsample``
                its last axis holds the pooled positions. Where a form without the map is
                faster, the result is the same but for rounding.

        Returns:
            ``(N, C, *positions)`` in the dtype of ``x``, or the pair of it and the map.
        """
        check_input(x, self.in_channels, self.ndim, type(self).__name__)
        self._check_subsample(x)
        source = self.pool(x) if self.subsample == "before" else x
        key, value = self.key(source), self.value(source)
        if self.subsample == "after":
            key, value = self.pool(key), self.pool(value)
        query = self.query(x).flatten(2)  # (N, C', L)
        key, value = key.flatten(2), value.flatten(2)  # (N, C', M)
        context = None if return_attention else self._without_map(query, key, value)
        if context is None:
            attention = self.attention(query, key)  # (N, L, M)
            # In this order: with the map on the right, weights near 0 take a 10 times slower path.
            context = torch.bmm(attention, value.transpose(1, 2)).transpose(1, 2)  # (N, C', L)
        context = context.unflatten(2, x.shape[2:])  # (N, C', *positions)
        z = x + self.norm(self.out(context)).to(x.dtype)  # (N, C, *positions)
        return (z, attention) if return_attention else z

    def _without_map(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        """The context ``(N, C', L)`` by a form that makes no map, where one is faster or smaller.

        None where the plain formula is to be used.
        """
        pair = [self.pair] if self.instantiation == "concat" else []
        if type(self).attention is not NonLocalBlock.attention or "attention" in vars(self):
            return None
        if not fast.usable(query, *pair):
            return None
        query, key, value = fast.autocast(query, key, value)
        if self.instantiation == "dot_product":
            if fast.association_wins(query, key):
                return fast.dot_product(query, key, value, self.scale / key.shape[2])
        elif self.instantiation == "concat":
            if type(self.pair) is PairSimilarity and fast.sorting_wins(query, value):
                terms = concat_terms(query, key, self.pair.weight.to(query.dtype))
                terms = (term.squeeze(1) for term in terms)
                return fast.concat(*terms, value, self.scale / key.shape[2])
        elif fast.softmax_wins(query, key, value):
            return fast.softmax(query, key, value, self.scale)
        return None

    def _check_subsample(self, x: Tensor) -> None:
        if self.subsample is None or isinstance(x, torch.fx.Proxy):
            return
        pooled = x.shape[max(2, x.dim() - 2) :]  # the axis L, or H and W: time is never pooled
        if min(pooled) < 2:
            raise ValueError(
                f"subsample={self.subsample!r}: expected at least 2 positions on each pooled axis, "
                f"got {tuple(x.shape)}; pass subsample=None for maps this small"
            )

    def extra_repr(self) -> str:
        """Show the options."""
        return (
            f"in_channels={self.in_channels}, ndim={self.ndim}, "
            f"instantiation={self.instantiation!r}, scale={self.scale:g}, "
            f"subsample={self.subsample!r}"
        )


def _scale(scale: str | float | None, width: int) -> float:
    if scale is None:
        return 1.0
    if isinstance(scale, str):
        check_choice("scale", scale, ("sqrt",))
        return width**-0.5
    return check_positive("scale", scale, also="None, 'sqrt' or ")
