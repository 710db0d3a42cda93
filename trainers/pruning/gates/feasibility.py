"""Which pair of sizes a network can have at once: the reachable one nearest to a wish.

The price hangs on the share x_g of atoms that each group keeps. The nearest pair minimises
|log(price(x) / wish)|^2 over floor_g <= x <= 1: damped Gauss-Newton steps on the (one or) two
residuals, in which a share that stands at its bound and would leave it is held fast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.functional import jacobian

from ....spaces.allocations.budget import UnreachableBudgetError
from ....spaces.allocations.decode import PruningSpace
from ....spaces.cost.target import Target

MAX_STEPS = 300
MAX_STEP_LENGTH = 0.1  # the largest change of a share in one step
DAMPING = 1e-9
TOLERANCE = 0.01  # relative; what the gates promise

KeepRatios = NDArray[np.float64]


def check_target_reachable(space: PruningSpace, target: Target, floor: int) -> None:
    """Raise unless one network can have all sizes of a target, within the tolerance."""
    if not is_target_reachable(space, target, floor):
        nearest, dense = nearest_reachable_target(space, target, floor), space.cost_model.dense
        both = " together" if None not in (target.flops, target.params) else ""
        raise UnreachableBudgetError(
            f"the target must be reachable{both}, got {_format_target(target, dense)}; the nearest that "
            f"a network of this kind can have is {_format_target(nearest, dense)}, so ask for that"
            + (" or for one of the two alone" if both else "")
        )


def drop_redundant_part(space: PruningSpace, target: Target, floor: int) -> Target:
    """The target without the part that no network of the other part's size comes up to.

    A target says at most: a pair may be out of reach only because one of the two is kept anyhow.
    Raises where what is left is out of reach too.
    """
    if is_target_reachable(space, target, floor):
        return target
    dense = space.cost_model.dense
    nearest = nearest_reachable_target(space, target, floor).fractions(dense)
    wished = target.fractions(dense)
    flops, params = (
        size if part is not None and near is not None and near >= part else None
        for size, part, near in zip((target.flops, target.params), wished, nearest, strict=True)
    )
    if (flops, params) != (None, None):
        target = Target(flops, params)
    check_target_reachable(space, target, floor)
    return target


def is_target_reachable(space: PruningSpace, target: Target, floor: int) -> bool:
    """Whether one network can have all sizes of a target, within the tolerance."""
    nearest, dense = nearest_reachable_target(space, target, floor), space.cost_model.dense
    pairs = zip(target.fractions(dense), nearest.fractions(dense), strict=True)
    return all(w is None or n is None or abs(n / w - 1) <= TOLERANCE for w, n in pairs)


def nearest_reachable_target(space: PruningSpace, target: Target, floor: int = 1) -> Target:
    """The reachable sizes nearest to a target, as fractions; every group keeps a floor."""
    dense = space.cost_model.dense
    fractions = target.fractions(dense)
    given = [k for k, part in enumerate(fractions) if part is not None]
    if not given or not len(space.channel_map.groups):
        return target
    wished = torch.tensor([fractions[k] for k in given], dtype=torch.float64)
    whole = torch.tensor([dense[k] for k in given], dtype=torch.float64)
    price = space.cost_model.differentiable_cost("cpu")
    group_of = torch.from_numpy(space.channel_map.group_of.astype(np.int64))

    def residuals(shares: Tensor) -> Tensor:
        return (price(shares[group_of])[given] / (whole * wished)).log()

    low = np.minimum(1.0, max(floor, space.min_channels) / np.bincount(group_of))
    shares = torch.from_numpy(_minimize_residuals(residuals, low, float(wished.min()) ** 0.5))
    found = (residuals(shares).exp() * wished).tolist()
    parts = dict(zip(given, found, strict=True))
    return Target(parts.get(0), parts.get(1))


def _minimize_residuals(
    residuals: Callable[[Tensor], Tensor], low: KeepRatios, start: float
) -> KeepRatios:
    """The shares at which the residuals are least."""
    shares = np.maximum(low, start)
    for _ in range(MAX_STEPS):
        here = torch.from_numpy(shares)
        error = residuals(here).numpy()
        slopes = jacobian(residuals, here).numpy()  # type: ignore[no-untyped-call]
        moved = np.clip(shares + _gauss_newton_step(error, slopes, shares, low), low, 1.0)
        if np.abs(moved - shares).max() < 1e-7:
            break
        shares = moved
    return shares


def _gauss_newton_step(
    error: KeepRatios, slopes: KeepRatios, shares: KeepRatios, low: KeepRatios
) -> KeepRatios:
    """A Gauss-Newton step of least length that leaves no bound it stands at."""
    free = np.ones(len(shares), dtype=bool)
    while free.any():
        own = slopes * free
        square = own @ own.T
        damped = square + DAMPING * max(float(np.trace(square)), 1e-30) * np.eye(len(error))
        step: KeepRatios = -own.T @ np.linalg.solve(damped, error)
        stuck = free & (((shares <= low) & (step < 0)) | ((shares >= 1) & (step > 0)))
        if not stuck.any():
            return step * min(1.0, MAX_STEP_LENGTH / max(float(np.abs(step).max()), 1e-30))
        free &= ~stuck
    return np.zeros(len(shares))


def _format_target(target: Target, dense: tuple[int, int]) -> str:
    parts = zip(("flops", "params"), target.fractions(dense), strict=True)
    return " and ".join(f"{name} {part:.3f}" for name, part in parts if part is not None)
