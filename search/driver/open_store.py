"""Open the trial store of a search: its plan, its initial trials and its constraints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ...analysis.jobs import StagedJob, single_call_job
from ...analysis.measure import (
    MeasurementCall,
    MeasurementContext,
    OnMeasurementProgress,
    RunJobs,
    ignore_progress,
)
from ...analysis.untrained_loss import evaluate_untrained
from ...spaces.allocations.decode import PruningSpace
from ...spaces.cost.target import absolute_limit
from ...spaces.errors import UserError
from ...spaces.policy.normalization import stages_of_groups
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import OBJECTIVES
from ..config.settings import SearchSettings
from ..execution.progress_messages import LogFunction, progress_logger
from ..optimizer.plan import DEFAULT_SPREAD, make_plan, reachable_spread
from ..optimizer.proposer import make_proposer, untried_presets
from ..optimizer.screening import EvaluateUntrained, FloatArray, Masks, PolicyPredictor
from ..optimizer.search_space import PolicySpace, build_policy_space
from ..optimizer.search_spec import ConstraintsFunc, SearchSpec
from ..optimizer.trial_store import TrialStore
from ..storage.run_folder import RunFolder
from .prepare import PreparedSearch
from .warm_start import proposals_in_space, read_warm_start

MASKS_PER_CALL = 16
MASKS = "masks of policies"  # in progress messages


def policy_space_for(settings: SearchSettings, space: PruningSpace) -> PolicySpace:
    """Return the space of policies that the settings allow for this network."""
    stages = int(stages_of_groups(space.channel_map).max()) + 1
    return build_policy_space(
        settings.names_in("scores"),
        settings.names_in("allocations"),
        settings.names_in("schedules"),
        stages,
        settings.target(),
    )


def open_trial_store(
    prepared: PreparedSearch,
    settings: SearchSettings,
    run: RunFolder,
    log: LogFunction,
    is_late: Callable[[], bool],
) -> TrialStore:
    """Open the trial store with its plan and its initial trials.

    `is_late` says during screening whether its share of --max-minutes has passed.
    """
    target, context = settings.target(), prepared.context
    space, seed = context.space, settings.seed
    plan = make_plan(settings.trials, target, space, spread=requested_spread(settings, space, log))
    policies = policy_space_for(settings, space)
    evaluate_masks = make_untrained_evaluator(
        prepared.run_jobs, prepared.measurement_context, progress_logger(log)
    )
    proposer = make_proposer(
        plan,
        policies,
        PolicyPredictor(space, context.measurements),
        evaluate_masks if settings.screening else None,
        sampler=settings.sampler,
        seed=seed,
        warm_start=proposals_in_space(read_warm_start(run), policies, log),
        is_late=is_late,
    )
    screened = sum(one.origin == "screened" for one in proposer.initial.values())
    log(f"{len(proposer.initial)} initial trials, {screened} of them screened policies")
    if untried := untried_presets(policies, proposer.initial):
        log(f"more --trials would also try these presets: {', '.join(untried)}")
    search_spec = SearchSpec(
        plan,
        target,
        seed,
        OBJECTIVES + (("latency_ms",) if settings.objective else ()),
        make_constraints_func(settings, prepared),
        settings.final_epochs,
    )
    store = TrialStore(run.journal, search_spec, proposer)
    store.set_summary(prepared.dense)
    return store


def make_untrained_evaluator(
    run_jobs: RunJobs, context: MeasurementContext, on_progress: OnMeasurementProgress
) -> EvaluateUntrained:
    """Return a function that evaluates masks untrained, in small parts for all workers.

    `on_progress` counts the masks of all parts and calls; a worker knows its own part only.
    """
    done = total = 0

    def evaluate_part_and_count(part: Masks) -> StagedJob[MeasurementCall]:
        nonlocal done
        losses = yield from single_call_job(partial(evaluate_part, part))
        done += len(part)
        on_progress(MASKS, done, total)
        return losses

    def evaluate(masks: Masks) -> FloatArray:
        nonlocal total
        total += len(masks)
        on_progress(MASKS, done, total)
        parts = [
            masks[start : start + MASKS_PER_CALL] for start in range(0, len(masks), MASKS_PER_CALL)
        ]
        return np.concatenate(run_jobs(list(map(evaluate_part_and_count, parts)), context))

    return evaluate


def evaluate_part(
    masks: Masks, context: MeasurementContext, on_progress: OnMeasurementProgress
) -> FloatArray:
    """Evaluate masks untrained, without progress: the driver counts all parts."""
    return evaluate_untrained(masks, context, ignore_progress)


def requested_spread(
    settings: SearchSettings, space: PruningSpace, log: LogFunction
) -> tuple[float, float]:
    """Return --spread as factors of the target's first fraction; log if it is not fully reachable.

    Raises:
        UserError: no size within --spread can be reached.
    """
    sizes = settings.spread_bounds()
    if sizes is None:
        return DEFAULT_SPREAD
    target = settings.target()
    fraction = target.first_fraction(space.cost_model.dense)
    low, high = reachable_spread(target, space, (sizes[0] / fraction, sizes[1] / fraction))
    if (low, high) == (1.0, 1.0):
        reach = reachable_spread(target, space, (0.0, math.inf))
        raise UserError(
            f"--spread must contain sizes that can be reached, got {settings.spread}; this "
            f"network and target reach {reach[0] * fraction:.3f},{reach[1] * fraction:.3f}"
        )
    reached = low * fraction, high * fraction
    if max(abs(one - other) for one, other in zip(reached, sizes, strict=True)) > 1e-9:
        log(f"--spread {settings.spread} can be reached from {reached[0]:.3f} to {reached[1]:.3f}")
    return low, high


def make_constraints_func(settings: SearchSettings, prepared: PreparedSearch) -> ConstraintsFunc:
    """Return a function that says by how much an evaluation exceeds each of the limits."""
    flops, params = settings.size_limits()
    dense = prepared.context.space.cost_model.dense

    def violations(evaluation: Evaluation) -> Mapping[str, float]:
        found: dict[str, float] = {}
        sizes = (("flops", flops, 0, evaluation.macs), ("params", params, 1, evaluation.params))
        for name, requested, index, size in sizes:
            limit = absolute_limit(requested, dense[index])
            if limit is not None:
                found[name] = size / limit - 1
        if settings.max_latency_ms is not None and evaluation.latency_ms is not None:
            found["latency"] = evaluation.latency_ms / settings.max_latency_ms - 1
        if settings.min_accuracy is not None:
            found["accuracy"] = settings.min_accuracy - evaluation.accuracy
        return found

    return violations
