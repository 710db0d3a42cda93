"""Measure what a set of policies needs: scores, mask ensembles, loss curves.

Only measurements that some policy needs are made. Earlier results are read from the folder.
The jobs are independent of each other, except that loss curves need the atom order of a score.
A `RunJobs` function runs the jobs, serially or in parallel; an ensemble is split into stages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from ..spaces.graph.channels import ChannelMap
from ..spaces.policy.loss_curves import CurveSettings, required_curves
from ..spaces.policy.measurements import Measurements
from ..spaces.policy.policy import Policy, check_score
from ..trainers.data.splits import DataSplits
from .jobs import MeasuredNetwork, StagedJob, map_calls, run_jobs_serially, single_call_job
from .loss_curves.measure import add_loss_curves
from .mask_ensembles import (
    ENSEMBLE_PRESETS,
    ConvergenceCheck,
    EnsembleResult,
    EnsembleSettings,
    EnsembleStep,
    add_ensemble,
    ensemble_stages,
    is_ensemble_name,
    settings_from_name,
)
from .scores.gate_score import GATE_SCORE, load_or_train_gate_score
from .scores.measure import load_or_measure_scores
from .scores.registry import all_scores

OnMeasurementProgress = Callable[[str, int, int], None]  # what is measured, done, total


def ignore_progress(what: str, done: int, total: int) -> None:
    """Ignore the progress report."""


@dataclass(frozen=True, slots=True)
class MeasurementLimits:
    """Upper limits of the measurements; None means no limit."""

    images: int | None = None  # forward passes of one ensemble: every image under a mask
    samples: int | None = None  # masks of one ensemble; overrides the number that `images` allows
    seconds: float | None = None  # time limit of one ensemble
    curve_images: int | None = None  # images per probe of a loss curve

    def apply_to(self, settings: EnsembleSettings) -> EnsembleSettings:
        """Return the ensemble settings, reduced to these limits."""
        if self.images is not None:
            settings = settings.limited_to_images(self.images)
        return replace(settings, samples=self.samples or settings.samples, seconds=self.seconds)


@dataclass(frozen=True, slots=True, eq=False)
class MeasurementContext:
    """The network and data to measure, and the folder that keeps the results."""

    model: nn.Module
    channel_map: ChannelMap
    data: DataSplits
    seed: int
    folder: Path | None = None
    limits: MeasurementLimits = MeasurementLimits()

    @property
    def network(self) -> MeasuredNetwork:
        """The network with its channel map and data."""
        return MeasuredNetwork(self.model, self.channel_map, self.data)


MeasurementCall = Callable[[MeasurementContext, OnMeasurementProgress], Any]
RunJobs = Callable[
    [Sequence[StagedJob[MeasurementCall]], MeasurementContext], list[Any]
]  # returns the jobs' results


def run_in_process(
    jobs: Sequence[StagedJob[MeasurementCall]], context: MeasurementContext
) -> list[Any]:
    """Run the jobs serially in this process, without progress reports."""
    return run_jobs_serially(jobs, lambda call: call(context, ignore_progress))


def needs_many_passes(score: str) -> bool:
    """True for scores that need more than one pass over the images."""
    return is_ensemble_name(score) or score == GATE_SCORE


def check_score_exists(score: str, what: str = "score") -> None:
    """Raise UserError unless the score exists; `what` names the option in the message."""
    if is_ensemble_name(score):
        settings_from_name(score)
    else:
        check_score(score, sorted({*all_scores(), *ENSEMBLE_PRESETS, GATE_SCORE}), what)


def measure_for_policies(
    policies: Iterable[Policy],
    context: MeasurementContext,
    run_jobs: RunJobs = run_in_process,
    on_progress: OnMeasurementProgress = ignore_progress,
) -> Measurements:
    """Measure everything that the policies need.

    Args:
        policies: The policies whose scores and loss curves are needed.
        context: The network, its data, and the folder that keeps the results.
        run_jobs: Runs the jobs; the calls inside them report their own progress.
        on_progress: Receives the progress of ensembles.
    """
    requested = list(policies)
    names = {policy.score for policy in requested}
    for name in names:
        check_score_exists(name)
    jobs = [
        ensemble_job(name, context, on_progress)
        for name in sorted(names)
        if is_ensemble_name(name)
    ]
    shared = sorted(name for name in names if not needs_many_passes(name))
    calls: list[MeasurementCall] = [run_gate_score] if GATE_SCORE in names else []
    calls.append(partial(run_scores, shared))
    jobs += [single_call_job(call) for call in calls]
    measurements = merge_measurements(run_jobs(jobs, context))
    curves = [
        partial(
            run_loss_curves,
            policy,
            Measurements("", {policy.score: measurements.scores[policy.score]}),
        )
        for policy in required_curves(requested).values()
    ]
    return merge_measurements(
        [measurements, *run_jobs([single_call_job(call) for call in curves], context)]
    )


def merge_measurements(parts: Sequence[Measurements]) -> Measurements:
    """Merge the measurements of several jobs."""
    merged, counts = Measurements("".join(part.key for part in parts), {}), Counter[str]()
    for part in parts:
        merged.scores.update(part.scores)
        merged.errors.update(part.errors)
        merged.curves.update(part.curves)
        counts.update(part.counts)
    merged.counts.update(counts)
    return merged


def run_scores(
    names: list[str], context: MeasurementContext, on_progress: OnMeasurementProgress
) -> Measurements:
    """Measure the scores of one calibration pass, and the scores of weights."""
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
    """Forwards progress reports and records whether any came (none comes for cached results)."""

    def __init__(self, on_progress: OnMeasurementProgress) -> None:
        self._on_progress, self.was_called = on_progress, False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Record the call and forward it."""
        self.was_called = True
        self._on_progress(what, done, total)


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleStepCall:
    """One call of an ensemble job; it does not access the folder."""

    ensemble_step: EnsembleStep
    uses_folder: ClassVar[bool] = False

    def __call__(self, context: MeasurementContext, on_progress: OnMeasurementProgress) -> Any:
        """Run the step; the ensemble job, not the step, reports progress."""
        return self.ensemble_step(context.network)


