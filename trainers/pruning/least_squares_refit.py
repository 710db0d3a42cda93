"""Refit a pruned network to the dense one by least squares, layer by layer, in one forward pass.

    min over W of  |Y - W X|^2 + r |W - W0|^2

X are a layer's inputs in the pruned network, whose earlier layers are refitted already. Y are the
dense network's outputs in the kept channels. W0 are the weights after the cut, and r is the
strength of the ridge towards them. So the kept channels compensate for the removed ones before any
training (He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks"; Luo et al.
2017, "ThiNet").

We differ in: one pass for all layers; any mask; the ridge towards W0, without which refitted
weights are worse after a fine-tune (benchmarks/refit.py).

Convolutions without groups and linear layers are refitted if they run once and share no weights.
Batch norms use the statistics of these images during the pass and must be recalibrated afterwards.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ...spaces.graph.channels import ChannelMap, Layer
from ...spaces.graph.slicing import kept_channels
from ..data.batches import SAMPLING_SEED
from ..data.splits import DataSplits
from ..runtime.device import DeviceConfig, autocast, thread_limit, to_device
from ..runtime.modes import eval_mode
from .bn_recalibration import calibration_batches

ROWS_PER_IMAGE = 32  # the most positions of a feature map, or tokens, that a layer is fitted to
RIDGE_STRENGTH = 0.3  # r, relative to the mean square of the inputs


@torch.no_grad()
def refit_least_squares(
    pruned: nn.Module,
    dense: nn.Module,
    channel_map: ChannelMap,
    keep: NDArray[np.bool_],
    data: DataSplits,
    *,
    machine: DeviceConfig,
    images: int = 512,
    ridge_strength: float = RIDGE_STRENGTH,
) -> None:
    """Refit the weights of `pruned` in place.

    Args:
        pruned: The network `dense`, cut to `keep`.
        dense: The dense network.
        channel_map: The channel map of `dense`.
        keep: The mask, bool [A].
        data: The data whose training images are used.
        machine: Device and precision.
        images: The number of images.
        ridge_strength: The ridge r, relative to the mean square of a layer's inputs.
    """
    for model in (dense, pruned):
        to_device(model, machine)
    layers = layers_to_refit(pruned, channel_map, keep)
    targets: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    batch = next(calibration_batches(data, images, machine))
    max_rows = ROWS_PER_IMAGE * len(batch)
    with thread_limit(machine), autocast(machine), eval_mode(dense), eval_mode(pruned):
        with ExitStack() as hooks:
            for layer in layers:
                kept = kept_channels(layer.out_atoms, keep).to(batch.device)
                hook = partial(record_target_hook, targets[layer.name], kept, max_rows)
                hooks.enter_context(dense.get_submodule(layer.name).register_forward_hook(hook))
            dense(batch)
        for norm in pruned.modules():
            if isinstance(norm, _BatchNorm):
                norm.training = True
        with ExitStack() as hooks:
            for layer in layers:
                hook = partial(refit_layer_hook, targets[layer.name], max_rows, ridge_strength)
                module = pruned.get_submodule(layer.name)
                hooks.enter_context(module.register_forward_pre_hook(hook))
            pruned(batch)


def layers_to_refit(
    pruned: nn.Module, channel_map: ChannelMap, keep: NDArray[np.bool_]
) -> list[Layer]:
    """The refittable layers from the first one with removed inputs on; earlier ones are exact."""
    loses_inputs = [
        not bool(kept_channels(layer.in_atoms, keep).all()) for layer in channel_map.layers
    ]
    first = loses_inputs.index(True) if True in loses_inputs else len(loses_inputs)
    uses = Counter(id(p) for module in pruned.modules() for p in module._parameters.values())
    candidates = (
        (layer, pruned.get_submodule(layer.name)) for layer in channel_map.layers[first:]
    )
    return [
        layer
        for layer, module in candidates
        if is_refittable(module) and uses[id(module._parameters["weight"])] == 1
    ]


def is_refittable(module: nn.Module) -> bool:
    """True for linear layers and for convolutions without groups and with zero padding."""
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return False
    if isinstance(module, nn.Conv2d):
        zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module.groups == 1 and zeros
    return isinstance(module, nn.Linear)


def record_target_hook(
    targets: list[Tensor], kept: Tensor, max_rows: int, module: nn.Module, _: Any, outputs: Tensor
) -> None:
    """Forward hook on the dense network: record a layer's outputs in the kept channels."""
    if isinstance(module, nn.Conv2d):
        outputs = outputs.permute(0, 2, 3, 1)
    targets.append(sample_rows(outputs, max_rows)[:, kept])


