"""From gate values to a mask that carries gradients: the hard indicator and its soft rivals.

hard           m = 1[v > 0],                              dm/dv = 1 (straight through)
sigmoid        m = sigmoid(v / T),                        T falls from SOFT to SHARP
hard-concrete  m = clip(1.2 sigmoid((v + l) / T) - 0.1),  l logistic noise (Louizos et al. 2018)

All agree on which gates are open: those with v > 0; outside of training only these count. `hard`
is the default: it trains the very network that is cut later, and its gradient never dies, where a
drawn gate far from 0 feels nothing, so that groups of many cheap atoms stay behind their target.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

START_TEMPERATURE, END_TEMPERATURE = 0.5, 0.02
STRETCH = 0.1

GateIndicator = Callable[[Tensor, Tensor], Tensor]


def hard(values: Tensor, share: Tensor) -> Tensor:
    """Exactly 0 or 1; the gradient passes as if the indicator were not there."""
    return (values > 0).to(values.dtype) + (values - values.detach())


def sigmoid(values: Tensor, share: Tensor) -> Tensor:
    """Soft, and sharper as the share of the run that is done grows."""
    return torch.sigmoid(values / temperature(share))


def hard_concrete(values: Tensor, share: Tensor) -> Tensor:
    """A drawn mask, most of it exactly 0 or 1."""
    u = torch.rand_like(values).clamp(1e-6, 1 - 1e-6)
    warmth = temperature(share)
    drawn = torch.sigmoid((values + warmth * torch.logit(u)) / warmth)
    return (drawn * (1 + 2 * STRETCH) - STRETCH).clamp(0, 1)


def temperature(share: Tensor) -> Tensor:
    """T at a share of the run: falls geometrically."""
    return START_TEMPERATURE * (END_TEMPERATURE / START_TEMPERATURE) ** share


INDICATORS: dict[str, GateIndicator] = {
    "hard": hard,
    "sigmoid": sigmoid,
    "hard-concrete": hard_concrete,
}
