"""The hypervolume that a set of points dominates, and non-dominated sorting.

All objectives are maximised. hv(S) is the volume of the union of the boxes between the reference
and each point, computed exactly by slices along the last objective, for small fronts:

    hv(S) = sum over slices of (upper - lower) * hv_{d-1}(points that reach the slice)
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..arrays import BoolArray, FloatArray, IntArray


def hypervolume(points: FloatArray, reference: FloatArray) -> float:
    """Return the volume above `reference` [d] that `points` [n, d] dominate."""
    above = points[(points > reference).all(axis=1)] - reference
    return union_volume(above) if len(above) else 0.0


def union_volume(points: FloatArray) -> float:
    """Return the volume of the union of the boxes from the origin to each positive point."""
    if points.shape[1] == 1:
        return float(points.max())
    if points.shape[1] == 2:
        return union_area(points)
    order = np.argsort(-points[:, -1], kind="stable")
    heights = np.append(points[order, -1], 0.0)
    return sum(
        float(top - bottom) * union_volume(points[order[: i + 1], :-1])
        for i, (top, bottom) in enumerate(pairwise(heights))
        if top > bottom
    )


def union_area(points: FloatArray) -> float:
    """Return the area of this union in two dimensions."""
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    x, y = points[order].T
    best = np.maximum.accumulate(np.append(0.0, y))
    return float((x * np.diff(best)).sum())


def non_dominated_mask(points: FloatArray) -> BoolArray:
    """Return which of the points [n, d] no other point dominates: bool [n]."""
    no_worse = (points[:, None, :] >= points[None]).all(axis=2)
    better = (points[:, None, :] > points[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))


def non_domination_ranks(points: FloatArray) -> IntArray:
    """Return the rank of each point [n, d]: 0 is the front, 1 the front of the rest, ..."""
    rank = np.full(len(points), -1)
    while (rank < 0).any():
        left = np.flatnonzero(rank < 0)
        rank[left[non_dominated_mask(points[left])]] = rank.max() + 1
    return rank


def hypervolume_contributions(points: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the volume that only this point contributes, for each of the points: [n]."""
    whole = hypervolume(points, reference)
    return np.array(
        [whole - hypervolume(np.delete(points, i, axis=0), reference) for i in range(len(points))]
    )
