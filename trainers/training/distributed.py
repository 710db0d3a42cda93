"""Data-parallel training in the processes that torchrun starts.

Every process takes its share of each batch, and DistributedDataParallel averages the gradients.
torchrun comes with torch, works on one machine or several, and restarts failed processes. This
module reads only the environment that torchrun sets; without it, the process group has size 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...spaces.errors import UserError
from ..data.splits import Split


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The rank of this process among `size` processes. Only rank 0 writes files and prints."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """True on rank 0."""
        return self.rank == 0


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """Initialise the process group that torchrun started; it is destroyed after the block."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not dist.is_torchelastic_launched():
        yield ProcessGroup()
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def shard_split(split: Split, process_group: ProcessGroup, *, equal: bool) -> Split:
    """Every `size`-th row from `rank` on; `equal` drops rows to make all shards equally long."""
    rank, size = process_group.rank, process_group.size
    if size == 1:
        return split
    end = len(split) // size * size if equal else len(split)
    if end < size:
        raise UserError(
            f"every process needs a row of each split, got {len(split)} rows for {size}; "
            "start fewer processes"
        )
    rows = slice(rank, end, size)
    if split.image_files is None:
        return Split(split.images[rows], split.labels[rows])
    image_files = replace(split.image_files, files=split.image_files.files[rows])
    return Split(split.images, split.labels[rows], image_files)


def wrap_ddp(model: nn.Module, process_group: ProcessGroup) -> nn.Module:
    """Wrap the model in DistributedDataParallel; a single process gets the model itself."""
    return model if process_group.size == 1 else DistributedDataParallel(model)


def broadcast_buffers(model: nn.Module, process_group: ProcessGroup) -> None:
    """Copy the buffers of rank 0 to all ranks, whose batch statistics differ."""
    if process_group.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def all_reduce_sum(
    values: Sequence[float], process_group: ProcessGroup, device: str
) -> list[float]:
    """The sum of each value over all processes."""
    if process_group.size == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(value) for value in sums]
