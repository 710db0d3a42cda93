"""`module:name` as a user types it: import the object and call it with what it knows to take."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..spaces.errors import UserError


def load_object(spec: str, *, what: str) -> Callable[..., Any]:
    """The callable named by `module:name`; the working directory is searched last."""
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UserError(
            f"{what} {spec!r} must name an importable module, got {module_name!r} which is not "
            "found; check the spelling or set PYTHONPATH"
        ) from None
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UserError(
            f"{what} {spec!r} must name a function of {module_name!r}, got {attribute!r} which "
            "it does not have; check the spelling"
        )
    return found  # type: ignore[no-any-return]


def call_with_known(function: Callable[..., Any], offered: Mapping[str, object]) -> Any:
    """Call `function` with those offered arguments that its signature names."""
    parameters = inspect.signature(function).parameters
    return function(**{k: v for k, v in offered.items() if k in parameters})
