"""The commands that start searches from others: transfer and sweep. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import settings_given, with_settings


def transfer(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an earlier search.")],
    **options: Any,
) -> None:
    """Search another network, or other data, beginning with the policies of RUN's front.

    Those come first, then the papers' presets, then screened and sampled ones as in any search.

    paretoprune transfer runs/small --model resnet56 --data cifar10:DIR --target-flops 0.4
    """
    from .commands import run_search

    raise typer.Exit(run_search(settings_given(context, options), None, like=run))


def add_sweeps(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("transfer")(with_settings(transfer))
