"""The error that a user can mend: one sentence with the rule, the value and the remedy.

A message is written with options, `--target-flops 0.4`. The command line shows it as it is; a call
from Python shows the argument, `target_flops=0.4`.
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
OF_A_NETWORK = "module:function"  # in Python the network itself is passed
WORDS = ("all", "dynamic", "latency", "onnx", "torch")  # values that look like prose
_shown_as_options = [False]


class UserError(ValueError):
    """Shown by the command line as one line, exit code 2, without a traceback."""

    def __str__(self) -> str:
        return as_called(super().__str__())


@contextmanager
def on_command_line() -> Iterator[None]:
    """Within it, messages name options."""
    _shown_as_options.append(True)
    try:
        yield
    finally:
        _shown_as_options.pop()


def as_called(message: str) -> str:
    """A message in the names that the user knows: of options, or of Python's arguments."""
    return message if _shown_as_options[-1] else with_arguments(message)


def with_arguments(message: str) -> str:
    """A message in the names of Python's arguments, which are the keys of a sweep's file too."""
    return OPTION.sub(argument, message)


def argument(found: re.Match[str]) -> str:
    """An option, and its value where one follows, as Python has it; commands stay."""
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
    if bare in WORDS or re.search(r"[\dA-Z/:.\-_]", bare):
        return f"{name}={literal(bare)}{value.removeprefix(bare)}"
    return f"{name} {value}"


def literal(value: str) -> str:
    """A value as Python writes it; placeholders as FILE stay."""
    if value == OF_A_NETWORK:
        return "NETWORK"
    if NUMBERS.fullmatch(value) or PLACEHOLDER.fullmatch(value):
        return f"({value.replace(',', ', ')})" if "," in value else value
    return repr(value)
