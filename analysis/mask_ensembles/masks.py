"""Random masks: each keeps a share of the atoms, and at least one atom of every group.

bernoulli    m_ni = [u_ni < q_n]
antithetic   rows 2k and 2k + 1 share their draws:  [u < q] and [1 - u < q]
stratified   of a group of size s, the s q_n atoms with the smallest u, rounded at random unbiased

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
    """Draw masks bool [count, A].

    Args:
        count: Number of masks.
        group_of: Group index of each atom [A].
        keep: Expected share of atoms that a mask keeps.
        rng: Source of randomness.
        spread: Half-width of the uniform distribution of a mask's own share around `keep`.
        how: bernoulli, antithetic or stratified.
    """
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
    """Keep the smallest draws of each row; the row's level is the share to keep."""
    kept = np.floor(levels * draws.shape[1] + rng.random(levels.shape))
    place = draws.argsort(axis=1).argsort(axis=1)
    return np.asarray(place < kept)
