"""Ridge regression with a known score as prior mean; marginal likelihood sets the strength.

y = c + x'b + e,   e ~ N(0, s^2),   b ~ N(P a, w^2 / d)          d > 0, relative precisions [F]

With centred sums G = sum x x', h = sum x y, q = sum y^2, strength l = s^2 / w^2, K = G + l d:

    k = K^-1 h,   V = K^-1 (d P),   a solves [P'(d P) - l (d P)'V] a = (d P)'k
    b = k + l V a,   s^2 = (q - h'k - l a'(d P)'k) / (n - 1 - |a|),   cov b = s^2 K^-1 + ...

where the last term is due to the uncertainty of a. l maximises the marginal likelihood

    -2 log p(y | l, d) = (n - 1 - |a|) log s^2 + log det K - F log l - sum log d + const

(MacKay 1992, "Bayesian interpolation", with w and a as hyperparameters). The same likelihood
chooses between several priors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .normal_equations import NormalEquations

Values = NDArray[np.float64]
MIN_STRENGTH, MAX_STRENGTH = 1e-3, 1e4  # range of l, relative to G's mean diagonal
LINE_SEARCH_STEPS = 9
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Normal prior of the coefficients: mean P a, standard deviation w / sqrt(precision)."""

    columns: Values  # P [F, k]; k = 0 means a zero mean
    precision: Values  # d [F]


@dataclass(frozen=True, slots=True, eq=False)
class CenteredSums:
    """Centred sums of a set of samples, without the matrix G."""

    count: float
    row: Values  # mean x [F]
    target: float  # mean y
    moment: Values  # h [F]
    square: float  # q


class LinearSystem(Protocol):
    """The matrix K = G + l d, with operations on its inverse."""

    strength: float  # l

    def solve(self, right: Values) -> Values:
        """K^-1 times [F, k]."""

    def root(self) -> Values:
        """R [F, r] with R R' = K^-1."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgeFit:
    """A fitted model: y = level + (x - centre)'coefficients."""

    coefficients: Values  # b [F]
    centre: Values  # mean x [F]
    level: float  # mean y
    level_error: float
    noise: float  # s^2
    strength: float  # l
    weights: Values  # a
    prior: Prior
    root: Values  # [F, r], root root' = cov b; r = 0 without errors; [F]: a diagonal

    def predict(self, rows: NDArray[np.float32]) -> Values:
        """Predict the loss change of rows [n, F]."""
        return np.asarray((rows - self.centre) @ self.coefficients + self.level)


def fit_at_strength(
    system: LinearSystem, equations: CenteredSums, prior: Prior, *, errors: bool
) -> RidgeFit:
    """Fit the model at one strength; `errors` adds the root of the covariance."""
    strength, weighted = system.strength, prior.precision[:, None] * prior.columns
    found = system.solve(np.column_stack((equations.moment, weighted)))
    plain, lifted = found[:, 0], found[:, 1:]
    known = prior.columns.T @ weighted - strength * weighted.T @ lifted
    inverse = np.linalg.pinv(known, hermitian=True)
    weights = inverse @ (weighted.T @ plain)
    rest = equations.square - equations.moment @ plain
    rest -= strength * weights @ (weighted.T @ plain)
    noise = max(float(rest), 1e-30) / max(equations.count - 1 - len(weights), 1.0)
    coefficients = plain + strength * lifted @ weights
    root = np.zeros((len(plain), 0))
    if errors:
        values, vectors = np.linalg.eigh(inverse)
        scale = strength**0.5 * lifted @ vectors * np.sqrt(np.maximum(values, 0))
        root = noise**0.5 * np.column_stack((system.root(), scale))
    level_error = float(np.sqrt(noise / equations.count))
    start = (equations.row, equations.target, level_error)
    return RidgeFit(coefficients, *start, noise, strength, weights, prior, root)


