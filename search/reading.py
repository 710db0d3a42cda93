"""Reading the ledger: what the trials in Optuna's journal say. Nothing here writes."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ..spaces.evaluation import Evaluation, evaluation_from_json
from ..spaces.front import Dense, Front, best_at_target, non_dominated
from ..spaces.target import target_from_json
from .job import Job, job_from_json

INTERRUPTED = "interrupted: the search ended before this trial did"
ATTEMPTS = 3


def front_in(journal: Path) -> Front | None:
    """The front of what the journal holds now; None before the first finished trial."""
    if not journal.exists():
        return None
    quiet_optuna()
    storage = JournalStorage(JournalFileBackend(str(journal)))
    names = optuna.get_all_study_names(storage)
    if "search" not in names or "controls" not in names:
        return None
    search = optuna.load_study(study_name="search", storage=storage)
    controls = optuna.load_study(study_name="controls", storage=storage)
    evaluations, summary = evaluations_in(search), search.user_attrs.get("summary")
    if not evaluations or summary is None:
        return None
    return make_front(evaluations, controls_in(controls), summary)


def quiet_optuna() -> None:
    """Neither a line a trial, nor a warning for an interface that Optuna calls experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def make_front(
    evaluations: list[Evaluation], controls: dict[str, Evaluation], summary: dict[str, object]
) -> Front:
    """The front of these evaluations; `summary` as the ledger keeps it."""
    dense = Dense(**summary["dense"])  # type: ignore[arg-type]
    target = target_from_json(summary["requested"])
    return Front(
        seed=int(summary["seed"]),  # type: ignore[call-overload]
        requested=target,
        dense=dense,
        points=non_dominated(evaluations),
        at_target=best_at_target(evaluations, target, (dense.macs, dense.params)),
        controls=controls,
    )


def evaluations_in(study: optuna.Study) -> list[Evaluation]:
    """The finished trials, in the order of their numbers."""
    return [e for t in study.get_trials(deepcopy=False) if (e := evaluation_of(t))]


def controls_in(study: optuna.Study) -> dict[str, Evaluation]:
    """The finished controls by name."""
    pairs = [(job_of(t), evaluation_of(t)) for t in study.get_trials(deepcopy=False)]
    return {job.control: e for job, e in pairs if job and e and job.control}


def failures_in(study: optuna.Study) -> dict[str, str]:
    """The reasons of the trials that failed for good, by the trial's folder name."""
    reasons: dict[str, str] = {}
    for trial in study.get_trials(deepcopy=False):
        job, reason = job_of(trial), failure_of(trial)
        if job and reason and (reason != INTERRUPTED or job.attempt + 1 >= ATTEMPTS):
            reasons[job.folder] = reason
    return reasons


def job_of(trial: FrozenTrial) -> Job | None:
    """The job that a trial carries; None if it was cut short before it was given one."""
    values = trial.user_attrs.get("job")
    return job_from_json(values) if values and "repeat" not in trial.user_attrs else None


def evaluation_of(trial: FrozenTrial) -> Evaluation | None:
    """The evaluation of a finished trial."""
    if trial.state != TrialState.COMPLETE:
        return None
    return evaluation_from_json(trial.user_attrs["evaluation"])


def failure_of(trial: FrozenTrial) -> str | None:
    """The reason of a failed trial."""
    if trial.state != TrialState.FAIL:
        return None
    reason = trial.user_attrs.get("failure")
    return str(reason) if reason else None


def latest_by_slot(study: optuna.Study) -> dict[int, tuple[Job, FrozenTrial]]:
    """The newest trial of each slot that any was started for."""
    latest = {}
    for trial in study.get_trials(deepcopy=False):
        job = job_of(trial)
        if job:
            latest[job.slot] = (job, trial)
    return latest
