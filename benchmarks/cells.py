"""Results that grow cell by cell: kill a benchmark and run it again, only what is missing is done.

A cell has a name and a function that measures it. The JSON says which cells are still missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from paretoprune.spaces.io.atomic_write import write_json_atomic

Cell = Callable[[], dict[str, Any]]


class Unavailable(Exception):
    """A cell cannot be measured here; the text says what it lacks. It stays missing."""


def named(option: str, text: str, known: Iterable[str]) -> list[str]:
    """The names in a comma-separated text; whoever asks for one that is not known is told."""
    names, allowed = text.split(","), list(known)
    if not set(names) <= set(allowed):
        raise SystemExit(f"{option} must be some of {', '.join(allowed)}, got {text!r}")
    return names


def fill(
    out: Path,
    about: Mapping[str, Any],
    cells: Mapping[str, Cell],
    *,
    max_seconds: float | None = None,
    only: Container[str] | None = None,
) -> dict[str, Any]:
    """Measure the cells that `out` lacks, in order, and write it after each of them.

    `only` are the cells to measure now; default: all. `about` says what was measured on what; a
    file about something else is begun anew.
    """
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    about = json.loads(json.dumps({"schema": 1, **about}))
    if {name: found.get(name) for name in about} != about:
        found = {**about, "cells": {}}
    begin = time.monotonic()
    found["missing"] = [name for name in cells if name not in found["cells"]]
    for name, measure in cells.items():
        if name in found["cells"] or (only is not None and name not in only):
            continue
        if max_seconds is not None and time.monotonic() - begin > max_seconds:
            break
        start = time.monotonic()
        try:
            result = measure()
        except Unavailable as lack:
            print(f"{name:60} skipped: {lack}", flush=True)
            continue
        found["cells"][name] = {**result, "seconds": round(time.monotonic() - start, 1)}
        print(f"{name:60} {found['cells'][name]}", flush=True)
        found["missing"] = [name for name in cells if name not in found["cells"]]
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(out, found)
    return found
