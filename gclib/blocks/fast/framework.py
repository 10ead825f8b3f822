r"""Context modelling that reads and writes the feature map as rarely as it can.

Blocks of the framework do little arithmetic on a large tensor, so their time is the number of
passes over it. Autograd of the plain formula makes three gradients of full size and adds them up.
Here context modelling hands on its input beside the context: fusion uses that, and the backward
pass meets the gradients of both at once.

.. math:: \frac{\partial L}{\partial x_j} = g_j + \alpha_j\,d + \dot a_j\,w, \qquad
          \dot a_j = \alpha_j\Bigl(d^\top x_j - \textstyle\sum_m \alpha_m\,d^\top x_m\Bigr)

with the gradients :math:`g` of fusion and :math:`d` of the context: one product of rank two on top
of :math:`g`. Every step is an ordinary operation, so second derivatives, forward mode and
``torch.func`` work too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from gclib.blocks.fast.choice import differentiates_again

_SMALL_ON_GPU = 2**25  # bytes of a feature map


def attention_pooling(
    x: Tensor, weight: Tensor, bias: Tensor | None, return_attention: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""Global attention pooling, equal to ``AttentionPooling`` in value and gradient.

    Args:
        x: feature map ``(N, C, *positions)``, any memory format.
        weight: :math:`W_k` as ``(1, C)``.
        bias: ``(1,)`` or None. Softmax cancels it: it is not added, its gradient is zero.
        return_attention: whether the weights are wanted.

    Returns:
        ``x`` to go on with, the context ``(N, C)`` in its dtype, and the weights ``(N, 1, N_p)``
        if they are wanted.
    """
    again = x
    if not torch.is_grad_enabled():
        context, attention = _pooled(x, weight)
    elif autograd_wins(x):
        context, attention = _pooled(x, weight, bias)
    else:
        again, context, attention = _apply(_AttentionPooling, x, weight, bias)
        if not x.requires_grad:
            again = x
    if not return_attention:
        attention = None
    elif torch.is_autocast_enabled(x.device.type):
        attention = attention.to(torch.promote_types(x.dtype, torch.float32))
    return again, context.squeeze(1), attention


def average_pooling(x: Tensor) -> tuple[Tensor, Tensor]:
    """Global average pooling: ``x`` to go on with, and the context ``(N, C)``."""
    if torch.is_grad_enabled() and not autograd_wins(x):
        return _apply(_AveragePooling, x)
    return x, _position_mean(x)


def autograd_wins(x: Tensor) -> bool:
    """Whether autograd's own backward pass is faster, though it makes more passes over ``x``.

    On a GPU a small map takes the time of Python and of the kernels' start, and a backward pass
    without Python starts them sooner. A CUDA graph starts them all at once.
    """
    small = x.is_cuda and x.numel() * x.element_size() < _SMALL_ON_GPU
    return small and not torch.cuda.is_current_stream_capturing()


def _apply(function: type[Function], *inputs: Tensor | None) -> tuple[Tensor, ...]:
    """``function.apply``, or that of its twin where no ``torch.func`` is at work."""
    if torch._C._are_functorch_transforms_active():
        return function.apply(*inputs)
    return function.twin.apply(*inputs)


def _with_twin(function: type[Function]) -> type[Function]:
    """Add a twin with forward and setup_context in one method.

    ``torch.func`` needs two, but binding the arguments to two takes as long as ten operations.
    """

    def forward(ctx, *inputs):
        output = function.forward(*inputs)
        function.setup_context(ctx, inputs, output)
        return output

    methods = {"forward": forward, "backward": function.backward, "jvp": function.jvp}
    methods = {name: staticmethod(method) for name, method in methods.items()}
    function.twin = type(function.__name__, (Function,), methods)
    return function


def _pooled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Context ``(N, 1, C)`` and weights ``(N, 1, N_p)``; the bias only for its gradient's sake."""
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return _pooled(x, weight, bias)
    features = x.flatten(2)  # (N, C, L)
    row = weight.to(x.dtype).expand(len(x), 1, -1)  # (N, 1, C)
    logits = torch.bmm(row, features)  # (N, 1, L)
    if bias is not None:
        logits = logits + bias.to(x.dtype)
    attention = logits.softmax(2)
    return torch.bmm(attention, features.transpose(1, 2)), attention


def sums_by_product(x: Tensor) -> bool:
    """Whether :func:`position_sum` is faster than ``x.sum``: channels-last maps on a CPU.

    There ``sum`` takes the time of two passes over ``x``, a product with ones that of one.
    """
    full = x.is_cpu and x.dtype in (torch.float32, torch.float64)
    return full and x.dim() > 2 and _by_rows(_flat(x))


def position_sum(x: Tensor) -> Tensor:
    """Sum ``(N, C, *positions)`` over the positions to ``(N, C)``."""
    features = _flat(x)
    if not sums_by_product(x):
        return features.sum(2)
    ones = features.new_ones(1, 1, features.shape[2]).expand(len(x), -1, -1)
    return torch.bmm(ones, features.transpose(1, 2)).squeeze(1)


