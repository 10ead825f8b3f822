"""Residual blocks with a place for a block of the paper.

Each class is the one it derives from, with the same layers and the same names, and ``block``
between two of its steps. Nothing here is built by hand: :func:`gclib.models.insert_blocks` turns
residual blocks into these and back.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.video.resnet import BasicBlock as VideoBasicBlock
from torchvision.models.video.resnet import Bottleneck as VideoBottleneck

from gclib.models.slow_only import SlowBottleneck


class WithBlock(nn.Module):
    """What the classes below share.

    Attributes:
        block: maps a feature map to one of the same shape.
        position: ``"after_3x3"``, ``"after_1x1"`` or ``"after_add"``.
    """

    block: nn.Module
    position: str

    def at(self, position: str, out: Tensor) -> Tensor:
        """``block(out)`` where the block stands, ``out`` elsewhere."""
        return self.block(out) if self.position == position else out


class BottleneckWithBlock(WithBlock, Bottleneck):
    """1×1, 3×3 and 1×1 convolution, each with its norm; torchvision's ``Bottleneck``."""

    def forward(self, x: Tensor) -> Tensor:
        """Main path, shortcut, addition, ReLU."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.at("after_3x3", self.relu(self.bn2(self.conv2(out))))
        out = self.at("after_1x1", self.bn3(self.conv3(out)))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(self.at("after_add", out))


class SlowBottleneckWithBlock(WithBlock, SlowBottleneck):
    """The residual block of the slow-only network, which has the same layers."""

    forward = BottleneckWithBlock.forward


class BasicBlockWithBlock(WithBlock, BasicBlock):
    """Two 3×3 convolutions; torchvision's ``BasicBlock`` of ResNet-18 and 34."""

    def forward(self, x: Tensor) -> Tensor:
        """Main path, shortcut, addition, ReLU."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.at("after_1x1", self.bn2(self.conv2(out)))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(self.at("after_add", out))


class VideoBottleneckWithBlock(WithBlock, VideoBottleneck):
    """Torchvision's 3D ``Bottleneck``: norms and ReLUs stand inside of ``conv1`` to ``conv3``."""

    def forward(self, x: Tensor) -> Tensor:
        """Main path, shortcut, addition, ReLU."""
        out = self.at("after_3x3", self.conv2(self.conv1(x)))
        out = self.at("after_1x1", self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(self.at("after_add", out))


class VideoBasicBlockWithBlock(WithBlock, VideoBasicBlock):
    """Torchvision's 3D ``BasicBlock``, of ``r3d_18``, ``mc3_18`` and ``r2plus1d_18``."""

    def forward(self, x: Tensor) -> Tensor:
        """Main path, shortcut, addition, ReLU."""
        out = self.at("after_1x1", self.conv2(self.conv1(x)))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(self.at("after_add", out))


WITH_BLOCK: dict[type[nn.Module], type[WithBlock]] = {
    Bottleneck: BottleneckWithBlock,
    BasicBlock: BasicBlockWithBlock,
    VideoBottleneck: VideoBottleneckWithBlock,
    VideoBasicBlock: VideoBasicBlockWithBlock,
    SlowBottleneck: SlowBottleneckWithBlock,
}
PLAIN: dict[type[nn.Module], type[nn.Module]] = {new: old for old, new in WITH_BLOCK.items()}