def ensemble_job(
    name: str, context: MeasurementContext, on_progress: OnMeasurementProgress
) -> StagedJob[MeasurementCall]:
    """A job that measures an ensemble's scores and errors within the limits."""
    settings = context.limits.apply_to(settings_from_name(name))
    relay = ProgressRelay(on_progress)

    def report(check: ConvergenceCheck) -> None:
        what = f"{name}, held-out R2 {check.held_out_r2:.2f}"
        relay(what, check.samples, settings.max_samples)

    steps = ensemble_stages(settings, context.seed, context.folder, report)
    found = yield from map_calls(steps, EnsembleStepCall)
    counts = ensemble_counts(found) if relay.was_called else {}
    return add_ensemble(Measurements("", {}, counts=counts), name, found)


def ensemble_counts(found: EnsembleResult) -> dict[str, int]:
    """Counts of masks and of images run forwards and backwards under them."""
    effort = found.effort
    return {
        "masks": effort.samples,
        "masked_forwards": effort.forwards,
        "masked_backwards": effort.backwards,
    }


def run_gate_score(
    context: MeasurementContext, on_progress: OnMeasurementProgress
) -> Measurements:
    """Train gates and return their values as a score."""
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
    """Measure the loss curves of a policy whose score is in `known`."""
    images, relay = context.limits.curve_images, ProgressRelay(on_progress)
    found = add_loss_curves(
        known,
        [policy],
        context.network,
        folder=context.folder,
        settings=CurveSettings() if images is None else CurveSettings(images=images),
        on_progress=partial(relay, f"loss curves of {policy.score} ({policy.probe})"),
    )
    probes = sum(len(curves.rise) for curves in found.curves.values())
    return replace(found, counts={"probes": probes} if relay.was_called else {})
