"""The command line `paretoprune`. Each command imports what it needs, so that --help is fast.

A user's mistake ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ...spaces.errors import UserError, on_command_line
from ...spaces.version import VERSION
from ..config.errors import DiskFullError, WorkersDiedError, is_disk_full
from .deploy_commands import add_deploy_commands
from .model_commands import add_model_commands
from .options import LIST_OPTION_TYPES
from .report_commands import add_report_commands
from .search_commands import add_search_commands

PATH_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
MAX_PATH_SHOWN = 200  # characters of a path in a message

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Search pruning policies for the Pareto front of accuracy against FLOPs and parameters. "
    "FLOPs are MACs: multiply-adds of convolutions and linear layers, as the papers count them.",
)


def print_version(requested: bool) -> None:
    """Print the version and exit if --version is given."""
    if requested:
        print(f"paretoprune {VERSION}")
        raise typer.Exit()


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version", is_eager=True, callback=print_version, help="Print the version and exit."
    ),
]


@app.callback()
def program(version: VersionOption = False) -> None:
    """Declare the options of the program itself; its help text is in `app`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its exit code; print an error as one line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with on_command_line():
        code = exit_code(words)
    sys.stdout.flush()
    sys.exit(code)


def exit_code(words: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    code = 0
    try:
        refuse_repeated_options(words)
        code = app(list(words), standalone_mode=False) or 0
    except UserError as error:
        code = print_error(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = report_error(error, words)
    return code


def refuse_repeated_options(words: Sequence[str]) -> None:
    """Refuse an option that occurs twice: the parser silently uses the last value."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    for name in dict.fromkeys(names):
        count = names.count(name)
        if count > 1 and name[2:] not in LIST_OPTION_TYPES:
            raise UserError(
                f"{name} must be given once, got it {count} times; leave out all but one"
            )


def report_error(error: Exception, words: Sequence[str]) -> int:
    """Print a known error as one line and return the exit code; raise any other error."""
    if isinstance(error, (DiskFullError, WorkersDiedError)):
        return print_error(str(error), 1)
    if is_disk_full(error):
        return print_error(f"the disk is full ({error}); free some space, then try again", 1)
    if isinstance(error, OSError) and error.errno in PATH_ERRNOS:
        return print_error(path_error_message(error), 2)
    message = getattr(error, "format_message", None)
    if message is None:
        raise error
    text = f"{message().rstrip('. ')}{offending_value(words, error)}"
    return print_error(f"{text}; see {command_with_help(words)} --help", 2)


def path_error_message(error: OSError) -> str:
    """Return the error message for a path that the user may not access."""
    path = str(error.filename)
    path = path if len(path) <= MAX_PATH_SHOWN else f"{path[:MAX_PATH_SHOWN]}..."
    return (
        f"a path must be accessible to you, got {path} ({error.strerror}); change its "
        "permissions, or use another path"
    )


def offending_value(words: Sequence[str], error: Exception) -> str:
    """Return what the user wrote for the option of a parser error, as a part of the message."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            return f", got {value if equals else after!r}"
    return ""


def command_with_help(words: Sequence[str]) -> str:
    """Return the command whose help describes the words."""
    known = {command.name for command in app.registered_commands}
    return " ".join(["paretoprune", *(word for word in words[:1] if word in known)])


def print_error(text: str, code: int) -> int:
    """Print a text as one line on stderr and return the exit code."""
    print(" ".join(text.split()), file=sys.stderr)
    return code


add_search_commands(app)
add_report_commands(app)
add_deploy_commands(app)
add_model_commands(app)


if __name__ == "__main__":
    main()
