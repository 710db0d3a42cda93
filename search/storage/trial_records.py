"""Read-only view of the trials in Optuna's journal."""

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
# Attempts at one policy, by the reason of the failure; 1 for any other reason.
MAX_ATTEMPTS = {DRIVER_ENDED: 6, WORKER_DIED: 2, OUT_OF_MEMORY: 2}
MetricsByPath = Mapping[str, Mapping[str, Any]]
NO_METRICS: MetricsByPath = {}
DENSE_PATH = ""  # the dense network's key in MetricsByPath
MeasuredT = TypeVar("MeasuredT", Evaluation, DenseMetrics)
STUDY_NAMES = ("search", "controls", "finals")


class TrialRecords:
    """The studies of a journal, and what their trials hold."""

    def __init__(self, studies: dict[str, optuna.Study]) -> None:
        self._studies = studies
        self._read: dict[tuple[str, int], Evaluation] = {}  # finished trials never change

    def check(self) -> None:
        """Parse everything that readers use, so that malformed records raise here."""
        self.front()
        self.rungs()
        self.count_settled()
        self.finished_with_params()
        for study in STUDY_NAMES:
            for trial in self.trials(study):
                for key in ("spans", "stopped"):
                    check_spans(trial.user_attrs.get(key))

    def evaluations(self) -> list[Evaluation]:
        """Finished trials of the search in order, then their longer fine-tunes."""
        finals = [e for e in self.evaluations_of("finals") if e.trial is not None]
        return self.evaluations_of("search") + finals

    def evaluations_of(self, study: str) -> list[Evaluation]:
        """Finished trials of one study, ordered by number."""
        found = []
        for trial in self.trials(study, TrialState.COMPLETE):
            key = (study, trial.number)
            if key not in self._read and (evaluation := evaluation_of(trial)):
                self._read[key] = evaluation
            if key in self._read:
                found.append(self._read[key])
        return found

    def finished_with_params(self) -> list[tuple[Evaluation, dict[str, Any]]]:
        """Finished trials of the search with the Optuna parameters of their policies."""
        params = {t.number: t.params for t in self.trials("search", TrialState.COMPLETE)}
        found = self.evaluations_of("search")
        return [(one, params[one.trial]) for one in found if one.trial is not None]

    def controls(self) -> dict[str, Evaluation]:
        """Finished controls by name; a longer fine-tune replaces the first result."""
        found = [*self.evaluations_of("controls"), *self.evaluations_of("finals")]
        return {e.path.rpartition("control-")[2]: e for e in found if e.trial is None}

    def failures(self) -> dict[str, str]:
        """Reasons of the trials that failed and are not retried, by folder name."""
        reasons = {}
        for study in STUDY_NAMES:
            for spec, trial in latest_attempts(self.trials(study)).values():
                reason = failure_reason(trial)
                if reason and not next_attempt(spec, reason):
                    reasons[spec.folder] = reason
        return reasons

    def count_stopped(self) -> int:
        """Number of trials that halving stopped."""
        return sum(not is_duplicate(trial) for trial in self.trials("search", TrialState.PRUNED))

    def count_duplicates(self) -> int:
        """Number of planned trials that were duplicates of another planned trial."""
        duplicates = [t for t in self.trials("search") if is_duplicate(t) and trial_spec_of(t)]
        return sum(evaluation_of(trial) is None for trial in duplicates)

    def count_settled(self) -> int:
        """Number of planned trials that are over, including controls and longer fine-tunes."""
        finished = sum(len(self.evaluations_of(study)) for study in STUDY_NAMES)
        return finished + len(self.failures()) + self.count_stopped() + self.count_duplicates()

    def rungs(self) -> list[RungResult]:
        """Results at rungs, ordered by the end of their trials."""
        ended = [t for t in self.trials("search") if t.datetime_complete and t.state.is_finished()]
        ended.sort(key=lambda t: t.datetime_complete or datetime.min)
        return [
            RungResult(**values)
            for trial in ended
            for key in ("spans", "stopped")
            for values in trial.user_attrs.get(key, {}).get("rungs", [])
        ]

    def front(self) -> Front | None:
        """Front of the finished trials; None before the first."""
        evaluations, summary = self.evaluations(), self.summary
        if not evaluations or summary is None:
            return None
        return build_front(evaluations, self.controls(), summary, self.final_metrics)

    @property
    def final_metrics(self) -> MetricsByPath:
        """Metrics measured at the end of the search, by path; DENSE_PATH is the dense network."""
        found: MetricsByPath = self._studies["search"].user_attrs.get("figures", NO_METRICS)
        return found

    @property
    def concluded(self) -> int | None:
        """Number of planned trials at the end of the search; None before the end."""
        found: int | None = self._studies["search"].user_attrs.get("concluded")
        return found

    @property
    def summary(self) -> dict[str, Any] | None:
        """Values besides the trials that the front is derived from."""
        found: dict[str, Any] | None = self._studies["search"].user_attrs.get("summary")
        return found

    def study(self, name: str) -> optuna.Study:
        """Return one of the studies."""
        return self._studies[name]

    def trials(self, study: str, *states: TrialState) -> list[FrozenTrial]:
        """Trials of one study in these states (default: all), ordered by number."""
        return self._studies[study].get_trials(deepcopy=False, states=states or None)


