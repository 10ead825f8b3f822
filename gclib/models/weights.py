r"""Weights of whole networks: ours, torchvision's, timm's, mmlab's and the official code's.

The networks of all of them name their layers alike; what differs is the name of an inserted block
and, in 3D, of the layers inside of a convolution. Where blocks stand is read off the keys.

=================================================  ==============================================
keys of a residual block                           from
=================================================  ==============================================
``layer3.4.block.``                                gclib
``layer3.4.se.``                                   timm (``block_args={"attn_layer": "gca"}``)
``layer3.4.context_block.``, ``.nonlocal_block.``  mmdetection, the official repository
``conv1.conv.``, ``downsample.bn.``                mmaction2; its non-local block stands behind
                                                   the last ReLU, and is refused
``stem.0.``, ``layer1.0.conv1.0.``                 torchvision's 3D networks, for the same network
=================================================  ==============================================

What wraps a network (``module.``, ``_orig_mod.``, ``backbone.``, ``backbone.body.``, in any order)
is taken off. Two things cannot be told from weights, and a network with the wrong ones computes
something else without an error:

* at which position inside of its residual block a block stood, and where the strides are. A
  checkpoint may say it, in entries ``"position"`` and ``"stride_in"`` beside its state dict; they
  are compared then. Weights of the official code and of mmdetection's configurations belong to
  ``position="after_1x1"`` (their ``after_conv3``) and ``stride_in="3x3"``;
* by what a non-local block scales its logits. mmdetection 1, and so the official code, multiplies
  them by :math:`\sqrt{d}` (d inner channels) where the formula divides: weights trained there need
  ``NonLocalBlock(..., scale=d**0.5)``, those of mmcv's block ``scale="sqrt"``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gclib.blocks.converters import convert_state_dict
from gclib.models.insertion import is_with_block

_SLOTS = {
    "block": "gclib",
    "se": "timm",
    "context_block": "mmcv",
    "nonlocal_block": "mmcv",
    "non_local_block": "mmcv",
}
_SLOT = re.compile(rf"(layer\d\.\d+)\.({'|'.join(_SLOTS)})\d*\.")
# mmlab's other names; a plain network's keys match none of them.
_LAYERS = [
    (r"(.*\bconv\d)\.conv\.(.*)", r"\1.\2"),
    (r"(.*\b)conv(\d)\.bn\.(.*)", r"\1bn\2.\3"),
    (r"(.*downsample)\.conv\.(.*)", r"\1.0.\2"),
    (r"(.*downsample)\.bn\.(.*)", r"\1.1.\2"),
    (r"(.*conv2)_offset\.(.*)", r"\1.conv_offset.\2"),
]
_WRAPPED = r"(?:(?:module|model|backbone|body)\.)*"
_FIRST = re.compile(rf"({_WRAPPED})(?:conv1\.weight|conv1\.conv\.weight|stem\.0\.weight)")
_HEADS = (rf"{_WRAPPED}fc\.", r"(?:module\.)*(?:cls_head\.fc_cls|head\.fc)\.")
# torch.compile and activation checkpoints wrap single layers too.
_INNER = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
_INSIDE = ("state_dict", "model", "model_state")  # of a training checkpoint
_PLACES = ("stride_in", "position")  # beside it
_SHOWN = 4


def read_weights(
    path: str | os.PathLike[str],
    *,
    known: Iterable[str] = (),
    stride_in: str | None = None,
    position: str | None = None,
) -> dict[str, Tensor]:
    """Read a state dict from a file, alone or inside of a training checkpoint.

    Args:
        path: of a file that ``torch.save`` wrote. Nothing but tensors is loaded: a file cannot run
            code.
        known: names that could have been meant in place of a path, for the message.
        stride_in: where the network has its strides; compared if the file says where they belong.
        position: where its blocks stand; likewise.

    Raises:
        TypeError: ``path`` is no path.
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, more than tensors, or weights of another ``stride_in`` or
            ``position``.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"weights of type {type(path).__name__}: expected None, a name or the path of a file "
            "(a state dict goes into load_weights(model, state_dict))"
        )
    if not Path(path).is_file():
        names = ", ".join(map(repr, known))
        names = f"one of {names}, or " if names else ""
        raise FileNotFoundError(f"weights={str(path)!r}: expected {names}the path of a file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as e:  # a damaged file makes torch raise almost anything
        if match := re.search(r"GLOBAL (\S+) was not an allowed", str(e)):
            raise ValueError(
                f"{path}: holds more than tensors ({match[1]}), and loading that could run code; "
                "save its state dict alone, torch.save(model.state_dict(), path)"
            ) from None
        said = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ValueError(f"{path}: not a file of weights, or cut short ({said[:120]})") from None
    try:
        weights, stored = open_checkpoint(found)
    except TypeError:
        raise ValueError(f"{path}: holds no state dict (name → tensor)") from None
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path}: holds no state dict (name → tensor)")
    if wrong := _other_places(stored, stride_in, {position} - {None}):
        raise ValueError(f"{path}: {wrong}")
    return weights


