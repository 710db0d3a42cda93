"""Opening a ledger: the plan, the policies that it begins with, what is asked of the trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ...analysis.measure import Do, Measuring, OnProgress, Task, tell_nobody
from ...analysis.staged_jobs import Piece, single
from ...analysis.untrained_loss import rehearse
from ...spaces.allocations.decode import Space
from ...spaces.cost.target import limit
from ...spaces.errors import UserError
from ...spaces.policy.normalization import stages_of
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import OBJECTIVES
from ..config.settings import SearchSettings
from ..execution.messages import Say, telling
from ..optimizer.proposer import crowded_out, make_proposer
from ..optimizer.screening import Masks, Rehearse, Screen, Values
from ..optimizer.search_space import PolicySpace, space_from
from ..optimizer.target_plan import SPREAD, make_plan, spread_of
from ..optimizer.trial_queue import Limits, Undertaking
from ..optimizer.trial_store import Ledger
from ..storage.run_folder import RunFolder
from .prepare import Prepared
from .warm_start import fitting, warm_start_of

PART = 16  # masks that one task rehearses
MASKS = "masks of policies"


def policy_space_of(settings: SearchSettings, space: Space) -> PolicySpace:
    """What the settings let be sampled for this network."""
    stages = int(stages_of(space.channel_map).max()) + 1
    return space_from(
        settings.words("scores"),
        settings.words("allocations"),
        settings.words("schedules"),
        stages,
        settings.target(),
    )


def open_ledger(
    prepared: Prepared,
    settings: SearchSettings,
    run: RunFolder,
    say: Say,
    late: Callable[[], bool],
) -> Ledger:
    """The ledger with its plan, and the policies that it begins with."""
    target, context = settings.target(), prepared.context
    space, seed = context.space, settings.seed
    plan = make_plan(settings.trials, target, space, spread=spread_asked(settings, space, say))
    policies = policy_space_of(settings, space)
    rehearsal = rehearsing(prepared.do, prepared.measuring, telling(say))
    proposer = make_proposer(
        plan,
        policies,
        Screen(space, context.evidence),
        rehearsal if settings.screening else None,
        sampler=settings.sampler,
        seed=seed,
        also=fitting(warm_start_of(run), policies, say),
        late=late,
    )
    screened = sum(one.origin == "screened" for one in proposer.opening.values())
    say(f"{len(proposer.opening)} policies to begin with, {screened} of them screened")
    if untried := crowded_out(policies, proposer.opening):
        say(f"with more --trials these presets would be tried too: {', '.join(untried)}")
    asked = Undertaking(
        plan,
        target,
        seed,
        OBJECTIVES + (("latency_ms",) if settings.objective else ()),
        limits_of(settings, prepared),
        settings.final_epochs,
    )
    ledger = Ledger(run.journal, asked, proposer)
    ledger.set_summary(prepared.dense)
    return ledger


def rehearsing(do: Do, on: Measuring, tell: OnProgress) -> Rehearse:
    """How masks are rehearsed: in small parts, so that all workers take part.

    `tell` counts the masks of all parts and of all calls: a worker knows of one part alone.
    """
    done = total = 0

    def counted(part: Masks) -> Piece[Task]:
        nonlocal done
        found = yield from single(partial(rehearse_part, part))
        done += len(part)
        tell(MASKS, done, total)
        return found

    def rehearsed(masks: Masks) -> Values:
        nonlocal total
        total += len(masks)
        tell(MASKS, done, total)
        parts = [masks[start : start + PART] for start in range(0, len(masks), PART)]
        return np.concatenate(do([counted(part) for part in parts], on))

    return rehearsed


def rehearse_part(masks: Masks, on: Measuring, tell: OnProgress) -> Values:
    """Rehearse a part of the masks; who asked for it tells of it."""
    return rehearse(masks, on, tell_nobody)


def spread_asked(settings: SearchSettings, space: Space, say: Say) -> tuple[float, float]:
    """--spread as factors of the target's first part; what of it is out of reach is said."""
    sizes = settings.sizes_between()
    if sizes is None:
        return SPREAD
    target = settings.target()
    part = target.leading(space.price.dense)
    low, high = spread_of(target, space, (sizes[0] / part, sizes[1] / part))
    if (low, high) == (1.0, 1.0):
        reach = spread_of(target, space, (0.0, math.inf))
        raise UserError(
            f"--spread must leave sizes that can be reached, got {settings.spread}; this network "
            f"and target reach {reach[0] * part:.3f},{reach[1] * part:.3f}"
        )
    reached = low * part, high * part
    if max(abs(one - other) for one, other in zip(reached, sizes, strict=True)) > 1e-9:
        say(f"--spread {settings.spread} is reached from {reached[0]:.3f} to {reached[1]:.3f}")
    return low, high


def limits_of(settings: SearchSettings, prepared: Prepared) -> Limits:
    """How far an evaluation is above each limit that the user set; below 0 it is kept."""
    flops, params = settings.size_limits()
    dense = prepared.context.space.price.dense

    def broken(evaluation: Evaluation) -> Mapping[str, float]:
        found: dict[str, float] = {}
        sizes = (("flops", flops, 0, evaluation.macs), ("params", params, 1, evaluation.params))
        for name, asked, index, size in sizes:
            most = limit(asked, dense[index])
            if most is not None:
                found[name] = size / most - 1
        if settings.max_latency_ms is not None and evaluation.latency_ms is not None:
            found["latency"] = evaluation.latency_ms / settings.max_latency_ms - 1
        if settings.min_accuracy is not None:
            found["accuracy"] = settings.min_accuracy - evaluation.accuracy
        return found

    return broken
