"""Cut a stratified share out of labelled rows: each class gives its part, under a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RowIndices = NDArray[np.int64]


def stratified_split(
    labels: RowIndices, share: float, *, rng: np.random.Generator
) -> tuple[RowIndices, RowIndices]:
    """Rows that stay and rows cut off, both sorted; the cut is `share` of every class.

    Quotas are rounded by largest remainder, so that their sum is `share * N` to the nearest row. A
    class of one row stays whole: a network cannot be judged on a class it never saw.
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * share
    quota = np.floor(exact).astype(np.int64)
    missing = round(len(labels) * share) - int(quota.sum())
    order = np.argsort(-(exact - quota), kind="stable")
    quota[order[:missing]] += 1
    quota = np.minimum(quota, counts - 1)
    taken = [
        rng.permutation(np.flatnonzero(labels == c))[:q]
        for c, q in zip(classes, quota, strict=True)
    ]
    away = np.sort(np.concatenate(taken)) if taken else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), away), away
