"""Who decides: sampling, trials, Ray Tune, the ledger, the command line.

The folder's name is also the library's first verb: `paretoprune.search(model, data, ...)` has to
work whether or not a module of this folder was imported before, so the module can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """This module, with the call of `api.search`."""

    def __call__(self, model: Any, data: Any, **settings: Any) -> Any:
        """See `paretoprune.search.api.search`."""
        from .api import search

        return search(model, data, **settings)


sys.modules[__name__].__class__ = CallablePackage
