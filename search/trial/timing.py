"""A timer of the phases of a trial, or of a search before its trials."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Timer:
    """Measures the seconds of each phase."""

    def __init__(self) -> None:
        self.begin, self._last = time.time(), time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to this phase."""
        now = time.perf_counter()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 4)
        self._last = now

    @contextmanager
    def separately(self, phase: str) -> Iterator[None]:
        """Add the time of the block to this phase, and not to the next lap."""
        begin, before = time.perf_counter(), self.seconds.get(phase, 0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begin
            self.seconds[phase] = round(before + elapsed, 4)
            self._last += elapsed

    def spans(self) -> dict[str, Any]:
        """Return the times in the format of the trial store."""
        return {"begin": self.begin, "seconds": self.seconds}
