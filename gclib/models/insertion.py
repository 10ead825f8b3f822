"""Blocks in residual networks: where they stand, how they get there and out again.

>>> model = torchvision.models.resnet50(weights="DEFAULT")        # doctest: +SKIP
>>> insert_blocks(model, GCBlock)                                 # doctest: +SKIP
{'layer2.0': GCBlock(...), ...}

A network keeps its layers, their names and their weights; a residual block gets one more child,
``block``. With additive fusion the network computes what it computed before.
"""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gclib.blocks._arguments import check_choice
from gclib.blocks.registry import POSITIONS, STAGES, find_row

if TYPE_CHECKING:
    from gclib.models.residual import WithBlock

# Names of the stages: of the paper → of torchvision, timm, mmlab.
LAYERS = {"c2": "layer1", "c3": "layer2", "c4": "layer3", "c5": "layer4"}
Indices = int | Iterable[int]


def insert_blocks(
    model: nn.Module,
    block: Callable[..., nn.Module],
    stages: Iterable[str] = STAGES,
    position: str = "after_1x1",
    index: Indices | Mapping[str, Indices] | None = None,
) -> dict[str, nn.Module]:
    """Insert a block into residual blocks of ``model``, in place (paper section 4.3).

    Insert before the optimizer takes the parameters, and before the network is wrapped by
    ``DistributedDataParallel`` or compiled: these do not see parameters that come later.

    Args:
        model: a ResNet, ResNeXt or Wide ResNet of torchvision, one of its 3D ResNets, or
            :class:`gclib.models.SlowOnly`; also what holds their stages as ``layer1`` to
            ``layer4``, for example the ``backbone.body`` of a detector.
        block: called as ``block(channels)``, in 3D networks as ``block(channels, ndim=3)``, once
            for each residual block; for example ``GCBlock`` or ``partial(GCBlock, ratio=4)``.
        stages: of ``"c2"`` (no paper's row has blocks there) to ``"c5"``.
        position: ``"after_1x1"`` (default: behind the last convolution and its norm, before the
            addition), ``"after_3x3"`` (behind the 3×3 convolution, its norm and ReLU; bottlenecks
            alone), or ``"after_add"`` (behind the addition, before the last ReLU). These are the
            places of the official code.
        index: which residual blocks of each stage: None for all, one or several integers (-2 is
            the one before the last), or a mapping from stage to these.

    Returns:
        Name of each residual block → the block that is in it now, as ``<name>.block``. Blocks have
        the device, dtype and mode (training or evaluation) of the residual block they are in.

    Raises:
        TypeError: ``model`` holds no such stages, or residual blocks of another kind.
        ValueError: no such stage, position or index; a residual block holds a block already; the
            block changes the shape.

    The model is unchanged when an error is raised.
    """
    check_choice("position", position, POSITIONS)
    places = _places(model, stages, index)
    taken = [name for name, residual in places.items() if is_with_block(residual)]
    if taken:
        raise ValueError(
            f"{', '.join(taken)}: there is a block already; remove_blocks(model) takes it out"
        )
    made = {name: _make(block, name, residual, position) for name, residual in places.items()}
    for name, residual in places.items():
        _put(residual, made[name], position)
    return made


def insert_row(model: nn.Module, row_id: str) -> dict[str, nn.Module]:
    """Insert the blocks of a row of the paper's tables, for example ``"4a/gc_all"``.

    Returns and raises as :func:`insert_blocks`; a baseline inserts nothing.
    """
    row = find_row(row_id)
    if row.block is None:
        return {}
    return insert_blocks(model, row.block, row.stages, row.position, row.index)


def remove_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Take all inserted blocks out of ``model``, in place.

    Returns:
        Name of each residual block → the block that was in it; empty if there was none.

    Raises:
        TypeError: something exchanged the class of a residual block after the insertion, as
            parametrizations and FSDP do. The model is unchanged then.
    """
    holders = _holders(model)
    _check_classes(holders)
    found = {name: residual.block for name, residual in holders.items()}
    for residual in holders.values():
        _take(residual)
    return found


@contextlib.contextmanager
def without_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """``model`` as if no block had been inserted, as long as the context is open.

    Afterwards the same blocks stand where they stood. If the mode, device or dtype of their
    residual block has changed meanwhile, they follow it.

    Raises:
        TypeError: as :func:`remove_blocks`.
        RuntimeError: afterwards, if other blocks were inserted at their places (these are taken out
            again), or if a place is no longer one for a block; the error's ``blocks`` holds those
            that did not get back, by name.
    """
    places = {n: (r, r.position, _state(r)) for n, r in _holders(model).items()}
    blocks = remove_blocks(model)
    try:
        yield model
    except BaseException:
        _put_back(places, blocks)
        raise
    problem = _put_back(places, blocks)
    if problem is not None:
        raise problem


def inserted_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Name of each residual block that holds a block → the block."""
    return {name: residual.block for name, residual in _holders(model).items()}


