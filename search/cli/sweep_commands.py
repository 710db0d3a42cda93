"""The commands that start searches from others: transfer and sweep. Nothing heavy is imported."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import add_settings_options, settings_set_by_user


def transfer(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an earlier search.")],
    **options: Any,
) -> None:
    """Search another network, or other data, beginning with the policies of RUN's front.

    Those come first, then the papers' presets, then others, as in any search.

    paretoprune transfer runs/small --model resnet56 --data cifar10:DIR --target-flops 0.4
    """
    from .handlers import run_search

    raise typer.Exit(run_search(settings_set_by_user(context, options), None, like=run))


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to search.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder of the runs; default: runs/sweep-FILE.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the list of runs only.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the table only.")] = False,
) -> None:
    """Search models x data x targets on one Ray, a run folder each; again to go on after a stop.

    \b
    models  = ["resnet20", {model = "resnet56", weights = "r56.safetensors"}]
    data    = ["cifar10:DIR"]
    targets = [0.6, 0.4, {target_flops = "50M", target_params = 0.5}]
    seeds   = [0, 1]                        # may be left out, as each list may
    \b
    [search]                                # options of paretoprune search, for all runs
    trials = 50
    \b
    [[override]]                            # for those runs that match
    match = {model = "resnet56", target_flops = 0.4}
    trials = 100

    Runs of the same model, data and seed train and measure the dense network once.
    Exit code 1 if a run failed; the others go on. docs/sweeps.md says more.
    """
    from ..sweep.config import read_sweep_file

    entries = read_sweep_file(file)  # a wrong file is told before torch is imported
    from ..sweep.runner import sweep_command

    root = out or Path("runs") / f"sweep-{file.stem}"
    again = f"paretoprune sweep {shlex.quote(str(file))} --out {shlex.quote(str(root))}"
    raise typer.Exit(sweep_command(entries, root, again, dry_run=dry_run, quiet=quiet))


def add_sweep_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("transfer")(add_settings_options(transfer))
    app.command("sweep")(sweep)
