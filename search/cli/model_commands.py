"""The commands on dense networks and data: train, inspect, sensitivity, cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AugmentOption,
    DataOption,
    KeepOption,
    MeanOption,
    MinChannelsOption,
    ModelOption,
    OutputsOption,
    RoundToOption,
    StdOption,
)


def train(
    model: ModelOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Write the network to this file, NAME.safetensors.")],
    epochs: Annotated[
        float, typer.Option(help="Train for this many epochs; fractions are allowed.")
    ] = 30.0,
    weights: Annotated[
        Path | None, typer.Option(help="Start from the weights in this file. Default: random.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Set the peak of the cosine learning rate. Default: a lower one with --weights."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed all randomness. The same seed gives the same network.")
    ] = 0,
    download: Annotated[
        bool, typer.Option("--download", help="Download the data into their folder first.")
    ] = False,
    mean: MeanOption = None,
    std: StdOption = None,
    augment: AugmentOption = None,
    outputs: OutputsOption = "scores",
) -> None:
    """Train a dense network from its name and data.

    After a stop, the same command continues.
    """
    from ...trainers.data.image_options import image_options
    from ...trainers.training.train_dense import DenseTrainingSpec
    from ..deploy.train_command import train_command

    images = image_options(mean, std, augment)
    spec = DenseTrainingSpec(
        model, data, out, seed=seed, weights=weights, images=images, outputs=outputs
    )
    code = train_command(spec, epochs=epochs, learning_rate=learning_rate, download=download)
    raise typer.Exit(code)


def inspect_model(
    model: ModelOption,
    input_shape: Annotated[
        str,
        typer.Option(
            "--input",
            help="Assume inputs of this shape: channels,height,width. Default: the usual one of "
            "the model.",
        ),
    ] = "",
    classes: Annotated[
        int, typer.Option(help="Build the head for this many classes; 0: the usual number.")
    ] = 0,
    keep: KeepOption = None,
    min_channels: MinChannelsOption = 1,
    round_to: RoundToOption = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the groups, atoms and cost of a network.

    The command needs no data and no weights.
    """
    from ..driver.inspection import InspectionRequest, inspect_network

    request = InspectionRequest(model, input_shape, classes, tuple(keep or ()), as_json)
    inspect_network(request, min_channels=min_channels, round_to=round_to)


def sensitivity(
    model: ModelOption,
    data: DataOption,
    weights: Annotated[
        Path | None, typer.Option(help="Read the weights of the dense network from this file.")
    ] = None,
    score: Annotated[
        str, typer.Option(help="Remove the atoms with the lowest values of this score first.")
    ] = "taylor",
    combine: Annotated[
        str,
        typer.Option(help="Combine the scores of coupled layers by sum, mean, max or later."),
    ] = "sum",
    probe: Annotated[
        str,
        typer.Option(
            help="Run norm layers with their running statistics (eval) or with those of the batch "
            "(batch)."
        ),
    ] = "eval",
    images: Annotated[
        int, typer.Option(help="Measure on this many images of the training split.")
    ] = 2048,
    out: Annotated[Path, typer.Option(help="Write the curves to this folder.")] = Path(
        "sensitivity"
    ),
    mean: MeanOption = None,
    std: StdOption = None,
    outputs: OutputsOption = "scores",
) -> None:
    """Measure how the loss rises as each group is pruned.

    After a stop, the same command continues.
    """
    from ...spaces.policy.loss_curves import CurveSettings
    from ...spaces.policy.policy import COMBINATIONS, check_choice
    from ..driver.sensitivity import SensitivityRequest, sensitivity_command

    check_choice("--combine", combine, COMBINATIONS)
    request = SensitivityRequest(model, data, weights, score, combine, out, mean, std, outputs)
    raise typer.Exit(sensitivity_command(request, CurveSettings(probe=probe, images=images)))


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the decoded data.")] = False,
) -> None:
    """Show or clear the cache of decoded data.

    The environment variable PARETOPRUNE_CACHE sets its folder.
    """
    from ...trainers.data.cache import cache_folder, cache_size_bytes, clear_cache

    size = cache_size_bytes() / 2**20
    if clear:
        clear_cache()
    print(f"{cache_folder()}: {size:,.0f} MiB of decoded data{' deleted' if clear else ''}")


def add_model_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("train")(train)
    app.command("inspect")(inspect_model)
    app.command("sensitivity")(sensitivity)
    app.command("cache")(cache)
