"""A worker keeps to its own share of a machine: one thread, and its part of a GPU's memory.

Ray counts shares of a GPU and divides nothing. Without a limit, the first of several trials takes
what it can get, and another one runs out of memory that it was promised.
"""

from __future__ import annotations

import ray
import torch


def limit_worker_resources() -> None:
    """Called in a worker, before it computes."""
    torch.set_num_threads(1)
    part = assigned_gpu_fraction()
    if part is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(part)


def assigned_gpu_fraction() -> float | None:
    """How much of a GPU this worker has, where it shares one with others."""
    mine = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    part = float(mine.get("GPU", 0))
    return part if 0 < part < 1 else None
