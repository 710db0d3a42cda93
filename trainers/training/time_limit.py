"""Train within a time limit: the schedule is shortened to the steps that fit, not interrupted.

The pace is measured from the first report. At every later report, the length of the schedule
becomes the number of steps that fit into the remaining time, at most the requested number. So the
learning rate always falls to its final value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .loop import TrainingProgress
from .session import TrainingSession

MIN_STEPS = 8  # trained in any case
REPORTS_PER_EPOCH = 8

OnReport = Callable[[TrainingProgress], bool]


def within(session: TrainingSession, seconds: float, on_report: OnReport) -> OnReport:
    """Prepare a session for a time limit, and return the report callback for `run_session`."""
    requested_steps = session.total_steps
    first: TrainingProgress | None = None
    session.tuning = replace(session.tuning, reports=report_points(session))

    def report(progress: TrainingProgress) -> bool:
        nonlocal first
        if first is None:
            first = progress
        else:
            pace = (progress.seconds - first.seconds) / (progress.step - first.step)
            session.total_steps = planned_steps(progress, pace, seconds, requested_steps)
        return on_report(replace(progress, steps=session.total_steps))

    return report


def report_points(session: TrainingSession) -> tuple[float, ...]:
    """Epochs with a report: eight per epoch, and in the first one after 1, 2, 4, ... steps."""
    per_epoch = session.steps_per_epoch
    early = [2**power / per_epoch for power in range(per_epoch.bit_length())]
    count = round(REPORTS_PER_EPOCH * session.tuning.epochs)
    regular = [index / REPORTS_PER_EPOCH for index in range(1, count + 1)]
    return (*early, *regular)


def planned_steps(
    progress: TrainingProgress, pace: float, seconds: float, requested_steps: int
) -> int:
    """The length of the schedule that fits into `seconds` at `pace` seconds per step."""
    left = max(0.0, seconds - progress.seconds)
    fitting = progress.step + int(min(left / max(pace, 1e-9), requested_steps))
    return min(max(fitting, MIN_STEPS), requested_steps)
