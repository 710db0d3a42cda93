"""Measure the latency of a forward pass: the median of repeated runs and its spread.

The number of threads is fixed, and the first runs are discarded (allocation, kernel selection). On
a GPU, CUDA events are timed instead of the host's launch. The spread is half the interquartile
range; a smaller difference between two latencies is not significant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..runtime.device import (
    DeviceConfig,
    autocast,
    device_config_for,
    thread_limit,
    to_device,
    to_memory_format,
)
from ..runtime.modes import eval_mode

WARMUP_RUNS = 5
MIN_RUNS, MAX_RUNS = 15, 200
MAX_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per forward pass of `batch` images, and the conditions of the measurement."""

    median_ms: float
    spread_ms: float
    batch: int
    runs: int
    machine: DeviceConfig


@torch.no_grad()
def measure_latency(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    batch: int = 1,
    machine: DeviceConfig | None = None,
) -> Latency:
    """Measure the latency in eval mode on seeded noise."""
    machine = machine or device_config_for(model, input_shape)
    to_device(model, machine)
    noise = torch.randn((batch, *input_shape), generator=torch.Generator().manual_seed(0))
    images = to_memory_format(noise.to(machine.device), machine)

    def forward() -> object:
        with autocast(machine):
            return model(images)

    time_call = _gpu_ms if machine.device.startswith("cuda") else _cpu_ms
    with eval_mode(model), thread_limit(machine):
        times = _repeat_runs(lambda: time_call(forward))
    low, median, high = np.percentile(times, (25, 50, 75))
    return Latency(float(median), float(high - low) / 2, batch, len(times), machine)


def measure_latencies_interleaved(
    calls: Sequence[Callable[[], object]], batch: int, machine: DeviceConfig
) -> list[Latency]:
    """Time several calls on the CPU in turn, so that temporary load affects all of them equally.

    The calls themselves must respect the number of threads in `machine`.
    """
    for _ in range(WARMUP_RUNS):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    begin = time.perf_counter()
    while len(times[0]) < MIN_RUNS or (
        len(times[0]) < MAX_RUNS and time.perf_counter() - begin < MAX_SECONDS * len(calls)
    ):
        for call, call_times in zip(calls, times, strict=True):
            call_times.append(_cpu_ms(call))
    quartiles = (np.percentile(call_times, (25, 50, 75)) for call_times in times)
    return [
        Latency(float(median), float(high - low) / 2, batch, len(times[0]), machine)
        for low, median, high in quartiles
    ]


def _repeat_runs(measure: Callable[[], float]) -> list[float]:
    for _ in range(WARMUP_RUNS):
        measure()
    begin, times = time.perf_counter(), list[float]()
    while len(times) < MIN_RUNS or (
        len(times) < MAX_RUNS and time.perf_counter() - begin < MAX_SECONDS
    ):
        times.append(measure())
    return times


def _cpu_ms(forward: Callable[[], object]) -> float:
    begin = time.perf_counter()
    forward()
    return (time.perf_counter() - begin) * 1e3


def _gpu_ms(forward: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    forward()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))
