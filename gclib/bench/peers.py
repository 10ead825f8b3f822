"""Blocks of other libraries beside ours, each with the converter that shows them equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclib.blocks import (
    GCBlock,
    NonLocalBlock,
    SEBlock,
    SimplifiedNonLocalBlock,
    load_peer_state_dict,
)

Build = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Peer:
    """One implementation of a block.

    Attributes:
        build: channels → module; raises ImportError where the library is not installed.
        source: name of the converter for its weights; None for weights with our own names.
        trains: whether it can run backward.
    """

    build: Build
    source: str | None
    trains: bool = True


def _mmcv_context(channels: int, pooling: str = "att", fusion: str = "add") -> nn.Module:
    from mmcv.cnn.bricks import ContextBlock

    return ContextBlock(
        channels, ratio=1 / 16, pooling_type=pooling, fusion_types=(f"channel_{fusion}",)
    )


def _timm_context(channels: int, pooling: str = "att", fusion: str = "add") -> nn.Module:
    from timm.layers import GlobalContext

    block = GlobalContext(
        channels,
        use_attn=pooling == "att",
        fuse_add=fusion == "add",
        fuse_scale=fusion == "mul",
        rd_ratio=1 / 16,
    )
    for module in block.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5  # timm's 1e-6 is another function where few channels are hidden
    return block


def _timm_se(channels: int) -> nn.Module:
    from timm.layers import SEModule

    return SEModule(channels, rd_channels=channels // 16)


def _torchvision_se(channels: int) -> nn.Module:
    from torchvision.ops.misc import SqueezeExcitation

    return SqueezeExcitation(channels, channels // 16)


def _mmcv_nl(channels: int, mode: str) -> nn.Module:
    from mmcv.cnn import NonLocal2d

    return NonLocal2d(channels, mode=mode, use_scale=False, reduction=2)


class MatrixSNL(SimplifiedNonLocalBlock):
    """SNL as one writes it after mmcv's block: convolution to logits, column-shaped product."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        key, value = self.context_modelling.key, self.transform.value
        logits = F.conv2d(x, key.weight[..., None, None], key.bias)  # (N, 1, H, W)
        weights = logits.flatten(2).softmax(2).unsqueeze(-1)  # (N, 1, L, 1)
        context = torch.matmul(x.flatten(2).unsqueeze(1), weights)  # (N, 1, C, 1)
        context = context.view(*x.shape[:2], 1, 1)
        return x + F.conv2d(context, value.weight[..., None, None], value.bias)


