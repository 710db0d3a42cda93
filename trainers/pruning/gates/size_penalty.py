"""The size term: what a gated network's size costs it, on multiply-adds and parameters at once.

    penalty(s) = w(s) sum_k h(e_k) aim_k(s) / n_k,     e_k = |price_k / aim_k(s) - 1|

price is exact at the present mask and differentiable (`Price.smooth`), s the share of the run that
is done; k goes over the sizes that the target names. h(e) = e - near / 2, below `near` e^2 / (2
near): a hinge whose pull eases when the aim is near. The aim falls from the dense network to the
target while w grows. n_k is the root mean square of price_k's slopes in the dense network, so that
w = 1 is as loud as the task, whose gradient is levelled too (Enderich et al. 2020).

We differ in: the hinge on both sides, so that both sizes end where they were asked to; the falling
aim; the levelling of both gradients, by which one setting serves all networks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from ....spaces.cost.cost import CostModel
from .network import GatedNetwork
from .settings import GateTrainingSpec


class SizePenalty:
    """The penalty of a gated network of the task's space, or of one cut from it."""

    def __init__(
        self, network: GatedNetwork, cost_model: CostModel, spec: GateTrainingSpec
    ) -> None:
        self.network, self.settings = network, spec.settings
        device = network.gates.device
        self.price = cost_model.differentiable_cost(device)
        wishes = list(zip(spec.space.cost_model.dense, spec.limits, strict=True))
        self.target_columns = [k for k, (_, limit) in enumerate(wishes) if limit is not None]
        row = torch.tensor(
            [wishes[k] for k in self.target_columns], dtype=torch.float64, device=device
        )
        self.dense: Tensor = row[:, 0]
        self.limits: Tensor = row[:, 1]
        ones = torch.ones(len(network.gates), dtype=torch.float64, device=device)
        slopes: Tensor = jacobian(self.price, ones)[self.target_columns]  # type: ignore[no-untyped-call]
        self.slope = slopes.square().mean(dim=1).sqrt().clamp(min=1e-30)

    def __call__(self, share: float) -> Tensor:
        """The penalty of the mask that the last forward used; its exact size is written down."""
        network, mask = self.network, self.network.mask
        assert mask is not None, "the size term follows a forward in training mode"
        penalty = self.penalty_of(mask, share)
        with torch.no_grad():
            step = round(share * len(network.sizes))
            network.sizes[step] = self.price(network.open_gates())
            network.share.fill_(share)
        return penalty

    def penalty_of(self, mask: Tensor, share: float) -> Tensor:
        """The penalty of a mask [A], differentiable."""
        aim, near = self.target_sizes(share), self.settings.near
        error = (self.price(mask)[self.target_columns] / aim - 1).abs()
        eased = torch.where(error < near, error.square() / (2 * near), error - near / 2)
        weight = self.settings.weight * self.settings.ramp(share)
        return torch.sum(weight * eased * aim / self.slope)

    def target_sizes(self, share: float) -> Tensor:
        """The sizes aimed at, at a share of the run."""
        return self.dense + self.settings.ramp(share) * (self.limits - self.dense)
