"""Small residual networks with the stages of a ResNet: for the lab, and for small photographs."""

from __future__ import annotations

from torch import Tensor, nn

PLANES = (8, 16, 32)  # channels inside of the bottlenecks of c3, c4, c5
BLOCKS = 2  # residual blocks of a stage


class MiniResNet(nn.Module):
    """A 3×3 convolution, stages c3 to c5 of torchvision's bottlenecks, a label at every position.

    :func:`gclib.models.insert_blocks` puts blocks into it as into a ResNet-50: its stages are
    ``layer2`` to ``layer4``, two residual blocks each. Only the first of the two looks around
    itself; the 3×3 convolution of the second is 1×1, as in BagNets (Brendel and Bethge, ICLR 2019).
    So a label depends on 19×19 pixels, one object and a part of its neighbours, and what lies
    further away must come through a block. With every convolution 3×3 it would be 39×39 pixels,
    more than a scene has.

    Args:
        classes: number of labels.
        planes: channels inside of the bottlenecks of c3, c4, c5; feature maps have four times as
            many.
        local: False makes all the convolutions 3×3, for comparison.

    Shape: images ``(N, 3, 32, 32)``, uint8 or 0 to 255 → logits ``(N, classes, 8, 8)``; c3 has
    16×16 positions, c4 and c5 have 8×8.
    """

    stride = 4

    def __init__(
        self, classes: int, *, planes: tuple[int, int, int] = PLANES, local: bool = True
    ) -> None:
        super().__init__()
        # Torchvision takes a second to import, and only this network of the lab needs it.
        from torchvision.models.resnet import Bottleneck

        def stage(inputs: int, inner: int, stride: int) -> nn.Sequential:
            outputs = inner * Bottleneck.expansion
            shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
            residual = [Bottleneck(inputs, inner, stride, shortcut)]
            residual += [Bottleneck(outputs, inner) for _ in range(BLOCKS - 1)]
            if local:
                for block in residual[1:]:
                    block.conv2 = nn.Conv2d(inner, inner, 1, bias=False)
            return nn.Sequential(*residual)

        widths = [inner * Bottleneck.expansion for inner in planes]
        stem = widths[0] // 2
        self.conv1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer2 = stage(stem, planes[0], stride=1)
        self.layer3 = stage(widths[0], planes[1], stride=2)
        self.layer4 = stage(widths[1], planes[2], stride=1)
        self.head = nn.Conv2d(widths[2], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.head:
                # As torchvision's ResNet.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Label every position."""
        # Mean and spread of a scene's pixels, roughly.
        x = self.relu(self.bn1(self.conv1((images.float() - 60) / 50)))
        return self.head(self.layer4(self.layer3(self.layer2(x))))


class MiniResNetClassifier(MiniResNet):
    """The same stages for classes of images: every convolution 3×3, and a mean over positions.

    For the two-stage recipe in small (:mod:`gclib.training.imagenet`, ``network="mini_resnet"``).

    Args:
        classes: number of classes.
        planes: channels inside of the bottlenecks of c3, c4, c5.

    Shape: normalised images ``(N, 3, H, W)`` → logits ``(N, classes)``; for 32×32 pixels c3 has
    16×16 positions, c4 and c5 have 8×8.
    """

    def __init__(self, classes: int, *, planes: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__(classes, planes=planes, local=False)
        del self.head
        self.fc = nn.Linear(planes[2] * 4, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        x = self.relu(self.bn1(self.conv1(images)))
        return self.fc(self.layer4(self.layer3(self.layer2(x))).mean((2, 3)))
