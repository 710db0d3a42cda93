"""How busy the workers were, from the spans that the trials left in the ledger.

    efficiency = seconds inside model compute / (workers * (last end - first begin))

Compute is the trial's schedule, training and evaluation; saving, reporting, waiting for a job and
the start of a worker are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..storage.trial_records import STUDIES, Record

WORK = ("data", "dense", "evidence", "screening")  # of a search before its first trial
COMPUTE = ("schedule", "training", "evaluation", "until_rung")


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What the workers made of their time."""

    workers: int
    wall: float  # seconds from the first begin to the last end
    compute: float  # seconds of all workers together

    @property
    def share(self) -> float:
        """Of the workers' time, the part inside model compute."""
        return self.compute / (self.workers * self.wall)

    def sentence(self) -> str:
        """One line for the terminal."""
        return (
            f"model compute took {self.share:.0%} of the time of {self.workers} workers "
            f"in {self.wall:.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Start:
    """How long the first trial of a launch was waited for."""

    seconds: float  # from the driver's start to the first trial's
    work: float  # of them: data, dense training, evidence, screening


def start_of(record: Record, since: float) -> Start | None:
    """Of the launch whose trials began after `since`; None if there were none."""
    kept = record.study("search").user_attrs.get("start")
    begins = [one["begin"] for one in spans_of(record, since)]
    if kept is None or not begins:
        return None
    work = sum(kept["seconds"].get(name, 0.0) for name in WORK)
    return Start(min(begins) - kept["begin"], work)


def efficiency_of(record: Record, workers: int, since: float = 0.0) -> Efficiency | None:
    """Of the trials begun after `since` (seconds since the epoch); None if there were none."""
    return efficiency(spans_of(record, since), workers)


def spans_of(record: Record, since: float) -> list[Mapping[str, Any]]:
    """Of the trials begun after `since`, finished or stopped on their way."""
    trials = (trial for study in STUDIES for trial in record.trials(study))
    kept = (trial.user_attrs.get("spans", trial.user_attrs.get("stopped")) for trial in trials)
    return [spans for spans in kept if spans and spans.get("begin", -1.0) >= since]


def efficiency(spans: Iterable[Mapping[str, Any]], workers: int) -> Efficiency | None:
    """Of the trials with these spans: when each began, and its seconds by what was done."""
    found = [(float(one["begin"]), one["seconds"]) for one in spans if "begin" in one]
    if not found:
        return None
    begin = min(begin for begin, _ in found)
    wall = max(begin + sum(seconds.values()) for begin, seconds in found) - begin
    compute = sum(seconds.get(name, 0.0) for _, seconds in found for name in COMPUTE)
    return Efficiency(workers, wall, compute) if wall > 0 else None
