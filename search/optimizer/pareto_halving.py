"""Successive halving with several objectives: stop trials that comparable trials outperform.

At each rung, a trial is compared with its peers: the latest trials at the rung with the same
schedule and similar FLOPs. The schedule matters because late-pruned networks have trained less at
their final size. Of n peers, the best ceil(KEEP_FRACTION * n) continue, ordered by

    non-dominated rank of (accuracy, -FLOPs, -params), then contribution to the hypervolume.

A trial that is more accurate than every peer with at most its FLOPs also continues. Without this
rule, a few unusual trials displace the best ones, which lie close together and so contribute
little hypervolume each.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA): asynchronous, no
trial waits for a rung to fill. We differ in: the order is by fronts, not by one number; a trial is
compared with its peers only; the first MIN_RUNG_TRIALS - 1 peers at a rung always continue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ...spaces.records.hypervolume import hypervolume_contributions, non_domination_ranks
from ..storage.trial_spec import RungResult

KEEP_FRACTION = 1 / 3
SIMILAR_FLOPS_FACTOR = 1.25  # FLOPs within this factor are similar
EQUAL_SIZE_TOLERANCE = 0.01  # relative; trials at one target differ by less
MIN_RUNG_TRIALS = 3  # peers at a rung, including the trial, before it stops any
MAX_RUNG_TRIALS = 64  # latest peers that a trial is compared with


class ParetoHalving:
    """The results at each rung; decides which trials continue."""

    def __init__(self, seen: Iterable[RungResult] = (), *, kept: float = KEEP_FRACTION) -> None:
        """Start from the results of an earlier launch, `seen`; `kept` is the share to keep."""
        self._kept = kept
        self._rungs: dict[int, list[RungResult]] = {}
        for rung in seen:
            self._rungs.setdefault(rung.index, []).append(rung)

    def should_continue(self, rung: RungResult) -> bool:
        """Record a trial's result at a rung; False if the trial should stop."""
        results = self._rungs.setdefault(rung.index, [])
        results.append(rung)
        peers = [align_sizes(rung, result) for result in results if is_comparable(result, rung)]
        peers = peers[-MAX_RUNG_TRIALS:]
        if len(peers) < MIN_RUNG_TRIALS:
            return True
        return is_most_accurate(peers) or is_among_best(peers, math.ceil(self._kept * len(peers)))


def is_comparable(one: RungResult, other: RungResult) -> bool:
    """Whether both have the same schedule and similar FLOPs."""
    ratio = max(one.flops / other.flops, other.flops / one.flops)
    return one.schedule == other.schedule and ratio <= SIMILAR_FLOPS_FACTOR


def align_sizes(rung: RungResult, one: RungResult) -> RungResult:
    """Return `one` with the sizes of `rung` where they are equal within the tolerance."""
    return replace(
        one, flops=snap_size(one.flops, rung.flops), params=snap_size(one.params, rung.params)
    )


def snap_size(size: float, to: float) -> float:
    """Return `to` if both sizes are equal within the tolerance, else `size`."""
    return to if math.isclose(size, to, rel_tol=EQUAL_SIZE_TOLERANCE) else size


def is_most_accurate(peers: list[RungResult]) -> bool:
    """Whether the last peer is more accurate than all others with at most its FLOPs."""
    *others, last = peers
    return all(last.accuracy > one.accuracy for one in others if one.flops <= last.flops)


def is_among_best(peers: list[RungResult], kept: int) -> bool:
    """Whether the last peer is one of the `kept` best; among equals, earlier ones are better."""
    goals = np.array([(one.accuracy, -one.flops, -one.params) for one in peers])
    ranks = non_domination_ranks(goals)
    same_rank = goals[ranks == ranks[-1]]  # the last row is the trial in question
    volumes = hypervolume_contributions(same_rank, goals.min(axis=0) - 1e-3)
    return bool((ranks < ranks[-1]).sum() + (volumes[:-1] >= volumes[-1]).sum() < kept)