def refit_layer_hook(
    targets: list[Tensor],
    max_rows: int,
    ridge_strength: float,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
) -> None:
    """Forward pre-hook on the pruned network: refit a layer just before it runs."""
    if len(targets) == 1 and inputs:  # inputs passed by keyword are not refitted
        x = inputs[0]
        rows = (
            sample_patches(module, x, max_rows)
            if isinstance(module, nn.Conv2d)
            else sample_rows(x, max_rows)
        )
        with torch.autocast(x.device.type, enabled=False):
            fit_layer(module, rows.float(), targets[0].float(), ridge_strength)


def sample_rows(values: Tensor, max_rows: int) -> Tensor:
    """Sampled rows [rows, channels] of a tensor with channels last."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[sample_indices(len(rows), max_rows).to(rows.device)]


def sample_indices(count: int, max_rows: int) -> Tensor:
    """All rows, or `max_rows` random ones; equal for equal counts."""
    if count <= max_rows:
        return torch.arange(count)
    return torch.randint(
        count, (max_rows,), generator=torch.Generator().manual_seed(SAMPLING_SEED)
    )


def sample_patches(module: nn.Conv2d, inputs: Tensor, max_rows: int) -> Tensor:
    """The input patches [rows, weights of a filter] of a convolution at the sampled positions."""
    down, across = (int(one) for one in module.padding)
    padded = functional.pad(inputs, (across, across, down, down))
    sides = zip(padded.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
    height, width = ((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in sides)
    index = sample_indices(len(padded) * height * width, max_rows).to(padded.device)
    image, row, column = index // (height * width), index // width % height, index % width
    row_offsets, column_offsets = (
        torch.arange(k, device=index.device) * d
        for k, d in zip(module.kernel_size, module.dilation, strict=True)
    )
    rows = (row * module.stride[0])[:, None] + row_offsets
    columns = (column * module.stride[1])[:, None] + column_offsets
    patches = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return patches.permute(0, 3, 1, 2).flatten(1)


def fit_layer(module: nn.Module, inputs: Tensor, target: Tensor, ridge_strength: float) -> None:
    """Update a layer's weights [C, F] so that inputs [rows, F] give the target [rows, C].

    The update solves a linear system with F unknowns or one per row, whichever are fewer. The
    layer's bias or the norm after it corrects the mean.
    """
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    input_mean, target_mean = inputs.mean(0), target.mean(0)
    x = inputs - input_mean
    ridge = ridge_strength * x.square().sum(0).mean()
    if not bool(ridge > 0):
        return
    residual = target - target_mean - x @ weight.flatten(1).T
    if len(x) < x.shape[1]:
        change = x.T @ torch.linalg.solve(add_ridge(x @ x.T, ridge), residual)
    else:
        change = torch.linalg.solve(add_ridge(x.T @ x, ridge), x.T @ residual)
    if not bool(change.isfinite().all()):
        return
    weight.add_(change.T.view_as(weight))
    if isinstance(bias, Tensor):
        bias.copy_(target_mean - weight.flatten(1) @ input_mean)


def add_ridge(square: Tensor, ridge: Tensor) -> Tensor:
    """Add the ridge to the diagonal of a matrix, in place."""
    square.diagonal().add_(ridge)
    return square
