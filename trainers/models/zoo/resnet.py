"""ResNets for CIFAR with parameter-free shortcuts ("option A"; He et al. 2015, section 4.2).

6n + 2 layers: a stem of 16 channels, three stages of n blocks with 16, 32 and 64 channels, one
linear layer. Layers are named as in akamaster/pytorch_resnet_cifar10, so its weights can be loaded
(without their prefix `module.`).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ....spaces.graph.modules.option_a_shortcut import OptionAShortcut

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Identity() if same else OptionAShortcut(channels_in, channels_out, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of equal depth, global average pooling and a linear layer."""

    def __init__(self, blocks: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _build_stage(blocks, WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = _build_stage(blocks, WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = _build_stage(blocks, WIDTHS[1], WIDTHS[2], 2)
        self.linear = nn.Linear(WIDTHS[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, classes]."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _build_stage(blocks: int, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(
        first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1))
    )


def resnet20(classes: int = 10, channels: int = 3) -> nn.Module:
    """20 layers, 0.27 M parameters."""
    return ResNet(3, classes, channels)


def resnet32(classes: int = 10, channels: int = 3) -> nn.Module:
    """32 layers, 0.46 M parameters."""
    return ResNet(5, classes, channels)


def resnet44(classes: int = 10, channels: int = 3) -> nn.Module:
    """44 layers, 0.66 M parameters."""
    return ResNet(7, classes, channels)


def resnet56(classes: int = 10, channels: int = 3) -> nn.Module:
    """56 layers, 0.85 M parameters."""
    return ResNet(9, classes, channels)


def resnet110(classes: int = 10, channels: int = 3) -> nn.Module:
    """110 layers, 1.7 M parameters."""
    return ResNet(18, classes, channels)
