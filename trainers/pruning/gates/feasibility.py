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

from ....spaces.allocations.budget import Unreachable
from ....spaces.allocations.decode import Space
from ....spaces.cost.target import Target

STEPS = 300
LONGEST = 0.1  # the largest change of a share in one step
DAMPING = 1e-9
TOLERANCE = 0.01  # relative; what the gates promise

Shares = NDArray[np.float64]


def check_reachable(space: Space, target: Target, floor: int) -> None:
    """Raise unless one network can have all sizes of a target, within the tolerance."""
    if not is_reachable(space, target, floor):
        nearest, dense = nearest_reachable(space, target, floor), space.price.dense
        both = " together" if None not in (target.flops, target.params) else ""
        raise Unreachable(
            f"the target must be reachable{both}, got {_words(target, dense)}; the nearest that "
            f"a network of this kind can have is {_words(nearest, dense)}, so ask for that"
            + (" or for one of the two alone" if both else "")
        )


def within_reach(space: Space, target: Target, floor: int) -> Target:
    """The target without the part that no network of the other part's size comes up to.

    A target says at most: a pair may be out of reach only because one of the two is kept anyhow.
    Raises where what is left is out of reach too.
    """
    if is_reachable(space, target, floor):
        return target
    dense = space.price.dense
    nearest = nearest_reachable(space, target, floor).fractions(dense)
    wished = target.fractions(dense)
    flops, params = (
        size if part is not None and near is not None and near >= part else None
        for size, part, near in zip((target.flops, target.params), wished, nearest, strict=True)
    )
    if (flops, params) != (None, None):
        target = Target(flops, params)
    check_reachable(space, target, floor)
    return target


def is_reachable(space: Space, target: Target, floor: int) -> bool:
    """Whether one network can have all sizes of a target, within the tolerance."""
    nearest, dense = nearest_reachable(space, target, floor), space.price.dense
    pairs = zip(target.fractions(dense), nearest.fractions(dense), strict=True)
    return all(w is None or n is None or abs(n / w - 1) <= TOLERANCE for w, n in pairs)


def nearest_reachable(space: Space, target: Target, floor: int = 1) -> Target:
    """The reachable sizes nearest to a target, as fractions; every group keeps a floor."""
    dense = space.price.dense
    fractions = target.fractions(dense)
    given = [k for k, part in enumerate(fractions) if part is not None]
    if not given or not len(space.channel_map.groups):
        return target
    wished = torch.tensor([fractions[k] for k in given], dtype=torch.float64)
    whole = torch.tensor([dense[k] for k in given], dtype=torch.float64)
    price = space.price.smooth("cpu")
    group_of = torch.from_numpy(space.channel_map.group_of.astype(np.int64))

    def residuals(shares: Tensor) -> Tensor:
        return (price(shares[group_of])[given] / (whole * wished)).log()

    low = np.minimum(1.0, max(floor, space.min_channels) / np.bincount(group_of))
    shares = torch.from_numpy(_solve(residuals, low, float(wished.min()) ** 0.5))
    found = (residuals(shares).exp() * wished).tolist()
    parts = dict(zip(given, found, strict=True))
    return Target(parts.get(0), parts.get(1))


def _solve(residuals: Callable[[Tensor], Tensor], low: Shares, start: float) -> Shares:
    """The shares at which the residuals are least."""
    shares = np.maximum(low, start)
    for _ in range(STEPS):
        here = torch.from_numpy(shares)
        error = residuals(here).numpy()
        slopes = jacobian(residuals, here).numpy()  # type: ignore[no-untyped-call]
        moved = np.clip(shares + _step(error, slopes, shares, low), low, 1.0)
        if np.abs(moved - shares).max() < 1e-7:
            break
        shares = moved
    return shares


def _step(error: Shares, slopes: Shares, shares: Shares, low: Shares) -> Shares:
    """A Gauss-Newton step of least length that leaves no bound it stands at."""
    free = np.ones(len(shares), dtype=bool)
    while free.any():
        own = slopes * free
        square = own @ own.T
        damped = square + DAMPING * max(float(np.trace(square)), 1e-30) * np.eye(len(error))
        step: Shares = -own.T @ np.linalg.solve(damped, error)
        stuck = free & (((shares <= low) & (step < 0)) | ((shares >= 1) & (step > 0)))
        if not stuck.any():
            return step * min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-30))
        free &= ~stuck
    return np.zeros(len(shares))


def _words(target: Target, dense: tuple[int, int]) -> str:
    parts = zip(("flops", "params"), target.fractions(dense), strict=True)
    return " and ".join(f"{name} {part:.3f}" for name, part in parts if part is not None)
