"""How far a long measurement is, in lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..analysis.gathering import OnProgress

Say = Callable[[str], None]

TELL_SECONDS = 10.0
BEGINS = "measuring "


def once(say: Say) -> Say:
    """The same, but of a measurement that is made in rounds the beginning is said once."""
    begun: set[str] = set()

    def said(line: str) -> None:
        if line not in begun:
            say(line)
        if line.startswith(BEGINS):
            begun.add(line)

    return said


def telling(say: Say) -> OnProgress:
    """Say how far a measurement is: at its start and, if it takes long, every ten seconds."""
    said: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:
        kind = what.partition(",")[0]
        now = time.monotonic()
        if kind not in said:
            say(f"{BEGINS}{kind}")
        elif now - said[kind] < TELL_SECONDS:
            return
        else:
            say(f"  {what}: {done:,} of {total:,}")
        said[kind] = now

    return tell
