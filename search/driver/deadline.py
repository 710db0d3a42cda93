"""--max-minutes: when a search is to be over, how it is divided, and what of it has passed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

DENSE = 0.25  # of the minutes: what training the dense network may take


@dataclass(frozen=True, slots=True)
class Deadline:
    """So many minutes from the driver's start; None: no limit."""

    minutes: float | None
    begin: float = field(default_factory=time.monotonic)

    @property
    def ends_at(self) -> float | None:
        """The time (monotonic) at which it is over."""
        return None if self.minutes is None else self.begin + 60 * self.minutes

    def is_share_exceeded(self, share: float) -> bool:
        """Whether this share of the time is up."""
        return self.elapsed_share() > share

    def elapsed_share(self) -> float:
        """The share of the time that is up; 0 without a limit."""
        if self.minutes is None:
            return 0.0
        return (time.monotonic() - self.begin) / 60 / self.minutes

    def late_start_message(self) -> str:
        """What is said before the first trial where half of the time is up by then."""
        passed = self.elapsed_share()
        if self.minutes is None or passed < 0.5:
            return ""
        only = "no more than one, at the target, is begun; " if passed > 1 else ""
        return (
            f"{passed * self.minutes:.3g} of the {self.minutes:g} minutes of --max-minutes are "
            f"over before the first trial: {only}--weights, fewer --ensemble-images, "
            "--allocations global-threshold or --no-screening shorten the beginning"
        )
