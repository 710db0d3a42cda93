"""The commands that show a run: front, report, watch. Heavy imports are lazy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...spaces.errors import UserError
from .options import RunArgument


def front(
    run: RunArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the front as JSON, as in front.json.")
    ] = False,
) -> None:
    """Show the front of a run and the settings that mattered."""
    from .handlers import print_front

    print_front(run, as_json=as_json)


def report(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the page to this file. Default: RUN/report.html."),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the front into this SVG file, without a page.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Draw the front into this PNG file, without a page.")
    ] = None,
) -> None:
    """Write a run as one HTML page, or its front as a figure.

    The page is one file that loads nothing from the network.
    """
    from ..results.report_builder import report_command

    for path, suffix in ((svg, ".svg"), (png, ".png")):
        if path is not None and path.suffix.lower() != suffix:
            name = suffix.removeprefix(".")
            raise UserError(f"--{name} must be a file NAME{suffix}, got {path}; rename it")
    report_command(run, out, [path for path in (svg, png) if path is not None])


def watch(
    run: RunArgument,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0: any free one.")
    ] = 8650,
    host: Annotated[
        str,
        typer.Option(
            help="Listen on this address. Anyone who reaches an address other than loopback can "
            "read the run."
        ),
    ] = "127.0.0.1",
) -> None:
    """Show a running search as a live page in the browser.

    Ctrl-C ends the server.
    """
    from ..results.report_server import watch_command

    watch_command(run, host, port)


def add_report_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("front")(front)
    app.command("report")(report)
    app.command("watch")(watch)
