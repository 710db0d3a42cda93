"""The ridge regression of `ridge.py` without its matrix, for networks too large for sum x x'.

The masks are stored as one bit per atom, and conjugate gradients apply K^-1. The strength is the
one that predicts held-out samples best, because the marginal likelihood would need log det K. The
root of the covariance comes from random draws: with independent standard normal e,

    K^-1 (X'e_1 + sqrt(l d) e_2)   has covariance   K^-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...spaces.arrays import NamedArrays
from .design_matrix import DesignMatrix
from .masks import Masks
from .ridge import CenteredSums, Prior, RidgeFit, fit_at_strength

Values = NDArray[np.float64]
Index = NDArray[np.int64]
BLOCK = 512  # samples unpacked per block
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # over G's mean diagonal
TOLERANCE = 1e-4
MAX_CG_STEPS = 200
POSTERIOR_DRAWS = 64  # draws of the posterior: standard errors within 9 %
HELD_OUT_EVERY = 8  # every eighth sample is held out to choose the strength
SEED = 0


@dataclass(slots=True, eq=False)
class PackedMasks:
    """All masks and targets in the order in which they were added."""

    columns: DesignMatrix
    bits: NDArray[np.uint8]  # [n, A / 8], 1 = kept
    targets: Values  # [n]

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.targets)

    def add(self, masks: Masks, targets: Values) -> None:
        """Add masks bool [n, A] with their targets [n]."""
        self.bits = np.concatenate((self.bits, np.packbits(masks, axis=1)))
        self.targets = np.concatenate((self.targets, targets))

    def blocks(self, index: Index) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of `index` with the rows float32 [b, F] of their samples."""
        for start in range(0, len(index), BLOCK):
            part = slice(start, min(start + BLOCK, len(index)))
            masks = np.unpackbits(self.bits[index[part]], axis=1, count=self.columns.atoms)
            yield part, torch.from_numpy(self.columns.rows(masks.astype(bool)))

    def state_arrays(self) -> NamedArrays:
        """The arrays to save, by name."""
        return {"packed/bits": self.bits, "packed/targets": self.targets}

    def load_state_arrays(self, arrays: NamedArrays) -> None:
        """Restore saved arrays."""
        self.bits = np.array(arrays["packed/bits"], dtype=np.uint8)
        self.targets = np.array(arrays["packed/targets"], dtype=np.float64)


def empty_packed_masks(columns: DesignMatrix) -> PackedMasks:
    """Return an instance without samples."""
    width = (columns.atoms + 7) // 8
    return PackedMasks(columns, np.zeros((0, width), dtype=np.uint8), np.zeros(0))


@dataclass(slots=True, eq=False)
class ConjugateGradientSystem:
    """K of some samples, applied through products with their rows."""

    rows: PackedMasks
    index: Index
    precision: Values
    strength: float = 1.0
    mean: Values = field(default_factory=lambda: np.zeros(0))  # mean x [F]

    def __post_init__(self) -> None:
        """Compute the mean row, which every product needs."""
        total = sum(block.double().sum(0) for _, block in self.rows.blocks(self.index))
        self.mean = np.asarray(total) / len(self.index)

    @property
    def typical(self) -> float:
        """The mean diagonal of G, over the 0/1 features."""
        atoms = self.mean[: self.rows.columns.atoms]
        return max(len(self.index) * float((atoms * (1 - atoms)).mean()), 1e-12)

    def transpose_product(self, values: Values) -> Values:
        """X'v of the centred rows, for v [n, k]: [F, k]."""
        total = torch.zeros(len(self.mean), values.shape[1], dtype=torch.float64)
        wide = torch.from_numpy(values).float()
        for part, block in self.rows.blocks(self.index):
            total += (block.T @ wide[part]).double()
        centre = np.outer(self.mean, values.sum(axis=0))
        return np.asarray(total.numpy() - centre, dtype=np.float64)

    def product(self, right: Values) -> Values:
        """K times [F, k]."""
        total = torch.zeros(right.shape, dtype=torch.float64)
        wide, shift = torch.from_numpy(right).float(), torch.from_numpy(self.mean @ right).float()
        for _, block in self.rows.blocks(self.index):
            total += (block.T @ (block @ wide - shift)).double()
        return total.numpy() + (self.strength * self.precision)[:, None] * right

    def solve(self, right: Values) -> Values:
        """K^-1 times [F, k] by conjugate gradients, one run per column."""
        found = np.zeros_like(right)
        rest, direction = right.copy(), right.copy()
        size = (rest**2).sum(axis=0)
        enough = TOLERANCE**2 * np.maximum(size, 1e-300)
        for _ in range(MAX_CG_STEPS):
            if (size <= enough).all():
                break
            image = self.product(direction)
            step = size / np.maximum((direction * image).sum(axis=0), 1e-300)
            found += step * direction
            rest -= step * image
            before, size = size, (rest**2).sum(axis=0)
            direction = rest + size / np.maximum(before, 1e-300) * direction
        return found

    def root(self) -> Values:
        """Random draws R [F, r] with E[R R'] = K^-1."""
        rng = np.random.default_rng(SEED)
        noise = self.transpose_product(rng.standard_normal((len(self.index), POSTERIOR_DRAWS)))
        prior = rng.standard_normal((len(self.mean), POSTERIOR_DRAWS))
        noise += np.sqrt(self.strength * self.precision)[:, None] * prior
        return np.asarray(self.solve(noise) / POSTERIOR_DRAWS**0.5)

    def equations(self) -> CenteredSums:
        """Centred sums of these samples."""
        targets = self.rows.targets[self.index]
        rest = targets - targets.mean()
        moment = self.transpose_product(rest[:, None])[:, 0]
        return CenteredSums(
            len(rest), self.mean, float(targets.mean()), moment, float(rest @ rest)
        )


def fit_packed_masks(
    rows: PackedMasks, priors: Sequence[Prior], *, errors: bool = True
) -> RidgeFit:
    """Fit with the prior and the strength that predict held-out samples best."""
    every = np.arange(rows.samples)
    held = every % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    least, ratio, best = np.inf, 1.0, priors[0]
    for prior in priors:
        system = ConjugateGradientSystem(rows, every[~held], prior.precision)
        equations = system.equations()
        for candidate in STRENGTHS:
            system.strength = candidate * system.typical
            fit = fit_at_strength(system, equations, prior, errors=False)
            error = held_out_error(rows, every[held], fit)
            if error < least:
                least, ratio, best = error, candidate, prior
    system = ConjugateGradientSystem(rows, every, best.precision)
    system.strength = ratio * system.typical
    return fit_at_strength(system, system.equations(), best, errors=errors)


def held_out_error(rows: PackedMasks, index: Index, fit: RidgeFit) -> float:
    """Squared error of a model on some samples."""
    return sum(
        float(((rows.targets[index[part]] - fit.predict(block.numpy())) ** 2).sum())
        for part, block in rows.blocks(index)
    )


def half_coefficients_of_packed(rows: PackedMasks, fit: RidgeFit) -> Values:
    """The coefficients from each half of the samples: [2, F]."""
    found = []
    for half in range(2):
        index = np.arange(half, rows.samples, 2)
        system = ConjugateGradientSystem(rows, index, fit.prior.precision, fit.strength)
        fitted = fit_at_strength(system, system.equations(), fit.prior, errors=False)
        found.append(fitted.coefficients)
    return np.stack(found)