class PairTensorNL(NonLocalBlock):
    """Concat as AlexHex7's formula has it: the tensor of all pairs ``(N, 2C', L, L)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        query, key = self.query(x).flatten(2), self.key(x).flatten(2)
        value, positions = self.value(x).flatten(2), x.shape[2] * x.shape[3]
        pairs = torch.cat(
            (
                query.unsqueeze(3).expand(-1, -1, -1, positions),
                key.unsqueeze(2).expand(-1, -1, positions, -1),
            ),
            1,
        )
        attention = F.relu(F.conv2d(pairs, self.pair.weight[..., None, None]))[:, 0] / positions
        context = torch.matmul(attention, value.transpose(1, 2)).transpose(1, 2)
        return x + self.out(context.reshape(len(x), -1, *x.shape[2:]))


OURS: dict[str, Build] = {
    "gc": GCBlock,
    "snl": SimplifiedNonLocalBlock,
    "se": SEBlock,
    "nl_embedded_gaussian": NonLocalBlock,
    "nl_gaussian": lambda channels: NonLocalBlock(channels, instantiation="gaussian"),
    "nl_dot_product": lambda channels: NonLocalBlock(channels, instantiation="dot_product"),
    "nl_concat": lambda channels: NonLocalBlock(channels, instantiation="concat"),
}
PEERS: dict[str, dict[str, Peer]] = {
    "gc": {"mmcv": Peer(_mmcv_context, "mmcv"), "timm": Peer(_timm_context, "timm")},
    "snl": {"as after mmcv": Peer(MatrixSNL, None)},
    "se": {"timm": Peer(_timm_se, "timm"), "torchvision": Peer(_torchvision_se, "torchvision")},
    "nl_embedded_gaussian": {"mmcv": Peer(lambda c: _mmcv_nl(c, "embedded_gaussian"), "mmcv")},
    "nl_gaussian": {"mmcv": Peer(lambda c: _mmcv_nl(c, "gaussian"), "mmcv")},
    "nl_dot_product": {"mmcv": Peer(lambda c: _mmcv_nl(c, "dot_product"), "mmcv")},
    "nl_concat": {
        # Its concatenation divides in place what ReLU keeps for its gradient: backward raises.
        "mmcv": Peer(lambda c: _mmcv_nl(c, "concatenation"), "mmcv", trains=False),
        "pair tensor": Peer(lambda c: PairTensorNL(c, instantiation="concat"), None),
    },
}


def row_peers(row_id: str) -> dict[str, Peer]:
    """The peers of the block of a row of table 4; none for a baseline.

    Args:
        row_id: for example ``"4b/avg_scale"``.
    """
    name = row_id.split("/")[1]
    groups = {"nl": "nl_embedded_gaussian", "snl": "snl", "gc": "gc"}
    group = groups.get(name.split("_")[0])
    if group or name == "baseline":
        return PEERS[group] if group else {}
    pooling, fusion = name.split("_")
    parts = {"pooling": pooling, "fusion": {"scale": "mul"}.get(fusion, fusion)}
    return {
        "mmcv": Peer(partial(_mmcv_context, **parts), "mmcv"),
        "timm": Peer(partial(_timm_context, **parts), "timm"),
    }


def build_all(group: str, channels: int) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Our block and its installed peers, all found to be one function.

    Args:
        group: a key of ``PEERS``.
        channels: channels C.

    Returns:
        Modules by name, ours first, and reasons for those that are missing.

    Raises:
        RuntimeError: a peer with our weights gives another output.
    """
    modules, missing = {"gclib": randomise(OURS[group](channels))}, {}
    for name, peer in PEERS[group].items():
        try:
            modules[name] = same_function(group, OURS[group], name, peer, channels)
        except ImportError as error:
            missing[name] = f"{name} is not installed ({error})"
    return modules, missing


def same_function(what: str, ours: Build, name: str, peer: Peer, channels: int = 64) -> nn.Module:
    """The peer's block with random weights, after a comparison of its outputs with ours.

    Args:
        what: the group or row, for the message.
        ours: channels → our block.
        name: of the peer.
        peer: the peer.
        channels: channels C.

    Raises:
        ImportError: the peer's library is not installed.
        RuntimeError: with the same weights it gives another output.
    """
    module = randomise(peer.build(channels))
    twin = ours(channels)
    if peer.source:
        load_peer_state_dict(twin, module.state_dict(), peer.source)
    else:
        twin.load_state_dict(module.state_dict())
    x = torch.randn(2, channels, 3, 4)
    with torch.no_grad():
        expected, found = twin(x) - x, module(x) - x  # what the block adds, without its input
    difference = ((expected - found).norm() / expected.norm()).item()
    if not difference <= 1e-3:
        raise RuntimeError(
            f"{what}: {name} is another function, {difference:.1%} off what the block adds"
        )
    return module


def randomise(module: nn.Module, std: float | None = None) -> nn.Module:
    """Random weights, so that each layer has its say.

    Args:
        module: a block.
        std: of its matrices and kernels; default: what keeps variances.
    """
    for parameter in module.parameters():
        size = (std or parameter[0].numel() ** -0.5) if parameter.dim() > 1 else 0.02
        nn.init.normal_(parameter, std=size)
    return module
