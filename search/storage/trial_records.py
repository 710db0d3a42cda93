"""Reading the ledger: what the trials in Optuna's journal say. Nothing here writes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from ...spaces.cost.target import target_from_json
from ...spaces.io.bounded_read import open_regular_file
from ...spaces.records.evaluation import Evaluation, evaluation_from_json
from ...spaces.records.pareto_front import (
    OBJECTIVES,
    DenseMetrics,
    Front,
    best_at_target,
    non_dominated,
)
from .journal import MAX_JOURNAL_BYTES, journal_storage, malformed_records_as_user_error
from .trial_spec import RungResult, TrialSpec, trial_spec_from_json

STOPPED_BY_USER = "stopped: the user ended the search before this trial did"
DRIVER_ENDED = "interrupted: the search ended before this trial did"
WORKER_DIED = "the worker process died"
OUT_OF_MEMORY = "Ray ended the worker: the machine was short of memory"
MAX_ATTEMPTS = {
    DRIVER_ENDED: 6,
    WORKER_DIED: 2,
    OUT_OF_MEMORY: 2,
}  # attempts at one policy that such an end allows
MetricsByPath = Mapping[str, Mapping[str, Any]]
NO_METRICS: MetricsByPath = {}
DENSE_PATH = ""  # the path of the dense network among figures
MeasuredT = TypeVar("MeasuredT", Evaluation, DenseMetrics)
STUDY_NAMES = ("search", "controls", "finals")


class TrialRecords:
    """What a journal holds: the studies and what their trials say."""

    def __init__(self, studies: dict[str, optuna.Study]) -> None:
        self._studies = studies
        self._read: dict[tuple[str, int], Evaluation] = {}  # what is finished never changes

    def check(self) -> None:
        """Read all that anybody asks for: what a stranger wrote may have any shape."""
        self.front()
        self.rungs()
        self.count_settled()
        self.finished_with_params()
        for study in STUDY_NAMES:
            for trial in self.trials(study):
                for key in ("spans", "stopped"):
                    check_spans(trial.user_attrs.get(key))

    def evaluations(self) -> list[Evaluation]:
        """The finished sampled trials in order, then what longer fine-tuning made of some."""
        finals = [e for e in self.evaluations_of("finals") if e.trial is not None]
        return self.evaluations_of("search") + finals

    def evaluations_of(self, study: str) -> list[Evaluation]:
        """The finished trials of one study, in the order of their numbers."""
        found = []
        for trial in self.trials(study, TrialState.COMPLETE):
            key = (study, trial.number)
            if key not in self._read and (evaluation := evaluation_of(trial)):
                self._read[key] = evaluation
            if key in self._read:
                found.append(self._read[key])
        return found

    def finished_with_params(self) -> list[tuple[Evaluation, dict[str, Any]]]:
        """The finished sampled trials with the parameters of their policies."""
        params = {t.number: t.params for t in self.trials("search", TrialState.COMPLETE)}
        found = self.evaluations_of("search")
        return [(one, params[one.trial]) for one in found if one.trial is not None]

    def controls(self) -> dict[str, Evaluation]:
        """The finished controls by name, fine-tuned as long as the front if that is done."""
        found = [*self.evaluations_of("controls"), *self.evaluations_of("finals")]
        return {e.path.rpartition("control-")[2]: e for e in found if e.trial is None}

    def failures(self) -> dict[str, str]:
        """The reasons of the trials that failed for good, by the trial's folder name."""
        reasons = {}
        for study in STUDY_NAMES:
            for job, trial in latest_attempts(self.trials(study)).values():
                reason = failure_reason(trial)
                if reason and not next_attempt(job, reason):
                    reasons[job.folder] = reason
        return reasons

    def count_stopped(self) -> int:
        """How many trials were stopped on their way, being hopeless."""
        return sum(not is_duplicate(trial) for trial in self.trials("search", TrialState.PRUNED))

    def count_duplicates(self) -> int:
        """How many slots were settled by a network that another slot's trial had made."""
        known = [t for t in self.trials("search") if is_duplicate(t) and trial_spec_of(t)]
        return sum(evaluation_of(trial) is None for trial in known)

    def count_settled(self) -> int:
        """How many planned trials are over, controls and longer fine-tunes included."""
        finished = sum(len(self.evaluations_of(study)) for study in STUDY_NAMES)
        return finished + len(self.failures()) + self.count_stopped() + self.count_duplicates()

    def rungs(self) -> list[RungResult]:
        """Where the trials stood at their rungs, in the order of their ends."""
        ended = [t for t in self.trials("search") if t.datetime_complete and t.state.is_finished()]
        ended.sort(key=lambda t: t.datetime_complete or datetime.min)
        return [
            RungResult(**values)
            for trial in ended
            for key in ("spans", "stopped")
            for values in trial.user_attrs.get(key, {}).get("rungs", [])
        ]

    def front(self) -> Front | None:
        """The front of what is finished; None before the first finished trial."""
        evaluations, summary = self.evaluations(), self.summary
        if not evaluations or summary is None:
            return None
        return build_front(evaluations, self.controls(), summary, self.final_metrics)

    @property
    def final_metrics(self) -> MetricsByPath:
        """What was measured at the ends of searches, by path; DENSE is the dense network's."""
        found: MetricsByPath = self._studies["search"].user_attrs.get("figures", NO_METRICS)
        return found

    @property
    def concluded(self) -> int | None:
        """How many planned trials were seen through to the search's end; None before it."""
        found: int | None = self._studies["search"].user_attrs.get("concluded")
        return found

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the front is derived from besides the trials."""
        found: dict[str, Any] | None = self._studies["search"].user_attrs.get("summary")
        return found

    def study(self, name: str) -> optuna.Study:
        """One of the studies."""
        return self._studies[name]

    def trials(self, study: str, *states: TrialState) -> list[FrozenTrial]:
        """The trials of one study, in the order of their numbers."""
        return self._studies[study].get_trials(deepcopy=False, states=states or None)


def read_trial_records(journal: Path) -> TrialRecords | None:
    """What a journal holds now; None where no search has begun in it."""
    if not journal.exists():
        return None
    silence_optuna()
    open_regular_file(journal, MAX_JOURNAL_BYTES).close()
    with malformed_records_as_user_error(journal):
        storage = journal_storage(journal)
        if not set(STUDY_NAMES) <= set(optuna.get_all_study_names(storage)):
            return None
        record = TrialRecords(
            {n: optuna.load_study(study_name=n, storage=storage) for n in STUDY_NAMES}
        )
        record.check()
    return record


def front_from_journal(journal: Path) -> Front | None:
    """The front of what the journal holds now; None before the first finished trial."""
    record = read_trial_records(journal)
    return record.front() if record else None


def silence_optuna() -> None:
    """Neither a line a trial, nor a warning for an interface that Optuna calls experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def build_front(
    evaluations: list[Evaluation],
    controls: dict[str, Evaluation],
    summary: dict[str, Any],
    metrics: MetricsByPath = NO_METRICS,
) -> Front:
    """The front of these evaluations; `summary` and `figures` as the ledger keeps them.

    Where latency is an objective, a network may leave the front by its figures: the trials were
    timed while others were running, they are timed alone. None enters, since its weights are gone.
    """
    evaluations = with_first_latency(evaluations)
    dense = with_test_metrics(DenseMetrics(**summary["dense"]), metrics)
    target = target_from_json(summary["requested"])
    objectives = tuple(summary.get("objectives", OBJECTIVES))
    points = [
        with_test_metrics(point, metrics) for point in non_dominated(evaluations, objectives)
    ]
    answer = best_at_target(evaluations, target, (dense.macs, dense.params))
    return Front(
        seed=int(summary["seed"]),
        requested=target,
        dense=dense,
        points=non_dominated(points, objectives),
        at_target=with_test_metrics(answer, metrics) if answer else None,
        controls={name: with_test_metrics(control, metrics) for name, control in controls.items()},
        objectives=objectives,
    )


