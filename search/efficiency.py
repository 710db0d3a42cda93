"""How busy the workers were, from the spans that the trials left in the ledger.

    efficiency = seconds inside model compute / (workers * (last end - first begin))

Compute is the trial's schedule, training and evaluation; saving, reporting, waiting for a job and
the start of a worker are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .reading import STUDIES, Record

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


def efficiency_of(record: Record, workers: int, since: float = 0.0) -> Efficiency | None:
    """Of the trials begun after `since` (seconds since the epoch); None if there were none."""
    trials = (trial for study in STUDIES for trial in record.trials(study))
    kept = (trial.user_attrs.get("spans", trial.user_attrs.get("stopped")) for trial in trials)
    return efficiency(
        (spans for spans in kept if spans and spans.get("begin", 0.0) >= since), workers
    )


def efficiency(spans: Iterable[Mapping[str, Any]], workers: int) -> Efficiency | None:
    """Of the trials with these spans: when each began, and its seconds by what was done."""
    found = [(float(one["begin"]), one["seconds"]) for one in spans if "begin" in one]
    if not found:
        return None
    begin = min(begin for begin, _ in found)
    wall = max(begin + sum(seconds.values()) for begin, seconds in found) - begin
    compute = sum(seconds.get(name, 0.0) for _, seconds in found for name in COMPUTE)
    return Efficiency(workers, wall, compute) if wall > 0 else None
