"""How far a long measurement is, in lines."""

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
    """The same, but of a measurement that is made in rounds the beginning is said once, and no
    count that is not above those before it: work that is done again counts from the start.
    """
    begun: set[str] = set()
    most: dict[str, int] = {}

    def said(line: str) -> None:
        if line in begun:
            return
        if line.startswith(START_PREFIX):
            begun.add(line)
        elif count := COUNT.fullmatch(line):
            done = int(count["done"].replace(",", ""))
            if done <= most.get(count["what"], 0):
                return
            most[count["what"]] = done
        log(line)

    return said


def progress_logger(log: LogFunction) -> OnMeasurementProgress:
    """Say how far a measurement is: at its start and, if it takes long, every ten seconds.

    The count that is said rises from line to line, up to the total.
    """
    said: dict[str, float] = {}
    most: dict[str, int] = {}

    def tell(what: str, done: int, total: int) -> None:
        kind = what.partition(",")[0]
        now = time.monotonic()
        if kind not in said:
            log(f"{START_PREFIX}{kind}")
        elif now - said[kind] < PROGRESS_INTERVAL_SECONDS or min(done, total) <= most.get(kind, 0):
            return
        else:
            most[kind] = min(done, total)
            log(f"  {what}: {most[kind]:,} of {total:,}")
        said[kind] = now

    return tell
