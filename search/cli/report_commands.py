"""The commands that show a run: front, report, watch. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ...spaces.errors import UserError

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a search.")]


def front(
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print front.json.")] = False,
) -> None:
    """Show the front of a run as a table, and what mattered."""
    from .handlers import print_front

    print_front(run, as_json=as_json)


def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The page; default: RUN/report.html.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the front into this SVG file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the front into this PNG file.")] = None,
) -> None:
    """Write a run as one HTML page that needs no network; --svg, --png: the front as a figure."""
    from ..results.report_builder import report_command

    for path, ending in ((svg, ".svg"), (png, ".png")):
        if path is not None and path.suffix.lower() != ending:
            name = ending.removeprefix(".")
            raise UserError(f"--{name} must be a file NAME{ending}, got {path}; rename it")
    report_command(run, out, [path for path in (svg, png) if path is not None])


def watch(
    run: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8650,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback are open to anybody.")
    ] = "127.0.0.1",
) -> None:
    """Show a running search as a page in the browser, kept up to date; Ctrl-C ends it."""
    from ..results.report_server import watch_command

    watch_command(run, host, port)


REPORT_COMMANDS: dict[str, Callable[..., None]] = {
    "front": front,
    "report": report,
    "watch": watch,
}
