"""Write docs/reference from the code: `python docs/building/reference.py`, or `make docs`.

The pages are kept in the repository, so that they can be read there; a test compares them with
what this program would write.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

import paretoprune
from paretoprune.search.api import search
from paretoprune.search.cli.app import app
from paretoprune.search.config.settings import SearchSettings

HOME = Path(__file__).parent.parent / "reference"
NOTE = "<!-- Written by docs/building/reference.py from the code; do not edit. -->"
EXITS = (
    "A user's mistake is one line on stderr and exit code 2. A command that a signal has ended "
    "exits with 128 and the signal's number: 130 after Ctrl-C."
)
FIRST = ("search", "Result", "Picked", "resume", "load", "prune", "Policy", "finetune", "Shipped")
KINDS = {bool: "", str: "text", int: "whole number", float: "number", Path: "path"}


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    return {"commands.md": commands_page(), "python.md": python_page()}


def commands_page() -> str:
    """Every command with its arguments and options."""
    text = [f"# Commands\n{NOTE}\n\n{cleaned(app.info.help)}\n\n{EXITS}\n"]
    for command in app.registered_commands:
        assert command.callback is not None
        text.append(f"## paretoprune {command.name}\n\n{doc_of(command.callback)}\n")
        text.append(table_of(command.callback))
    return "\n".join(text)


def table_of(command: Any) -> str:
    """A command's parameters as a table."""
    rows = ["| option | value | default | |", "|---|---|---|---|"]
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if parameter.annotation is typer.Context:
            continue
        kind, info = get_args(parameter.annotation)
        cells = (words_of(name, kind, info), kind_of(kind), default_of(parameter, kind), info.help)
        rows.append("| " + " | ".join(cleaned(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def words_of(name: str, kind: Any, info: Any) -> str:
    """What a user types for a parameter."""
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{info.metavar or name.upper()}`"
    declared = [info.default, *(info.param_decls or ()), f"--{name}"]
    written = next(word for word in declared if str(word).startswith("--"))
    return ", ".join(f"`{word}`" for word in written.replace("_", "-").split("/"))


def kind_of(kind: Any) -> str:
    """What kind of value it takes."""
    if get_origin(kind) is list:
        return f"{kind_of(get_args(kind)[0])}, repeatable"
    kinds = [one for one in get_args(kind) or (kind,) if one is not type(None)]
    if kinds[0] is list or get_origin(kinds[0]) is list:
        return kind_of(kinds[0])
    return KINDS[kinds[0]]


def default_of(parameter: inspect.Parameter, kind: Any) -> str:
    """The default, where there is one to show."""
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "required"
    if kind is bool:
        return "on" if value else ""
    return "" if value in (None, "", []) else f"`{value}`"


def python_page() -> str:
    """Every public name with its signature, its docstring and its public members."""
    text = [
        f"# Python\n{NOTE}\n\n`import paretoprune as pp` imports nothing heavy: names are looked "
        "up on first use. User errors are `pp.UserError`, one line that says the rule, the value "
        "and the remedy.\n"
    ]
    for name in (*FIRST, *(name for name in paretoprune.__all__ if name not in FIRST)):
        found = search if name == "search" else getattr(paretoprune, name)
        text += list(class_section(name, found) if inspect.isclass(found) else [section(found)])
        if name == "search":
            text.append(settings_table())
    return "\n".join(text)


def section(function: Any, name: str | None = None, level: int = 2) -> str:
    """A function: heading, signature, docstring."""
    name = name or f"pp.{function.__name__}"
    return f"{'#' * level} {name}\n\n{signature_of(name, function)}\n\n{doc_of(function)}\n"


def signature_of(name: str, function: Any) -> str:
    """The call as code, without `self`."""
    found = inspect.signature(function)
    kept = [
        p.replace(annotation=Written(p.annotation))
        for p in found.parameters.values()
        if p.name != "self"
    ]
    returned = Written(found.return_annotation)
    text = f"{name}{found.replace(parameters=kept, return_annotation=returned)}"
    return "\n".join(f"    {line}" for line in folded(text))


class Written(str):
    """An annotation as its source has it, without quotes."""

    def __repr__(self) -> str:
        return str(self)


def folded(text: str) -> Iterator[str]:
    """A long signature, one parameter a line."""
    if len(text) <= 90 or "(" not in text:
        yield text
        return
    head, _, rest = text.partition("(")
    inner, _, tail = rest.rpartition(")")
    yield f"{head}("
    depth, line = 0, ""
    for letter in inner:
        depth += (letter in "[(") - (letter in "])")
        line += letter
        if letter == "," and depth == 0:
            yield f"    {line.strip()}"
            line = ""
    yield f"    {line.strip()},"
    yield f"){tail}"


def class_section(name: str, found: type) -> Iterator[str]:
    """A class: its docstring, its fields, its public methods and properties."""
    yield f"## pp.{name}\n\n{doc_of(found)}\n"
    if dataclasses.is_dataclass(found):
        yield fields_table(found)
    for member, value in vars(found).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"### {name}.{member}\n\n{doc_of(value)}\n"
        elif inspect.isfunction(value):
            yield section(value, f"{name}.{member}", 3)


def fields_table(record: Any) -> str:
    """A record's fields; what a comment beside a field says is its meaning."""
    comments = comments_in(record)
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(record):
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        kind = str(field.type).replace("|", "\\|")
        rows.append(f"| `{field.name}` | `{kind}` | {default} | {comments.get(field.name, '')} |")
    return "\n".join(rows) + "\n"


def comments_in(record: type) -> dict[str, str]:
    """The comment after each field in the source of a record."""
    found = {}
    for line in inspect.getsource(record).splitlines():
        name, colon, rest = line.strip().partition(":")
        if colon and "  # " in rest:
            found[name] = rest.partition("  # ")[2].replace("|", "\\|")
    return found


def settings_table() -> str:
    """The settings of a search, which are the options of the command."""
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(SearchSettings):
        kind = str(field.type).replace("|", "\\|")
        default, text = f"`{field.default!r}`", cleaned(field.metadata["help"])
        rows.append(f"| `{field.name}` | `{kind}` | {default} | {text} |")
    return "\n".join(rows) + "\n"


def doc_of(found: Any) -> str:
    """A docstring as it stands."""
    return inspect.getdoc(found) or ""


def cleaned(text: str | None) -> str:
    """A help text on one line; names in capitals such as DIR are no HTML tags."""
    return " ".join((text or "").split()).replace("<", "&lt;").replace("|", "\\|")


def write() -> None:
    """Bring the files up to date."""
    HOME.mkdir(exist_ok=True)
    for name, text in pages().items():
        (HOME / name).write_text(text)


if __name__ == "__main__":
    write()
