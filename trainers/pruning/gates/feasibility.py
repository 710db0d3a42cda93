"""Reachable targets: the pair of sizes nearest to a target that one network can have.

The cost is a function of the share x_g of atoms that each group keeps. The nearest pair minimises

    |log(cost(x) / target)|^2    over floor_g <= x <= 1

by damped Gauss-Newton steps on the one or two residuals. A share at its bound whose step would
leave the bounds is held fixed.
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
TOLERANCE = 0.01  # relative; gate training reaches a size within it

KeepRatios = NDArray[np.float64]


def check_target_reachable(space: PruningSpace, target: Target, floor: int) -> None:
    """Raise UnreachableBudgetError if no network has all sizes of a target together."""
    if not is_target_reachable(space, target, floor):
        nearest, dense = nearest_reachable_target(space, target, floor), space.cost_model.dense
        both = " together" if None not in (target.flops, target.params) else ""
        raise UnreachableBudgetError(
            f"the target must be reachable{both}, got {_format_target(target, dense)}; the "
            f"nearest reachable target is {_format_target(nearest, dense)}, so set that"
            + (" or only one of the two" if both else "")
        )


def drop_redundant_part(space: PruningSpace, target: Target, floor: int) -> Target:
    """Drop the part of a target that the other part implies.

    The parts of a target are upper bounds. A pair may be unreachable only because every network of
    one size is below the other one.

    Raises:
        UnreachableBudgetError: if the remaining target is unreachable too.
    """
    if is_target_reachable(space, target, floor):
        return target
    dense = space.cost_model.dense
    nearest = nearest_reachable_target(space, target, floor).fractions(dense)
    fractions = target.fractions(dense)
    flops, params = (
        size if part is not None and near is not None and near >= part else None
        for size, part, near in zip((target.flops, target.params), fractions, nearest, strict=True)
    )
    if (flops, params) != (None, None):
        target = Target(flops, params)
    check_target_reachable(space, target, floor)
    return target


def is_target_reachable(space: PruningSpace, target: Target, floor: int) -> bool:
    """True if one network can have all sizes of a target, within the tolerance."""
    nearest, dense = nearest_reachable_target(space, target, floor), space.cost_model.dense
    pairs = zip(target.fractions(dense), nearest.fractions(dense), strict=True)
    return all(w is None or n is None or abs(n / w - 1) <= TOLERANCE for w, n in pairs)


def nearest_reachable_target(space: PruningSpace, target: Target, floor: int = 1) -> Target:
    """The reachable sizes nearest to a target, as fractions; every group keeps `floor` atoms."""
    dense = space.cost_model.dense
    fractions = target.fractions(dense)
    columns = [k for k, part in enumerate(fractions) if part is not None]
    if not columns or not len(space.channel_map.groups):
        return target
    targets = torch.tensor([fractions[k] for k in columns], dtype=torch.float64)
    dense_sizes = torch.tensor([dense[k] for k in columns], dtype=torch.float64)
    cost = space.cost_model.differentiable_cost("cpu")
    group_of = torch.from_numpy(space.channel_map.group_of.astype(np.int64))

    def residuals(shares: Tensor) -> Tensor:
        return (cost(shares[group_of])[columns] / (dense_sizes * targets)).log()

    low = np.minimum(1.0, max(floor, space.min_channels) / np.bincount(group_of))
    shares = torch.from_numpy(_minimize_residuals(residuals, low, float(targets.min()) ** 0.5))
    reached = (residuals(shares).exp() * targets).tolist()
    parts = dict(zip(columns, reached, strict=True))
    return Target(parts.get(0), parts.get(1))


def _minimize_residuals(
    residuals: Callable[[Tensor], Tensor], low: KeepRatios, start: float
) -> KeepRatios:
    """The shares with the smallest residuals."""
    shares = np.maximum(low, start)
    for _ in range(MAX_STEPS):
        point = torch.from_numpy(shares)
        error = residuals(point).numpy()
        slopes = jacobian(residuals, point).numpy()  # type: ignore[no-untyped-call]
        updated = np.clip(shares + _gauss_newton_step(error, slopes, shares, low), low, 1.0)
        if np.abs(updated - shares).max() < 1e-7:
            break
        shares = updated
    return shares


def _gauss_newton_step(
    error: KeepRatios, slopes: KeepRatios, shares: KeepRatios, low: KeepRatios
) -> KeepRatios:
    """The minimum-norm Gauss-Newton step within the bounds of the shares."""
    free = np.ones(len(shares), dtype=bool)
    while free.any():
        free_slopes = slopes * free
        square = free_slopes @ free_slopes.T
        damped = square + DAMPING * max(float(np.trace(square)), 1e-30) * np.eye(len(error))
        step: KeepRatios = -free_slopes.T @ np.linalg.solve(damped, error)
        stuck = free & (((shares <= low) & (step < 0)) | ((shares >= 1) & (step > 0)))
        if not stuck.any():
            return step * min(1.0, MAX_STEP_LENGTH / max(float(np.abs(step).max()), 1e-30))
        free &= ~stuck
    return np.zeros(len(shares))


def _format_target(target: Target, dense: tuple[int, int]) -> str:
    parts = zip(("flops", "params"), target.fractions(dense), strict=True)
    return " and ".join(f"{name} {part:.3f}" for name, part in parts if part is not None)
