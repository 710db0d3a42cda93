"""Gather the evidence that a set of policies reads: scores, ensembles, loss curves.

Whatever a policy does not read is not measured; what was measured before is read from the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..spaces.channels import ChannelMap
from ..spaces.curves import CurveSettings
from ..spaces.evidence import Evidence
from ..spaces.policy import Policy, check_score
from ..trainers.split import Data
from .curves.evidence import with_curves
from .curves.prober import Subject
from .ensembles import PRESETS as ENSEMBLES
from .ensembles import (
    SURROGATE,
    Check,
    Ensemble,
    EnsembleSettings,
    Surrogate,
    measure_ensemble,
    surrogate_of,
    with_ensemble,
)
from .evidence import measure_evidence
from .scores.registry import all_scores

OnProgress = Callable[[str, int, int], None]  # what is measured, how far, of how much


def tell_nobody(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True, eq=False)
class Measuring:
    """On what evidence is measured, where it is kept, and who watches."""

    model: nn.Module
    channel_map: ChannelMap
    data: Data
    seed: int
    folder: Path | None = None
    ensemble_images: int | None = None  # that one ensemble may be measured on; None: enough
    curve_images: int | None = None  # that a probe of a loss curve forwards; None: enough
    on_progress: OnProgress = tell_nobody


def gather_evidence(policies: Iterable[Policy], on: Measuring) -> Evidence:
    """All that these policies read."""
    wanted = list(policies)
    names = {policy.score for policy in wanted}
    for name in names:
        check_score(name, sorted({*all_scores(), *ENSEMBLES}))
    evidence = measure_evidence(
        on.model,
        on.channel_map,
        on.data,
        folder=on.folder,
        seed=on.seed,
        names=sorted(names - set(ENSEMBLES)),
        on_progress=lambda done, total: on.on_progress("scores", done, total),
    )
    for name in sorted(names & set(ENSEMBLES)):
        evidence = add_ensemble(evidence, name, on)
    return with_curves(
        evidence,
        wanted,
        Subject(on.model, on.channel_map, on.data),
        folder=on.folder,
        settings=CurveSettings()
        if on.curve_images is None
        else CurveSettings(images=on.curve_images),
        on_progress=lambda done, total: on.on_progress("loss curves", done, total),
    )


def add_ensemble(evidence: Evidence, name: str, on: Measuring) -> Evidence:
    """Evidence with an ensemble's scores and errors."""
    return with_ensemble(evidence, name, measured_ensemble(ENSEMBLES[name], name, on))


def gather_surrogate(on: Measuring) -> Surrogate:
    """What foretells the loss of any mask."""
    return surrogate_of(measured_ensemble(SURROGATE, "surrogate", on), on.channel_map)


def measured_ensemble(settings: EnsembleSettings, name: str, on: Measuring) -> Ensemble:
    """An ensemble, on no more images than allowed."""
    if on.ensemble_images is not None:
        settings = settings.within(on.ensemble_images)

    def report(check: Check) -> None:
        what = f"{name}, held-out R2 {check.held_out_r2:.2f}"
        on.on_progress(what, check.samples, settings.most_samples)

    return measure_ensemble(
        on.model,
        on.channel_map,
        on.data,
        settings,
        folder=on.folder,
        seed=on.seed,
        on_progress=report,
    )
