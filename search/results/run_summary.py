"""Where a run stands: its trials from the journal, its front with what was measured at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optuna.trial import TrialState

from ...analysis.report.report_data import Counts, Insights
from ...spaces.io.bounded_read import read_json
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front, front_from_json
from ..storage.run_folder import RunFolder
from ..storage.trial_records import STUDIES, Record, read_record, with_figures
from ..storage.trial_spec import named
from .importance import what_mattered
from .screening_quality import told_of_screening


@dataclass(frozen=True, slots=True)
class RunState:
    """What the journal says; `front` is None before the first finished trial."""

    front: Front | None = None
    trials: tuple[Evaluation, ...] = ()  # the finished sampled ones in the order of their numbers
    finals: tuple[Evaluation, ...] = ()  # what longer fine-tuning made of some of them
    failures: tuple[tuple[str, str], ...] = ()  # name and reason
    counts: Counts = Counts()
    screening: str = ""  # what it was worth


def state_of(run: RunFolder) -> RunState:
    """The state of a run now; of one without its journal, what front.json holds."""
    record = read_record(run.journal)
    if record is None:
        saved = saved_front(run)
        points = saved.points if saved else ()
        return RunState(saved, tuple(sorted(points, key=lambda point: point.trial or 0)))
    front, figures = record.front(), record.figures
    finals = [e for e in record.evaluations_of("finals") if e.trial is not None]
    return RunState(
        front=front,
        trials=tuple(with_figures(e, figures) for e in record.evaluations_of("search")),
        finals=tuple(with_figures(e, figures) for e in finals),
        failures=tuple((named(folder), reason) for folder, reason in record.failures().items()),
        counts=counts_of(record),
        screening=told_of_screening(record, front) if front else "",
    )


def counts_of(record: Record) -> Counts:
    """How many trials are over and how, longer fine-tunes included."""
    trials = [trial for study in STUDIES for trial in record.trials(study)]
    return Counts(
        settled=record.settled(),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        stopped=record.stopped(),
        repeats=record.repeats(),
        finals=len(record.trials("finals")),
    )


def insights_of(state: RunState) -> Insights:
    """What mattered in a run, as far as it has come: of its sampled trials, trained alike."""
    numbers = {point.trial for point in state.front.points} if state.front else set()
    found = what_mattered(state.trials, [e for e in state.trials if e.trial in numbers])
    return replace(found, stopped=state.counts.stopped, screening=state.screening)


def saved_front(run: RunFolder) -> Front | None:
    """front.json, if it is there and whole: it is derived, and the journal is the truth."""
    try:
        return front_from_json(read_json(run.front))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
