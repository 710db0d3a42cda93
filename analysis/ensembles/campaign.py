"""One measurement under way: chunks of random masks until the ranking has settled.

Every chunk draws from a generator of its own, seeded by (seed, chunk), so a campaign that was
saved goes on with the very numbers that an unbroken one would draw.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import UserError
from ...spaces.evidence import Tables
from .columns import Columns, shares
from .fit import Fit, Prior, fit_sums, half_coefficients
from .gradients import GradientSums, empty_gradients
from .masks import Masks, draw_masks
from .packed import PackedRows, empty_rows, fit_rows, half_coefficients_of_rows
from .probe import Probe
from .record import Check, Effort
from .scoring import expected, priors_of, rank_correlation
from .sums import Sums, empty_sums

Values = NDArray[np.float64]
CHUNK = {"sample": 256, "batch": 16, "gradient": 256}  # masks drawn at once
HELD_OUT = (1, 3, 5, 7)  # chunks that are predicted and never fitted
FIRST_CHECK, GROWTH = 8, 1.4  # chunks
LARGEST_GRAM = 5_000  # columns: sum x x' and K take 200 MB each; beyond, masks are kept instead


@dataclass(slots=True, eq=False)
class Campaign:
    """The probe, and all that is known so far."""

    probe: Probe
    seed: int
    linear: Sums | PackedRows | None
    gradients: GradientSums | None
    held_masks: Masks
    held_targets: Values
    reach: Values
    taylor: Values
    chunk: int = 0
    checks: list[Check] = field(default_factory=list)
    before: Effort = field(default_factory=Effort)  # what earlier processes spent
    dropped: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def chunk_size(self) -> int:
        """Masks a chunk; fewer where the limit is low, so that some are held out."""
        settings = self.probe.settings
        return min(CHUNK[settings.per], max(settings.most_samples // 8, 2))

    @property
    def effort(self) -> Effort:
        """What was spent, by this process and those before it."""
        probe, before = self.probe, self.before
        return Effort(
            samples=self.chunk * self.chunk_size,
            dropped=self.dropped,
            forwards=before.forwards + probe.forwards,
            backwards=before.backwards + probe.backwards,
            halvings=before.halvings + probe.halvings,
            seconds=before.seconds + time.perf_counter() - self.began,
        )

    @property
    def settled(self) -> bool:
        """Whether two halves of the samples rank the atoms alike.

        Halves of a fit share its prior: they must also predict masks that were held out.
        """
        if self.chunk < FIRST_CHECK or not self.checks:
            return False
        settings, last = self.probe.settings, self.checks[-1]
        informed = last.held_out_r2 > 0 or not settings.fits
        return informed and last.agreement >= settings.agreement

    @property
    def at_limit(self) -> bool:
        """Whether the samples or the seconds are used up."""
        settings = self.probe.settings
        if (self.chunk + 1) * self.chunk_size > settings.most_samples:
            return True
        late = settings.seconds is not None and self.effort.seconds >= settings.seconds
        return late and self.chunk > HELD_OUT[0]

    def run(self, save: Callable[[bool], None], report: Callable[[Check], None]) -> None:
        """Take chunks until it is enough; `save(due)` after each, due after a check."""
        while not self.settled and not self.at_limit:
            self.take_chunk()
            due = is_check(self.chunk)
            if due:
                self.check()
            save(due)
            if due:
                report(self.checks[-1])
        if not self.checks or self.checks[-1].samples != self.effort.samples:
            self.check()
            report(self.checks[-1])

    def take_chunk(self) -> None:
        """Draw masks, measure them, and add what is finite to the sums."""
        settings, probe, size = self.probe.settings, self.probe, self.chunk_size
        group_of = probe.channel_map.group_of
        masks = draw_masks(
            size,
            group_of,
            keep=settings.keep,
            spread=settings.spread,
            how=settings.draw,
            rng=np.random.default_rng([self.seed, self.chunk]),
        )
        held, gradients = self.chunk in HELD_OUT, None
        if settings.per == "batch":
            targets = np.array([probe.set_change(mask) for mask in masks])
        elif self.gradients is None or held:
            targets = probe.sample_changes(masks, self._rows())
        else:
            targets, gradients = probe.sample_gradients(masks, self._rows())
        finite = np.isfinite(targets)
        if gradients is not None:
            finite &= np.isfinite(gradients).all(axis=1)
        self.dropped += int((~finite).sum())
        self.reach = np.maximum(self.reach, shares(masks, group_of).max(axis=0))
        self.chunk += 1
        masks, targets = masks[finite], targets[finite]
        if held:
            self.held_masks = np.concatenate((self.held_masks, masks))
            self.held_targets = np.concatenate((self.held_targets, targets))
            return
        if self.linear is not None:
            self.linear.add(masks, targets)
        if self.gradients is not None and gradients is not None:
            self.gradients.add(masks, targets, gradients[finite])

    def check(self) -> None:
        """Record how well held-out masks are predicted, and how alike two halves rank."""
        fit = self.fit(errors=False)
        rest = self.held_targets - fit.predict(self._columns.rows(self.held_masks))
        variance = self.held_targets.var() if len(rest) else 0.0
        r2 = 1 - float(rest.var() / variance) if variance > 0 else 0.0
        self.checks.append(Check(self.effort.samples, r2, rank_correlation(*self._halves(fit))))

    def fit(self, *, errors: bool = True) -> Fit:
        """The linear model of all samples so far."""
        counted = self.linear or self.gradients
        if counted is None or not counted.samples:
            raise UserError(
                f"an ensemble must have masks with a finite loss, got none of "
                f"{self.effort.samples}; check the network's weights and the images"
            )
        if isinstance(self.linear, Sums):
            return fit_sums(self.linear, self._priors(), errors=errors)
        if self.linear is not None:
            return fit_rows(self.linear, self._priors(), errors=errors)
        assert self.gradients is not None
        return self.gradients.model()

    def scores(self, fit: Fit) -> tuple[Values, Values]:
        """What each atom is worth and its standard error: [A], [A]."""
        if self.linear is None and self.gradients is not None:
            return self.gradients.scores(self.probe.settings.variant)[:2]
        atoms = self.probe.channel_map.atoms
        errors = np.linalg.norm(fit.root, axis=1)[:atoms]
        return expected(fit.coefficients[:atoms], errors, self.probe.settings.variant)

    def _priors(self) -> tuple[Prior, ...]:
        """What the coefficients may be expected to be, before any loss is seen."""
        known = [] if self.gradients is None else [self.gradients.scores("mean")[0]]
        taylor = None if self.probe.settings.prior == "none" else self.taylor
        return priors_of(taylor, known, self._columns.count)

    @property
    def _columns(self) -> Columns:
        return Columns(self.probe.channel_map.group_of, self.probe.settings.curvature)

    def _halves(self, fit: Fit) -> Values:
        """The scores that each half of the samples gives, [2, A]."""
        atoms, variant = self.probe.channel_map.atoms, self.probe.settings.variant
        if self.linear is None and self.gradients is not None:
            return self.gradients.scores(variant)[2]
        if isinstance(self.linear, Sums):
            found = half_coefficients(self.linear, fit)
        else:
            assert self.linear is not None
            found = half_coefficients_of_rows(self.linear, fit)
        return expected(found[:, :atoms], np.zeros((2, atoms)), variant)[0]

    def _rows(self) -> NDArray[np.int64]:
        """The images of the present chunk: shuffled epochs, one after the other."""
        count, size = len(self.probe.split), self.chunk_size
        places = np.arange(self.chunk * size, (self.chunk + 1) * size)
        epochs = np.unique(places // count)
        orders = {e: np.random.default_rng([self.seed, e, 1]).permutation(count) for e in epochs}
        return np.array([orders[place // count][place % count] for place in places])

    def tables(self) -> Tables:
        """All that a new process needs to go on."""
        tables = {"held/masks": self.held_masks, "held/targets": self.held_targets}
        tables |= {"reach": self.reach, "taylor": self.taylor}
        for part in (self.linear, self.gradients):
            tables |= {} if part is None else part.tables()
        checks = [asdict(check) for check in self.checks]
        progress = {"chunk": self.chunk, "checks": checks, "effort": asdict(self.effort)}
        return {**tables, "progress": np.array(json.dumps(progress))}

    def restore(self, tables: Tables) -> None:
        """Go on where `tables` was saved."""
        self.held_masks = tables["held/masks"].astype(bool)
        self.held_targets = tables["held/targets"].astype(np.float64)
        self.reach = tables["reach"].astype(np.float64)
        self.taylor = tables["taylor"].astype(np.float64)
        for part in (self.linear, self.gradients):
            if part is not None:
                part.restore(tables)
        progress = json.loads(str(tables["progress"]))
        self.chunk = progress["chunk"]
        self.checks = [Check(**check) for check in progress["checks"]]
        self.before = Effort(**progress["effort"])
        self.dropped = self.before.dropped


def begin(probe: Probe, seed: int) -> Campaign:
    """A campaign that has measured nothing yet."""
    settings, group_of = probe.settings, probe.channel_map.group_of
    columns = Columns(group_of, settings.curvature)
    linear: Sums | PackedRows | None = None
    if settings.fits:
        small = columns.count <= LARGEST_GRAM
        linear = empty_sums(columns) if small else empty_rows(columns)
    return Campaign(
        probe=probe,
        seed=seed,
        linear=linear,
        gradients=empty_gradients(columns.atoms) if settings.per == "gradient" else None,
        held_masks=np.zeros((0, columns.atoms), dtype=bool),
        held_targets=np.zeros(0),
        reach=np.zeros(int(group_of.max()) + 2),
        taylor=np.zeros(columns.atoms),
    )


def is_check(chunk: int) -> bool:
    """Whether a check follows this many chunks: 8, and then each time some 40 % more."""
    due = FIRST_CHECK
    while due < chunk:
        due = int(np.ceil(due * GROWTH))
    return due == chunk
