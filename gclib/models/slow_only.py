"""The slow-only 3D ResNet of the Kinetics experiments (paper section 5.3), and inflation.

It is the slow pathway of SlowFast: 8 frames and no temporal stride, so all 8 reach the end. A
temporal kernel of 3 stands in the first convolution of every residual block of res4 and res5
alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gclib.blocks._arguments import check_choice

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_TEMPORAL_KERNELS = (1, 1, 3, 3)  # of the first convolution in res2 to res5
STRIDES = ("3x3", "1x1")
TIME_PADDINGS = ("zeros", "replicate")
INFLATIONS = ("centre", "average")


class SlowBottleneck(nn.Module):
    """A residual block: t×1×1, 1×3×3 and 1×1×1 convolution, each with its norm.

    Args:
        inputs: channels of the input.
        width: inner channels; the output has four times as many.
        stride: in space.
        temporal: kernel of the first convolution in time, 1 or 3.
        stride_in: ``"3x3"`` or ``"1x1"``, the convolution with the stride.
        time_padding: what stands before the first and behind the last frame, see
            :class:`SlowOnly`.

    Shape: ``(N, inputs, T, H, W)`` → ``(N, 4 width, T, H / stride, W / stride)``.

    Raises:
        ValueError: ``stride_in`` or ``time_padding`` is none of its choices.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        stride: int = 1,
        temporal: int = 1,
        stride_in: str = "3x3",
        time_padding: str = "zeros",
    ) -> None:
        super().__init__()
        check_choice("stride_in", stride_in, STRIDES)
        check_choice("time_padding", time_padding, TIME_PADDINGS)
        first, second = (1, stride) if stride_in == "3x3" else (stride, 1)
        outputs = width * self.expansion
        self.conv1 = nn.Conv3d(
            inputs,
            width,
            (temporal, 1, 1),
            stride=(1, first, first),
            padding=(temporal // 2, 0, 0),
            padding_mode=time_padding if temporal > 1 else "zeros",
            bias=False,
        )
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(
            width, width, (1, 3, 3), stride=(1, second, second), padding=(0, 1, 1), bias=False
        )
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=(1, stride, stride), bias=False),
                nn.BatchNorm3d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Main path, shortcut, addition, ReLU."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class SlowOnly(nn.Module):
    """Slow-only ResNet; the layers carry the names of torchvision's 2D ResNets.

    Args:
        depth: 50 (default) or 101.
        num_classes: 400 for Kinetics-400.
        dropout: before the classifier; 0.5 as in SlowFast.
        stride_in: ``"3x3"`` (default, as released networks have it) or ``"1x1"``.
        time_padding: ``"zeros"`` as in SlowFast, or ``"replicate"``, which repeats the first and
            the last frame: with it, averaging inflation keeps the function on constant clips.

    Shape: clips ``(N, 3, T, H, W)`` → logits ``(N, num_classes)``.

    Raises:
        ValueError: an argument is none of its choices.

    With ``depth=50`` and 400 classes it has 32,454,096 parameters, the 32.45 M of table 5.
    """

    def __init__(
        self,
        depth: int = 50,
        num_classes: int = 400,
        *,
        dropout: float = 0.5,
        stride_in: str = "3x3",
        time_padding: str = "zeros",
    ) -> None:
        super().__init__()
        check_choice("depth", depth, DEPTHS)
        check_choice("stride_in", stride_in, STRIDES)
        check_choice("time_padding", time_padding, TIME_PADDINGS)
        self.stride_in = stride_in
        self.conv1 = nn.Conv3d(3, 64, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        inputs = 64
        for stage, (count, temporal) in enumerate(
            zip(DEPTHS[depth], _TEMPORAL_KERNELS, strict=True)
        ):
            width, blocks = 64 * 2**stage, []
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(
                    SlowBottleneck(
                        inputs,
                        width,
                        stride=stride,
                        temporal=temporal,
                        stride_in=stride_in,
                        time_padding=time_padding,
                    )
                )
                inputs = width * SlowBottleneck.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal convolutions, norms at 1 and 0, classifier with std 0.01.

        So does SlowFast without its option ``ZERO_INIT_FINAL_BN``. Inserted blocks draw their
        weights by their own ``reset_parameters()`` and start as the identity again.
        """
        residuals = [m for m in self.modules() if isinstance(m, SlowBottleneck)]
        blocks = [m.block for m in residuals if "block" in m._modules]
        inside = {module for block in blocks for module in block.modules()}
        for block in blocks:
            if hasattr(block, "reset_parameters"):
                block.reset_parameters()
        for module in self.modules():
            if module in inside:
                continue
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm3d):
                module.reset_parameters()
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def inflate_state_dict(
    state_dict: Mapping[str, Tensor],
    model: nn.Module,
    *,
    inflation: str = "centre",
    stride_in: str | None = None,
) -> dict[str, Tensor]:
    r"""Weights of a 2D ResNet for the 3D network of the same names.

    ===========  ==============================================================================
    ``centre``   the middle of a temporal kernel has the weights, the rest is zero: every frame is
                 treated as the 2D network treats it, so all constant clips keep their features
    ``average``  :math:`W_{t} = W / T` for each of its T steps, as SlowFast and mmaction2 inflate;
                 constant clips keep their features where no kernel reaches beyond the clip, which
                 is everywhere with ``time_padding="replicate"``
    ===========  ==============================================================================

    Args:
        state_dict: of the 2D network, or a training checkpoint that holds it.
        model: the 3D network.
        inflation: see above.
        stride_in: where the 2D network strides, ``"3x3"`` (torchvision's do) or ``"1x1"``; None for
            what the checkpoint says. Weights alone do not say it, and belong to one of them.

    Returns:
        A state dict for ``model.load_state_dict(..., strict=False)``: entries of ``state_dict``
        with as many numbers on each axis but time. A classifier of other classes is left out, and
        so is what the 2D network does not have, for example inserted blocks.

    Raises:
        ValueError: no such inflation; a layer has no weights in ``state_dict`` or weights of
            another shape; the strides are at another place, or ``model`` strides in its 1×1 and
            nothing says where the weights do.
    """
    from gclib.models.weights import open_checkpoint

    check_choice("inflation", inflation, INFLATIONS)
    check_choice("stride_in", stride_in, (None, *STRIDES))
    state_dict, stored = open_checkpoint(state_dict)
    _check_strides(model, stride_in or stored.get("stride_in"))
    found: dict[str, Tensor] = {}
    problems = []
    convolutions = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Conv3d)}
    for key, target in model.state_dict().items():
        given = state_dict.get(key)
        if given is None:
            optional = key.startswith("fc.") or key.endswith("num_batches_tracked")
            if ".block." not in key and not optional:
                problems.append(f"{key} is missing")
        elif given.shape == target.shape:
            found[key] = given
        elif key in convolutions:
            if given.dim() != 4 or given.shape != target.shape[:2] + target.shape[3:]:
                problems.append(f"{key}: {tuple(given.shape)} does not fit {tuple(target.shape)}")
                continue
            steps = target.shape[2]
            if inflation == "average":
                found[key] = given[:, :, None].expand(target.shape) / steps
            else:
                found[key] = torch.zeros(target.shape, dtype=given.dtype, device=given.device)
                found[key][:, :, steps // 2] = given
        elif not key.startswith("fc."):
            problems.append(f"{key}: {tuple(given.shape)} does not fit {tuple(target.shape)}")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"cannot be inflated: {'; '.join(problems[:3])}{more}")
    return found


def _check_strides(model: nn.Module, theirs: str | None) -> None:
    ours = getattr(model, "stride_in", None)
    if theirs is None and ours == "1x1":
        raise ValueError(
            "the 3D network has stride_in='1x1', and nothing says where the 2D network strides: "
            "give stride_in='1x1' if it is there too (torchvision's weights belong to '3x3')"
        )
    if None not in (theirs, ours) and theirs != ours:
        raise ValueError(
            f"cannot be inflated: the weights belong to stride_in={theirs!r}, the 3D network has "
            f"{ours!r}"
        )
