"""Random weights under which every channel affects the output, to verify a channel map.

The outputs of a newly initialised network often depend only on its last bias, because of
zero-initialised norms or vanishing signals. A wrong cut would then not be detected.
"""

from __future__ import annotations

import copy
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..errors import UserError

BATCH_SIZE = 4


def randomized_copy(model: nn.Module, input_shape: tuple[int, ...], seed: int) -> nn.Module:
    """Return a copy with random weights of suitable scale and norms fitted to random inputs.

    Raises:
        UserError: If the network does not run on a batch of several samples.
    """
    model, rng = copy.deepcopy(model).eval(), torch.Generator().manual_seed(seed)
    for module in model.modules():
        _randomize(module, rng)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.training, norm.momentum = True, 1.0  # its children stay in eval mode
    try:
        with torch.no_grad():
            model(torch.randn(BATCH_SIZE, *input_shape, generator=rng))
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the network must take batches of any size, but failed on {BATCH_SIZE} samples "
            f"({first[:160]}); take the batch size from its input's shape"
        ) from error
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.training, norm.momentum = False, momentum
    return model


def _randomize(module: nn.Module, rng: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=rng)
            if name == "weight" and isinstance(module, nn.Linear | _ConvNd):
                parameter.copy_(noise * (2 / max(1, prod(parameter.shape[1:]))) ** 0.5)
            elif bool((parameter == parameter.flatten()[0]).all()) or name == "bias":
                parameter.add_(0.1 * noise)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest expected value."""
    scale = float(expected.abs().max()) or 1.0
    return float((found - expected).abs().max()) / scale
