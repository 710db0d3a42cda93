"""DenseNet-40 for CIFAR (Huang et al. 2017): growth 12, no bottleneck, no compression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROWTH = 12


class DenseLayer(nn.Module):
    """Norm, ReLU and 3 x 3 convolution; the 12 new channels are appended to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + 12, H, W]."""
        return torch.cat((x, self.conv(torch.relu(self.bn(x)))), dim=1)


def densenet40(classes: int = 10, channels: int = 3) -> nn.Module:
    """Three blocks of twelve layers: 1.06 M parameters."""
    width = 16
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(12):
            layers.append(DenseLayer(width))
            width += GROWTH
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if block < 2:
            layers += [nn.Conv2d(width, width, 1, bias=False), nn.AvgPool2d(2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    network = nn.Sequential(*layers, *head)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network
