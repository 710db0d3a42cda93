"""`module:name` as a user types it: import the object and call it with what it knows to take."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ...spaces.errors import UserError


def import_callable(spec: str, *, what: str) -> Callable[..., Any]:
    """The callable named by `module:name`; the working directory is searched last."""
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"--{what} {spec} must import, got {describe_exception(error)}; mend it"
            ) from error
        raise UserError(
            f"{what} {spec!r} must name an importable module, got {module_name!r} which is not "
            "found; check the spelling or set PYTHONPATH"
        ) from None
    except UserError:
        raise
    except Exception as error:  # whatever a user's file raises
        raise UserError(
            f"--{what} {spec} must import, got {describe_exception(error)}; mend it"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UserError(
            f"{what} {spec!r} must name a function of {module_name!r}, got {attribute!r} which "
            "it does not have; check the spelling"
        )
    return found  # type: ignore[no-any-return]


def call_user_function(spec: str, what: str, offered: Mapping[str, object]) -> Any:
    """Call what `module:name` names with those offered arguments that its signature takes."""
    function = import_callable(spec, what=what)
    try:
        parameters = inspect.signature(function).parameters
        lacking = [p.name for p in parameters.values() if is_required(p) and p.name not in offered]
        if lacking:
            raise UserError(
                f"--{what} {spec} may take {', '.join(offered)}, got a parameter {lacking[0]!r} "
                "without a default; give it one"
            )
        return function(**{k: v for k, v in offered.items() if k in parameters})
    except UserError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise UserError(
            f"--{what} {spec} must build, got {describe_exception(error)}; mend it"
        ) from error


def is_required(parameter: inspect.Parameter) -> bool:
    """Whether a call must have a value for it."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in several


def describe_exception(error: BaseException) -> str:
    """What was raised and where: the deepest line that is of no installed library."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({format_code_line(error.filename, error.lineno)})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_library_file(frame.filename)]
    deepest = (own or frames)[-1]
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text} ({format_code_line(deepest.filename, deepest.lineno)})"


def format_code_line(file: str | None, line: int | None) -> str:
    """A line of a file."""
    return f"{os.path.basename(file or '?')}:{line}"


def is_library_file(file: str) -> bool:
    """Whether a file is Python's own or an installed package's."""
    paths = sysconfig.get_paths()
    return file.startswith(("<", *(paths[name] for name in ("stdlib", "purelib", "platlib"))))
