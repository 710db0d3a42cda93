"""The size penalty of a gated network, on multiply-adds and parameters together.

    penalty(s) = w(s) sum_k h(e_k) aim_k(s) / n_k,     e_k = |cost_k / aim_k(s) - 1|
    h(e) = e - near / 2  for e >= near,   e^2 / (2 near)  below (a Huber loss)

s is the completed share of the run; k are the sizes with a target. The cost is exact at the
current mask and differentiable (`CostModel.differentiable_cost`). aim_k falls from the dense size
to the target while w grows. n_k is the root mean square of the gradient of cost_k in the dense
network, so that w = 1 gives the penalty the same weight as the task, whose gradient is normalised
too (Enderich et al. 2020, "Holistic Filter Pruning for Efficient Deep Neural Networks").

We differ in: a penalty on both sides, so that both sizes end at their targets; the falling aim;
the normalisation of both gradients, with which one setting is right for all networks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from ....spaces.cost.cost import CostModel
from .network import GatedNetwork
from .settings import GateTrainingSpec


class SizePenalty:
    """The size penalty of a gated network in the space of `spec`, or of one cut from it."""

    def __init__(
        self, network: GatedNetwork, cost_model: CostModel, spec: GateTrainingSpec
    ) -> None:
        self.network, self.settings = network, spec.settings
        device = network.gates.device
        self.cost = cost_model.differentiable_cost(device)
        sizes = list(zip(spec.space.cost_model.dense, spec.limits, strict=True))
        self.target_columns = [k for k, (_, limit) in enumerate(sizes) if limit is not None]
        table = torch.tensor(
            [sizes[k] for k in self.target_columns], dtype=torch.float64, device=device
        )
        self.dense: Tensor = table[:, 0]
        self.limits: Tensor = table[:, 1]
        ones = torch.ones(len(network.gates), dtype=torch.float64, device=device)
        slopes: Tensor = jacobian(self.cost, ones)[self.target_columns]  # type: ignore[no-untyped-call]
        self.slope = slopes.square().mean(dim=1).sqrt().clamp(min=1e-30)

    def __call__(self, share: float) -> Tensor:
        """The penalty of the last forward pass's mask; also records the exact sizes."""
        network, mask = self.network, self.network.mask
        assert mask is not None, "the size penalty needs a forward pass in training mode"
        penalty = self.penalty_of(mask, share)
        with torch.no_grad():
            step = round(share * len(network.sizes))
            network.sizes[step] = self.cost(network.open_gates())
            network.share.fill_(share)
        return penalty

    def penalty_of(self, mask: Tensor, share: float) -> Tensor:
        """The penalty of a mask [A], differentiable."""
        aim, near = self.target_sizes(share), self.settings.near
        error = (self.cost(mask)[self.target_columns] / aim - 1).abs()
        huber = torch.where(error < near, error.square() / (2 * near), error - near / 2)
        weight = self.settings.weight * self.settings.ramp(share)
        return torch.sum(weight * huber * aim / self.slope)

    def target_sizes(self, share: float) -> Tensor:
        """The target sizes at a share of the run."""
        return self.dense + self.settings.ramp(share) * (self.limits - self.dense)
