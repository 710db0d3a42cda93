"""What an earlier driver left behind, and what therefore still has to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import TrialState

from ..storage.trial_records import (
    INTERRUPTED,
    STUDIES,
    Record,
    failure_of,
    is_repeat,
    latest_attempts,
    tried_again,
)
from ..storage.trial_spec import Job
from .target_plan import Slot


def settle_unfinished(record: Record) -> list[tuple[Job, Mapping[str, Any]]]:
    """Tell the trials of a dead driver FAIL; what is tried again, with its parameters."""
    for name in STUDIES:
        study = record.study(name)
        for frozen in record.trials(name, TrialState.RUNNING):
            if not is_repeat(frozen):  # which had nothing to carry out
                optuna.Trial(study, frozen._trial_id).set_user_attr("failure", INTERRUPTED)
            study.tell(frozen.number, state=TrialState.FAIL)
    again: list[tuple[Job, Mapping[str, Any]]] = []
    for job, frozen in latest_attempts(record.trials("search")).values():
        reason = failure_of(frozen)
        if reason and (left := tried_again(job, reason)):
            again.append((left, frozen.params))
    return again


def unstarted(plan: Sequence[Slot], record: Record) -> list[Slot]:
    """The slots that no trial has been started for."""
    taken = latest_attempts(record.trials("search"))
    return [slot for slot in plan if slot.index not in taken]


def unsettled(jobs: Iterable[Job], study: str, record: Record) -> list[Job]:
    """Of these controls, or longer fine-tunes, those that still have to run."""
    latest, left = latest_attempts(record.trials(study)), []
    for job in jobs:
        if job.settles in latest:
            last, trial = latest[job.settles]
            reason = failure_of(trial)
            again = tried_again(last, reason) if reason else None
            if again is None:
                continue
            job = replace(job, attempt=again.attempt)
        left.append(job)
    return left
