"""One measurement under way: chunks of random masks are added until the ranking has settled.

A campaign that was saved goes on with the very numbers that an unbroken one would draw.
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
LARGEST_GRAM = 5_000  # columns: sum x x' and K take 200 MB each; beyond, masks are kept instead


@dataclass(slots=True, eq=False)
class EnsembleEstimator:
    """What is drawn, and all that is known so far."""

    draws: ChunkSampler
    linear: NormalEquations | PackedMasks | None
    gradients: GradientSums | None
    held_masks: Masks
    held_targets: Values
    reach: Values
    taylor: Values
    batch: int  # images at once, as far as memory was seen to allow
    chunk: int = 0
    checks: list[ConvergenceCheck] = field(default_factory=list)
    effort: MeasurementEffort = field(default_factory=MeasurementEffort)

    @property
    def settled(self) -> bool:
        """Whether two halves of the samples rank the atoms alike.

        Halves of a fit share its prior: they must also predict masks that were held out.
        """
        if self.chunk < FIRST_CHECK or not self.checks:
            return False
        settings, last = self.draws.settings, self.checks[-1]
        informed = last.held_out_r2 > 0 or not settings.fits_losses
        return informed and last.agreement >= settings.agreement

    @property
    def at_limit(self) -> bool:
        """Whether the samples or the seconds are used up."""
        settings = self.draws.settings
        if self.chunk >= self.max_chunks:
            return True
        late = settings.seconds is not None and self.effort.seconds >= settings.seconds
        return late and self.chunk > HELD_OUT_CHUNKS[0]

    @property
    def max_chunks(self) -> int:
        """How many chunks the limit on samples allows."""
        return self.draws.settings.max_samples // self.draws.size

    @property
    def checked(self) -> bool:
        """Whether there is a check of all that is known."""
        return bool(self.checks) and self.checks[-1].samples == self.effort.samples

    def next_chunks(self) -> range:
        """The chunks until the next look at whether it is enough; none waits for another.

        Where seconds are limited, that look comes after each chunk.
        """
        if self.draws.settings.seconds is not None:
            return range(self.chunk, self.chunk + 1)
        return range(self.chunk, min(next_check_chunk(self.chunk), self.max_chunks))

    def add_results(self, part: ChunkGroupResult) -> None:
        """Add what came of the chunks that are next."""
        self.effort, self.batch = self.effort.plus(part.effort), min(self.batch, part.batch)
        for measured in part.chunks:
            self._add_result(measured)

    def _add_result(self, measured: ChunkResult) -> None:
        """Add what is finite of a chunk to the sums."""
        masks, targets = self.draws.masks(self.chunk), measured.targets
        held, finite = self.chunk in HELD_OUT_CHUNKS, np.isfinite(targets)
        dropped = int((~finite).sum())
        self.effort = self.effort.plus(MeasurementEffort(samples=self.draws.size, dropped=dropped))
        self.reach = np.maximum(self.reach, removed_shares(masks, self.draws.group_of).max(axis=0))
        self.chunk += 1
        masks, targets = masks[finite], targets[finite]
        if held:
            self.held_masks = np.concatenate((self.held_masks, masks))
            self.held_targets = np.concatenate((self.held_targets, targets))
            return
        if self.linear is not None:
            self.linear.add(masks, targets)
        if self.gradients is not None and measured.gradients is not None:
            self.gradients.merge(measured.gradients)

    def check_convergence(self) -> ConvergenceCheck:
        """How well held-out masks are predicted, and how alike two halves rank."""
        fit = self.fit(errors=False)
        rest = self.held_targets - fit.predict(self._columns.rows(self.held_masks))
        variance = self.held_targets.var() if len(rest) else 0.0
        r2 = 1 - float(rest.var() / variance) if variance > 0 else 0.0
        return ConvergenceCheck(self.effort.samples, r2, spearman_correlation(*self._halves(fit)))

    def fit(self, *, errors: bool = True) -> RidgeFit:
        """The linear model of all samples so far."""
        counted = self.linear or self.gradients
        if counted is None or not counted.samples:
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
        """What each atom is worth and its standard error: [A], [A]."""
        if self.linear is None and self.gradients is not None:
            return self.gradients.scores(self.draws.settings.variant)[:2]
        atoms = self._columns.atoms
        errors = np.linalg.norm(fit.root, axis=1)[:atoms]
        return expected_scores(fit.coefficients[:atoms], errors, self.draws.settings.variant)

    def _priors(self) -> tuple[Prior, ...]:
        """What the coefficients may be expected to be, before any loss is seen."""
        known = [] if self.gradients is None else [self.gradients.scores("mean")[0]]
        taylor = None if self.draws.settings.prior == "none" else self.taylor
        return build_priors(taylor, known, self._columns.count)

    @property
    def _columns(self) -> DesignMatrix:
        return DesignMatrix(self.draws.group_of, self.draws.settings.curvature)

    def _halves(self, fit: RidgeFit) -> Values:
        """The scores that each half of the samples gives, [2, A]."""
        atoms, variant = self._columns.atoms, self.draws.settings.variant
        if self.linear is None and self.gradients is not None:
            return self.gradients.scores(variant)[2]
        if isinstance(self.linear, NormalEquations):
            found = half_coefficients(self.linear, fit)
        else:
            assert self.linear is not None
            found = half_coefficients_of_packed(self.linear, fit)
        return expected_scores(found[:, :atoms], np.zeros((2, atoms)), variant)[0]

    def state_arrays(self) -> NamedArrays:
        """All that a new process needs to go on."""
        tables = {"held/masks": self.held_masks, "held/targets": self.held_targets}
        tables |= {"reach": self.reach, "taylor": self.taylor}
        for part in (self.linear, self.gradients):
            tables |= {} if part is None else part.state_arrays()
        checks = [asdict(check) for check in self.checks]
        progress = {"chunk": self.chunk, "checks": checks, "effort": asdict(self.effort)}
        return {**tables, "progress": np.array(json.dumps(progress))}

    def load_state_arrays(self, tables: NamedArrays) -> None:
        """Go on where `tables` was saved."""
        self.held_masks = tables["held/masks"].astype(bool)
        self.held_targets = tables["held/targets"].astype(np.float64)
        self.reach = tables["reach"].astype(np.float64)
        self.taylor = tables["taylor"].astype(np.float64)
        for part in (self.linear, self.gradients):
            if part is not None:
                part.load_state_arrays(tables)
        progress = json.loads(str(tables["progress"]))
        self.chunk = progress["chunk"]
        self.checks = [ConvergenceCheck(**check) for check in progress["checks"]]
        self.effort = MeasurementEffort(**progress["effort"])


def new_estimator(draws: ChunkSampler) -> EnsembleEstimator:
    """A campaign that has measured nothing yet."""
    settings, group_of = draws.settings, draws.group_of
    columns = DesignMatrix(group_of, settings.curvature)
    linear: NormalEquations | PackedMasks | None = None
    if settings.fits_losses:
        small = columns.count <= LARGEST_GRAM
        linear = empty_normal_equations(columns) if small else empty_packed_masks(columns)
    return EnsembleEstimator(
        draws=draws,
        linear=linear,
        gradients=empty_gradients(columns.atoms) if settings.per == "gradient" else None,
        held_masks=np.zeros((0, columns.atoms), dtype=bool),
        held_targets=np.zeros(0),
        reach=np.zeros(int(group_of.max()) + 2),
        taylor=np.zeros(columns.atoms),
        batch=settings.batch,
    )


def next_check_chunk(chunk: int) -> int:
    """After how many chunks the next check is: 8, and then each time some 40 % more."""
    due = FIRST_CHECK
    while due <= chunk:
        due = int(np.ceil(due * CHECK_GROWTH))
    return due
