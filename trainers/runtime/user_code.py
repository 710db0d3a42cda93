"""Import a user's `module:function` and call it with the arguments that it accepts."""

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
    """Import the callable `module:name`. The working directory is searched last.

    Args:
        spec: `module:name`.
        what: The option in messages, `model` or `data`.

    Raises:
        UserError: if the module cannot be imported or has no such function.
    """
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"--{what} {spec} must import, got {describe_exception(error)}; fix it"
            ) from error
        raise UserError(
            f"{what} {spec!r} must name an importable module, got {module_name!r} which is not "
            "found; check the spelling or set PYTHONPATH"
        ) from None
    except UserError:
        raise
    except Exception as error:  # a user's file may raise anything
        raise UserError(
            f"--{what} {spec} must import, got {describe_exception(error)}; fix it"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UserError(
            f"{what} {spec!r} must name a function of {module_name!r}, got {attribute!r} which "
            "it does not have; check the spelling"
        )
    return found  # type: ignore[no-any-return]


def call_user_function(spec: str, what: str, offered: Mapping[str, object]) -> Any:
    """Call `module:name` with those `offered` arguments that its signature accepts."""
    function = import_callable(spec, what=what)
    try:
        parameters = inspect.signature(function).parameters
        missing = [p.name for p in parameters.values() if is_required(p) and p.name not in offered]
        if missing:
            raise UserError(
                f"--{what} {spec} may take {', '.join(offered)}, got a parameter {missing[0]!r} "
                "without a default; give it one"
            )
        return function(**{k: v for k, v in offered.items() if k in parameters})
    except UserError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"--{what} {spec} must build, got {describe_exception(error)}; fix it"
        ) from error


def is_required(parameter: inspect.Parameter) -> bool:
    """True if a call must pass a value for the parameter."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variadic


def describe_exception(error: BaseException) -> str:
    """The type, message and line of an exception: the deepest line outside of libraries."""
    if isinstance(error, SyntaxError):
        line = format_code_line(error.filename, error.lineno)
        return f"{type(error).__name__}: {error.msg} ({line})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_library_file(frame.filename)]
    deepest = (own or frames)[-1]
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text} ({format_code_line(deepest.filename, deepest.lineno)})"


def format_code_line(file: str | None, line: int | None) -> str:
    """`FILE:LINE` without the folder."""
    return f"{os.path.basename(file or '?')}:{line}"


def is_library_file(file: str) -> bool:
    """True for files of the standard library and of installed packages."""
    paths = sysconfig.get_paths()
    return file.startswith(("<", *(paths[name] for name in ("stdlib", "purelib", "platlib"))))