def open_checkpoint(found: Mapping) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take the state dict out of a training checkpoint; a state dict stays what it is.

    Returns:
        The state dict, and what the checkpoint says beside it: ``"stride_in"``, ``"position"``.

    Raises:
        TypeError: ``found`` is no mapping.
    """
    if not isinstance(found, Mapping):
        raise TypeError(
            f"expected a state dict (name → tensor) or a checkpoint, got {type(found).__name__}"
        )
    stored = {key: found[key] for key in _PLACES if isinstance(found.get(key), str)}
    for key in _INSIDE:
        if isinstance(found.get(key), Mapping):
            return dict(found[key]), stored
    return {key: value for key, value in found.items() if key not in stored}, stored


def _other_places(stored: Mapping[str, str], stride_in: str | None, positions: set) -> str | None:
    """Say in what the network differs from what a checkpoint says of its own."""
    theirs = stored.get("stride_in")
    if theirs and stride_in and theirs != stride_in:
        return f"its weights belong to stride_in={theirs!r}, not {stride_in!r}"
    theirs = stored.get("position")
    if theirs and positions - {theirs}:
        ours = ", ".join(map(repr, sorted(positions)))
        return f"its blocks stood at position={theirs!r}, not {ours}"
    return None


def convert_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict, of whichever library above, to that of ``model``.

    Args:
        model: the network, with its blocks inserted.
        state_dict: theirs, or a training checkpoint that holds it; what belongs to other parts,
            such as ``neck.``, is left aside.

    Returns:
        A state dict without the entries that may be missing, see :func:`load_weights`.

    Raises:
        TypeError, ValueError: as :func:`load_weights`.
    """
    model = _inner(model)
    state_dict, stored = open_checkpoint(state_dict)
    # Names of all residual blocks, of shared ones too: a state dict names these several times.
    holders = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if is_with_block(module)
    }
    blocks = {name: residual.block for name, residual in holders.items()}
    positions = {residual.position for residual in holders.values()}
    if wrong := _other_places(stored, getattr(model, "stride_in", None), positions):
        raise ValueError(f"weights do not fit the network: {wrong}")
    strange = [key for key in state_dict if not isinstance(key, str)]
    if strange:
        raise ValueError(f"expected a state dict (name → tensor), got a key {strange[0]!r}")
    state_dict = {_INNER.sub("", key): value for key, value in state_dict.items()}
    target = model.state_dict()
    prefix = _prefix(state_dict)
    slots: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, value in state_dict.items():
        name = _head(key) or (key[len(prefix) :] if key.startswith(prefix) else None)
        if name is None:
            continue
        if match := _SLOT.match(name):
            slots[match[0]] = match[1]
            continue
        name = _ours(name)
        if not isinstance(value, Tensor):
            if _is_ours(name, target):
                problems.append(f"{key}: expected a tensor, got {type(value).__name__}")
        elif name not in target:
            # Another part of a larger model; or a counter that frozen norms do not have.
            if _is_ours(name, target) and not name.endswith("num_batches_tracked"):
                problems.append(f"{key} has no place in {type(model).__name__}")
        elif value.shape == target[name].shape:
            found[name] = value
        elif not name.startswith("fc."):
            shapes = f"{tuple(value.shape)} does not fit {tuple(target[name].shape)}"
            problems.append(f"{key}: {shapes}")
    for slot, residual in slots.items():
        others = [other for other in slots if slots[other] == residual and other != slot]
        if others:
            if slot < min(others):
                names = f"{prefix}{slot}* and {prefix}{min(others)}*"
                problems.append(f"{names}: two blocks in {residual}, which holds one here")
            continue
        if ".non_local_block" in slot:
            problems.append(
                f"{prefix}{slot}*: mmaction2's non-local block stands behind the last ReLU, where "
                "no block stands here; load the network without it"
            )
            continue
        if residual not in blocks:
            problems.append(f"{prefix}{slot}*: there is no block in {residual}; insert it first")
            continue
        source = _SLOTS[_SLOT.match(slot)[2]]
        try:
            block = _block(blocks[residual], state_dict, source, f"{prefix}{slot}")
        except ValueError as error:
            problems.append(f"{residual}: {error}")
            continue
        found |= {f"{residual}.block.{key}": value for key, value in block.items()}
    held = {f"{residual}.block." for residual in slots.values()}
    missing = [
        key
        for key in target
        if key not in found and not _may_be_missing(key, bool(slots), held, blocks)
    ]
    problems += [f"nothing for {key}" for key in missing]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(f"weights do not fit the network: {'; '.join(problems[:_SHOWN])}{more}")
    return found


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Load a state dict of any library above into a network, in place.

    Three things may be missing, and stay as they are: the blocks, if the state dict has none at
    all; the classifier, if it has none or one for other classes; offsets of deformable
    convolutions.

    Args:
        model: the network, with its blocks inserted; also compiled or in
            ``DistributedDataParallel``.
        state_dict: see :func:`convert_weights`.

    Returns:
        Names in ``model`` that were not loaded.

    Raises:
        TypeError: ``state_dict`` is no mapping.
        ValueError: weights are missing, left over, or of another shape; the message names the
            first. Or a checkpoint says that they belong to another ``position`` or ``stride_in``.

    The model is unchanged when an error is raised.
    """
    converted = convert_weights(model, state_dict)
    missing = _inner(model).load_state_dict(converted, strict=False).missing_keys
    return [name for name in missing if not name.endswith("num_batches_tracked")]


def _inner(model: nn.Module) -> nn.Module:
    """The network inside of what torch wraps around it."""
    while isinstance(model, nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _block(
    block: nn.Module, state_dict: Mapping[str, Tensor], source: str, prefix: str
) -> dict[str, Tensor]:
    if source != "gclib":
        return convert_state_dict(block, state_dict, source, prefix=prefix)
    theirs = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    ours = block.state_dict()
    if strange := [k for k, v in theirs.items() if not isinstance(v, Tensor)]:
        kind = type(theirs[strange[0]]).__name__
        raise ValueError(f"{prefix}{strange[0]}: expected a tensor, got {kind}")
    if {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in ours.items()}:
        raise ValueError(f"weights under {prefix}* are not those of a {type(block).__name__} here")
    return theirs


def _prefix(state_dict: Mapping[str, Tensor]) -> str:
    """Under which prefix the network's layers stand: the shortest one."""
    found = [match[1] for key in state_dict if (match := _FIRST.fullmatch(key))]
    if found:
        return min(found, key=len)
    shown = ", ".join(list(state_dict)[:3])
    raise ValueError(
        "no conv1.weight among the weights, nor under backbone., module. and the like: expected a "
        f"ResNet's, got {shown}, ..."
    )


def _ours(name: str) -> str:
    for pattern, ours in _LAYERS:
        if match := re.fullmatch(pattern, name):
            name = match.expand(ours)
    return name


def _head(key: str) -> str | None:
    for pattern in _HEADS:
        if match := re.match(pattern, key):
            return f"fc.{key[match.end() :]}"
    return None


def _is_ours(name: str, target: Mapping[str, Tensor]) -> bool:
    """Whether a name belongs to a layer that the network has or could have."""
    return name.split(".")[0] in {key.split(".")[0] for key in target}


def _may_be_missing(key: str, with_blocks: bool, held: set[str], blocks: Mapping) -> bool:
    if key.endswith("num_batches_tracked") or key.startswith("fc.") or ".conv_offset." in key:
        return True
    in_block = any(key.startswith(f"{name}.block.") for name in blocks)
    return in_block and not with_blocks and not any(key.startswith(name) for name in held)
