"""Random masks: each keeps a share of the atoms, and at least one of every group.

bernoulli    m_ni = [u_ni < q_n]
antithetic   rows 2k and 2k + 1 share their draws:  [u < q] and [1 - u < q]
stratified   of a group's n atoms the n q_n of the smallest u, rounded at random without bias

q_n = keep + spread * uniform(-1, 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]


def draw_masks(
    count: int,
    group_of: NDArray[np.int32],
    *,
    keep: float,
    rng: np.random.Generator,
    spread: float = 0.0,
    how: str = "bernoulli",
) -> Masks:
    """Masks bool [count, A] for atoms whose groups are `group_of` [A]."""
    levels = keep + spread * rng.uniform(-1, 1, (count, 1))
    draws = rng.random((count, len(group_of)), dtype=np.float32)
    if how == "antithetic":
        pairs = count // 2
        draws[1 : 2 * pairs : 2] = 1 - draws[0 : 2 * pairs : 2]
    masks = draws < levels
    for group in np.unique(group_of):
        atoms = np.flatnonzero(group_of == group)
        if how == "stratified":
            masks[:, atoms] = _keep_exact_share(draws[:, atoms], levels, rng)
        empty = np.flatnonzero(~masks[:, atoms].any(axis=1))
        masks[empty, atoms[draws[np.ix_(empty, atoms)].argmin(axis=1)]] = True
    return masks


def _keep_exact_share(
    draws: NDArray[np.float32], levels: NDArray[np.float64], rng: np.random.Generator
) -> Masks:
    """Keep the smallest draws of each row, as many as the row's level says."""
    kept = np.floor(levels * draws.shape[1] + rng.random(levels.shape))
    place = draws.argsort(axis=1).argsort(axis=1)
    return np.asarray(place < kept)
