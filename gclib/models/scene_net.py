"""The small network of the lab: three convolutions, one block, a label at every position."""

from __future__ import annotations

from torch import Tensor, nn


class SceneNet(nn.Module):
    """Three 3×3 convolutions, a block, and two 1×1 convolutions that label every position.

    Without a block a label depends on 9×9 pixels: one object and a little around it.

    Args:
        classes: number of labels.
        block: a module that maps ``(N, width, 8, 8)`` to the same shape; None for no block.
        width: channels.

    Shape: images ``(N, 3, 32, 32)``, uint8 or 0 to 255 → logits ``(N, classes, 8, 8)``.
    """

    stride = 4

    def __init__(self, classes: int, block: nn.Module | None = None, *, width: int = 32) -> None:
        super().__init__()

        def layer(inputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, width, 3, padding=1, stride=stride, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            return [convolution, nn.BatchNorm2d(width), nn.ReLU()]

        self.features = nn.Sequential(*layer(3, 1), *layer(width, 2), *layer(width, 2))
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),  # as after a block of a ResNet; without it some seeds get stuck
            nn.ReLU(),
            nn.Conv2d(width, classes, 1),
        )
        # Made last, so that with one seed all blocks stand in the same network.
        self.block = nn.Identity() if block is None else block

    def forward(self, images: Tensor) -> Tensor:
        """Label every position."""
        # Mean and spread of a scene's pixels, roughly.
        return self.head(self.block(self.features((images.float() - 60) / 50)))