def center_sums(sums: NormalEquations, half: int | None = None) -> CenteredSums:
    """Centre the sums of all samples, or of one half."""
    part = slice(None) if half is None else slice(half, half + 1)
    count, total, square = sums.target[part].sum(axis=0)
    row, target = sums.row[part].sum(axis=0) / count, total / count
    moment = sums.moment[part].sum(axis=0) - count * target * row
    return CenteredSums(count, row, float(target), moment, float(square - count * target**2))


class CholeskySystem:
    """K by its Cholesky factor: 8 F^2 extra bytes, F^3 / 3 multiply-adds."""

    def __init__(
        self, sums: NormalEquations, precision: Values, strength: float, share: float = 1.0
    ) -> None:
        row = sums.row.sum(axis=0)
        matrix = torch.from_numpy(sums.gram * share)
        matrix.addr_(torch.from_numpy(row), torch.from_numpy(row), alpha=-share / sums.samples)
        matrix.diagonal().add_(torch.from_numpy(strength * precision))
        self.strength = strength
        self.lower = torch.linalg.cholesky(matrix, out=matrix)

    def solve(self, right: Values) -> Values:
        """K^-1 times [F, k] by forward and back substitution."""
        return np.asarray(torch.cholesky_solve(torch.from_numpy(right), self.lower))

    def root(self) -> Values:
        """The transposed inverse of the factor."""
        identity = torch.eye(len(self.lower), dtype=torch.float64)
        return np.asarray(torch.linalg.solve_triangular(self.lower, identity, upper=False).T)

    def log_determinant(self) -> float:
        """log det K."""
        return 2 * float(self.lower.diagonal().log().sum())


def fit_normal_equations(
    sums: NormalEquations, priors: Sequence[Prior], *, errors: bool = True
) -> RidgeFit:
    """Fit with the prior and the strength of the highest marginal likelihood."""
    equations = center_sums(sums)
    row = sums.row.sum(axis=0)
    typical = max(float((np.diag(sums.gram) - row**2 / sums.samples).mean()), 1e-12)

    def negative_log_evidence(log_strength: float, prior: Prior) -> float:
        system = CholeskySystem(sums, prior.precision, float(np.exp(log_strength)))
        fit = fit_at_strength(system, equations, prior, errors=False)
        freedom = max(equations.count - 1 - len(fit.weights), 1.0)
        free = len(row) * log_strength + float(np.log(prior.precision).sum())
        return freedom * float(np.log(fit.noise)) + system.log_determinant() - free

    start = float(np.log(typical))
    found = [
        golden_section_minimum(partial(negative_log_evidence, prior=prior), start)
        for prior in priors
    ]
    best = min(range(len(priors)), key=lambda index: found[index][1])
    prior, strength = priors[best], float(np.exp(found[best][0]))
    return fit_at_strength(
        CholeskySystem(sums, prior.precision, strength), equations, prior, errors=errors
    )


def golden_section_minimum(
    function: Callable[[float], float], around: float
) -> tuple[float, float]:
    """Minimize a unimodal function of log(l) by golden-section search; return (x, f(x)).

    The search range is the range of the strengths, relative to `around`.
    """
    low, high = around + float(np.log(MIN_STRENGTH)), around + float(np.log(MAX_STRENGTH))
    left, right = high - GOLDEN_RATIO * (high - low), low + GOLDEN_RATIO * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(LINE_SEARCH_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN_RATIO * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN_RATIO * (high - low)
            at_right = function(right)
    return (left, at_left) if at_left < at_right else (right, at_right)


def half_coefficients(sums: NormalEquations, fit: RidgeFit) -> Values:
    """The coefficients from each half of the samples: [2, F].

    Each half uses its share of G, since both are samples of the same distribution.
    """
    found = []
    for half in range(2):
        equations = center_sums(sums, half)
        share = equations.count / sums.samples
        system = CholeskySystem(sums, fit.prior.precision, fit.strength, share)
        found.append(fit_at_strength(system, equations, fit.prior, errors=False).coefficients)
    return np.stack(found)
