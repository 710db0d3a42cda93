"""Opening a ledger: the plan, the policies that it begins with, what is asked of the trials."""

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
from ..execution.messages import LogFunction, progress_logger
from ..optimizer.proposer import make_proposer, untried_presets
from ..optimizer.screening import EvaluateUntrained, FloatArray, Masks, PolicyPredictor
from ..optimizer.search_space import PolicySpace, build_policy_space
from ..optimizer.target_plan import DEFAULT_SPREAD, make_plan, reachable_spread
from ..optimizer.trial_queue import ConstraintsFunc, SearchSpec
from ..optimizer.trial_store import TrialStore
from ..storage.run_folder import RunFolder
from .prepare import PreparedSearch
from .warm_start import proposals_in_space, read_warm_start

MASKS_PER_CALL = 16  # masks that one task rehearses
MASKS = "masks of policies"


def policy_space_for(settings: SearchSettings, space: PruningSpace) -> PolicySpace:
    """What the settings let be sampled for this network."""
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
    """The ledger with its plan, and the policies that it begins with."""
    target, context = settings.target(), prepared.context
    space, seed = context.space, settings.seed
    plan = make_plan(settings.trials, target, space, spread=requested_spread(settings, space, log))
    policies = policy_space_for(settings, space)
    rehearsal = make_untrained_evaluator(
        prepared.run_jobs, prepared.measurement_context, progress_logger(log)
    )
    proposer = make_proposer(
        plan,
        policies,
        PolicyPredictor(space, context.measurements),
        rehearsal if settings.screening else None,
        sampler=settings.sampler,
        seed=seed,
        warm_start=proposals_in_space(read_warm_start(run), policies, log),
        is_late=is_late,
    )
    screened = sum(one.origin == "screened" for one in proposer.initial.values())
    log(f"{len(proposer.initial)} policies to begin with, {screened} of them screened")
    if untried := untried_presets(policies, proposer.initial):
        log(f"with more --trials these presets would be tried too: {', '.join(untried)}")
    asked = SearchSpec(
        plan,
        target,
        seed,
        OBJECTIVES + (("latency_ms",) if settings.objective else ()),
        make_constraints_func(settings, prepared),
        settings.final_epochs,
    )
    ledger = TrialStore(run.journal, asked, proposer)
    ledger.set_summary(prepared.dense)
    return ledger


def make_untrained_evaluator(
    do: RunJobs, on: MeasurementContext, tell: OnMeasurementProgress
) -> EvaluateUntrained:
    """How masks are rehearsed: in small parts, so that all workers take part.

    `tell` counts the masks of all parts and of all calls: a worker knows of one part alone.
    """
    done = total = 0

    def counted(part: Masks) -> StagedJob[MeasurementCall]:
        nonlocal done
        found = yield from single_call_job(partial(rehearse_part, part))
        done += len(part)
        tell(MASKS, done, total)
        return found

    def rehearsed(masks: Masks) -> FloatArray:
        nonlocal total
        total += len(masks)
        tell(MASKS, done, total)
        parts = [
            masks[start : start + MASKS_PER_CALL] for start in range(0, len(masks), MASKS_PER_CALL)
        ]
        return np.concatenate(do([counted(part) for part in parts], on))

    return rehearsed


def rehearse_part(masks: Masks, on: MeasurementContext, tell: OnMeasurementProgress) -> FloatArray:
    """Rehearse a part of the masks; who asked for it tells of it."""
    return evaluate_untrained(masks, on, ignore_progress)


def requested_spread(
    settings: SearchSettings, space: PruningSpace, log: LogFunction
) -> tuple[float, float]:
    """--spread as factors of the target's first part; what of it is out of reach is said."""
    sizes = settings.spread_bounds()
    if sizes is None:
        return DEFAULT_SPREAD
    target = settings.target()
    part = target.first_fraction(space.cost_model.dense)
    low, high = reachable_spread(target, space, (sizes[0] / part, sizes[1] / part))
    if (low, high) == (1.0, 1.0):
        reach = reachable_spread(target, space, (0.0, math.inf))
        raise UserError(
            f"--spread must leave sizes that can be reached, got {settings.spread}; this network "
            f"and target reach {reach[0] * part:.3f},{reach[1] * part:.3f}"
        )
    reached = low * part, high * part
    if max(abs(one - other) for one, other in zip(reached, sizes, strict=True)) > 1e-9:
        log(f"--spread {settings.spread} is reached from {reached[0]:.3f} to {reached[1]:.3f}")
    return low, high


def make_constraints_func(settings: SearchSettings, prepared: PreparedSearch) -> ConstraintsFunc:
    """How far an evaluation is above each limit that the user set; below 0 it is kept."""
    flops, params = settings.size_limits()
    dense = prepared.context.space.cost_model.dense

    def broken(evaluation: Evaluation) -> Mapping[str, float]:
        found: dict[str, float] = {}
        sizes = (("flops", flops, 0, evaluation.macs), ("params", params, 1, evaluation.params))
        for name, asked, index, size in sizes:
            most = absolute_limit(asked, dense[index])
            if most is not None:
                found[name] = size / most - 1
        if settings.max_latency_ms is not None and evaluation.latency_ms is not None:
            found["latency"] = evaluation.latency_ms / settings.max_latency_ms - 1
        if settings.min_accuracy is not None:
            found["accuracy"] = settings.min_accuracy - evaluation.accuracy
        return found

    return broken
