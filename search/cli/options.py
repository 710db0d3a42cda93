"""Options that commands share, and `add_settings_options`, which adds the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ...trainers.data.image_options import STD_HELP
from ..config.settings import (
    AUGMENT_OF_DATA_HELP,
    DATA_HELP,
    KEEP_HELP,
    MEAN_OF_DATA_HELP,
    MIN_CHANNELS_HELP,
    MODEL_HELP,
    OUTPUTS_HELP,
    ROUND_TO_HELP,
    SearchSettings,
)

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
LIST_OPTION_TYPES = {"keep": list[str], "objective": list[str], "plugin": list[Path]}
LIST_METAVARS = {"keep": "<str>", "objective": "<str>", "plugin": "<path>"}

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Read the run in this folder of a search.")
]
ModelOption = Annotated[str, typer.Option(help=MODEL_HELP)]
DataOption = Annotated[str, typer.Option(help=DATA_HELP)]
MeanOption = Annotated[str | None, typer.Option(help=MEAN_OF_DATA_HELP)]
StdOption = Annotated[str | None, typer.Option(help=STD_HELP)]
AugmentOption = Annotated[str | None, typer.Option(help=AUGMENT_OF_DATA_HELP)]
OutputsOption = Annotated[str, typer.Option(help=OUTPUTS_HELP)]
KeepOption = Annotated[list[str] | None, typer.Option(metavar="<str>", help=KEEP_HELP)]
MinChannelsOption = Annotated[int, typer.Option(help=MIN_CHANNELS_HELP)]
RoundToOption = Annotated[int, typer.Option(help=ROUND_TO_HELP)]
NetworkFolderOption = Annotated[
    Path, typer.Option(help="Write the network to this folder, which must be new or empty.")
]


def add_settings_options(
    command: Callable[..., None], names: tuple[str, ...] | None = None
) -> Callable[..., None]:
    """Add an option for each named field of `SearchSettings`, or for all, to a command."""
    own_parameters = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [
        p.replace(kind=KEYWORD_ONLY)
        for p in own_parameters
        if p.kind != inspect.Parameter.VAR_KEYWORD
    ]
    hints = get_type_hints(SearchSettings)
    for field in fields(SearchSettings):
        if names is not None and field.name not in names:
            continue
        annotation: Any = LIST_OPTION_TYPES.get(field.name, hints[field.name])
        default: Any = [] if field.name in LIST_OPTION_TYPES else field.default
        option = typer.Option(
            help=field.metadata["help"],
            show_default=field.default is not None,
            metavar=LIST_METAVARS.get(field.name),
        )
        if annotation is bool:
            flag = f"--{field.name}"
            off = field.metadata.get("off")
            option = typer.Option(f"{flag}/{off}" if off else flag, help=field.metadata["help"])
        annotated = Annotated[annotation, option]
        parameters.append(
            inspect.Parameter(field.name, KEYWORD_ONLY, default=default, annotation=annotated)
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def settings_from_options(options: dict[str, Any]) -> dict[str, Any]:
    """Convert options to the types of `SearchSettings`."""
    return {name: tuple(v) if name in LIST_OPTION_TYPES else v for name, v in options.items()}


def settings_set_by_user(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return only the options that the user wrote, without those that have their defaults."""
    return {
        name: value
        for name, value in settings_from_options(options).items()
        if str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    }
