"""VGG-16 for CIFAR with batch normalisation (Simonyan and Zisserman 2014; one hidden layer)."""

from __future__ import annotations

from torch import nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(classes: int = 10, channels: int = 3) -> nn.Module:
    """13 convolutions, a hidden layer of 512 and a classifier: 15.0 M parameters."""
    layers: list[nn.Module] = []
    for widths in STAGES:
        for width in widths:
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *head, nn.Linear(512, classes))
