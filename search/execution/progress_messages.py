"""Log lines about the progress of long measurements."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from ...analysis.measure import OnMeasurementProgress

LogFunction = Callable[[str], None]

PROGRESS_INTERVAL_SECONDS = 10.0
START_PREFIX = "measuring "
COUNT = re.compile(r"  (?P<what>[^,]+).*: (?P<done>[0-9,]+) of [0-9,]+")


def log_starts_once(log: LogFunction) -> LogFunction:
    """Wrap a logger so that each measurement starts once and its count only rises.

    Workers that share a measurement, or repeat it, each report a start and counts of their own.
    """
    started: set[str] = set()
    most: dict[str, int] = {}

    def log_new(line: str) -> None:
        if line in started:
            return
        if line.startswith(START_PREFIX):
            started.add(line)
        elif count := COUNT.fullmatch(line):
            done = int(count["done"].replace(",", ""))
            if done <= most.get(count["what"], 0):
                return
            most[count["what"]] = done
        log(line)

    return log_new


def progress_logger(log: LogFunction) -> OnMeasurementProgress:
    """Return a progress callback that logs the start and then a count every ten seconds.

    The logged count rises from line to line, up to the total.
    """
    logged_at: dict[str, float] = {}
    most: dict[str, int] = {}

    def on_progress(what: str, done: int, total: int) -> None:
        kind = what.partition(",")[0]
        now = time.monotonic()
        if kind not in logged_at:
            log(f"{START_PREFIX}{kind}")
        elif now - logged_at[kind] < PROGRESS_INTERVAL_SECONDS or min(done, total) <= most.get(
            kind, 0
        ):
            return
        else:
            most[kind] = min(done, total)
            log(f"  {what}: {most[kind]:,} of {total:,}")
        logged_at[kind] = now

    return on_progress
