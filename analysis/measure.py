"""Gather the evidence that a set of policies reads: scores, ensembles, loss curves.

Whatever a policy does not read is not measured; what was measured before is read from the folder.
The pieces do not depend on each other, save that loss curves need the order that a score gives:
`Do` may measure them one after the other, or side by side and elsewhere; an ensemble in parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..spaces.graph.channels import ChannelMap
from ..spaces.policy.loss_curves import CurveSettings, required_curves
from ..spaces.policy.measurements import Measurements
from ..spaces.policy.policy import Policy, check_score
from ..trainers.data.types import DataSplits
from .jobs import MeasuredNetwork, StagedJob, map_calls, run_jobs_serially, single_call_job
from .loss_curves.measure import add_loss_curves
from .mask_ensembles import ENSEMBLE_PRESETS as ENSEMBLES
from .mask_ensembles import (
    ConvergenceCheck,
    EnsembleResult,
    EnsembleSettings,
    EnsembleStep,
    add_ensemble,
    ensemble_stages,
    is_ensemble_name,
    settings_from_name,
)
from .scores.gates import GATE_SCORE, load_or_train_gate_score
from .scores.measure import load_or_measure_scores
from .scores.registry import all_scores

OnMeasurementProgress = Callable[[str, int, int], None]  # what is measured, how far, of how much


def ignore_progress(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class MeasurementLimits:
    """What measuring may take; None: enough."""

    images: int | None = None  # that one ensemble is measured on: a mask's whole set counts
    samples: int | None = None  # masks of one ensemble, instead of what the images allow
    seconds: float | None = None  # of one ensemble
    curve_images: int | None = None  # that a probe of a loss curve forwards

    def apply_to(self, settings: EnsembleSettings) -> EnsembleSettings:
        """The settings of an ensemble within these limits."""
        if self.images is not None:
            settings = settings.limited_to_images(self.images)
        return replace(settings, samples=self.samples or settings.samples, seconds=self.seconds)


@dataclass(frozen=True, slots=True, eq=False)
class MeasurementContext:
    """On what evidence is measured, and where it is kept."""

    model: nn.Module
    channel_map: ChannelMap
    data: DataSplits
    seed: int
    folder: Path | None = None
    limits: MeasurementLimits = MeasurementLimits()


MeasurementCall = Callable[[MeasurementContext, OnMeasurementProgress], Any]
RunJobs = Callable[
    [Sequence[StagedJob[MeasurementCall]], MeasurementContext], list[Any]
]  # what the pieces found


def run_in_process(
    pieces: Sequence[StagedJob[MeasurementCall]], context: MeasurementContext
) -> list[Any]:
    """Do them in this process, one after the other, and show no progress."""
    return run_jobs_serially(pieces, lambda task: task(context, ignore_progress))


def needs_many_passes(score: str) -> bool:
    """True for scores that more than one pass over the images makes."""
    return is_ensemble_name(score) or score == GATE_SCORE


def check_score_exists(score: str, what: str = "score") -> None:
    """Raise unless there is a score of this name; `what` is where it was named."""
    if is_ensemble_name(score):
        settings_from_name(score)
    else:
        check_score(score, sorted({*all_scores(), *ENSEMBLES, GATE_SCORE}), what)


def measure_for_policies(
    policies: Iterable[Policy],
    context: MeasurementContext,
    run_jobs: RunJobs = run_in_process,
    on_progress: OnMeasurementProgress = ignore_progress,
) -> Measurements:
    """All that these policies read; who does a task tells of it, `tell` of ensembles."""
    wanted = list(policies)
    names = {policy.score for policy in wanted}
    for name in names:
        check_score_exists(name)
    pieces = [
        ensemble_job(name, context, on_progress)
        for name in sorted(names)
        if is_ensemble_name(name)
    ]
    shared = sorted(name for name in names if not needs_many_passes(name))
    tasks: list[MeasurementCall] = [run_gate_score] if GATE_SCORE in names else []
    tasks.append(partial(run_scores, shared))
    pieces += [single_call_job(task) for task in tasks]
    evidence = merge_measurements(run_jobs(pieces, context))
    curves = [
        partial(
            run_loss_curves,
            policy,
            Measurements("", {policy.score: evidence.scores[policy.score]}),
        )
        for policy in required_curves(wanted).values()
    ]
    return merge_measurements(
        [evidence, *run_jobs([single_call_job(task) for task in curves], context)]
    )


def merge_measurements(parts: Sequence[Measurements]) -> Measurements:
    """What several pieces have found, as one."""
    whole, counts = Measurements("".join(part.key for part in parts), {}), Counter[str]()
    for part in parts:
        whole.scores.update(part.scores)
        whole.errors.update(part.errors)
        whole.curves.update(part.curves)
        counts.update(part.counts)
    whole.counts.update(counts)
    return whole


def run_scores(
    names: list[str], context: MeasurementContext, on_progress: OnMeasurementProgress
) -> Measurements:
    """The scores that share one pass over the images, and those of weights."""
    return load_or_measure_scores(
        context.model,
        context.channel_map,
        context.data,
        folder=context.folder,
        seed=context.seed,
        names=names,
        on_progress=partial(on_progress, "scores"),
    )


class ProgressRelay:
    """Passes progress on, and knows whether there was any: of what was known, none is told."""

    def __init__(self, on_progress: OnMeasurementProgress) -> None:
        self._tell, self.was_called = on_progress, False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Hear it, and tell it on."""
        self.was_called = True
        self._tell(what, done, total)


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleStepCall:
    """A task of an ensemble: it reads nothing in the folder and leaves nothing there."""

    ensemble_step: EnsembleStep

    def __call__(self, on: MeasurementContext, tell: OnMeasurementProgress) -> Any:
        """Do it; who asked for it tells of it."""
        return self.ensemble_step(MeasuredNetwork(on.model, on.channel_map, on.data))


