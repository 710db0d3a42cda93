"""Latency: the median time of one forward pass."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from .machine import Machine


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of repeated runs after a warm-up."""

    median_ms: float


@torch.no_grad()
def latency(
    model: nn.Module, input_shape: tuple[int, ...], *, machine: Machine | None = None
) -> Latency:
    """Time batches of one sample in eval mode."""
    model.eval()
    sample = torch.zeros(1, *input_shape)
    times = []
    for _ in range(13):
        start = time.perf_counter()
        model(sample)
        times.append(1000 * (time.perf_counter() - start))
    return Latency(round(statistics.median(times[3:]), 4))
