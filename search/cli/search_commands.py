"""The commands that search or prune: search, prune, transfer, sweep. Heavy imports are lazy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.settings import SINGLE_POLICY_SETTINGS, SearchSettings
from .options import (
    NetworkFolderOption,
    RunArgument,
    add_settings_options,
    settings_from_options,
    settings_set_by_user,
)


def search(
    context: typer.Context,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the run in this folder. Finished trials are not repeated."),
    ] = None,
    **options: Any,
) -> None:
    """Search for the Pareto front of a network.

    The search prunes, fine-tunes and measures many policies and writes the front to a run folder.
    """
    from .handlers import run_search

    raise typer.Exit(run_search(settings_set_by_user(context, options), resume))


def prune(
    policy: Annotated[
        str, typer.Option(help="Prune by this preset, control, or policy in FILE.json.")
    ],
    out: NetworkFolderOption,
    min_accuracy: Annotated[
        float | None,
        typer.Option(help="Stop pruning before validation accuracy falls below this."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Prune gradually, in this many steps.")] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Refit the remaining weights to the outputs of the dense network. Default: as "
            "the policy states.",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Prune a network by a single policy, without a search.

    After a stop, the same command continues.
    """
    from ..driver.single_policy import PruneRequest, prune_command, resolve_policy

    settings = SearchSettings(**settings_from_options(options))
    resolved = resolve_policy(policy, settings.target(), steps=steps, refit=refit)
    request = PruneRequest(settings, resolved, out, min_accuracy)
    raise typer.Exit(prune_command(request))


def transfer(context: typer.Context, run: RunArgument, **options: Any) -> None:
    """Search anew, starting from the policies of a front.

    The new search may have another network, other data or another target. It tries the policies
    of RUN's front first, then the presets, then others, as in any search.

    paretoprune transfer runs/small --model resnet56 --data cifar10:DIR --target-flops 0.4
    """
    from .handlers import run_search

    raise typer.Exit(run_search(settings_set_by_user(context, options), None, like=run))


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="Read the list of searches from this file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Write the run folders to this folder. Default: runs/sweep-FILE."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the list of runs and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the table.")] = False,
) -> None:
    """Run a search for each model, data set and target.

    All searches run on one Ray and each has its own run folder. After a stop, the same command
    continues.

    \b
    models  = ["resnet20", {model = "resnet56", weights = "r56.safetensors"}]
    data    = ["cifar10:DIR"]
    targets = [0.6, 0.4, {target_flops = "50M", target_params = 0.5}]
    seeds   = [0, 1]                        # each list may be left out
    \b
    [search]                                # options of paretoprune search, for all runs
    trials = 50
    \b
    [[override]]                            # options of the runs that match
    match = {model = "resnet56", target_flops = 0.4}
    trials = 100

    Runs with the same model, data and seed train and measure the dense network once.
    The exit code is 1 if a run failed; the other runs continue. See docs/guide/sweeps.md.
    """
    from ..sweep.config import read_sweep_file

    entries = read_sweep_file(file)  # reports errors in the file before importing torch
    from ..sweep.runner import sweep_command

    root = out or Path("runs") / f"sweep-{file.stem}"
    again = f"paretoprune sweep {shlex.quote(str(file))} --out {shlex.quote(str(root))}"
    raise typer.Exit(sweep_command(entries, root, again, dry_run=dry_run, quiet=quiet))


def add_search_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("search")(add_settings_options(search))
    app.command("prune")(add_settings_options(prune, SINGLE_POLICY_SETTINGS))
    app.command("transfer")(add_settings_options(transfer))
    app.command("sweep")(sweep)
