"""Both oracles on each family of networks, and how much of each is prunable."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torchvision
from oracles import Shape, assert_oracles, trace
from torch import nn

from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.models.zoo.densenet import densenet40
from paretoprune.trainers.models.zoo.lenet import lenet5, lenet300
from paretoprune.trainers.models.zoo.resnet import resnet20, resnet56, resnet110
from paretoprune.trainers.models.zoo.vgg import vgg16

OURS: list[tuple[Callable[[], nn.Module], Shape, float]] = [
    (lenet300, (1, 28, 28), 0.95),
    (lenet5, (1, 28, 28), 0.95),
    (vgg16, (3, 32, 32), 0.95),
    (resnet20, (3, 32, 32), 0.95),
    (resnet56, (3, 32, 32), 0.95),
    (resnet110, (3, 32, 32), 0.95),
    (densenet40, (3, 32, 32), 0.95),
]
TORCHVISION: list[tuple[str, int, float]] = [
    ("alexnet", 64, 0.95),
    ("vgg11", 32, 0.95),
    ("vgg11_bn", 32, 0.95),
    ("vgg16", 32, 0.95),
    ("vgg16_bn", 32, 0.95),
    ("resnet18", 64, 0.95),
    ("resnet34", 64, 0.95),
    ("resnet50", 64, 0.95),
    ("wide_resnet50_2", 64, 0.95),
    ("resnext50_32x4d", 64, 0.85),
    ("densenet121", 64, 0.95),
    ("mobilenet_v2", 64, 0.85),
    ("mobilenet_v3_small", 64, 0.85),
    ("mobilenet_v3_large", 64, 0.85),
    ("efficientnet_b0", 64, 0.85),
    ("efficientnet_v2_s", 64, 0.85),
    ("regnet_x_400mf", 64, 0.85),
    ("regnet_y_400mf", 64, 0.85),
    ("squeezenet1_1", 64, 0.95),
    ("googlenet", 64, 0.95),
    ("inception_v3", 96, 0.95),
    ("mnasnet1_0", 64, 0.85),
    ("shufflenet_v2_x1_0", 64, 0.6),
    ("convnext_tiny", 64, 0.85),
    ("vit_b_16", 64, 0.85),
    ("swin_t", 64, 0.85),
    ("swin_v2_t", 64, 0.85),
]
FAST = {  # one for each kind of difficulty
    "mobilenet_v2",  # depthwise
    "mobilenet_v3_small",  # squeeze and excitation
    "regnet_y_400mf",  # grouped convolutions
    "shufflenet_v2_x1_0",  # channel shuffle
    "squeezenet1_1",  # concatenation, a convolution as classifier
    "swin_t",  # heads and LayerNorm
    "googlenet",  # auxiliary heads
}


def built(name: str, size: int) -> nn.Module:
    """A torchvision model with random weights, made for small inputs."""
    options: dict[str, object] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if name == "vit_b_16":
        options["image_size"] = size
    return torchvision.models.get_model(name, **options)


@pytest.mark.parametrize(
    ("name", "size", "floor"),
    [pytest.param(*row, marks=[] if row[0] in FAST else pytest.mark.slow) for row in TORCHVISION],
)
def test_masked_and_cut_torchvision_networks_agree_and_costs_are_exact(
    name: str, size: int, floor: float
) -> None:
    traced = trace(built(name, size), (3, size, size))
    assert traced.seconds < 20
    assert traced.removable >= floor
    assert_oracles(traced)


@pytest.mark.parametrize(("build", "shape", "floor"), OURS)
def test_masked_and_cut_zoo_networks_agree_and_costs_are_exact(
    build: Callable[[], nn.Module], shape: Shape, floor: float
) -> None:
    traced = trace(build(), shape)
    assert traced.removable >= floor
    assert_oracles(traced)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _, _ in TORCHVISION])
def test_tracing_at_full_size_is_quick(name: str) -> None:
    model, _ = make_working_copy(built(name, 224))
    start = time.perf_counter()
    trace_channel_map(model, (3, 224, 224))
    assert time.perf_counter() - start < (10 if name == "resnet50" else 20)
