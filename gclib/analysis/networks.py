r"""Parameters, operations and bytes of a whole network, layer by layer.

The operations are those that really run in one forward pass, on any device; the meta device needs
neither memory nor time. Each has a category:

==========================  ==================================================================
category                    what is counted
==========================  ==================================================================
``convolution``             multiply-adds; ``transposed convolution`` and ``deformable
                            convolution`` likewise
``linear``                  multiply-adds of a product with a parameter
``matrix product``          multiply-adds of a product of two feature maps: attention
``bias``                    additions of a parameter or a number
``scaling``                 multiplications with a parameter or a number
``norm``                    numbers normalised; ``statistics``: those of them whose mean and
                            variance are computed; ``affine``: those scaled and shifted afterwards
``activation``              numbers; ``softmax`` likewise
``max pooling``             numbers read; ``average pooling`` likewise, means over axes included
``addition``                numbers; ``multiplication`` likewise; of tensors of the same shape
``broadcast``               the same with a smaller tensor: fusion with a context vector
``interpolation``           numbers read to resize a map
``sampling``                numbers read at the offsets of a deformable convolution
``copy``, ``other``         numbers written
==========================  ==================================================================

What of it is called a multiply-add is a matter of convention: :data:`CONVENTIONS`.

>>> layers = layer_counts(nn.Conv2d(3, 8, 3), torch.empty(1, 3, 10, 10))
>>> multiply_adds(layers, "paper"), multiply_adds(layers, "mmdetection")
(13824, 14336)
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gclib.blocks import ContextBlock, NonLocalBlock, fast
from gclib.blocks._arguments import check_choice


@dataclass(frozen=True)
class LayerCount:
    """What one module does itself, without the modules inside of it.

    Attributes:
        name: path of the module, ``"layer1.0.conv1"``; ``""`` for the network itself.
        kind: its class, ``"Conv2d"``.
        parameters: numbers in parameters of its own; shared ones count where they stand first.
        operations: category → number, see above; summed over the calls of the module.
        bytes: read and written by its operations: inputs, weights and outputs, each operation by
            itself, in the dtype that runs, as if every tensor came from memory and went there.
            What an operation overwrites or only takes the shape of is not read.
    """

    name: str
    kind: str
    parameters: int
    operations: dict[str, int]
    bytes: int


@dataclass(frozen=True)
class Convention:
    """What counts as a multiply-add.

    Attributes:
        text: what counts, for people.
        weights: category → how often one of its operations counts; others are free.
        kinds: category → classes whose operations count; all of them where it has no entry.
    """

    text: str
    weights: Mapping[str, int]
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def count(self, layer: LayerCount) -> int:
        """Multiply-adds of a layer."""
        return sum(
            self.weights.get(category, 0) * number
            for category, number in layer.operations.items()
            if category not in self.kinds or layer.kind in self.kinds[category]
        )


_BLOCKS = (ContextBlock, NonLocalBlock)
_PRODUCTS = {"convolution": 1, "transposed convolution": 1, "linear": 1}
_PAPER = _PRODUCTS | {
    "deformable convolution": 1,
    "matrix product": 1,
    "average pooling": 1,
    "broadcast": 1,
}
# The classes that mmcv's counter has a hook for; it compares types, so subclasses are free.
_MMCV = {
    "convolution": ("Conv1d", "Conv2d", "Conv3d"),
    "transposed convolution": ("ConvTranspose2d",),
    "linear": ("Linear",),
    "bias": ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d"),
    "norm": (
        *(f"{norm}{n}d" for norm in ("BatchNorm", "InstanceNorm") for n in (1, 2, 3)),
        *("GroupNorm", "LayerNorm"),
    ),
    "activation": ("ReLU", "PReLU", "ELU", "LeakyReLU", "ReLU6"),
    "max pooling": tuple(f"{kind}MaxPool{n}d" for kind in ("", "Adaptive") for n in (1, 2, 3)),
    "average pooling": tuple(f"{kind}AvgPool{n}d" for kind in ("", "Adaptive") for n in (1, 2, 3)),
}

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "paper": Convention(
            "A multiply-add counts 1: convolutions, linear maps, matrix products. So does each "
            "number that a context block reads to pool it and each that its fusion writes "
            "(average pooling, addition or multiplication of a context vector). Norms, "
            "activations, softmax, max pooling, biases and shortcuts are free. The paper states no "
            "convention: by this one all FLOPs of table 4 come out but one, +1 NL.",
            _PAPER,
        ),
        "detection": Convention(
            "As the paper's, and a transposed convolution of 2×2 with stride 2 counts as a "
            "convolution at the size of its output: 4 multiply-adds for each that it computes. By "
            "this one almost all FLOPs of table 2 come out.",
            _PAPER | {"transposed convolution": 4},
        ),
        "mmdetection": Convention(
            "mmcv's get_model_complexity_info, which mmdetection's tables used: modules with a "
            "hook count, functions do not. Multiply-adds of convolutions (with a bias, one more "
            "for each output) and linear layers; norms 1 for each number and 1 more with scale "
            "and shift; activations and pooling 1 for each number. Matrix products, softmax, "
            "additions and deformable convolutions are free.",
            _PRODUCTS
            | {
                "bias": 1,
                "norm": 1,
                "affine": 1,
                "activation": 1,
                "max pooling": 1,
                "average pooling": 1,
            },
            _MMCV | {"affine": _MMCV["norm"]},
        ),
        "fvcore": Convention(
            "fvcore's FlopCountAnalysis: multiply-adds of convolutions, linear maps and matrix "
            "products; a norm with fixed statistics 1 for each number and 1 more with scale and "
            "shift, one that computes them 3 more; adaptive average pooling of images 1, resizing "
            "1 to 4. Activations, softmax, other pooling, biases, additions and deformable "
            "convolutions are free. Fused attention and baddbmm, which fvcore does not know, "
            "count here.",
            _PRODUCTS
            | {
                "matrix product": 1,
                "norm": 1,
                "affine": 1,
                "statistics": 3,
                "average pooling": 1,
                "interpolation": 1,
            },
            {"average pooling": ("AdaptiveAvgPool2d",)},
        ),
    }
)


def layer_counts(model: nn.Module, *inputs: Tensor, plain: bool = True) -> list[LayerCount]:
    """Count a network by running it once, in evaluation mode and without gradients.

    Args:
        model: any network, on any device; its mode is put back afterwards.
        inputs: of its forward pass, for example ``torch.empty(1, 3, 224, 224, device="meta")``
            for a network on the meta device. Counts are those of the whole batch.
        plain: blocks of the paper use the formulas of the paper, and each layer inside of them is
            counted by itself (default). False counts what a block runs by itself: its faster form
            where it chooses one on this device and at this size, never on the meta device. It
            calls none of its layers then, so all operations stand at the block as a whole, and its
            layers have parameters alone.

    Returns:
        A count for each module that runs an operation or owns parameters, in the order of their
        first operation; the others last.
    """
    names = {module: name for name, module in model.named_modules()}
    # A hook on a layer of a block keeps the block from its faster form.
    inside = set() if plain else _inside_blocks(model)
    counter = _Counter(model)
    modes = {module: module.training for module in names}
    with contextlib.ExitStack() as stack:
        for module, name in names.items():
            if module in inside:
                continue
            enter = module.register_forward_pre_hook(counter.enter(name))
            leave = module.register_forward_hook(counter.leave, always_call=True)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        stack.callback(_restore, modes)
        model.eval()
        stack.enter_context(torch.inference_mode(False))  # there, composite operations stay whole
        stack.enter_context(torch.no_grad())
        if plain:
            stack.enter_context(fast.plain_formulas())
        with counter:
            model(*inputs)
    return _layers(names, counter)


def _inside_blocks(model: nn.Module) -> set[nn.Module]:
    """The layers of the paper's blocks, without the blocks themselves."""
    blocks = [module for module in model.modules() if isinstance(module, _BLOCKS)]
    return {layer for block in blocks for layer in block.modules() if layer is not block}


