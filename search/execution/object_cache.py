"""What a worker process keeps between its tasks and trials: one object at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray

T = TypeVar("T")

_cached: dict[str, Any] = {}


def cached_object(reference: Any, prepare: Callable[[Any], T]) -> T:
    """What `prepare` makes of the object behind the reference, which is fetched once a process."""
    key = reference.hex()
    if key not in _cached:
        _cached.clear()
        _cached[key] = prepare(ray.get(reference))
    found: T = _cached[key]
    return found
