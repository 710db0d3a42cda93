"""The processes of one training, started by torchrun: who I am, my share of the rows, sums of all.

Data parallel: every process takes its share of each batch, gradients are averaged. torchrun was
chosen because it comes with torch, starts on one machine or many, and restarts what died; the
environment that it sets is all that is read here. A process that nobody started so is alone.
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
    """One of `size` processes; `rank` 0 leads: it alone writes files and prints."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """True for the one process that writes."""
        return self.rank == 0


@contextmanager
def init_process_group() -> Iterator[ProcessGroup]:
    """The team that torchrun started this process in, for the length of the block."""
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


def shard_split(split: Split, team: ProcessGroup, *, equal: bool) -> Split:
    """Every `size`-th row, from `rank` on; `equal` drops the last rows that not all would have."""
    if team.size == 1:
        return split
    end = len(split) // team.size * team.size if equal else len(split)
    if end < team.size:
        raise UserError(
            f"every process needs a row of each split, got {len(split)} rows for {team.size}; "
            "start fewer processes"
        )
    rows = slice(team.rank, end, team.size)
    if split.image_files is None:
        return Split(split.images[rows], split.labels[rows])
    source = replace(split.image_files, files=split.image_files.files[rows])
    return Split(split.images, split.labels[rows], source)


def wrap_ddp(model: nn.Module, team: ProcessGroup) -> nn.Module:
    """The model whose backward pass averages the gradients of all; alone, the model itself."""
    return model if team.size == 1 else DistributedDataParallel(model)


def broadcast_buffers(model: nn.Module, team: ProcessGroup) -> None:
    """Give all the leader's buffers: each had batch statistics of its own."""
    if team.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def all_reduce_sum(values: Sequence[float], team: ProcessGroup, device: str) -> list[float]:
    """The sums over all processes."""
    if team.size == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return [float(value) for value in sums]