def read_trial_records(journal: Path) -> TrialRecords | None:
    """Read a journal; None if no search has started in it."""
    if not journal.exists():
        return None
    silence_optuna()
    open_regular_file(journal, MAX_JOURNAL_BYTES).close()
    with malformed_records_as_user_error(journal):
        storage = journal_storage(journal)
        if not set(STUDY_NAMES) <= set(optuna.get_all_study_names(storage)):
            return None
        records = TrialRecords(
            {n: optuna.load_study(study_name=n, storage=storage) for n in STUDY_NAMES}
        )
        records.check()
    return records


def front_from_journal(journal: Path) -> Front | None:
    """Front of the finished trials in a journal; None before the first."""
    records = read_trial_records(journal)
    return records.front() if records else None


def silence_optuna() -> None:
    """Turn off Optuna's line per trial and its warnings about experimental features."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def build_front(
    evaluations: list[Evaluation],
    controls: dict[str, Evaluation],
    summary: dict[str, Any],
    metrics: MetricsByPath = NO_METRICS,
) -> Front:
    """Build the front of these evaluations.

    If latency is an objective, the final metrics can remove a network from the front: trials are
    timed while others run, final metrics are timed alone. They add none, because the weights of
    networks off the front are deleted.

    Args:
        evaluations: The finished trials.
        controls: The finished controls by name.
        summary: See `TrialRecords.summary`.
        metrics: See `TrialRecords.final_metrics`.

    Returns:
        The front with test metrics where they are known.
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
    """Give a longer fine-tune the latency of its trial, because both are the same network.

    Otherwise the noise of two timings could put both on the front.
    """
    first: dict[int | None, float | None] = {}
    return [
        replace(one, latency_ms=first.setdefault(one.trial, one.latency_ms)) for one in evaluations
    ]


def with_test_metrics(measured: MeasuredT, metrics: MetricsByPath) -> MeasuredT:
    """Return a copy with test accuracy and latency, if they are among the metrics."""
    own = metrics.get(DENSE_PATH if isinstance(measured, DenseMetrics) else measured.path)
    if own is None:
        return measured
    test, latency = own["test_accuracy"], own["latency_ms"]
    return replace(
        measured,
        test_accuracy=None if test is None else float(test),
        latency_ms=None if latency is None else float(latency),
    )


def check_spans(spans: Any) -> None:
    """Raise if these are not the times of a trial's phases."""
    if spans is not None and "begin" in spans:
        float(spans["begin"])
        sum(float(seconds) for seconds in spans["seconds"].values())


def trial_spec_of(trial: FrozenTrial) -> TrialSpec | None:
    """The spec of a trial; None if the trial ended before it got one."""
    values = trial.user_attrs.get("job")
    return trial_spec_from_json(values) if values else None


def is_duplicate(trial: FrozenTrial) -> bool:
    """Whether the trial was not run because another trial produces the same network."""
    return "repeat_of" in trial.user_attrs


def evaluation_of(trial: FrozenTrial) -> Evaluation | None:
    """The evaluation of a finished trial; None for others.

    A duplicate has one only if a control produced its network: networks of the search count once.
    """
    counted_elsewhere = is_duplicate(trial) and "evaluation" not in trial.user_attrs
    if trial.state != TrialState.COMPLETE or counted_elsewhere:
        return None
    return evaluation_from_json(trial.user_attrs["evaluation"])


def failure_reason(trial: FrozenTrial) -> str | None:
    """The reason of a failed trial; None for others."""
    if trial.state != TrialState.FAIL:
        return None
    reason = trial.user_attrs.get("failure")
    return str(reason) if reason else None


def next_attempt(spec: TrialSpec, reason: str) -> TrialSpec | None:
    """The spec of the retry after a failure, or None. A stop by the user uses up no attempt."""
    if reason == STOPPED_BY_USER:
        return spec
    retry = replace(spec, attempt=spec.attempt + 1)
    return retry if retry.attempt < MAX_ATTEMPTS.get(reason, 1) else None


def latest_attempts(trials: list[FrozenTrial]) -> dict[int | str, tuple[TrialSpec, FrozenTrial]]:
    """The newest attempt of each planned trial, by `TrialSpec.plan_key`."""
    latest = {}
    for trial in trials:
        spec = trial_spec_of(trial)
        if spec:
            latest[spec.plan_key] = (spec, trial)
    return latest