def _restore(modes: Mapping[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


def _layers(names: Mapping[nn.Module, str], counter: _Counter) -> list[LayerCount]:
    own: dict[str, tuple[str, int]] = {}
    seen: set[int] = set()
    for module, name in names.items():
        new = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in seen}
        seen.update(new)
        own[name] = type(module).__name__, sum(new.values())
    order = dict.fromkeys([*counter.operations, *(name for name in own if own[name][1])])
    return [
        LayerCount(
            name,
            *own[name],
            dict(counter.operations.get(name, {})),
            counter.bytes[name],
        )
        for name in order
    ]


def multiply_adds(layers: Iterable[LayerCount], convention: str = "paper") -> int:
    """Multiply-adds of a network.

    Args:
        layers: from :func:`layer_counts`.
        convention: one of :data:`CONVENTIONS`.

    Raises:
        ValueError: no such convention.
    """
    check_choice("convention", convention, CONVENTIONS)
    return sum(map(CONVENTIONS[convention].count, layers))


def operations(layers: Iterable[LayerCount]) -> dict[str, int]:
    """Category → number of operations of a network, the largest first."""
    total: Counter[str] = Counter()
    for layer in layers:
        total.update(layer.operations)
    return dict(total.most_common())


def as_table(layers: Sequence[LayerCount], convention: str = "paper") -> Iterator[str]:
    """Lines for a terminal: each layer, its parameters, multiply-adds and megabytes.

    Raises:
        ValueError: no such convention.
    """
    check_choice("convention", convention, CONVENTIONS)
    count = CONVENTIONS[convention].count
    width = max([len(layer.name) for layer in layers] + [len("(network)")])
    kinds = max([len(layer.kind) for layer in layers] + [len("class")])

    def line(*cells: object) -> str:
        name, kind, *numbers = map(str, cells)
        parts = [f"{name:<{width}}", f"{kind:<{kinds}}"]
        return "  ".join([*parts, *(f"{number:>14}" for number in numbers)])

    yield line("layer", "class", "parameters", "multiply-adds", "MB moved")
    for layer in layers:
        moved = f"{layer.bytes / 1e6:.2f}"
        yield line(
            layer.name or "(network)",
            layer.kind,
            f"{layer.parameters:,}",
            f"{count(layer):,}",
            moved,
        )
    parameters = sum(layer.parameters for layer in layers)
    moved = sum(layer.bytes for layer in layers) / 1e6
    total = multiply_adds(layers, convention)
    yield line("total", "", f"{parameters:,}", f"{total:,}", f"{moved:.2f}")


class _Counter(TorchDispatchMode):
    """Adds up what runs, under the name of the innermost module that is running."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.operations: dict[str, Counter[str]] = {}
        self.bytes: Counter[str] = Counter()
        self._running: list[str] = [""]
        self._linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        # What is made of parameters alone is one too: casts, transposes, scaled weights. Kept
        # alive, for the storage of a tensor that is gone could be given to another.
        self._weights: dict[int, Tensor] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._weights[_storage(tensor)] = tensor

    def enter(self, name: str) -> Callable[..., None]:
        """A hook that says that a module starts."""
        return lambda module, args: self._running.append(name)

    def leave(self, *_: Any) -> None:
        """A hook that says that it ends."""
        self._running.pop()

    def is_weight(self, value: Any) -> bool:
        """Whether a tensor holds parameters, or numbers made of parameters alone."""
        return isinstance(value, Tensor) and _storage(value) in self._weights

    def in_linear(self) -> bool:
        """Whether the running module is a linear layer."""
        return self._running[-1] in self._linear

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = operation_name(func).removesuffix("_")
        if moves_nothing(func):
            return output
        inputs = list(tensors_in([args, kwargs]))
        outputs = list(tensors_in(output))
        if inputs and all(map(self.is_weight, inputs)):
            self._weights.update((_storage(tensor), tensor) for tensor in outputs)
        rule = _RULES.get(name, _other)
        found = rule(self, args, outputs)
        here = self._running[-1]
        self.operations.setdefault(here, Counter()).update(found)
        written = outputs[:1] if rule in (_batch_norm, _norm) else outputs  # without statistics
        read = tensors_read(func, args, kwargs or {})
        self.bytes[here] += sum(map(tensor_bytes, (*read, *written)))
        return output


_FREE = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("_unsafe_view", "_reshape_alias"),  # views that do not say so
}


# The first argument is overwritten, or gives a shape and a dtype: it is not read.
_OVERWRITES = {"copy_", "fill_", "zero_", "uniform_", "normal_"}


def operation_name(func: torch._ops.OpOverload) -> str:
    """``"relu_"`` of ``aten::relu_``."""
    return func._schema.name.split("::")[-1]


def moves_nothing(func: torch._ops.OpOverload) -> bool:
    """Whether an operation only makes a view, or memory that is not written yet.

    Args:
        func: as a ``TorchDispatchMode`` sees it.
    """
    results = func._schema.returns
    aliases = [r.alias_info for r in results if r.alias_info is not None]
    views = bool(aliases) and not any(alias.is_write for alias in aliases)
    return views or operation_name(func).removesuffix("_") in _FREE


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of arguments or results, those in lists, tuples and values of dicts too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def tensors_read(
    func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Tensor]:
    """The arguments whose numbers an operation reads.

    ``zeros_like(x)``, ``x.new_full(...)``, ``x.zero_()`` and ``x.copy_(y)`` do not read ``x``, and
    nothing reads its ``out=``.

    Args:
        func: as a ``TorchDispatchMode`` sees it.
        args: its arguments.
        kwargs: its arguments with names.
    """
    name = operation_name(func)
    if name.startswith("new_") or name.endswith("_like") or name in _OVERWRITES:
        args = args[1:]
    written = {argument.name for argument in func._schema.arguments if argument.is_out}
    return list(tensors_in([args, {k: v for k, v in kwargs.items() if k not in written}]))


def tensor_bytes(tensor: Tensor) -> int:
    """The bytes of a tensor that lie in memory: an expanded axis is there once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return prod(size for size, stride in sizes if stride or not size) * tensor.element_size()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


# The rules: what an operation counts. Each gets the counter, the arguments and the outputs.


def _convolution(counter: _Counter, args, outputs) -> dict[str, int]:
    x, weight, bias, *_, transposed, _, _ = args
    places = x if transposed else outputs[0]
    number = x.shape[0] * prod(places.shape[2:]) * weight.numel()
    kind = "transposed convolution" if transposed else "convolution"
    return {kind: number} | ({"bias": outputs[0].numel()} if bias is not None else {})


def _deformable(counter: _Counter, args, outputs) -> dict[str, int]:
    x, weight = args[:2]
    places = outputs[0].shape[0] * prod(outputs[0].shape[2:])
    samples = places * x.shape[1] * prod(weight.shape[2:])
    found = {"deformable convolution": places * weight.numel(), "sampling": 4 * samples}
    # torchvision hands zeros over where there is no bias.
    return found | ({"bias": outputs[0].numel()} if counter.is_weight(args[4]) else {})


def _product(first: int) -> Callable[..., dict[str, int]]:
    """Matrix products whose factors are argument ``first`` and the next."""

    def rule(counter: _Counter, args, outputs) -> dict[str, int]:
        factors = args[first : first + 2]
        linear = counter.in_linear() or any(map(counter.is_weight, factors))
        number = factors[0].numel() * (factors[1].shape[-1] if factors[1].dim() > 1 else 1)
        found = {"linear" if linear else "matrix product": number}
        return found | ({"bias": outputs[0].numel()} if first else {})

    return rule


def _attention(counter: _Counter, args, outputs) -> dict[str, int]:
    query, key, value = args[:3]
    pairs = query[..., 0].numel() * key.shape[-2]
    return {"matrix product": pairs * (query.shape[-1] + value.shape[-1]), "softmax": pairs}


def _batch_norm(counter: _Counter, args, outputs) -> dict[str, int]:
    return _normed(args[0], affine=args[1] is not None, statistics=bool(args[5]))


def _norm(counter: _Counter, args, outputs) -> dict[str, int]:
    weight = next((a for a in args[1:] if isinstance(a, Tensor)), None)
    return _normed(args[0], affine=weight is not None, statistics=True)


def _fixed_norm(counter: _Counter, args, outputs) -> dict[str, int]:
    return _normed(args[0], affine=args[1] is not None, statistics=False)


def _normed(x: Tensor, *, affine: bool, statistics: bool) -> dict[str, int]:
    found = {"norm": x.numel()}
    if affine:
        found["affine"] = x.numel()
    if statistics:
        found["statistics"] = x.numel()
    return found


def _elementwise(kind: str, with_weight: str) -> Callable[..., dict[str, int]]:
    def rule(counter: _Counter, args, outputs) -> dict[str, int]:
        number = outputs[0].numel()
        operands = [a for a in args[:2] if isinstance(a, Tensor)]
        if len(operands) < 2 or any(map(counter.is_weight, operands)):
            return {with_weight: number}
        smaller = min(operand.numel() for operand in operands)
        return {kind if smaller == number else "broadcast": number}

    return rule


def _written(category: str) -> Callable[..., dict[str, int]]:
    return lambda counter, args, outputs: {category: sum(o.numel() for o in outputs)}


def _first(category: str) -> Callable[..., dict[str, int]]:
    """Numbers of the first output: beside it, pooling returns indices."""
    return lambda counter, args, outputs: {category: outputs[0].numel()}


def _read(category: str) -> Callable[..., dict[str, int]]:
    return lambda counter, args, outputs: {category: args[0].numel()}


def _interpolation(neighbours: int) -> Callable[..., dict[str, int]]:
    return lambda counter, args, outputs: {"interpolation": neighbours * outputs[0].numel()}


_other = _written("other")
_ACTIVATIONS = (
    *("relu", "hardtanh", "clamp", "clamp_min", "clamp_max", "leaky_relu", "elu", "_prelu_kernel"),
    *("sigmoid", "tanh", "silu", "gelu", "mish", "hardswish", "hardsigmoid", "softplus"),
)
_RULES: dict[str, Callable[..., dict[str, int]]] = {
    "convolution": _convolution,
    "deform_conv2d": _deformable,
    **{name: _product(0) for name in ("mm", "bmm", "mv", "dot")},
    **{name: _product(1) for name in ("addmm", "baddbmm", "addmv")},
    **{
        f"_scaled_dot_product_{name}": _attention
        for name in (
            *("flash_attention", "flash_attention_for_cpu", "efficient_attention"),
            *("cudnn_attention", "fused_attention_overrideable"),
        )
    },
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "miopen_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _fixed_norm,
    "_batch_norm_no_update": _fixed_norm,
    "native_layer_norm": _norm,
    "native_group_norm": _norm,
    "add": _elementwise("addition", "bias"),
    "sub": _elementwise("addition", "bias"),
    "mul": _elementwise("multiplication", "scaling"),
    "div": _elementwise("multiplication", "scaling"),
    **{name: _first("activation") for name in _ACTIVATIONS},
    **{name: _first("softmax") for name in ("_softmax", "_log_softmax", "_safe_softmax")},
    **{
        name: _read("max pooling")
        for name in (
            *("max_pool2d_with_indices", "max_pool3d_with_indices"),
            *("adaptive_max_pool2d", "adaptive_max_pool3d"),
        )
    },
    **{
        name: _read("average pooling")
        for name in (
            *("mean", "avg_pool2d", "avg_pool3d"),
            *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        )
    },
    **{f"upsample_nearest{n}d": _interpolation(1) for n in (1, 2, 3)},
    "upsample_linear1d": _interpolation(2),
    "upsample_bilinear2d": _interpolation(4),
    "upsample_bicubic2d": _interpolation(16),
    "upsample_trilinear3d": _interpolation(8),
    "grid_sampler_2d": _interpolation(4),
    "grid_sampler_3d": _interpolation(8),
    **{
        name: _first("copy")
        for name in ("clone", "copy", "_to_copy", "cat", "stack", "constant_pad_nd", "index")
    },
}
