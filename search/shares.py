"""What of a cluster each worker gets."""

from __future__ import annotations

import math

import ray

from .settings import SearchSettings


def workers_in(settings: SearchSettings) -> int:
    """Trials at a time that Ray has the CPUs for, unless the user wants fewer."""
    most = max(1, int(resource("CPU") / settings.cpus_per_trial))
    return min(settings.workers or most, most)


def resource(name: str) -> float:
    """How much of it all nodes have together."""
    return float(ray.cluster_resources().get(name, 0))  # type: ignore[no-untyped-call]


def share_of_gpus(gpus: float, workers: int) -> float:
    """Whole GPUs while there are enough, else an even share of one, rounded down for Ray."""
    if gpus >= workers:
        return 1.0
    return math.floor(1000 * gpus / workers) / 1000