def with_first_latency(evaluations: list[Evaluation]) -> list[Evaluation]:
    """A network that was trained on has its trial's latency: it was cut once, and the noise of two
    timings must not put both on a front.
    """
    first: dict[int | None, float | None] = {}
    return [
        replace(one, latency_ms=first.setdefault(one.trial, one.latency_ms)) for one in evaluations
    ]


def with_test_metrics(measured: MeasuredT, metrics: MetricsByPath) -> MeasuredT:
    """The same with test accuracy and latency, where an end of a search has measured them."""
    own = metrics.get(DENSE_PATH if isinstance(measured, DenseMetrics) else measured.path)
    if own is None:
        return measured
    test, latency = (own[name] for name in ("test_accuracy", "latency_ms"))
    return replace(
        measured,
        test_accuracy=None if test is None else float(test),
        latency_ms=None if latency is None else float(latency),
    )


def check_spans(spans: Any) -> None:
    """Raise unless these are the times that a trial leaves, or none."""
    if spans is not None and "begin" in spans:
        float(spans["begin"])
        sum(float(seconds) for seconds in spans["seconds"].values())


def trial_spec_of(trial: FrozenTrial) -> TrialSpec | None:
    """The job that a trial carries; None if it was cut short before it was given one."""
    values = trial.user_attrs.get("job")
    return trial_spec_from_json(values) if values else None


def is_duplicate(trial: FrozenTrial) -> bool:
    """True for a policy whose network another trial has made; it was not carried out."""
    return "repeat_of" in trial.user_attrs


def evaluation_of(trial: FrozenTrial) -> Evaluation | None:
    """The evaluation of a finished trial. A repeat has one only where a control made its network:
    a sampled trial's counts once.
    """
    known = is_duplicate(trial) and "evaluation" not in trial.user_attrs
    if trial.state != TrialState.COMPLETE or known:
        return None
    return evaluation_from_json(trial.user_attrs["evaluation"])


def failure_reason(trial: FrozenTrial) -> str | None:
    """The reason of a failed trial."""
    if trial.state != TrialState.FAIL:
        return None
    reason = trial.user_attrs.get("failure")
    return str(reason) if reason else None


def next_attempt(spec: TrialSpec, reason: str) -> TrialSpec | None:
    """What an end of this kind leaves to do, if anything: a stop by the user costs no attempt."""
    if reason == STOPPED_BY_USER:
        return spec
    again = replace(spec, attempt=spec.attempt + 1)
    return again if again.attempt < MAX_ATTEMPTS.get(reason, 1) else None


def latest_attempts(trials: list[FrozenTrial]) -> dict[int | str, tuple[TrialSpec, FrozenTrial]]:
    """The newest trial of all that any was started for, by what it settles."""
    latest = {}
    for trial in trials:
        job = trial_spec_of(trial)
        if job:
            latest[job.plan_key] = (job, trial)
    return latest
