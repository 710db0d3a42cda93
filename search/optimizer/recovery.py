"""What an earlier driver left behind, and what therefore still has to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import TrialState

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
    """Tell the trials of a dead driver FAIL; what is tried again, with its parameters."""
    for name in STUDY_NAMES:
        study = records.study(name)
        for frozen in records.trials(name, TrialState.RUNNING):
            if not is_duplicate(frozen):  # which had nothing to carry out
                optuna.Trial(study, frozen._trial_id).set_user_attr("failure", DRIVER_ENDED)
            study.tell(frozen.number, state=TrialState.FAIL)
    again: list[tuple[TrialSpec, Mapping[str, Any]]] = []
    for job, frozen in latest_attempts(records.trials("search")).values():
        reason = failure_reason(frozen)
        if reason and (left := next_attempt(job, reason)):
            again.append((left, frozen.params))
    return again


def unstarted_trials(plan: Sequence[PlannedTrial], records: TrialRecords) -> list[PlannedTrial]:
    """The slots that no trial has been started for."""
    taken = latest_attempts(records.trials("search"))
    return [slot for slot in plan if slot.index not in taken]


def unfinished_specs(
    specs: Iterable[TrialSpec], study: str, records: TrialRecords
) -> list[TrialSpec]:
    """Of these controls, or longer fine-tunes, those that still have to run."""
    latest, left = latest_attempts(records.trials(study)), []
    for job in specs:
        if job.plan_key in latest:
            last, trial = latest[job.plan_key]
            reason = failure_reason(trial)
            again = next_attempt(last, reason) if reason else None
            if again is None:
                continue
            job = replace(job, attempt=again.attempt)
        left.append(job)
    return left