def _position_mean(x: Tensor) -> Tensor:
    if sums_by_product(x):
        return position_sum(x) / x.shape[2:].numel()
    return _flat(x).mean(2)  # not from the sum, which may overflow in half precision


def addition_wins(x: Tensor, transformed: Tensor) -> bool:
    """Whether :func:`add` is faster than ``x + transformed``, or rather its gradient."""
    if not (transformed.requires_grad and sums_by_product(x)):
        return False
    return transformed.shape == (*x.shape[:2], *[1] * (x.dim() - 2))


def add(x: Tensor, transformed: Tensor) -> Tensor:
    """``x + transformed``, whose gradient for ``(N, C, 1, ..., 1)`` is a :func:`position_sum`."""
    return _apply(_Add, x, transformed)


@_with_twin
class _Add(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, transformed):
        return x + transformed

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shape = inputs[1].shape

    @staticmethod
    def backward(ctx, grad):
        return grad, position_sum(grad).view(ctx.shape) if ctx.needs_input_grad[1] else None

    @staticmethod
    def jvp(ctx, tangent_x, tangent_transformed):
        return tangent_x + tangent_transformed


@_with_twin
class _AttentionPooling(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, bias):
        return x.view_as(x), *_pooled(x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias = inputs
        attention = output[2]
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, attention)
        ctx.save_for_forward(x, weight, attention)

    @staticmethod
    def backward(ctx, grad_x, grad_context, grad_attention):
        x, weight, attention = ctx.saved_tensors
        features = x.flatten(2)
        row = weight.to(x.dtype).expand(len(x), 1, -1)
        column = torch.zeros_like(row) if grad_context is None else grad_context  # (N, 1, C)
        slope = torch.bmm(column, features).to(attention.dtype)  # as it was, under autocast too
        if grad_attention is not None:
            slope = slope + grad_attention
        grad_logits = _softmax_backward(slope, attention)
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            rows = torch.bmm(grad_logits, features.transpose(1, 2))
            grad_weight = rows.sum(0).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = attention.new_zeros(1, dtype=ctx.bias_dtype)
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x) if grad_x is None else grad_x
            grad_x = _add_products(grad_x, column, attention, row, grad_logits)
        return grad_x, grad_weight, grad_bias

    @staticmethod
    def jvp(ctx, tangent_x, tangent_weight, tangent_bias):
        x, weight, attention = ctx.saved_tensors
        features = x.flatten(2)
        logits = torch.zeros_like(attention)
        pooled = 0
        if tangent_x is not None:
            row = weight.to(x.dtype).expand(len(x), 1, -1)
            moving = tangent_x.reshape(features.shape)
            logits = logits + torch.bmm(row, moving)
            pooled = torch.bmm(attention.to(x.dtype), moving.transpose(1, 2))
        if tangent_weight is not None:
            logits = logits + torch.bmm(tangent_weight.expand(len(x), 1, -1), features)
        slope = attention * (logits - (attention * logits).sum(2, keepdim=True))
        context = pooled + torch.bmm(slope.to(x.dtype), features.transpose(1, 2))
        tangent_x = torch.zeros_like(x) if tangent_x is None else tangent_x.view_as(tangent_x)
        return tangent_x, context, slope


@_with_twin
class _AveragePooling(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.view_as(x), _position_mean(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        (x,) = inputs
        ctx.positions = x.shape[2:].numel()

    @staticmethod
    def backward(ctx, grad_x, grad_context):
        mean = grad_context[(..., *[None] * (grad_x.dim() - 2))]
        return torch.add(grad_x, mean, alpha=1 / ctx.positions)

    @staticmethod
    def jvp(ctx, tangent_x):
        return tangent_x.view_as(tangent_x), _position_mean(tangent_x)


def _flat(x: Tensor) -> Tensor:
    """``x.flatten(2)``, which the older vmap does not know, also for no examples."""
    return x.reshape(*x.shape[:2], x.shape[2:].numel())


def _by_rows(features: Tensor) -> bool:
    """Whether the channels of each position lie together, as in channels-last maps."""
    return features.stride(1) < features.stride(2)


def _softmax_backward(slope: Tensor, attention: Tensor) -> Tensor:
    """Gradient by the logits, ``attention * (slope - (attention * slope).sum())``."""
    if not differentiates_again():
        return torch._softmax_backward_data(slope, attention, 2, slope.dtype)  # in one kernel
    return attention * (slope - (attention * slope).sum(2, keepdim=True))


def _add_products(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return ``x`` (N, C, *positions) + a b + c d, in x's layout.

    Rows a and c are (N, 1, C), b and d (N, 1, L).
    """
    features = _flat(x)
    left, right = torch.cat((a, c), 1), torch.cat((b, d), 1)
    if _by_rows(features):
        rows = torch.baddbmm(features.transpose(1, 2), right.transpose(1, 2), left)
        result = rows.transpose(1, 2)
    else:
        result = torch.baddbmm(features, left.transpose(1, 2), right)
    return result.reshape(x.shape)
