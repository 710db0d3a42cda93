"""What a search has to see through besides the sampled trials: controls, and longer fine-tunes."""

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

ConstraintsFunc = Callable[[Evaluation], Mapping[str, float]]  # above 0: broken by so much


def no_constraints(evaluation: Evaluation) -> Mapping[str, float]:
    """The user has set none."""
    return {}


@dataclass(frozen=True, slots=True, eq=False)
class SearchSpec:
    """What a ledger is to see through."""

    plan: Sequence[PlannedTrial]
    target: Target
    seed: int
    objectives: tuple[str, ...] = OBJECTIVES
    constraints_func: ConstraintsFunc = no_constraints
    final_epochs: float | None = None


def control_specs(search_spec: SearchSpec) -> list[TrialSpec]:
    """The controls: they differ from trials in their policies alone."""
    seed = trial_seed(search_spec.seed)
    return [
        TrialSpec(index, policy, search_spec.target, seed, control=name, origin="control")
        for index, (name, policy) in enumerate(CONTROL_POLICIES.items())
    ]


def final_specs(records: TrialRecords, search_spec: SearchSpec) -> list[TrialSpec]:
    """Longer fine-tunes of the front that the plan's trials make, and of the controls.

    None before every trial of the plan is over: the front is not known.
    """
    if not search_spec.final_epochs:
        return []
    open_states = (TrialState.RUNNING, TrialState.WAITING)
    if any(records.trials(name, *open_states) for name in ("search", "controls")):
        return []
    chosen = front_before_finals(records)
    sources = [*chosen, *records.evaluations_of("controls")] if chosen else []
    return [final_spec(index, source, search_spec) for index, source in enumerate(sources)]


def front_before_finals(records: TrialRecords) -> list[Evaluation]:
    """The front, and the answer at the target, of the plan's trials alone."""
    trials = records.evaluations_of("search")
    if not trials:
        return []
    return list(build_front(trials, {}, records.summary or {}).points_by_path.values())


def final_spec(index: int, source: Evaluation, search_spec: SearchSpec) -> TrialSpec:
    """The longer fine-tune of one network."""
    name = source.path.rpartition("/")[2]
    return TrialSpec(
        index,
        source.policy,
        source.target,
        derive_seed(search_spec.seed, -2),  # other batches than before, the same for all
        number=source.trial,
        control=name.removeprefix("control-") if source.trial is None else None,
        origin=source.origin or "sampled",
        continues=source.path,
    )
