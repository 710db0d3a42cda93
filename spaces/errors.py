"""The error that a user can correct: one sentence with the rule, the value and the remedy.

Code writes messages with command-line options, `--target-flops 0.4`. The command line prints them
unchanged; in Python they show the keyword argument instead, `target_flops=0.4`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

VALUE = r"(?:[^\s;,()]|,(?=[\dA-Z]))+"
OPTION = re.compile(
    rf"(?:paretoprune search )?--resume (?P<run>{VALUE})"
    r"|(?P<command>\b(?:paretoprune|ray|torchrun) [a-z].*?(?=[,;)]| and |$))"
    rf"|(?<![\w/.'\"-])--(?P<off>no-)?(?P<name>[a-z]+(?:-[a-z]+)*)(?: (?P<value>{VALUE}))?"
)
NUMBERS = re.compile(r"[\d.]+(,[\d.]+)*")
PLACEHOLDER = re.compile(r"[A-Z]+(,[A-Z]+)*")
MODEL_PLACEHOLDER = "module:function"  # Python callers pass the network itself
VALUE_WORDS = ("all", "dynamic", "latency", "onnx", "torch")  # values that look like prose
_shown_as_options = [False]


class UserError(ValueError):
    """An error in what the user gave; the message states the rule, the value and a remedy.

    The message is written with command-line options; in Python it shows keyword arguments. The
    command line prints it as one line without a traceback and exits with code 2.

    Example:
        >>> raise UserError("--target-flops must be in (0, 1], got 40; write 0.4")
        Traceback (most recent call last):
        UserError: target_flops must be in (0, 1], got 40; write 0.4
    """

    def __str__(self) -> str:
        return as_called(super().__str__())


@contextmanager
def on_command_line() -> Iterator[None]:
    """Show messages with command-line options inside this context."""
    _shown_as_options.append(True)
    try:
        yield
    finally:
        _shown_as_options.pop()


def as_called(message: str) -> str:
    """Return a message as the caller writes it: with options, or with Python arguments."""
    return message if _shown_as_options[-1] else with_arguments(message)


def with_arguments(message: str) -> str:
    """Replace options in a message by Python arguments, which are also the keys of sweep files."""
    return OPTION.sub(argument, message)


def argument(found: re.Match[str]) -> str:
    """Return the Python form of one matched option and its value; commands stay unchanged."""
    if found["command"]:
        return found["command"]
    if found["run"]:
        return f"paretoprune.resume({literal(found['run'])})"
    name, value = found["name"].replace("-", "_"), found["value"]
    if found["off"]:
        return f"{name}=False" + (f" {value}" if value else "")
    if value is None:
        return name
    bare = value.rstrip(".:")
    if bare in VALUE_WORDS or re.search(r"[\dA-Z/:.\-_]", bare):
        return f"{name}={literal(bare)}{value.removeprefix(bare)}"
    return f"{name} {value}"


def literal(value: str) -> str:
    """Return a value as a Python literal; placeholders such as FILE stay unchanged."""
    if value == MODEL_PLACEHOLDER:
        return "NETWORK"
    if NUMBERS.fullmatch(value) or PLACEHOLDER.fullmatch(value):
        return f"({value.replace(',', ', ')})" if "," in value else value
    return repr(value)
