"""How far a long measurement is, in lines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from ...analysis.measure import OnProgress

Say = Callable[[str], None]

TELL_SECONDS = 10.0
BEGINS = "measuring "
COUNT = re.compile(r"  (?P<what>[^,]+).*: (?P<done>[0-9,]+) of [0-9,]+")


def once(say: Say) -> Say:
    """The same, but of a measurement that is made in rounds the beginning is said once, and no
    count that is not above those before it: work that is done again counts from the start.
    """
    begun: set[str] = set()
    most: dict[str, int] = {}

    def said(line: str) -> None:
        if line in begun:
            return
        if line.startswith(BEGINS):
            begun.add(line)
        elif count := COUNT.fullmatch(line):
            done = int(count["done"].replace(",", ""))
            if done <= most.get(count["what"], 0):
                return
            most[count["what"]] = done
        say(line)

    return said


def telling(say: Say) -> OnProgress:
    """Say how far a measurement is: at its start and, if it takes long, every ten seconds.

    The count that is said rises from line to line, up to the total.
    """
    said: dict[str, float] = {}
    most: dict[str, int] = {}

    def tell(what: str, done: int, total: int) -> None:
        kind = what.partition(",")[0]
        now = time.monotonic()
        if kind not in said:
            say(f"{BEGINS}{kind}")
        elif now - said[kind] < TELL_SECONDS or min(done, total) <= most.get(kind, 0):
            return
        else:
            most[kind] = min(done, total)
            say(f"  {what}: {most[kind]:,} of {total:,}")
        said[kind] = now

    return tell
