"""Resume after a driver's end: fail its unfinished trials, and find what remains to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..storage.trial_records import (
    DRIVER_ENDED,
    STUDY_NAMES,
    TrialRecords,
    failure_reason,
    is_duplicate,
    latest_attempts,
    next_attempt,
)
from ..storage.trial_spec import TrialSpec
from .plan import PlannedTrial


def fail_unfinished_trials(records: TrialRecords) -> list[tuple[TrialSpec, Mapping[str, Any]]]:
    """Mark the running trials of an ended driver as failed.

    Args:
        records: The trials of all studies.

    Returns:
        The trials of the search to retry, with their Optuna parameters.
    """
    for name in STUDY_NAMES:
        study = records.study(name)
        for frozen in records.trials(name, TrialState.RUNNING):
            if not is_duplicate(frozen):  # a duplicate runs nothing, so it has no failure
                reopen_trial(study, frozen).set_user_attr("failure", DRIVER_ENDED)
            study.tell(frozen.number, state=TrialState.FAIL)
    retries: list[tuple[TrialSpec, Mapping[str, Any]]] = []
    for spec, frozen in latest_attempts(records.trials("search")).values():
        reason = failure_reason(frozen)
        if reason and (retry := next_attempt(spec, reason)):
            retries.append((retry, frozen.params))
    return retries


def reopen_trial(study: optuna.Study, frozen: FrozenTrial) -> optuna.Trial:
    """Return a writable trial. Uses a private attribute of Optuna (checked: 5.0)."""
    return optuna.Trial(study, frozen._trial_id)


def unstarted_trials(plan: Sequence[PlannedTrial], records: TrialRecords) -> list[PlannedTrial]:
    """Return the planned trials that have not started."""
    started = latest_attempts(records.trials("search"))
    return [planned for planned in plan if planned.index not in started]


def unfinished_specs(
    specs: Iterable[TrialSpec], study: str, records: TrialRecords
) -> list[TrialSpec]:
    """Return those of these controls or longer fine-tunes that remain to run."""
    latest, unfinished = latest_attempts(records.trials(study)), []
    for spec in specs:
        if spec.plan_key in latest:
            last, trial = latest[spec.plan_key]
            reason = failure_reason(trial)
            retry = next_attempt(last, reason) if reason else None
            if retry is None:
                continue
            spec = replace(spec, attempt=retry.attempt)
        unfinished.append(spec)
    return unfinished
