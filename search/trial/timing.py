"""Where the time of a trial, or of a search before its trials, goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Timer:
    """Where the time goes, from note to note."""

    def __init__(self) -> None:
        self.begin, self._last = time.time(), time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, what: str) -> None:
        """The time since the last note was spent on this."""
        now = time.perf_counter()
        self.seconds[what] = round(self.seconds.get(what, 0.0) + now - self._last, 4)
        self._last = now

    @contextmanager
    def separately(self, what: str) -> Iterator[None]:
        """Count the block for itself: not to what is noted next."""
        begin, before = time.perf_counter(), self.seconds.get(what, 0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - begin
            self.seconds[what] = round(before + took, 4)
            self._last += took

    def spans(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return {"begin": self.begin, "seconds": self.seconds}
