"""Load weights that other libraries saved.

``load_peer_state_dict(block, state_dict, "mmcv")`` renames, reshapes and loads. A state dict holds
no options, so the block must be built with the ones its peer computes with:

====================================  =========================================================
peer                                  our block
====================================  =========================================================
mmcv, official ``ContextBlock``       ``GCBlock(C, ratio=r)`` for their ``ratio=1/r``; pooling
                                      ``'avg'`` or fusion ``'channel_mul'``: the registry's
                                      ``2f/...``
mmcv ``NonLocal1d/2d/3d``             ``reduction``; ``scale="sqrt"`` with ``use_scale=True`` for
                                      ``embedded_gaussian``; ``subsample="after"`` with
                                      ``sub_sample=True``; ``norm="batch"`` with a ``norm_cfg``
official ``NonLocal2D``               as mmcv, but ``scale=√C'``: it multiplies where mmcv divides
timm ``GlobalContext``                as mmcv, with ``norm_eps=1e-6``; its default fusion is scaling
timm ``SEModule``, torchvision        ``SEBlock``, with the ratio that gives the same hidden width
``SqueezeExcitation``
timm ``NonLocalAttn``                 ``norm="batch"``, ``scale=C**-0.5`` (C, not C')
AlexHex7 ``NONLocalBlock1D/2D/3D``    ``subsample="after"``, ``norm="batch"`` (their defaults)
SlowFast, pytorchvideo ``Nonlocal``   ``ndim=3``, ``norm="batch"``, ``scale="sqrt"`` (softmax),
                                      ``subsample="before"`` for pool size [1, 2, 2]
====================================  =========================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gclib.blocks._arguments import check_choice

# (their key, our key), tried in order; a pattern must match the whole key.
_BATCH_NORM_KEYS = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_TABLES: dict[str, list[tuple[str, str]]] = {
    "mmcv": [
        (r"conv_mask\.(weight|bias)", r"context_modelling.key.\1"),
        (r"channel_(?:add|mul)_conv\.0\.(weight|bias)", r"transform.reduce.\1"),
        (r"channel_(?:add|mul)_conv\.1\.(weight|bias)", r"transform.norm.\1"),
        (r"channel_(?:add|mul)_conv\.3\.(weight|bias)", r"transform.expand.\1"),
        (r"theta\.conv\.(weight|bias)", r"query.\1"),
        (r"phi\.(?:0\.)?conv\.(weight|bias)", r"key.\1"),
        (r"g\.(?:0\.)?conv\.(weight|bias)", r"value.\1"),
        (r"concat_project\.conv\.weight", r"pair.weight"),
        (r"conv_out\.conv\.(weight|bias)", r"out.\1"),
        (rf"conv_out\.bn\.{_BATCH_NORM_KEYS}", r"norm.\1"),
    ],
    "timm": [
        (r"conv_attn\.(weight|bias)", r"context_modelling.key.\1"),
        (r"(?:mlp_(?:add|scale)\.)?fc1\.(weight|bias)", r"transform.reduce.\1"),
        (r"mlp_(?:add|scale)\.norm\.(weight|bias)", r"transform.norm.\1"),
        (r"(?:mlp_(?:add|scale)\.)?fc2\.(weight|bias)", r"transform.expand.\1"),
        (r"t\.(weight|bias)", r"query.\1"),
        (r"p\.(weight|bias)", r"key.\1"),
        (r"g\.(weight|bias)", r"value.\1"),
        (r"z\.(weight|bias)", r"out.\1"),
        (rf"norm\.{_BATCH_NORM_KEYS}", r"norm.\1"),
    ],
    "torchvision": [
        (r"fc1\.(weight|bias)", r"transform.reduce.\1"),
        (r"fc2\.(weight|bias)", r"transform.expand.\1"),
    ],
    "alexhex7": [
        (r"theta\.(weight|bias)", r"query.\1"),
        (r"phi\.(?:0\.)?(weight|bias)", r"key.\1"),
        (r"g\.(?:0\.)?(weight|bias)", r"value.\1"),
        (r"concat_project\.0\.weight", r"pair.weight"),
        (r"W\.(?:0\.)?(weight|bias)", r"out.\1"),
        (rf"W\.1\.{_BATCH_NORM_KEYS}", r"norm.\1"),
    ],
    "slowfast": [
        (r"conv_theta\.(weight|bias)", r"query.\1"),
        (r"conv_phi\.(weight|bias)", r"key.\1"),
        (r"conv_g\.(weight|bias)", r"value.\1"),
        (r"conv_out\.(weight|bias)", r"out.\1"),
        (rf"(?:bn|norm)\.{_BATCH_NORM_KEYS}", r"norm.\1"),
    ],
}
_ALIASES = {"official": "mmcv", "pytorchvideo": "slowfast"}
SOURCES = (*_TABLES, *_ALIASES)


def convert_state_dict(
    state_dict: Mapping[str, Tensor], source: str, block: nn.Module, *, prefix: str = ""
) -> dict[str, Tensor]:
    """Rename and reshape a peer's state dict to that of ``block``.

    Shapes that differ by axes of size 1 alone are reshaped, so that 1×1 convolutions load into
    linear maps, ``(p, 1, 1)`` norms into ``(p,)`` ones, and 2D blocks into 1D and 3D ones. A bias
    that the peer does not have (mmcv drops it before a norm) becomes zero.

    Args:
        state_dict: what the peer saved; other keys than those under ``prefix`` are left aside.
        source: ``"mmcv"``, ``"official"``, ``"timm"``, ``"torchvision"``, ``"alexhex7"``,
            ``"slowfast"`` or ``"pytorchvideo"``.
        block: the block that the weights are for, built with the peer's options (see above).
        prefix: for example ``"backbone.layer3.4.context_block."``.

    Returns:
        A state dict for ``block.load_state_dict(..., strict=True)``; tensors are not copied.

    Raises:
        ValueError: unknown source; keys that are missing or left over; shapes that do not fit.
    """
    check_choice("source", source, SOURCES)
    table = _TABLES[_ALIASES.get(source, source)]
    target = block.state_dict()
    theirs = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    if not theirs:
        raise ValueError(f"no key of the state dict starts with prefix={prefix!r}")
    matches = (re.match(r"(channel_(add|mul)_conv|mlp_(add|scale))\.", key) for key in theirs)
    fusions = {match[1] for match in matches if match}
    if len(fusions) > 1:
        raise ValueError(
            f"the peer fuses twice ({' and '.join(sorted(fusions))}); "
            "a block of the framework (equation 4) has one fusion"
        )

    converted: dict[str, Tensor] = {}
    problems: list[str] = []
    for key, tensor in theirs.items():
        ours = _rename(key, table)
        if ours not in target:
            name = type(block).__name__
            problems.append(f"{key}: {name} with these options has no place for it")
        elif _trim(tensor.shape) != _trim(target[ours].shape):
            shapes = f"{tuple(tensor.shape)} does not fit {tuple(target[ours].shape)}"
            problems.append(f"{key} -> {ours}: {shapes}")
        else:
            converted[ours] = tensor.reshape(target[ours].shape)
    for key in target:
        if key.endswith(".bias") and f"{key[:-5]}.weight" in converted:
            converted.setdefault(key, torch.zeros_like(target[key]))
    missing = [key for key in target if key not in converted]
    if missing and not problems:
        problems.append(f"nothing to load into {', '.join(missing)}")
    if problems:
        reasons = "; ".join(problems)
        raise ValueError(f"state dict of {source!r} does not fit the block: {reasons}")
    return converted


def load_peer_state_dict(
    block: nn.Module, state_dict: Mapping[str, Tensor], source: str, *, prefix: str = ""
) -> None:
    """Load a peer's state dict into ``block``; arguments and errors of :func:`convert_state_dict`.

    The block is unchanged when an error is raised.
    """
    block.load_state_dict(convert_state_dict(state_dict, source, block, prefix=prefix))


def _rename(key: str, table: list[tuple[str, str]]) -> str | None:
    for pattern, ours in table:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(ours)
    return None


def _trim(shape) -> tuple[int, ...]:
    """Drop the axes of size 1."""
    return tuple(size for size in shape if size != 1)
