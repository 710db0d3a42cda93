"""How busy the workers were, from the spans that the trials left in the ledger.

    efficiency = seconds inside model compute / (workers * (last end - first begin))

Compute is the trial's schedule, training and evaluation; saving, reporting, waiting for a job and
the start of a worker are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..storage.trial_records import STUDY_NAMES, TrialRecords

STARTUP_PHASES = ("data", "dense", "evidence", "screening")  # of a search before its first trial
COMPUTE_PHASES = ("schedule", "training", "evaluation", "until_rung")


@dataclass(frozen=True, slots=True)
class WorkerUtilization:
    """What the workers made of their time."""

    workers: int
    wall_seconds: float  # seconds from the first begin to the last end
    compute_seconds: float  # seconds of all workers together

    @property
    def share(self) -> float:
        """Of the workers' time, the part inside model compute."""
        return self.compute_seconds / (self.workers * self.wall_seconds)

    def sentence(self) -> str:
        """One line for the terminal."""
        return (
            f"model compute took {self.share:.0%} of the time of {self.workers} workers "
            f"in {self.wall_seconds:.0f} s"
        )


@dataclass(frozen=True, slots=True)
class StartupTime:
    """How long the first trial of a launch was waited for."""

    seconds: float  # from the driver's start to the first trial's
    work_seconds: float  # of them: data, dense training, evidence, screening


def startup_time(records: TrialRecords, since: float) -> StartupTime | None:
    """Of the launch whose trials began after `since`; None if there were none."""
    kept = records.study("search").user_attrs.get("start")
    begins = [one["begin"] for one in trial_spans(records, since)]
    if kept is None or not begins:
        return None
    work = sum(kept["seconds"].get(name, 0.0) for name in STARTUP_PHASES)
    return StartupTime(min(begins) - kept["begin"], work)


def worker_utilization(
    records: TrialRecords, workers: int, since: float = 0.0
) -> WorkerUtilization | None:
    """Of the trials begun after `since` (seconds since the epoch); None if there were none."""
    return utilization_from_spans(trial_spans(records, since), workers)


def trial_spans(records: TrialRecords, since: float) -> list[Mapping[str, Any]]:
    """Of the trials begun after `since`, finished or stopped on their way."""
    trials = (trial for study in STUDY_NAMES for trial in records.trials(study))
    kept = (trial.user_attrs.get("spans", trial.user_attrs.get("stopped")) for trial in trials)
    return [spans for spans in kept if spans and spans.get("begin", -1.0) >= since]


def utilization_from_spans(
    spans: Iterable[Mapping[str, Any]], workers: int
) -> WorkerUtilization | None:
    """Of the trials with these spans: when each began, and its seconds by what was done."""
    found = [(float(one["begin"]), one["seconds"]) for one in spans if "begin" in one]
    if not found:
        return None
    begin = min(begin for begin, _ in found)
    wall = max(begin + sum(seconds.values()) for begin, seconds in found) - begin
    compute = sum(seconds.get(name, 0.0) for _, seconds in found for name in COMPUTE_PHASES)
    return WorkerUtilization(workers, wall, compute) if wall > 0 else None
