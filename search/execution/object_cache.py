"""A worker process keeps one large object between its tasks and trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import ray

from ..optimizer.plugins import Plugin, load_plugins

T = TypeVar("T")


class HasPlugins(Protocol):
    """An object that names the plugins of its run."""

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Plugins to load before the object is used."""
        ...


P = TypeVar("P", bound=HasPlugins)

_cached: dict[str, Any] = {}


def cached_object(reference: Any, prepare: Callable[[Any], T]) -> T:
    """Fetch the object behind a reference and prepare it, once in a process."""
    key = reference.hex()
    if key not in _cached:
        _cached.clear()
        _cached[key] = prepare(ray.get(reference))
    found: T = _cached[key]
    return found


def with_plugins_loaded(holder: P) -> P:
    """Load the plugins that the object names, and return the object."""
    load_plugins(holder.plugins)
    return holder