def assert_identity(model: nn.Module, *inputs: Tensor) -> None:
    """Raise unless every inserted block returns what it is given, bit for bit.

    The forward pass runs in the model's mode, without gradients; buffers, such as the running
    statistics of norms in training mode, are as before when it returns.

    Args:
        model: with inserted blocks.
        inputs: of one forward pass.

    Raises:
        AssertionError: a block changes its input; the message names the first and says by how much.
        ValueError: there is no block.
    """
    holders = _holders(model)
    if not holders:
        raise ValueError(f"{type(model).__name__} holds no inserted block")
    changed: dict[str, float] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(block: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            before = given.pop(name)  # a block may write into its input
            if not torch.equal(output, before):
                changed[name] = (output - before).abs().max().item()

        return hook

    def keep(name: str) -> Callable[..., None]:
        def hook(block: nn.Module, args: tuple[Tensor, ...]) -> None:
            given[name] = args[0].clone()
            called.add(name)

        return hook

    given: dict[str, Tensor] = {}
    called: set[str] = set()
    with contextlib.ExitStack() as stack, torch.no_grad():
        # Compiled code runs without hooks.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for name, residual in holders.items():
            for handle in (
                residual.block.register_forward_pre_hook(keep(name)),
                residual.block.register_forward_hook(look(name)),
            ):
                stack.callback(handle.remove)
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    stack.callback(_restore, module, name, buffer, buffer.clone())
        model(*inputs)
    if silent := [name for name in holders if name not in called]:
        raise AssertionError(
            f"{silent[0]}.block did not run: the network does not call it (is its forward replaced "
            "or compiled?)"
        )
    if changed:
        name, most = next(iter(changed.items()))
        raise AssertionError(
            f"{len(changed)} of {len(holders)} blocks change their input, first {name}.block by up "
            f"to {most:.3g}: reset_identity(model) makes blocks that add the identity again "
            "(a block that scales by a sigmoid halves its input at the start)"
        )


def _restore(module: nn.Module, name: str, buffer: Tensor, value: Tensor) -> None:
    buffer.copy_(value)
    module._buffers[name] = buffer


def _holders(model: nn.Module) -> dict[str, WithBlock]:
    return {name: m for name, m in model.named_modules() if is_with_block(m)}


def is_with_block(module: nn.Module) -> bool:
    """Whether ``module`` is a residual block that holds a block."""
    from gclib.models.residual import WithBlock

    return isinstance(module, WithBlock)


def _check_classes(holders: Mapping[str, WithBlock]) -> None:
    from gclib.models.residual import PLAIN

    for name, residual in holders.items():
        if type(residual) not in PLAIN:
            raise TypeError(
                f"{name} has become a {type(residual).__name__} after the insertion (a "
                "parametrization or FSDP?): undo that first, then take the blocks out"
            )


def _state(residual: nn.Module) -> tuple[bool, torch.device, torch.dtype]:
    weight = next(residual.parameters())
    return residual.training, weight.device, weight.dtype


def _put_back(places: Mapping[str, tuple], blocks: dict[str, nn.Module]) -> RuntimeError | None:
    """Put every block where it stood; an error if something else had got there."""
    from gclib.models.residual import PLAIN, WITH_BLOCK

    strangers, lost = [], {}
    for name, (residual, position, before) in places.items():
        if type(residual) in PLAIN:
            strangers.append(name)
            _take(residual)
        if type(residual) not in WITH_BLOCK:
            lost[name] = blocks[name]
            continue
        for old, now, follow in zip(
            before, _state(residual), (nn.Module.train, nn.Module.to, nn.Module.to), strict=True
        ):
            if old != now:
                follow(blocks[name], now)
        _put(residual, blocks[name], position)
    said = []
    if strangers:
        said.append(
            f"{', '.join(strangers)}: a block was inserted while the network was without its own; "
            "it was taken out again (insert outside of without_blocks)"
        )
    if lost:
        said.append(
            f"{', '.join(lost)}: the class was exchanged while the network was without its blocks, "
            "which did not get back (they are in this error's .blocks)"
        )
    if not said:
        return None
    error = RuntimeError("; ".join(said))
    error.blocks = lost
    return error


def _put(residual: nn.Module, block: nn.Module, position: str) -> None:
    from gclib.models.residual import WITH_BLOCK

    # The class is exchanged, not the module: whoever holds it keeps it, hooks and names stay.
    residual.__class__ = WITH_BLOCK[type(residual)]
    residual.block, residual.position = block, position


def _take(residual: WithBlock) -> None:
    from gclib.models.residual import PLAIN

    del residual.block, residual.position
    residual.__class__ = PLAIN[type(residual)]


def stage_names(stages: Iterable[str], *, none_is_fine: bool = False) -> tuple[str, ...]:
    """``stages`` as a tuple; TypeError or ValueError unless they are some of ``c2`` to ``c5``."""
    if not isinstance(stages, Iterable):
        raise TypeError(f"stages={stages!r}: expected some of {', '.join(LAYERS)}")
    stages = (stages,) if isinstance(stages, str) else tuple(stages)
    if not stages and not none_is_fine:
        raise ValueError(f"stages is empty: expected some of {', '.join(LAYERS)}")
    for stage in stages:
        check_choice("stages", stage, LAYERS)
    return stages


def _places(
    model: nn.Module, stages: Iterable[str], index: Indices | Mapping[str, Indices] | None
) -> dict[str, nn.Module]:
    """Name → residual block, for every one that is asked for."""
    from gclib.models.residual import PLAIN, WITH_BLOCK

    stages = stage_names(stages)
    if isinstance(index, Mapping):
        if stray := [stage for stage in index if stage not in stages]:
            raise ValueError(f"index names {stray[0]!r}, stages={stages} does not")
        if absent := [stage for stage in stages if stage not in index]:
            raise ValueError(f"index has no entry for {absent[0]!r}, which is in stages={stages}")
    names = {id(module): name for name, module in model.named_modules()}
    found: dict[str, nn.Module] = {}
    for stage in dict.fromkeys(stages):
        layer = getattr(model, LAYERS[stage], None)
        if not isinstance(layer, nn.Sequential):
            raise TypeError(_no_stage(model, LAYERS[stage]))
        wanted = index[stage] if isinstance(index, Mapping) else index
        for at in _indices(wanted, len(layer), stage):
            residual = layer[at]
            if type(residual) not in WITH_BLOCK and type(residual) not in PLAIN:
                known = ", ".join(f"{cls.__module__}.{cls.__name__}" for cls in WITH_BLOCK)
                cls = type(residual)
                raise TypeError(
                    f"{names[id(residual)]} is a {cls.__module__}.{cls.__name__}: blocks go into "
                    f"{known}"
                )
            found[names[id(residual)]] = residual
    return found


def _no_stage(model: nn.Module, layer: str) -> str:
    inside = [name for name, module in model.named_modules() if name and hasattr(module, "layer4")]
    hint = f"; model.{inside[0]} has one, insert there" if inside else ""
    return (
        f"{type(model).__name__} has no stage {layer}: expected a ResNet of torchvision or one of "
        f"gclib.models{hint}"
    )


def _indices(wanted: Indices | None, size: int, stage: str) -> list[int]:
    if wanted is None:
        return list(range(size))
    listed = isinstance(wanted, Iterable) and getattr(wanted, "ndim", 1) > 0
    numbers = [_integer(number, stage) for number in (wanted if listed else [wanted])]
    if not numbers:
        raise ValueError(f"index of {stage} is empty: leave {stage} out of stages, or give None")
    for number in numbers:
        if not -size <= number < size:
            raise ValueError(f"index {number} of {stage}: it has {size} residual blocks")
    return sorted({number % size for number in numbers})


def _integer(number: object, stage: str) -> int:
    try:
        if isinstance(number, bool):
            raise TypeError
        return operator.index(number)  # takes numpy's integers too
    except TypeError:
        raise TypeError(f"index {number!r} of {stage}: expected an integer") from None


def _make(
    block: Callable[..., nn.Module], name: str, residual: nn.Module, position: str
) -> nn.Module:
    bottleneck = hasattr(residual, "conv3")
    if position == "after_3x3" and not bottleneck:
        raise ValueError(
            f"position='after_3x3': {name} has two 3×3 convolutions; expected 'after_1x1' (behind "
            "the last one) or 'after_add'"
        )
    last = residual.conv3 if bottleneck and position != "after_3x3" else residual.conv2
    # The last one of a Sequential; a deformable convolution holds another one for its offsets.
    inside = [last] if hasattr(last, "out_channels") else last.modules()
    convolution = [m for m in inside if hasattr(m, "out_channels")][-1]
    channels, ndim = convolution.out_channels, convolution.weight.dim() - 2
    options: dict[str, Any] = {} if ndim == 2 else {"ndim": ndim}
    made = block(channels, **options)
    if not isinstance(made, nn.Module):
        raise TypeError(f"block({channels}) returned a {type(made).__name__}: expected a module")
    _check_shape(made, channels, ndim)
    weight = convolution.weight
    return made.to(weight.device, weight.dtype).train(residual.training)


def _check_shape(block: nn.Module, channels: int, ndim: int) -> None:
    """Run a copy of the block on a small map without numbers."""
    shape = (2, channels, *(4, 6, 8)[:ndim])
    copied = copy.deepcopy(block).to("meta")
    with torch.no_grad():
        result = copied(torch.empty(shape, device="meta", dtype=_dtype_of(block)))
    if not isinstance(result, Tensor) or result.shape != shape:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(
            f"block({channels}) maps {shape} to {got}: a block keeps the shape of its input"
        )


def _dtype_of(block: nn.Module) -> torch.dtype:
    return next((p.dtype for p in block.parameters()), torch.get_default_dtype())
