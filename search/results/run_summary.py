"""The state of a run: its trials from the journal and its front with the final metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from optuna.trial import TrialState

from ...analysis.report.report_data import Insights, TrialCounts
from ...spaces.errors import UserError
from ...spaces.io.bounded_read import read_json
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front, front_from_json
from ..storage.run_folder import RunFolder, open_run
from ..storage.trial_records import (
    STUDY_NAMES,
    TrialRecords,
    read_trial_records,
    with_test_metrics,
)
from ..storage.trial_spec import trial_title
from .importance import compute_insights
from .screening_quality import describe_screening


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The state of a run; `front` is None before the first finished trial."""

    front: Front | None = None
    trials: tuple[Evaluation, ...] = ()  # finished sampled trials, ordered by number
    finals: tuple[Evaluation, ...] = ()  # trials fine-tuned for longer at the end
    failures: tuple[tuple[str, str], ...] = ()  # name and reason
    counts: TrialCounts = TrialCounts()
    screening: str = ""  # one line on the quality of the predictions


def summarize_run(run: RunFolder) -> RunSummary:
    """Return the state of a run from its journal, or from front.json without a journal."""
    records = read_trial_records(run.journal)
    if records is None:
        saved = read_saved_front(run)
        points = saved.points if saved else ()
        return RunSummary(saved, tuple(sorted(points, key=lambda point: point.trial or 0)))
    front, metrics = records.front(), records.final_metrics
    finals = [e for e in records.evaluations_of("finals") if e.trial is not None]
    return RunSummary(
        front=front,
        trials=tuple(with_test_metrics(e, metrics) for e in records.evaluations_of("search")),
        finals=tuple(with_test_metrics(e, metrics) for e in finals),
        failures=tuple(
            (trial_title(folder), reason) for folder, reason in records.failures().items()
        ),
        counts=count_trials(records),
        screening=describe_screening(records, front) if front else "",
    )


def count_trials(records: TrialRecords) -> TrialCounts:
    """Count the trials by state, the final fine-tunes included."""
    trials = [trial for study in STUDY_NAMES for trial in records.trials(study)]
    return TrialCounts(
        settled=records.count_settled(),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        stopped=records.count_stopped(),
        repeats=records.count_duplicates(),
        finals=len(records.trials("finals")),
    )


def run_insights(summary: RunSummary) -> Insights:
    """Compute the insights of a run so far, from its sampled trials, which are trained alike."""
    numbers = {point.trial for point in summary.front.points} if summary.front else set()
    found = compute_insights(summary.trials, [e for e in summary.trials if e.trial in numbers])
    return replace(found, stopped=summary.counts.stopped, screening=summary.screening)


def read_saved_front(run: RunFolder) -> Front | None:
    """Return front.json, or None if it is missing or damaged: it is derived from the journal."""
    try:
        return front_from_json(read_json(run.front))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_run_front(path: Path) -> tuple[RunFolder, Front]:
    """Return the run in a folder and its current front.

    The front comes from the journal, or from front.json if the journal is missing.

    Raises:
        UserError: the folder is no run, or no trial has finished.
    """
    run, _ = open_run(path)
    records = read_trial_records(run.journal)
    if records is not None:
        front = records.front()
    else:
        front = front_from_json(read_json(run.front)) if run.front.exists() else None
    if front is None:
        raise UserError(
            f"a front needs a finished trial, got none in {path}; "
            f"continue with paretoprune search --resume {path}"
        )
    return run, front
