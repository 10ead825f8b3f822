"""Load weights that other libraries saved.

``load_peer_state_dict(block, state_dict, "mmcv")`` renames, reshapes and loads. Fusion, norm and
(for mmcv and AlexHex7) sub-sampling can be told from the keys and are compared. Scale, kind of
normalisation, gate and SlowFast's pooling cannot: build the block with those of the peer.

====================================  =========================================================
peer                                  our block
====================================  =========================================================
mmcv, official ``ContextBlock``       ``GCBlock(C, ratio=r)`` for their ``ratio=1/r``; for pooling
                                      ``'avg'`` or fusion ``'channel_mul'`` a ``ContextBlock`` of
                                      ``AveragePooling()`` or ``AttentionPooling(C)``,
                                      ``BottleneckTransform(C, ratio=r, norm=True)`` and
                                      ``ScaleFusion()`` or ``AddFusion()``
mmcv ``NonLocal1d/2d/3d``             ``reduction``; ``scale="sqrt"`` with ``use_scale=True`` for
                                      ``embedded_gaussian``; ``subsample="after"`` with
                                      ``sub_sample=True``; ``norm="batch"`` with a ``norm_cfg``
official ``NonLocal2D``               as mmcv, but ``scale=√C'``: it multiplies where mmcv divides
timm ``GlobalContext``                as mmcv, with ``norm_eps=1e-6``; its default fusion is scaling
timm ``SEModule``, torchvision        ``SEBlock`` for a hidden width of C//r, otherwise a
``SqueezeExcitation``                 ``ContextBlock`` with ``BottleneckTransform(C, hidden=...)``;
                                      a sigmoid gate (MobileNetV3's hard sigmoid is not offered)
timm ``NonLocalAttn``                 ``norm="batch"``, ``scale=C**-0.5`` (C, not C'),
                                      ``reduction=8`` for its default ``rd_ratio=1/8``
AlexHex7 ``NONLocalBlock1D/2D/3D``    ``subsample="after"``, ``norm="batch"`` (their defaults)
SlowFast, pytorchvideo ``Nonlocal``   ``ndim=3``, ``norm="batch"``, ``scale="sqrt"`` (softmax),
                                      ``subsample="before"`` for pool size [1, 2, 2]
====================================  =========================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from gclib.blocks._arguments import check_choice
from gclib.blocks.framework import AddFusion, ScaleFusion

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
_FUSION = re.compile(r"(channel_(?:add|mul)_conv|mlp_(?:add|scale)|fc1)\.")
_PROBLEMS_SHOWN = 6
_ALIASES = {"official": "mmcv", "pytorchvideo": "slowfast"}
SOURCES = (*_TABLES, *_ALIASES)


def convert_state_dict(
    block: nn.Module, state_dict: Mapping[str, Tensor], source: str, *, prefix: str = ""
) -> dict[str, Tensor]:
    """Rename and reshape a peer's state dict to that of ``block``.

    Shapes that differ by axes of size 1 alone are reshaped, so that 1×1 convolutions load into
    linear maps, ``(p, 1, 1)`` norms into ``(p,)`` ones, and 2D blocks into 1D and 3D ones. The bias
    that mmcv drops before a norm becomes zero.

    Args:
        block: the block that the weights are for, built with the peer's options (see above).
        state_dict: what the peer saved; other keys than those under ``prefix`` are left aside.
        source: ``"mmcv"``, ``"official"``, ``"timm"``, ``"torchvision"``, ``"alexhex7"``,
            ``"slowfast"`` or ``"pytorchvideo"``.
        prefix: for example ``"backbone.layer3.4.context_block."``.

    Returns:
        A state dict for ``block.load_state_dict(..., strict=True)``; tensors are not copied.

    Raises:
        ValueError: unknown source; keys that are missing or left over; shapes that do not fit;
            a fusion or sub-sampling that is not the block's.
    """
    check_choice("source", source, SOURCES)
    table = _TABLES[_ALIASES.get(source, source)]
    target = block.state_dict()
    theirs = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    known = [key for key in theirs if _rename(key, table) in target]
    if not known:
        raise ValueError(_no_such_prefix(prefix, state_dict, table, target))
    problems = [*_fusion_problems(theirs, block), *_subsample_problems(theirs, block)]
    converted: dict[str, Tensor] = {}
    for key, tensor in theirs.items():
        ours = _rename(key, table)
        if not isinstance(tensor, Tensor):
            problems.append(f"{key}: expected a tensor, got {type(tensor).__name__}")
        elif ours in converted:
            problems.append(f"{key}: another key was loaded into {ours} already")
        elif ours not in target:
            name = type(block).__name__
            problems.append(f"{key}: {name} with these options has no place for it")
        elif _trim(tensor.shape) != _trim(target[ours].shape):
            shapes = f"{tuple(tensor.shape)} does not fit {tuple(target[ours].shape)}"
            problems.append(f"{key} -> {ours}: {shapes}")
        else:
            converted[ours] = tensor.reshape(target[ours].shape)
    if "norm.weight" in converted and "out.weight" in converted and "out.bias" in target:
        zeros = converted["out.weight"].new_zeros(target["out.bias"].shape)
        converted.setdefault("out.bias", zeros)
    for key, value in target.items():
        if key.endswith("num_batches_tracked"):  # files from before torch 0.4.1 lack it
            converted.setdefault(key, value)
    missing = [key for key in target if key not in converted]
    if missing and not problems:
        biases = all(key.endswith(".bias") for key in missing)
        hint = " (a peer without biases loads into a block with bias=False)" if biases else ""
        problems.append(f"nothing to load into {', '.join(missing)}{hint}")
    if problems:
        more = len(problems) - _PROBLEMS_SHOWN
        reasons = "; ".join(problems[:_PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise ValueError(f"state dict of {source!r} does not fit the block: {reasons}")
    return converted


def load_peer_state_dict(
    block: nn.Module, state_dict: Mapping[str, Tensor], source: str, *, prefix: str = ""
) -> None:
    """Load a peer's state dict into ``block``; arguments and errors of :func:`convert_state_dict`.

    The block is unchanged when an error is raised.
    """
    block.load_state_dict(convert_state_dict(block, state_dict, source, prefix=prefix))


def _fusion_problems(theirs: Mapping[str, Tensor], block: nn.Module) -> list[str]:
    fusions = {match[1] for key in theirs if (match := _FUSION.match(key))}
    if len(fusions) > 1:
        both = " and ".join(sorted(fusions))
        return [f"the peer fuses twice ({both}); a block of the framework has one fusion"]
    fusion = getattr(block, "fusion", None)
    if not fusions or not isinstance(fusion, (AddFusion, ScaleFusion)):
        return []
    (name,) = fusions
    wanted = AddFusion if "add" in name else ScaleFusion
    if isinstance(fusion, wanted):
        return []
    verb = "adds" if wanted is AddFusion else "scales"
    return [
        f"{name}.*: the peer {verb}, this {type(block).__name__} does not; build "
        f"ContextBlock(..., {wanted.__name__}())"
    ]


def _subsample_problems(theirs: Mapping[str, Tensor], block: nn.Module) -> list[str]:
    """Of mmcv and AlexHex7: pooling behind ``g`` makes it a Sequential, ``g.0``."""
    if not any(re.match(r"g\.(0|conv|weight)", key) for key in theirs):
        return []
    if not hasattr(block, "subsample") or any(key.startswith("t.") for key in theirs):  # timm
        return []
    pools = any(key.startswith("g.0.") for key in theirs)
    if pools == (block.subsample == "after"):
        return []
    expected = "after" if pools else None
    return [
        f"g.*: the peer {'pools' if pools else 'does not pool'} its values, the block has "
        f"subsample={block.subsample!r}; build it with subsample={expected!r}"
    ]


def _no_such_prefix(
    prefix: str, state_dict: Mapping[str, Tensor], table: list[tuple[str, str]], target: Mapping
) -> str:
    """Say that no key of a block stands under the prefix, and under which ones some do."""
    found: dict[str, int] = {}
    for key in state_dict:
        parts = key.split(".")
        for cut in range(len(parts)):
            if _rename(".".join(parts[cut:]), table) in target:
                start = ".".join([*parts[:cut], ""]) if cut else ""
                found[start] = found.get(start, 0) + 1
    most = max(found.values(), default=0)
    places = [start for start, count in found.items() if count == most][:_PROBLEMS_SHOWN]
    hint = f"; blocks stand under prefix={', '.join(map(repr, places))}" if places else ""
    return f"no key of such a block stands under prefix={prefix!r}{hint}"


def _rename(key: str, table: list[tuple[str, str]]) -> str | None:
    for pattern, ours in table:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(ours)
    return None


def _trim(shape: Iterable[int]) -> tuple[int, ...]:
    """Drop the axes of size 1."""
    return tuple(size for size in shape if size != 1)
