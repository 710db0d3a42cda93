"""Both oracles, masked = cut and cost = counted, on random sequences of operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from oracles import assert_oracles, trace
from torch import Tensor, nn


def conv(channels: int, width: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, **options)


class Step(nn.Module):
    """One operation from `channels` to `width` channels."""

    def __init__(self, kind: str, channels: int, size: int) -> None:
        super().__init__()
        self.kind, self.width = kind, channels
        if kind in ("conv", "cat"):
            self.a = conv(channels, size)
            self.width = size if kind == "conv" else channels + size
        elif kind in ("residual", "twice"):
            self.a = conv(channels, channels)
        elif kind == "grouped":
            self.a = conv(channels, channels, groups=2)
        elif kind == "depthwise":
            self.a = conv(channels, 2 * channels, groups=channels)
            self.width = 2 * channels
        elif kind == "norm":
            self.a = nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))
        elif kind == "groupnorm":
            self.a = nn.GroupNorm(1, channels)
        elif kind == "gate":
            self.a, self.b = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        elif kind == "unit":
            self.a = conv(channels // 2, channels // 2)
        elif kind == "halves":
            self.width = channels // 2

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "cat":
                return torch.cat((self.a(x), x), dim=1)
            case "residual":
                return x + F.silu(self.a(x))
            case "twice":
                return self.a(F.relu(self.a(x)))
            case "gate":
                return x * self.b(F.relu(self.a(x.mean((2, 3), keepdim=True)))).sigmoid()
            case "shuffle":
                n, c, h, w = x.shape
                return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            case "halves":
                one, other = x.chunk(2, dim=1)
                return one * torch.tanh(other)
            case "unit":
                one, other = x.chunk(2, dim=1)
                return torch.cat((one, self.a(other)), dim=1)
            case "pool":
                return F.avg_pool2d(F.pad(F.hardswish(x), (1, 1, 1, 1)), 3, 1)
            case _:
                return self.a(x)


EVEN = ("grouped", "shuffle", "halves", "unit")
KINDS = (*EVEN, "conv", "cat", "residual", "twice", "depthwise")
KINDS += ("norm", "groupnorm", "gate", "pool")


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    width = 8
    steps: list[nn.Module] = [conv(3, width), nn.BatchNorm2d(width)]
    for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=7)):
        if (kind in EVEN and (width % 2 or width < 4)) or (kind == "depthwise" and width > 32):
            continue
        steps.append(Step(kind, width, draw(st.sampled_from((4, 6, 8)))))
        width = steps[-1].width
    tail = [conv(width, 6), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*steps, *tail, nn.Linear(24, 5))


# The examples are derived from the name and the source of this test.
@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(networks(), st.integers(0, 1000))
def test_any_network_is_masked_cut_and_priced_alike(network: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    note(" ".join(getattr(step, "kind", "-") for step in network))
    traced = trace(network, (3, 6, 6))
    assert {group.name for group in traced.channel_map.groups} >= {str(len(network) - 5)}
    assert_oracles(traced, rates=(0.4, 0.7))


@pytest.mark.xfail(strict=True, reason="a wrong cut of these shuffles is below verify.TOLERANCE")
def test_repeated_shuffles_before_a_pool_are_tied() -> None:
    torch.manual_seed(0)
    kinds = ("shuffle", "shuffle", "shuffle", "pool", "halves", "halves", "conv")
    steps: list[nn.Module] = [conv(3, 8), nn.BatchNorm2d(8)]
    width = 8
    for kind in kinds:
        steps.append(Step(kind, width, 4))
        width = steps[-1].width
    tail = [conv(width, 6), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)]
    assert_oracles(trace(nn.Sequential(*steps, *tail), (3, 6, 6)), rates=(0.4, 0.7))
