"""Gate indicators: functions from gate values v to a mask m with gradients.

    hard           m = 1[v > 0],                              dm/dv = 1 (straight through)
    sigmoid        m = sigmoid(v / T),                        T falls geometrically
    hard-concrete  m = clip(1.2 sigmoid((v + T l) / T) - 0.1),  l logistic noise

(hard-concrete: Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization".)

For all of them a gate is open if v > 0; in eval mode only this counts. `hard` is the default: it
trains exactly the network that is cut later, and its gradient does not vanish. The gradient of the
others vanishes far from 0, so groups of many cheap atoms do not reach their target.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

START_TEMPERATURE, END_TEMPERATURE = 0.5, 0.02
STRETCH = 0.1

GateIndicator = Callable[[Tensor, Tensor], Tensor]


def hard(values: Tensor, share: Tensor) -> Tensor:
    """Exactly 0 or 1, with a straight-through gradient."""
    return (values > 0).to(values.dtype) + (values - values.detach())


def sigmoid(values: Tensor, share: Tensor) -> Tensor:
    """A sigmoid that gets steeper with the completed share of the run."""
    return torch.sigmoid(values / temperature(share))


def hard_concrete(values: Tensor, share: Tensor) -> Tensor:
    """A random mask whose values are mostly exactly 0 or 1."""
    u = torch.rand_like(values).clamp(1e-6, 1 - 1e-6)
    t = temperature(share)
    sample = torch.sigmoid((values + t * torch.logit(u)) / t)
    return (sample * (1 + 2 * STRETCH) - STRETCH).clamp(0, 1)


def temperature(share: Tensor) -> Tensor:
    """The temperature T at a share of the run; it falls geometrically."""
    return START_TEMPERATURE * (END_TEMPERATURE / START_TEMPERATURE) ** share


INDICATORS: dict[str, GateIndicator] = {
    "hard": hard,
    "sigmoid": sigmoid,
    "hard-concrete": hard_concrete,
}
