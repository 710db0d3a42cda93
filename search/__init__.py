"""The search: driver, optimizer, Ray execution, storage, results, command line, Python interface.

The package is callable, since `paretoprune.search(model, data, ...)` must work whether or not a
module of this package was imported before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that calls `api.search` if it is called."""

    def __call__(self, model: Any, data: Any, **settings: Any) -> Any:
        """Call `paretoprune.search.api.search`."""
        from .api import search

        return search(model, data, **settings)


sys.modules[__name__].__class__ = CallablePackage
