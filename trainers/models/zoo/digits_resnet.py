"""`digits-resnet`: a residual network for 8x8 images that trains in seconds on one core.

Three stages of one basic block (He et al. 2016) with widths 12, 16, 24. A stage that changes width
or size has a 1x1 convolution on its shortcut; the others have an identity shortcut. So the
smallest example has both kinds of coupled channels that pruning must respect.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (12, 16, 24)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, [B, outputs, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsResNet(nn.Module):
    """Stem, three stages, global average pooling and a linear layer."""

    def __init__(self, classes: int = 10, channels: int = 1, blocks: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        stages: list[nn.Module] = []
        inputs = WIDTHS[0]
        for width in WIDTHS:
            for index in range(blocks):
                stride = 2 if index == 0 and width != WIDTHS[0] else 1
                stages.append(BasicBlock(inputs, width, stride))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores [B, classes]."""
        y = self.stages(F.relu(self.bn1(self.conv1(x))))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1))  # type: ignore[no-any-return]


def digits_resnet(classes: int = 10, channels: int = 1) -> nn.Module:
    """The network of the quick start."""
    return DigitsResNet(classes, channels)
