"""`SearchSpec`: what a search has to run: the plan, the controls and the longer fine-tunes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from ...spaces.cost.target import Target
from ...spaces.policy.policy import CONTROL_POLICIES
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import OBJECTIVES
from ..storage.trial_records import TrialRecords, build_front
from ..storage.trial_spec import TrialSpec
from .plan import PlannedTrial, derive_seed, trial_seed

ConstraintsFunc = Callable[[Evaluation], Mapping[str, float]]  # violations: above 0 if violated


def no_constraints(evaluation: Evaluation) -> Mapping[str, float]:
    """Return no constraints."""
    return {}


@dataclass(frozen=True, slots=True, eq=False)
class SearchSpec:
    """The trials that a trial store has to run, and the objectives of the search."""

    plan: Sequence[PlannedTrial]
    target: Target
    seed: int
    objectives: tuple[str, ...] = OBJECTIVES
    constraints_func: ConstraintsFunc = no_constraints
    final_epochs: float | None = None


def control_specs(search_spec: SearchSpec) -> list[TrialSpec]:
    """Return the controls, which differ from trials in their policies alone."""
    seed = trial_seed(search_spec.seed)
    return [
        TrialSpec(index, policy, search_spec.target, seed, control=name, origin="control")
        for index, (name, policy) in enumerate(CONTROL_POLICIES.items())
    ]


def final_specs(records: TrialRecords, search_spec: SearchSpec) -> list[TrialSpec]:
    """Return longer fine-tunes of the front and of the controls.

    Empty until all planned trials are over, because the front is not known before.
    """
    if not search_spec.final_epochs:
        return []
    open_states = (TrialState.RUNNING, TrialState.WAITING)
    if any(records.trials(name, *open_states) for name in ("search", "controls")):
        return []
    front = front_before_finals(records)
    sources = [*front, *records.evaluations_of("controls")] if front else []
    return [final_spec(index, source, search_spec) for index, source in enumerate(sources)]


def front_before_finals(records: TrialRecords) -> list[Evaluation]:
    """Return the front and the best network at the target, without longer fine-tunes."""
    trials = records.evaluations_of("search")
    if not trials:
        return []
    return list(build_front(trials, {}, records.summary or {}).points_by_path.values())


def final_spec(index: int, source: Evaluation, search_spec: SearchSpec) -> TrialSpec:
    """Return the longer fine-tune of one network."""
    name = source.path.rpartition("/")[2]
    return TrialSpec(
        index,
        source.policy,
        source.target,
        derive_seed(
            search_spec.seed, -2
        ),  # batches differ from those of the trials, and are the same for all
        number=source.trial,
        control=name.removeprefix("control-") if source.trial is None else None,
        origin=source.origin or "sampled",
        continues=source.path,
    )