def ensemble_job(
    name: str, context: MeasurementContext, on_progress: OnMeasurementProgress
) -> StagedJob[MeasurementCall]:
    """An ensemble's scores and errors, within the limits."""
    settings, listener = (
        context.limits.apply_to(settings_from_name(name)),
        ProgressRelay(on_progress),
    )

    def report(check: ConvergenceCheck) -> None:
        what = f"{name}, held-out R2 {check.held_out_r2:.2f}"
        listener(what, check.samples, settings.max_samples)

    steps = ensemble_stages(settings, context.seed, context.folder, report)
    found = yield from map_calls(steps, EnsembleStepCall)
    counts = ensemble_counts(found) if listener.was_called else {}
    return add_ensemble(Measurements("", {}, counts=counts), name, found)


def ensemble_counts(found: EnsembleResult) -> dict[str, int]:
    """What measuring an ensemble took: masks, and images forwards and backwards under them."""
    effort = found.effort
    return {
        "masks": effort.samples,
        "masked_forwards": effort.forwards,
        "masked_backwards": effort.backwards,
    }


def run_gate_score(
    context: MeasurementContext, on_progress: OnMeasurementProgress
) -> Measurements:
    """The values of trained gates, as a score."""
    return load_or_train_gate_score(
        context.model,
        context.channel_map,
        context.data,
        folder=context.folder,
        seed=context.seed,
        images=context.limits.images,
        on_progress=partial(on_progress, "trained gates"),
    )


def run_loss_curves(
    policy: Policy,
    known: Measurements,
    context: MeasurementContext,
    on_progress: OnMeasurementProgress,
) -> Measurements:
    """The loss curves of a policy whose score is known."""
    images, listener = context.limits.curve_images, ProgressRelay(on_progress)
    found = add_loss_curves(
        known,
        [policy],
        MeasuredNetwork(context.model, context.channel_map, context.data),
        folder=context.folder,
        settings=CurveSettings() if images is None else CurveSettings(images=images),
        on_progress=partial(listener, f"loss curves of {policy.score} ({policy.probe})"),
    )
    probes = sum(len(curves.rise) for curves in found.curves.values())
    return replace(found, counts={"probes": probes} if listener.was_called else {})
