"""First-order Taylor expansion of the loss in the atom's gate (Molchanov et al. 2017, 2019).

s_i = sum over samples n of | dL_n / dm_i |,   m_i = a gate of 1 on atom i

By the chain rule dL/dm_i is the sum over positions of gradient x activation wherever the atom is
consumed, so coupled layers are counted once and together.

We differ in: per-sample gates give every sample's own derivative in one backward pass.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ...spaces.parts import Scores
from ...trainers.batches import batches
from ...trainers.masking import masked
from .registry import Network, score


@score("taylor")
def taylor(network: Network) -> Scores:
    """Sum over the calibration images of |dL/dgate|, in eval mode."""
    total = np.zeros(network.channel_map.atoms)
    model = network.model.eval()
    for images, labels in batches(network.calibration, network.data, batch_size=128):
        gates = torch.ones(len(labels), network.channel_map.atoms, requires_grad=True)
        with masked(model, network.channel_map, gates):
            loss = functional.cross_entropy(model(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, gates)
        total += gradient.abs().sum(0).double().numpy()
    return total
