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

from ..data.batches import ROWS_SEED
from ..data.batches import batches as read_batches
from ..data.types import Data
from ..runtime.device import Machine, lay, machine_for, place, precision, threads
from ..runtime.modes import evaluating


@torch.no_grad()
def recalibrate(
    model: nn.Module,
    data: Data,
    *,
    batches: int = 16,
    batch_size: int = 256,
    machine: Machine | None = None,
) -> None:
    """Replace running statistics by averages over training batches, augmented as in training."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    machine = machine or machine_for(model, data.input_shape)
    place(model, machine)
    momenta = {norm: norm.momentum for norm in norms}
    with evaluating(model), threads(machine), precision(machine):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then averages cumulatively
            norm.training = True  # not what a norm applies besides, as dropout
        for images in islice(calibration_images(data, batch_size, machine), batches):
            model(images)
    for norm, momentum in momenta.items():
        norm.momentum = momentum


def calibration_images(data: Data, batch_size: int, machine: Machine) -> Iterator[Tensor]:
    """Training batches, augmented as in training, always the same; laid for the machine."""
    generator = torch.Generator().manual_seed(ROWS_SEED)
    for images, _ in read_batches(
        data.train,
        data,
        batch_size=batch_size,
        generator=generator,
        augment=data.augment,
        device=machine.device,
    ):
        yield lay(images, machine)
