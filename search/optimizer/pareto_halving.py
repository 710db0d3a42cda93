"""Successive halving with several objectives: stop a trial that its like leave behind.

At each rung a trial is compared with the latest of its schedule and of like FLOPs that have come
as far: who is cut late has been trained at its size for less. Of n of them, the best
ceil(KEPT * n) go on, in the order of

    non-dominated rank of (accuracy, -FLOPs, -params), then contribution to the hypervolume

and so does the most accurate of those that cost no more FLOPs: good trials lie close together and
contribute little each, so that a handful of odd ones would crowd out the best.

Asynchronous, as in ASHA (Li et al. 2020): nobody waits for a rung to fill; the first few pass.
We differ in: the order is of fronts, not of one number; a trial is only held against its like.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ...spaces.records.hypervolume import hypervolume_contributions, non_domination_ranks
from ..storage.trial_spec import RungResult

KEEP_FRACTION = 1 / 3
SIMILAR_FLOPS_FACTOR = 1.25  # like FLOPs: apart at most by this factor
EQUAL_SIZE_TOLERANCE = 0.01  # the same size: apart by no more, as two trials at one target are
MIN_RUNG_TRIALS, MAX_RUNG_TRIALS = (
    3,
    64,
)  # trials at a rung: before it stops any, and that one is held against


class ParetoHalving:
    """Who has come to which rung, and who may go on."""

    def __init__(self, seen: Iterable[RungResult] = (), *, kept: float = KEEP_FRACTION) -> None:
        self._kept = kept
        self._rungs: dict[int, list[RungResult]] = {}
        for rung in seen:
            self._rungs.setdefault(rung.index, []).append(rung)

    def should_continue(self, rung: RungResult) -> bool:
        """Enter a trial's standing; False if it is to stop."""
        others = self._rungs.setdefault(rung.index, [])
        others.append(rung)
        like = [align_sizes(rung, one) for one in others if is_comparable(one, rung)][
            -MAX_RUNG_TRIALS:
        ]
        if len(like) < MIN_RUNG_TRIALS:
            return True
        return is_most_accurate(like) or is_among_best(like, math.ceil(self._kept * len(like)))


def is_comparable(one: RungResult, other: RungResult) -> bool:
    """Whether they came by the same schedule to about the same FLOPs."""
    apart = max(one.flops / other.flops, other.flops / one.flops)
    return one.schedule == other.schedule and apart <= SIMILAR_FLOPS_FACTOR


def align_sizes(rung: RungResult, one: RungResult) -> RungResult:
    """The other with the rung's own sizes where they are the same: a hair less is no merit."""
    return replace(
        one, flops=snap_size(one.flops, rung.flops), params=snap_size(one.params, rung.params)
    )


def snap_size(size: float, to: float) -> float:
    """The second size if they are the same."""
    return to if math.isclose(size, to, rel_tol=EQUAL_SIZE_TOLERANCE) else size


def is_most_accurate(peers: list[RungResult]) -> bool:
    """True if the last of these is more accurate than all others that cost no more FLOPs."""
    *others, last = peers
    rivals = [one.accuracy for one in others if one.flops <= last.flops]
    return all(last.accuracy > accuracy for accuracy in rivals)


def is_among_best(peers: list[RungResult], kept: int) -> bool:
    """True if the last of these is one of the `kept` best; of equals, the earlier are better."""
    goals = np.array([(one.accuracy, -one.flops, -one.params) for one in peers])
    ranks = non_domination_ranks(goals)
    beside = goals[ranks == ranks[-1]]  # the last of these is the one in question
    worth = hypervolume_contributions(beside, goals.min(axis=0) - 1e-3)
    return bool((ranks < ranks[-1]).sum() + (worth[:-1] >= worth[-1]).sum() < kept)
