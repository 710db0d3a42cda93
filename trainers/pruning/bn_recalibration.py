"""Batch-norm recalibration: after a cut, the running statistics are measured anew.

    mean = 1/K sum_k mean_k,   var = 1/K sum_k var_k      over K training batches

A cumulative average (momentum None) forgets nothing and needs no tuning, and rows and augmentation
are drawn under a fixed seed, so the same cut gets the same statistics. Images are augmented where
training augments them: the weights were trained for the statistics of padded, shifted images, and
those of plain ones cost a whole ResNet-20 four points of accuracy (benchmarks/recalibrate.py).
Everything but the norms stays in eval mode: dropout must not thin what they measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.batches import SAMPLING_SEED
from ..data.batches import iterate_batches as read_batches
from ..data.splits import DataSplits
from ..runtime.device import (
    DeviceConfig,
    autocast,
    device_config_for,
    thread_limit,
    to_device,
    to_memory_format,
)
from ..runtime.modes import eval_mode


@torch.no_grad()
def recalibrate_batch_norm(
    model: nn.Module,
    data: DataSplits,
    *,
    batches: int = 16,
    batch_size: int = 256,
    machine: DeviceConfig | None = None,
) -> None:
    """Replace running statistics by averages over training batches, augmented as in training."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    machine = machine or device_config_for(model, data.input_shape)
    to_device(model, machine)
    momenta = {norm: norm.momentum for norm in norms}
    with eval_mode(model), thread_limit(machine), autocast(machine):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then averages cumulatively
            norm.training = True  # not what a norm applies besides, as dropout
        for images in islice(calibration_batches(data, batch_size, machine), batches):
            model(images)
    for norm, momentum in momenta.items():
        norm.momentum = momentum


def calibration_batches(
    data: DataSplits, batch_size: int, machine: DeviceConfig
) -> Iterator[Tensor]:
    """Training batches, augmented as in training, always the same; laid for the machine."""
    generator = torch.Generator().manual_seed(SAMPLING_SEED)
    for images, _ in read_batches(
        data.train,
        data,
        batch_size=batch_size,
        generator=generator,
        augment=data.augment,
        device=machine.device,
    ):
        yield to_memory_format(images, machine)
