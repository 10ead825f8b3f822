"""The small network for photographs of 32×32 pixels, on which table 1 is repeated in small."""

from __future__ import annotations

from torch import Tensor, nn

MEAN, SPREAD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of CIFAR-10's pixels


class CifarNet(nn.Module):
    """Two 3×3 convolutions, a block on 8×8 positions, a third convolution, a classifier.

    Args:
        classes: number of classes.
        block: a module that maps ``(N, 64, 8, 8)`` to the same shape; None for no block.

    Shape: images ``(N, 3, 32, 32)``, uint8 or 0 to 255 → logits ``(N, classes)``.
    """

    width = 64  # channels at the block

    def __init__(self, classes: int = 10, block: nn.Module | None = None) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

        width = self.width
        self.features = nn.Sequential(*layer(3, 32, 2), *layer(32, width, 2))
        self.head = nn.Sequential(
            *layer(width, 128, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes)
        )
        # Made last, so that with one seed all blocks stand in the same network.
        self.block = nn.Identity() if block is None else block

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        x = images.float()
        x = (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(SPREAD)[:, None, None]
        return self.head(self.block(self.features(x)))
