"""Where a run stands: its trials from the journal, its front with what was measured at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optuna.trial import TrialState

from ...analysis.report.report_data import Insights, TrialCounts
from ...spaces.io.bounded_read import read_json
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front, front_from_json
from ..storage.run_folder import RunFolder
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
    """What the journal says; `front` is None before the first finished trial."""

    front: Front | None = None
    trials: tuple[Evaluation, ...] = ()  # the finished sampled ones in the order of their numbers
    finals: tuple[Evaluation, ...] = ()  # what longer fine-tuning made of some of them
    failures: tuple[tuple[str, str], ...] = ()  # name and reason
    counts: TrialCounts = TrialCounts()
    screening: str = ""  # what it was worth


def summarize_run(run: RunFolder) -> RunSummary:
    """The state of a run now; of one without its journal, what front.json holds."""
    record = read_trial_records(run.journal)
    if record is None:
        saved = read_saved_front(run)
        points = saved.points if saved else ()
        return RunSummary(saved, tuple(sorted(points, key=lambda point: point.trial or 0)))
    front, figures = record.front(), record.final_metrics
    finals = [e for e in record.evaluations_of("finals") if e.trial is not None]
    return RunSummary(
        front=front,
        trials=tuple(with_test_metrics(e, figures) for e in record.evaluations_of("search")),
        finals=tuple(with_test_metrics(e, figures) for e in finals),
        failures=tuple(
            (trial_title(folder), reason) for folder, reason in record.failures().items()
        ),
        counts=count_trials(record),
        screening=describe_screening(record, front) if front else "",
    )


def count_trials(records: TrialRecords) -> TrialCounts:
    """How many trials are over and how, longer fine-tunes included."""
    trials = [trial for study in STUDY_NAMES for trial in records.trials(study)]
    return TrialCounts(
        settled=records.count_settled(),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        stopped=records.count_stopped(),
        repeats=records.count_duplicates(),
        finals=len(records.trials("finals")),
    )


def run_insights(state: RunSummary) -> Insights:
    """What mattered in a run, as far as it has come: of its sampled trials, trained alike."""
    numbers = {point.trial for point in state.front.points} if state.front else set()
    found = compute_insights(state.trials, [e for e in state.trials if e.trial in numbers])
    return replace(found, stopped=state.counts.stopped, screening=state.screening)


def read_saved_front(run: RunFolder) -> Front | None:
    """front.json, if it is there and whole: it is derived, and the journal is the truth."""
    try:
        return front_from_json(read_json(run.front))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
