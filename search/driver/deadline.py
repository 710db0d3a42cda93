"""--max-minutes: the deadline of a search, and how its time is divided."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

DENSE = 0.25  # share of the minutes for dense training


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time limit in minutes from the driver's start; None means no limit."""

    minutes: float | None
    begin: float = field(default_factory=time.monotonic)

    @property
    def ends_at(self) -> float | None:
        """Monotonic time of the deadline."""
        return None if self.minutes is None else self.begin + 60 * self.minutes

    def is_share_exceeded(self, share: float) -> bool:
        """Return whether more than this share of the time has passed."""
        return self.elapsed_share() > share

    def elapsed_share(self) -> float:
        """Return the share of the time that has passed; 0 without a limit."""
        if self.minutes is None:
            return 0.0
        return (time.monotonic() - self.begin) / 60 / self.minutes

    def late_start_message(self) -> str:
        """Return a warning if half of the time has passed before the first trial, else ''."""
        passed = self.elapsed_share()
        if self.minutes is None or passed < 0.5:
            return ""
        only = "only one trial, at the target, will start; " if passed > 1 else ""
        return (
            f"{passed * self.minutes:.3g} of the {self.minutes:g} minutes of --max-minutes have "
            f"passed before the first trial; {only}--weights, fewer --ensemble-images, "
            "--allocations global-threshold or --no-screening shorten the preparation"
        )
