"""Running estimate of an ensemble: chunks of random masks are added until the ranking converges.

A saved and resumed estimator gives the same result, bit for bit, as an uninterrupted one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...spaces.arrays import NamedArrays
from ...spaces.errors import UserError
from .chunks import HELD_OUT_CHUNKS, ChunkGroupResult, ChunkResult, ChunkSampler
from .design_matrix import DesignMatrix, removed_shares
from .gradients import GradientSums, empty_gradients
from .masks import Masks
from .normal_equations import NormalEquations, empty_normal_equations
from .posterior import build_priors, expected_scores, spearman_correlation
from .result import ConvergenceCheck, MeasurementEffort
from .ridge import Prior, RidgeFit, fit_normal_equations, half_coefficients
from .ridge_cg import (
    PackedMasks,
    empty_packed_masks,
    fit_packed_masks,
    half_coefficients_of_packed,
)

Values = NDArray[np.float64]
FIRST_CHECK, CHECK_GROWTH = 8, 1.4  # chunks
LARGEST_GRAM = 5_000  # features: sum x x' and K take 200 MB each; above, masks are kept instead


@dataclass(slots=True, eq=False)
class EnsembleEstimator:
    """The sampler, and the sums of all chunks so far."""

    sampler: ChunkSampler
    linear: NormalEquations | PackedMasks | None
    gradients: GradientSums | None
    held_masks: Masks
    held_targets: Values
    reach: Values
    taylor: Values
    batch: int  # images per batch that fitted into memory
    chunk: int = 0
    checks: list[ConvergenceCheck] = field(default_factory=list)
    effort: MeasurementEffort = field(default_factory=MeasurementEffort)

    @property
    def settled(self) -> bool:
        """Whether two halves of the samples rank the atoms alike.

        The two fits share a prior, so the model must also predict held-out masks.
        """
        if self.chunk < FIRST_CHECK or not self.checks:
            return False
        settings, last = self.sampler.settings, self.checks[-1]
        predictive = last.held_out_r2 > 0 or not settings.fits_losses
        return predictive and last.agreement >= settings.agreement

    @property
    def at_limit(self) -> bool:
        """Whether the limit of samples or of seconds is reached."""
        settings = self.sampler.settings
        if self.chunk >= self.max_chunks:
            return True
        timed_out = settings.seconds is not None and self.effort.seconds >= settings.seconds
        return timed_out and self.chunk > HELD_OUT_CHUNKS[0]

    @property
    def max_chunks(self) -> int:
        """The number of chunks that the limit on samples allows."""
        return self.sampler.settings.max_samples // self.sampler.size

    @property
    def checked(self) -> bool:
        """Whether the last check covers all samples."""
        return bool(self.checks) and self.checks[-1].samples == self.effort.samples

    def next_chunks(self) -> range:
        """The chunks until the next convergence check; they are independent of each other.

        With a time limit, this is one chunk.
        """
        if self.sampler.settings.seconds is not None:
            return range(self.chunk, self.chunk + 1)
        return range(self.chunk, min(next_check_chunk(self.chunk), self.max_chunks))

    def add_results(self, part: ChunkGroupResult) -> None:
        """Add the results of the next chunks, in order."""
        self.effort, self.batch = self.effort.plus(part.effort), min(self.batch, part.batch)
        for result in part.chunks:
            self._add_result(result)

    def _add_result(self, result: ChunkResult) -> None:
        """Add the finite samples of one chunk to the sums."""
        masks, targets = self.sampler.masks(self.chunk), result.targets
        held, finite = self.chunk in HELD_OUT_CHUNKS, np.isfinite(targets)
        dropped = int((~finite).sum())
        self.effort = self.effort.plus(
            MeasurementEffort(samples=self.sampler.size, dropped=dropped)
        )
        self.reach = np.maximum(
            self.reach, removed_shares(masks, self.sampler.group_of).max(axis=0)
        )
        self.chunk += 1
        masks, targets = masks[finite], targets[finite]
        if held:
            self.held_masks = np.concatenate((self.held_masks, masks))
            self.held_targets = np.concatenate((self.held_targets, targets))
            return
        if self.linear is not None:
            self.linear.add(masks, targets)
        if self.gradients is not None and result.gradients is not None:
            self.gradients.merge(result.gradients)

    def check_convergence(self) -> ConvergenceCheck:
        """Compute the held-out R^2 and the rank correlation of two halves."""
        fit = self.fit(errors=False)
        rest = self.held_targets - fit.predict(self._columns.rows(self.held_masks))
        variance = self.held_targets.var() if len(rest) else 0.0
        r2 = 1 - float(rest.var() / variance) if variance > 0 else 0.0
        return ConvergenceCheck(self.effort.samples, r2, spearman_correlation(*self._halves(fit)))

    def fit(self, *, errors: bool = True) -> RidgeFit:
        """Fit the linear model to all samples so far."""
        sums = self.linear or self.gradients
        if sums is None or not sums.samples:
            raise UserError(
                f"an ensemble must have masks with a finite loss, got none of "
                f"{self.effort.samples}; check the network's weights and the images"
            )
        if isinstance(self.linear, NormalEquations):
            return fit_normal_equations(self.linear, self._priors(), errors=errors)
        if self.linear is not None:
            return fit_packed_masks(self.linear, self._priors(), errors=errors)
        assert self.gradients is not None
        return self.gradients.linear_fit()

    def scores(self, fit: RidgeFit) -> tuple[Values, Values]:
        """The score of each atom and its standard error: [A], [A]."""
        if self.linear is None and self.gradients is not None:
            return self.gradients.scores(self.sampler.settings.variant)[:2]
        atoms = self._columns.atoms
        errors = np.linalg.norm(fit.root, axis=1)[:atoms]
        return expected_scores(fit.coefficients[:atoms], errors, self.sampler.settings.variant)

    def _priors(self) -> tuple[Prior, ...]:
        """Candidate priors of the coefficients."""
        known_scores = [] if self.gradients is None else [self.gradients.scores("mean")[0]]
        taylor = None if self.sampler.settings.prior == "none" else self.taylor
        return build_priors(taylor, known_scores, self._columns.count)

    @property
    def _columns(self) -> DesignMatrix:
        return DesignMatrix(self.sampler.group_of, self.sampler.settings.curvature)

    def _halves(self, fit: RidgeFit) -> Values:
        """The scores from each half of the samples: [2, A]."""
        atoms, variant = self._columns.atoms, self.sampler.settings.variant
        if self.linear is None and self.gradients is not None:
            return self.gradients.scores(variant)[2]
        if isinstance(self.linear, NormalEquations):
            found = half_coefficients(self.linear, fit)
        else:
            assert self.linear is not None
            found = half_coefficients_of_packed(self.linear, fit)
        return expected_scores(found[:, :atoms], np.zeros((2, atoms)), variant)[0]

    def state_arrays(self) -> NamedArrays:
        """The arrays that a new process needs to continue."""
        arrays = {"held/masks": self.held_masks, "held/targets": self.held_targets}
        arrays |= {"reach": self.reach, "taylor": self.taylor}
        for part in (self.linear, self.gradients):
            arrays |= {} if part is None else part.state_arrays()
        checks = [asdict(check) for check in self.checks]
        progress = {"chunk": self.chunk, "checks": checks, "effort": asdict(self.effort)}
        return {**arrays, "progress": np.array(json.dumps(progress))}

    def load_state_arrays(self, arrays: NamedArrays) -> None:
        """Continue from saved arrays."""
        self.held_masks = arrays["held/masks"].astype(bool)
        self.held_targets = arrays["held/targets"].astype(np.float64)
        self.reach = arrays["reach"].astype(np.float64)
        self.taylor = arrays["taylor"].astype(np.float64)
        for part in (self.linear, self.gradients):
            if part is not None:
                part.load_state_arrays(arrays)
        progress = json.loads(str(arrays["progress"]))
        self.chunk = progress["chunk"]
        self.checks = [ConvergenceCheck(**check) for check in progress["checks"]]
        self.effort = MeasurementEffort(**progress["effort"])


def new_estimator(sampler: ChunkSampler) -> EnsembleEstimator:
    """Return an estimator without samples."""
    settings, group_of = sampler.settings, sampler.group_of
    columns = DesignMatrix(group_of, settings.curvature)
    linear: NormalEquations | PackedMasks | None = None
    if settings.fits_losses:
        small = columns.count <= LARGEST_GRAM
        linear = empty_normal_equations(columns) if small else empty_packed_masks(columns)
    return EnsembleEstimator(
        sampler=sampler,
        linear=linear,
        gradients=empty_gradients(columns.atoms) if settings.per == "gradient" else None,
        held_masks=np.zeros((0, columns.atoms), dtype=bool),
        held_targets=np.zeros(0),
        reach=np.zeros(int(group_of.max()) + 2),
        taylor=np.zeros(columns.atoms),
        batch=settings.batch,
    )


def next_check_chunk(chunk: int) -> int:
    """The chunk count of the next check: 8, then about 40 % more each time."""
    due = FIRST_CHECK
    while due <= chunk:
        due = int(np.ceil(due * CHECK_GROWTH))
    return due
