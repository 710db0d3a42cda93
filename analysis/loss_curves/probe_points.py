"""Strategies that choose how many atoms of a group each probe removes.

paper   bisection for one threshold: k = step = n // 2, then k +- step with the step halved;
        exactly floor(log2 n) probes (Li et al. 2020)
curve   log-spaced k from 1 to n - 1, then, one by one, the middle of the widest gap: number of
        atoms in the gap times its step in log(rise)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ...spaces.policy.loss_curves import CurveSettings, bisect_removed_count

ProbeFunction = Callable[
    [Sequence[int]], list[float]
]  # numbers of removed atoms -> rises of the loss
ProbeStrategy = Callable[[int, ProbeFunction, CurveSettings], None]
NOISE_RISE = 1e-3  # rises below this value are noise


def probe_by_bisection(size: int, probe: ProbeFunction, settings: CurveSettings) -> None:
    """Probe a group of `size` atoms by bisection for the threshold (Li et al. 2020)."""
    bisect_removed_count(size, lambda removed: abs(probe([removed])[0]) <= settings.threshold)


def probe_along_curve(size: int, probe: ProbeFunction, settings: CurveSettings) -> None:
    """Probe at log-spaced numbers, then refine the widest gaps."""
    if size < 2:
        return
    spaced = np.geomspace(1, size - 1, settings.points).round().astype(int)
    first = sorted(set(spaced.tolist()))
    known = {0: 0.0} | dict(zip(first, probe(first), strict=True))
    for _ in range(settings.refine):
        middle = widest_gap_middle(known)
        if middle is None:
            return
        known[middle] = probe([middle])[0]


def widest_gap_middle(known: dict[int, float]) -> int | None:
    """The middle of the widest gap between known points; None if no gap is left."""
    at = sorted(known)
    gaps = [(a, b) for a, b in pairwise(at) if b - a > 1]
    if not gaps:
        return None
    low, high = max(gaps, key=lambda gap: (gap[1] - gap[0]) * log_rise_step(known, gap))
    return (low + high) // 2


def log_rise_step(known: dict[int, float], gap: tuple[int, int]) -> float:
    """Step of log(rise) across a gap; 1000 if the rise becomes infinite."""
    low, high = (math.log(abs(known[k]) + NOISE_RISE) for k in gap)
    return abs(high - low) if math.isfinite(high) and math.isfinite(low) else 1e3


PROBE_STRATEGIES: dict[str, ProbeStrategy] = {
    "curve": probe_along_curve,
    "paper": probe_by_bisection,
}
