"""Split labelled rows into two parts, stratified by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RowIndices = NDArray[np.int64]


def stratified_split(
    labels: RowIndices, share: float, *, rng: np.random.Generator
) -> tuple[RowIndices, RowIndices]:
    """Return the sorted rows of the large part and of the part with `share` of every class.

    Quotas are rounded by the largest remainder, so their sum is `share * N` to the nearest row. A
    class of one row stays in the large part: a network cannot be evaluated on a class that it was
    not trained on.
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * share
    quota = np.floor(exact).astype(np.int64)
    missing = round(len(labels) * share) - int(quota.sum())
    order = np.argsort(-(exact - quota), kind="stable")
    quota[order[:missing]] += 1
    quota = np.minimum(quota, counts - 1)
    drawn = [
        rng.permutation(np.flatnonzero(labels == c))[:q]
        for c, q in zip(classes, quota, strict=True)
    ]
    held_out = np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
