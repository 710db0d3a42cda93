"""What a search has to see through besides the sampled trials: controls, and longer fine-tunes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from ...spaces.cost.target import Target
from ...spaces.policy.policy import CONTROLS
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import OBJECTIVES
from ..storage.trial_records import Record, make_front
from ..storage.trial_spec import Job
from .target_plan import Slot, derived_seed, seed_of_trials

Limits = Callable[[Evaluation], Mapping[str, float]]  # above 0: broken by so much


def no_limits(evaluation: Evaluation) -> Mapping[str, float]:
    """The user has set none."""
    return {}


@dataclass(frozen=True, slots=True, eq=False)
class Undertaking:
    """What a ledger is to see through."""

    plan: Sequence[Slot]
    target: Target
    seed: int
    objectives: tuple[str, ...] = OBJECTIVES
    limits: Limits = no_limits
    final_epochs: float | None = None


def control_jobs(asked: Undertaking) -> list[Job]:
    """The controls: they differ from trials in their policies alone."""
    seed = seed_of_trials(asked.seed)
    return [
        Job(index, policy, asked.target, seed, control=name, origin="control")
        for index, (name, policy) in enumerate(CONTROLS.items())
    ]


def final_jobs(record: Record, asked: Undertaking) -> list[Job]:
    """Longer fine-tunes of the front that the plan's trials make, and of the controls.

    None before every trial of the plan is over: the front is not known.
    """
    if not asked.final_epochs:
        return []
    open_states = (TrialState.RUNNING, TrialState.WAITING)
    if any(record.trials(name, *open_states) for name in ("search", "controls")):
        return []
    chosen = brief_front(record)
    sources = [*chosen, *record.evaluations_of("controls")] if chosen else []
    return [final_job(index, source, asked) for index, source in enumerate(sources)]


def brief_front(record: Record) -> list[Evaluation]:
    """The front, and the answer at the target, of the plan's trials alone."""
    trials = record.evaluations_of("search")
    if not trials:
        return []
    return list(make_front(trials, {}, record.summary or {}).named.values())


def final_job(index: int, source: Evaluation, asked: Undertaking) -> Job:
    """The longer fine-tune of one network."""
    name = source.path.rpartition("/")[2]
    return Job(
        index,
        source.policy,
        source.target,
        derived_seed(asked.seed, -2),  # other batches than before, the same for all
        number=source.trial,
        control=name.removeprefix("control-") if source.trial is None else None,
        origin=source.origin or "sampled",
        continues=source.path,
    )
