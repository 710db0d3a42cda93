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
from ...spaces.graph.slicing import kept
from ..data.batches import ROWS_SEED
from ..data.types import Data
from ..runtime.device import Machine, place, precision, threads
from ..runtime.modes import evaluating
from .bn_recalibration import calibration_images

ROWS = 32  # an image, at most, is what a layer is fitted to: places of a feature map, or tokens
PULL = 0.3  # r, as a share of the inputs' mean power


@torch.no_grad()
def refit(
    small: nn.Module,
    dense: nn.Module,
    channel_map: ChannelMap,
    keep: NDArray[np.bool_],
    data: Data,
    *,
    machine: Machine,
    images: int = 512,
    pull: float = PULL,
) -> None:
    """Change the weights of `small`, which is `dense` cut to a mask [A]."""
    for model in (dense, small):
        place(model, machine)
    layers = layers_to_refit(small, channel_map, keep)
    goals: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    batch = next(calibration_images(data, images, machine))
    most = ROWS * len(batch)
    with threads(machine), precision(machine), evaluating(dense), evaluating(small):
        with ExitStack() as hooks:
            for layer in layers:
                left = kept(layer.out_atoms, keep).to(batch.device)
                hook = partial(remember, goals[layer.name], left, most)
                hooks.enter_context(dense.get_submodule(layer.name).register_forward_hook(hook))
            dense(batch)
        for norm in small.modules():
            if isinstance(norm, _BatchNorm):
                norm.training = True
        with ExitStack() as hooks:
            for layer in layers:
                hook = partial(solve, goals[layer.name], most, pull)
                module = small.get_submodule(layer.name)
                hooks.enter_context(module.register_forward_pre_hook(hook))
            small(batch)


def layers_to_refit(
    small: nn.Module, channel_map: ChannelMap, keep: NDArray[np.bool_]
) -> list[Layer]:
    """From the first on that loses inputs: those before it compute what they always did."""
    losing = [not bool(kept(layer.in_atoms, keep).all()) for layer in channel_map.layers]
    first = losing.index(True) if True in losing else len(losing)
    uses = Counter(id(one) for module in small.modules() for one in module._parameters.values())
    after = ((one, small.get_submodule(one.name)) for one in channel_map.layers[first:])
    return [
        one
        for one, module in after
        if is_plain(module) and uses[id(module._parameters["weight"])] == 1
    ]


def is_plain(module: nn.Module) -> bool:
    """Whether a layer's outputs are its own weights times its inputs."""
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return False
    if isinstance(module, nn.Conv2d):
        zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module.groups == 1 and zeros
    return isinstance(module, nn.Linear)


def remember(
    goals: list[Tensor], left: Tensor, most: int, module: nn.Module, _: Any, outputs: Tensor
) -> None:
    """Hook of the dense network: what its layer puts out, in the channels that are left."""
    if isinstance(module, nn.Conv2d):
        outputs = outputs.permute(0, 2, 3, 1)
    goals.append(some_rows(outputs, most)[:, left])


def solve(
    goals: list[Tensor], most: int, pull: float, module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    """Hook of the cut network: the layer gets its new weights just before it runs."""
    if len(goals) == 1 and inputs:  # not given by name
        x = inputs[0]
        seen = patches(module, x, most) if isinstance(module, nn.Conv2d) else some_rows(x, most)
        with torch.autocast(x.device.type, enabled=False):
            fit(module, seen.float(), goals[0].float(), pull)


def some_rows(values: Tensor, most: int) -> Tensor:
    """[rows, channels] of a tensor with channels last."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[chosen(len(rows), most).to(rows.device)]


def chosen(count: int, most: int) -> Tensor:
    """All of so many rows, or as many at random: of equal counts the same."""
    if count <= most:
        return torch.arange(count)
    return torch.randint(count, (most,), generator=torch.Generator().manual_seed(ROWS_SEED))


def patches(module: nn.Conv2d, inputs: Tensor, most: int) -> Tensor:
    """[rows, weights of a filter]: what a convolution sees at the places of `some_rows`."""
    down, across = (int(one) for one in module.padding)
    padded = functional.pad(inputs, (across, across, down, down))
    sides = zip(padded.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
    high, wide = ((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in sides)
    at = chosen(len(padded) * high * wide, most).to(padded.device)
    image, row, column = at // (high * wide), at // wide % high, at % wide
    tall, broad = (
        torch.arange(k, device=at.device) * d
        for k, d in zip(module.kernel_size, module.dilation, strict=True)
    )
    rows = (row * module.stride[0])[:, None] + tall
    columns = (column * module.stride[1])[:, None] + broad
    found = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2).flatten(1)


def fit(module: nn.Module, inputs: Tensor, goal: Tensor, pull: float) -> None:
    """Move a layer's weights [C, F] towards giving the goal [rows, C] from the inputs [rows, F].

    The change solves a system of F or of as many unknowns as there are rows, whichever are fewer.
    Means are left to the layer's bias, or to the norm behind it.
    """
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    mean, aim = inputs.mean(0), goal.mean(0)
    x = inputs - mean
    ridge = pull * x.square().sum(0).mean()
    if not bool(ridge > 0):
        return
    missing = goal - aim - x @ weight.flatten(1).T
    if len(x) < x.shape[1]:
        change = x.T @ torch.linalg.solve(damped(x @ x.T, ridge), missing)
    else:
        change = torch.linalg.solve(damped(x.T @ x, ridge), x.T @ missing)
    if not bool(change.isfinite().all()):
        return
    weight.add_(change.T.view_as(weight))
    if isinstance(bias, Tensor):
        bias.copy_(aim - weight.flatten(1) @ mean)


def damped(square: Tensor, ridge: Tensor) -> Tensor:
    """A symmetric matrix with the ridge on its diagonal."""
    square.diagonal().add_(ridge)
    return square
