r"""The non-local block's sum over keys without its map of L × M pairs.

Each function takes query ``(N, C', L)``, key and value ``(N, C', M)`` and returns the context
``(N, C', L)``, :math:`\sum_j \omega_{ij} v_j`, which the plain formula computes by way of the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function, forward_ad

_LARGE_MAP = 2**26  # numbers


def dot_product(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    r"""Dot product by association: :math:`V (K^\top Q) = (V K^\top) Q`.

    Linear in positions: C'² (L + M) multiply-adds in place of 2 C' L M.

    Args:
        query: ``(N, C', L)``.
        key: ``(N, C', M)``.
        value: ``(N, C', M)``.
        scale: positive factor on each product, 1/M for the mean.
    """
    half = scale**0.5  # on each side: in float16 a sum over positions alone could overflow
    return torch.bmm(torch.bmm(value, (half * key).transpose(1, 2)), half * query)


def association_wins(query: Tensor, key: Tensor) -> bool:
    """Whether :func:`dot_product` needs fewer multiply-adds than the map."""
    width, positions, keys = query.shape[1], query.shape[2], key.shape[2]
    return width * (positions + keys) <= 2 * positions * keys


def sorting_wins(query: Tensor, value: Tensor) -> bool:
    """Whether :func:`concat` is faster than the map: for many positions and few channels.

    The two numbers are ratios of times on a CPU (``gclib bench blocks`` shows both sides).
    """
    width, keys, positions = value.shape[1], value.shape[2], query.shape[2]
    return positions * keys * (400 + width) > 1600 * width * (positions + keys)


def concat(query_term: Tensor, key_term: Tensor, value: Tensor, scale: float = 1.0) -> Tensor:
    r"""Concat by sorting: :math:`s \sum_j \mathrm{ReLU}(a_i + b_j)\,v_j`.

    Query i sees the keys with :math:`b_j > -a_i`: a prefix of the keys in falling order of
    :math:`b`. Prefix sums :math:`S_0` of :math:`v` and :math:`S_1` of :math:`b\,v` hold every
    answer, :math:`a_i S_0 + S_1`: time O((L + M) (C' + log M)), memory O(C' (L + M)). The gradient
    by the values is the same sum with queries and keys exchanged.

    Args:
        query_term: :math:`a` as ``(N, L)``.
        key_term: :math:`b` as ``(N, M)``.
        value: ``(N, C', M)``.
        scale: positive factor :math:`s`, applied in at least float32.
    """
    return _Concat.apply(query_term, key_term, value.transpose(1, 2), scale).transpose(1, 2)


class _Concat(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(query_term, key_term, value, scale):
        return _sums_over_seen(query_term, key_term, value, scale)[0]

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, grad):
        query_term, key_term, value = ctx.saved_tensors
        _, seen = _sums_over_seen(query_term, key_term, value, ctx.scale)  # of v_j, (N, L, C')
        grad_value, seeing = _sums_over_seen(key_term, query_term, grad, ctx.scale)  # (N, M, C')
        grad_query = (grad * seen).sum(2).to(query_term.dtype)
        return grad_query, (value * seeing).sum(2).to(key_term.dtype), grad_value, None

    @staticmethod
    def jvp(ctx, query_tangent, key_tangent, value_tangent, _):
        query_term, key_term, value = ctx.saved_tensors
        tangent, _ = _sums_over_seen(query_term, key_term, value_tangent, ctx.scale)
        moved = torch.cat((value, key_tangent[..., None] * value), 2)
        both = _sums_over_seen(query_term, key_term, moved, ctx.scale)[1]
        seen, moved = both.to(value.dtype).chunk(2, dim=2)
        return tangent + query_tangent[..., None] * seen + moved


def _sums_over_seen(a: Tensor, b: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Sums over the j with a_i + b_j > 0 of (a_i + b_j) v_j and of v_j, times ``scale``.

    Args:
        a: ``(N, L)``.
        b: ``(N, M)``.
        value: ``(N, M, C')``.
        scale: factor on both sums.

    Returns:
        Two tensors ``(N, L, C')``, the second in at least float32, in which all sums run.
    """
    wide = torch.promote_types(value.dtype, torch.float32)
    a, b = a.to(wide), b.to(wide)
    falling, order = b.sort(dim=1, descending=True)
    value_of = value.gather(1, order[..., None].expand_as(value)).to(wide)
    # How many keys each query sees: those whose -b is below a.
    count = torch.searchsorted((-falling).contiguous().detach(), a.contiguous().detach())
    count = count[..., None].expand(*a.shape, value.shape[2])
    plain = F.pad(value_of.cumsum(1), (0, 0, 1, 0)).gather(1, count)  # row 0: no key is seen
    weighted = F.pad((falling[..., None] * value_of).cumsum(1), (0, 0, 1, 0)).gather(1, count)
    total = scale * torch.addcmul(weighted, a[..., None], plain)
    return total.to(value.dtype), scale * plain


def softmax(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    r"""Embedded Gaussian and Gaussian by ``scaled_dot_product_attention``.

    Memory O(C' (L + M)). It gives first derivatives by backward only; a second one is refused.

    Args:
        query: ``(N, C', L)``.
        key: ``(N, C', M)``.
        value: ``(N, C', M)``.
        scale: positive factor on the logits.
    """
    width = value.shape[1]
    # Without equal widths and a contiguous last axis it makes the map after all.
    value = F.pad(value, (0, 0, 0, query.shape[1] - width))  # gaussian: C' to C
    heads = (t.transpose(1, 2).unsqueeze(1).contiguous() for t in (query, key, value))
    context = F.scaled_dot_product_attention(*heads, scale=scale)  # (N, 1, L, C' or C)
    return _FirstOrder.apply(context)[:, 0, :, :width].transpose(1, 2)


def softmax_wins(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether :func:`softmax` beats the map and has the derivatives that may be wanted.

    For float32 that is a matter of memory: under 256 MiB of map its products are no faster, and
    ``gaussian``, whose widths differ, is slower. In half precision its forward pass is always
    faster on a CPU, its backward pass only for larger maps (docs/PERFORMANCE.md). On a GPU the fast
    kernels end at 256 channels: with 512 they take up to seven times as long as the map's products
    (measured on an H200), so there only maps of gigabytes go without. Forward mode and
    ``torch.func`` need the plain formula.
    """
    if torch._C._are_functorch_transforms_active():
        return False
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in (query, key, value)):
        return False
    numbers = query.shape[0] * query.shape[2] * key.shape[2]
    width, same_width = query.shape[1], query.shape[1] == value.shape[1]
    half = query.dtype in (torch.bfloat16, torch.float16)
    if query.is_cuda:
        if half and same_width and width <= 128:
            return True
        large = _LARGE_MAP if width <= 256 else 16 * _LARGE_MAP
        return (half or same_width) and numbers >= large
    if half:
        trains = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        if not trains or query.device.type != "cpu":
            return True
        return numbers >= (_LARGE_MAP // 32 if same_width else _LARGE_MAP)
    return same_width and numbers >= _LARGE_MAP


class _FirstOrder(Function):
    """The identity, with a clear word where a second derivative is asked for."""

    @staticmethod
    def forward(ctx, context):
        return context.view_as(context)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "NonLocalBlock: this form has no second derivative; compute block(x) inside of "
                "`with gclib.blocks.fast.plain_formulas():`"
            )
        return grad
