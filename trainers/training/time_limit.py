"""Training within a time: the schedule is planned in as many steps as fit, it is not cut off.

The pace is measured from the first report on. At every report after it, the schedule's length is
set to the steps that fit into the time left, at most those that were asked for. So the learning
rate falls to its end, however slow the machine is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .loop import TrainingProgress
from .session import TrainingSession

LEAST_STEPS = 8  # are trained in any case
PARTS = 8  # reports in an epoch

OnReport = Callable[[TrainingProgress], bool]


def within(session: TrainingSession, seconds: float, on_report: OnReport) -> OnReport:
    """Prepare a session for a run of at most so many seconds; what the run is to report to."""
    asked = session.total_steps
    first: TrainingProgress | None = None
    session.tuning = replace(session.tuning, reports=report_points(session))

    def report(progress: TrainingProgress) -> bool:
        nonlocal first
        if first is None:
            first = progress
        else:
            pace = (progress.seconds - first.seconds) / (progress.step - first.step)
            session.total_steps = steps_planned(progress, pace, seconds, asked)
        return on_report(replace(progress, steps=session.total_steps))

    return report


def report_points(session: TrainingSession) -> tuple[float, ...]:
    """In epochs: after each part of an epoch, and in the first one after 1, 2, 4, ... steps."""
    each = session.steps_per_epoch
    doubled = [2**power / each for power in range(each.bit_length())]
    parts = [part / PARTS for part in range(1, round(PARTS * session.tuning.epochs) + 1)]
    return (*doubled, *parts)


def steps_planned(progress: TrainingProgress, pace: float, seconds: float, asked: int) -> int:
    """How long the schedule is to be at so many seconds a step."""
    left = max(0.0, seconds - progress.seconds)
    fit = progress.step + int(min(left / max(pace, 1e-9), asked))
    return min(max(fit, LEAST_STEPS), asked)
