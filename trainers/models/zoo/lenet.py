"""LeNets for MNIST: LeNet-5 (20-50-500, LeCun et al. 1998) and the fully connected 300-100."""

from __future__ import annotations

from torch import nn


def lenet5(classes: int = 10, channels: int = 1) -> nn.Module:
    """Two 5 x 5 convolutions and two linear layers on 28 x 28: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * 4 * 4, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )


def lenet300(classes: int = 10, channels: int = 1) -> nn.Module:
    """Fully connected 300-100 on 28 x 28: 266,610 parameters."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28 * channels, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
