"""What smoke runs begin with."""

from __future__ import annotations

from pathlib import Path

from gclib.models.resnet import build_resnet
from gclib.training.checkpoint import write


def untrained_resnet(network: str, stride_in: str, path: Path) -> str:
    """Write the weights of an untrained ResNet, as ``gclib train imagenet`` leaves them.

    Args:
        network: its name, for example ``"resnet50"``.
        stride_in: the convolution that has the stride.
        path: the file.

    Returns:
        ``path`` as a text.
    """
    model = build_resnet(network, stride_in=stride_in)
    write(path, {"format": 1, "model": model.state_dict(), "stride_in": stride_in})
    return str(path)
