"""Weights of whole networks: ours, torchvision's, timm's, mmlab's and the official code's.

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
=================================================  ==============================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gclib.blocks.converters import convert_state_dict
from gclib.models.insertion import inserted_blocks

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
_PREFIXES = ("", "backbone.", "module.", "module.backbone.", "model.")
_HEADS = (r"(?:module\.|model\.)?fc\.", r"(?:module\.)?(?:cls_head\.fc_cls|head\.fc)\.")
_INSIDE = ("state_dict", "model", "model_state")  # of a training checkpoint
_SHOWN = 4


def read_weights(
    path: str | os.PathLike[str], *, known: Iterable[str] = (), stride_in: str | None = None
) -> dict[str, Tensor]:
    """Read a state dict from a file, alone or inside of a training checkpoint.

    Args:
        path: of a file that ``torch.save`` wrote. Nothing but tensors is loaded: a file cannot run
            code.
        known: names that could have been meant in place of a path, for the message.
        stride_in: where the network has its strides; checked if the file says where they belong.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or those of another ``stride_in``.
    """
    if not Path(path).is_file():
        names = ", ".join(map(repr, known))
        names = f"one of {names}, or " if names else ""
        raise FileNotFoundError(f"weights={str(path)!r}: expected {names}the path of a file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as e:  # a damaged file makes torch raise almost anything
        said = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ValueError(f"{path}: not a file of weights, or cut short ({said[:120]})") from None
    stored = found.get("stride_in") if isinstance(found, dict) else None
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not any(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path}: holds no state dict (name → tensor)")
    if stored and stride_in and stored != stride_in:
        raise ValueError(f"{path}: its weights belong to stride_in={stored!r}, not {stride_in!r}")
    return dict(found)


def convert_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict, of whichever library above, to that of ``model``.

    Args:
        model: the network, with its blocks inserted.
        state_dict: theirs; what belongs to other parts, such as ``neck.``, is left aside.

    Returns:
        A state dict without the entries that may be missing, see :func:`load_weights`.

    Raises:
        ValueError: as :func:`load_weights`.
    """
    target = model.state_dict()
    prefix = _prefix(state_dict, target)
    blocks = inserted_blocks(model)
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
        if name not in target:
            # Another part of a larger model; or a counter that frozen norms do not have.
            if not _is_ours(name, target) or name.endswith("num_batches_tracked"):
                continue
            problems.append(f"{key} has no place in {type(model).__name__}")
        elif value.shape == target[name].shape:
            found[name] = value
        elif not name.startswith("fc."):
            shapes = f"{tuple(value.shape)} does not fit {tuple(target[name].shape)}"
            problems.append(f"{key}: {shapes}")
    for slot, residual in slots.items():
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
        model: the network, with its blocks inserted.
        state_dict: see :func:`convert_weights`.

    Returns:
        Names in ``model`` that were not loaded.

    Raises:
        ValueError: weights are missing, left over, or of another shape; the message names the
            first. The model is unchanged then.
    """
    converted = convert_weights(model, state_dict)
    missing = model.load_state_dict(converted, strict=False).missing_keys
    return [name for name in missing if not name.endswith("num_batches_tracked")]


def _block(
    block: nn.Module, state_dict: Mapping[str, Tensor], source: str, prefix: str
) -> dict[str, Tensor]:
    if source != "gclib":
        return convert_state_dict(block, state_dict, source, prefix=prefix)
    theirs = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    ours = block.state_dict()
    if {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in ours.items()}:
        raise ValueError(f"weights under {prefix}* are not those of a {type(block).__name__} here")
    return theirs


def _prefix(state_dict: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """Under which prefix the network's layers stand."""
    first = {"conv1.weight", "conv1.conv.weight"}
    for prefix in _PREFIXES:
        if any(prefix + name in state_dict for name in first):
            return prefix
    shown = ", ".join(list(state_dict)[:3])
    raise ValueError(
        f"no conv1.weight among the weights, nor under {', '.join(_PREFIXES[1:])}: expected a "
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
