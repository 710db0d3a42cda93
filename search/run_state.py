"""Where a run stands: its trials from the journal, its front with what was measured at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from optuna.trial import TrialState

from ..analysis.report.record import Insights
from ..spaces.evaluation import Evaluation
from ..spaces.front import Dense, Front, front_from_json, non_dominated
from .insights import what_mattered
from .reading import evaluations_in, failures_in, front_in, studies_in
from .run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class RunState:
    """What the journal says; `front` is None before the first finished trial."""

    front: Front | None = None
    trials: tuple[Evaluation, ...] = ()  # the finished ones in the order of their numbers
    failures: tuple[tuple[str, str], ...] = ()  # name and reason
    running: int = 0


def state_of(run: RunFolder) -> RunState:
    """The state of a run now; of one without its journal, what front.json holds."""
    saved, fresh, studies = saved_front(run), front_in(run.journal), studies_in(run.journal)
    if studies is None:
        points = saved.points if saved else ()
        return RunState(saved, tuple(sorted(points, key=lambda point: point.trial or 0)))
    both = [trial for study in studies for trial in study.get_trials(deepcopy=False)]
    failures = {**failures_in(studies[0]), **failures_in(studies[1])}
    return RunState(
        front=with_measured(fresh, saved) if fresh and saved else fresh,
        trials=tuple(measured(e, saved) for e in evaluations_in(studies[0])),
        failures=tuple((named(folder), reason) for folder, reason in failures.items()),
        running=sum(trial.state == TrialState.RUNNING for trial in both),
    )


def insights_of(state: RunState) -> Insights:
    """What mattered in a run, as far as it has come."""
    front = state.front.points if state.front else non_dominated(state.trials)
    return what_mattered(state.trials, front)


def named(folder: str) -> str:
    """What a trial with this folder is called."""
    is_control = folder.startswith("control-")
    return folder.replace("-", " ", 1) if is_control else f"trial {folder}"


def saved_front(run: RunFolder) -> Front | None:
    """front.json, if it is there and whole: it is derived, and the journal is the truth."""
    try:
        return front_from_json(json.loads(run.front.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def with_measured(fresh: Front, saved: Front) -> Front:
    """The front of the journal with the test figures and latencies of front.json."""
    return replace(
        fresh,
        dense=measured_dense(fresh.dense, saved.dense),
        points=tuple(measured(point, saved) for point in fresh.points),
        at_target=measured(fresh.at_target, saved) if fresh.at_target else None,
        controls={name: measured(point, saved) for name, point in fresh.controls.items()},
    )


def measured(point: Evaluation, saved: Front | None) -> Evaluation:
    """The point with what was measured of it at the end of the search."""
    if saved is None:
        return point
    answer = (saved.at_target,) if saved.at_target else ()
    for twin in (*saved.points, *answer, *saved.controls.values()):
        if (twin.path, twin.macs) == (point.path, point.macs):
            return replace(point, test_accuracy=twin.test_accuracy, latency_ms=twin.latency_ms)
    return point


def measured_dense(fresh: Dense, saved: Dense) -> Dense:
    """The same of the dense network."""
    return replace(fresh, test_accuracy=saved.test_accuracy, latency_ms=saved.latency_ms)
