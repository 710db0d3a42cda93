"""Refit a cut network to the dense one by least squares, layer by layer, in one pass over images.

    min over W of  |Y - W X|^2 + r |W - W0|^2

X are a layer's inputs in the cut network, whose earlier layers are refitted already; Y are the
dense network's outputs in the channels that are left; W0 are the weights as they were cut, and r
pulls to them. So the channels that stay take over what the others did, before anything is trained.
(He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", and Luo et al. 2017,
"ThiNet", rebuild layers so. We differ in: one pass for all layers, any mask, and the pull to W0,
without which refitted weights are worse after a fine-tune: benchmarks/refit.py.)

Convolutions without groups and linear layers are refitted if they run once and share no weights;
others stay as they are. Batch norms see the statistics of these images meanwhile and must be
recalibrated afterwards.
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

ROWS_PER_IMAGE = (
    32  # an image, at most, is what a layer is fitted to: places of a feature map, or tokens
)
RIDGE_STRENGTH = 0.3  # r, as a share of the inputs' mean power


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
    """Change the weights of `small`, which is `dense` cut to a mask [A]."""
    for model in (dense, pruned):
        to_device(model, machine)
    layers = layers_to_refit(pruned, channel_map, keep)
    goals: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    batch = next(calibration_batches(data, images, machine))
    most = ROWS_PER_IMAGE * len(batch)
    with thread_limit(machine), autocast(machine), eval_mode(dense), eval_mode(pruned):
        with ExitStack() as hooks:
            for layer in layers:
                left = kept_channels(layer.out_atoms, keep).to(batch.device)
                hook = partial(record_target_hook, goals[layer.name], left, most)
                hooks.enter_context(dense.get_submodule(layer.name).register_forward_hook(hook))
            dense(batch)
        for norm in pruned.modules():
            if isinstance(norm, _BatchNorm):
                norm.training = True
        with ExitStack() as hooks:
            for layer in layers:
                hook = partial(refit_layer_hook, goals[layer.name], most, ridge_strength)
                module = pruned.get_submodule(layer.name)
                hooks.enter_context(module.register_forward_pre_hook(hook))
            pruned(batch)


def layers_to_refit(
    small: nn.Module, channel_map: ChannelMap, keep: NDArray[np.bool_]
) -> list[Layer]:
    """From the first on that loses inputs: those before it compute what they always did."""
    losing = [not bool(kept_channels(layer.in_atoms, keep).all()) for layer in channel_map.layers]
    first = losing.index(True) if True in losing else len(losing)
    uses = Counter(id(one) for module in small.modules() for one in module._parameters.values())
    after = ((one, small.get_submodule(one.name)) for one in channel_map.layers[first:])
    return [
        one
        for one, module in after
        if is_refittable(module) and uses[id(module._parameters["weight"])] == 1
    ]


def is_refittable(module: nn.Module) -> bool:
    """Whether a layer's outputs are its own weights times its inputs."""
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return False
    if isinstance(module, nn.Conv2d):
        zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module.groups == 1 and zeros
    return isinstance(module, nn.Linear)


def record_target_hook(
    goals: list[Tensor], left: Tensor, max_rows: int, module: nn.Module, _: Any, outputs: Tensor
) -> None:
    """Hook of the dense network: what its layer puts out, in the channels that are left."""
    if isinstance(module, nn.Conv2d):
        outputs = outputs.permute(0, 2, 3, 1)
    goals.append(sample_rows(outputs, max_rows)[:, left])


def refit_layer_hook(
    goals: list[Tensor],
    max_rows: int,
    ridge_strength: float,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
) -> None:
    """Hook of the cut network: the layer gets its new weights just before it runs."""
    if len(goals) == 1 and inputs:  # not given by name
        x = inputs[0]
        seen = (
            sample_patches(module, x, max_rows)
            if isinstance(module, nn.Conv2d)
            else sample_rows(x, max_rows)
        )
        with torch.autocast(x.device.type, enabled=False):
            fit_layer(module, seen.float(), goals[0].float(), ridge_strength)


def sample_rows(values: Tensor, max_rows: int) -> Tensor:
    """[rows, channels] of a tensor with channels last."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[sample_indices(len(rows), max_rows).to(rows.device)]


def sample_indices(count: int, max_rows: int) -> Tensor:
    """All of so many rows, or as many at random: of equal counts the same."""
    if count <= max_rows:
        return torch.arange(count)
    return torch.randint(
        count, (max_rows,), generator=torch.Generator().manual_seed(SAMPLING_SEED)
    )


def sample_patches(module: nn.Conv2d, inputs: Tensor, max_rows: int) -> Tensor:
    """[rows, weights of a filter]: what a convolution sees at the places of `some_rows`."""
    down, across = (int(one) for one in module.padding)
    padded = functional.pad(inputs, (across, across, down, down))
    sides = zip(padded.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
    high, wide = ((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in sides)
    at = sample_indices(len(padded) * high * wide, max_rows).to(padded.device)
    image, row, column = at // (high * wide), at // wide % high, at % wide
    tall, broad = (
        torch.arange(k, device=at.device) * d
        for k, d in zip(module.kernel_size, module.dilation, strict=True)
    )
    rows = (row * module.stride[0])[:, None] + tall
    columns = (column * module.stride[1])[:, None] + broad
    found = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2).flatten(1)


def fit_layer(module: nn.Module, inputs: Tensor, goal: Tensor, ridge_strength: float) -> None:
    """Move a layer's weights [C, F] towards giving the goal [rows, C] from the inputs [rows, F].

    The change solves a system of F or of as many unknowns as there are rows, whichever are fewer.
    Means are left to the layer's bias, or to the norm behind it.
    """
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    mean, aim = inputs.mean(0), goal.mean(0)
    x = inputs - mean
    ridge = ridge_strength * x.square().sum(0).mean()
    if not bool(ridge > 0):
        return
    missing = goal - aim - x @ weight.flatten(1).T
    if len(x) < x.shape[1]:
        change = x.T @ torch.linalg.solve(add_ridge(x @ x.T, ridge), missing)
    else:
        change = torch.linalg.solve(add_ridge(x.T @ x, ridge), x.T @ missing)
    if not bool(change.isfinite().all()):
        return
    weight.add_(change.T.view_as(weight))
    if isinstance(bias, Tensor):
        bias.copy_(aim - weight.flatten(1) @ mean)


def add_ridge(square: Tensor, ridge: Tensor) -> Tensor:
    """A symmetric matrix with the ridge on its diagonal."""
    square.diagonal().add_(ridge)
    return square
