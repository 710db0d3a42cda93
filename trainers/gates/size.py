"""The size term: what a gated network's size costs it, on multiply-adds and parameters at once.

    penalty(s) = w(s) sum_k e_k / n_k,      e_k = max(0, r_k - 1) + max(0, 1 - band - r_k)

r_k = price_k / aim_k(s) is the exact price of the present mask (`Price.soft`) over the present
aim, s the share of the run that is done; k goes over the targets given. The aim falls from the
dense network to the target while s < approach, and w grows meanwhile. n_k is the root mean square
of r_k's slopes in the dense network, so that w = 1 is as loud as the task, which is levelled too.

We differ in: a hinge below the target as well, so that both sizes end where they were asked to;
the falling aim; the levelling of both gradients, by which one setting serves all networks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...spaces.price import Price
from .network import GatedNetwork
from .settings import GateSettings


class SizeTerm:
    """The penalty of a gated network; it writes down every exact size that it sees."""

    def __init__(
        self,
        network: GatedNetwork,
        price: Price,
        limits: tuple[int | None, int | None],
        dense: tuple[int, int],
        settings: GateSettings,
    ) -> None:
        device = network.gates.device
        self.network, self.settings = network, settings
        self.price = price.smooth(device)
        self.given = [k for k, limit in enumerate(limits) if limit is not None]
        self.limits = self._row([limits[k] for k in self.given])
        self.dense = self._row([dense[k] for k in self.given])
        ones = torch.ones(len(network.gates), dtype=torch.float64, device=device)
        slopes = torch.autograd.functional.jacobian(self.price, ones)[self.given]
        self.slope = slopes.square().mean(dim=1).sqrt().clamp(min=1e-30)

    def _row(self, values: list[int | None]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.network.gates.device)

    def __call__(self, share: float) -> Tensor:
        """The penalty of the mask that the last forward used."""
        mask = self.network.mask
        assert mask is not None, "the size term belongs to a forward in training mode"
        self._write_down(share, mask)
        self.network.share.fill_(share)
        return self.of(mask, share)

    def of(self, mask: Tensor, share: float) -> Tensor:
        """The penalty of a mask [A], differentiable."""
        aim = self.aim(share)
        ratio = self.price(mask)[self.given] / aim
        error = (ratio - 1 + self.settings.band).abs()
        near = self.settings.near
        error = torch.where(error < near, error.square() / (2 * near), error - near / 2)
        return self.settings.weight_at(share) * (error * aim / self.slope).sum()

    def aim(self, share: float) -> Tensor:
        """The sizes aimed at, at a share of the run."""
        done = min(1.0, share / self.settings.approach) if self.settings.approach else 1.0
        return self.dense + done * (self.limits - self.dense)

    @torch.no_grad()
    def _write_down(self, share: float, mask: Tensor) -> None:
        opened = self.network.open()
        step = round(share * len(self.network.sizes))
        self.network.sizes[step] = self.price(opened.double())
