"""Batch-norm recalibration: recompute the running statistics of a pruned network.

    mean = 1/K sum_k mean_k,   var = 1/K sum_k var_k      over K training batches

A cumulative average (momentum None) weights all batches equally and has no parameter. Rows and
augmentation are drawn with a fixed seed, so the same cut gets the same statistics. Images are
augmented as in training, because the weights were trained for the statistics of padded, shifted
images. With the statistics of plain images, an unpruned ResNet-20 loses four points of accuracy
(benchmarks/recalibrate.py). Everything but the norms is in eval mode: dropout would change their
inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.batches import SAMPLING_SEED, iterate_batches
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
    """Replace the running statistics by averages over training batches, augmented as in training.

    Args:
        model: The network, changed in place.
        data: The data whose training split is used.
        batches: The number of batches.
        batch_size: Images per batch.
        machine: Device and precision; None: the fastest on the model's device.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    machine = machine or device_config_for(model, data.input_shape)
    to_device(model, machine)
    momenta = {norm: norm.momentum for norm in norms}
    with eval_mode(model), thread_limit(machine), autocast(machine):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.training = True  # not its child modules, such as dropout
        for images in islice(calibration_batches(data, batch_size, machine), batches):
            model(images)
    for norm, momentum in momenta.items():
        norm.momentum = momentum


def calibration_batches(
    data: DataSplits, batch_size: int, machine: DeviceConfig
) -> Iterator[Tensor]:
    """The same training batches on every call, augmented as in training, on the device."""
    generator = torch.Generator().manual_seed(SAMPLING_SEED)
    for images, _ in iterate_batches(
        data.train,
        data,
        batch_size=batch_size,
        generator=generator,
        augment=data.augment,
        device=machine.device,
    ):
        yield to_memory_format(images, machine)
