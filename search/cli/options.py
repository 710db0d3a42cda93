"""Settings as options of a command: one field, one option, its help and its default."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..config.settings import SearchSettings

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
LIST_OPTION_TYPES = {"keep": list[str], "objective": list[str], "plugin": list[Path]}
SINGLE_POLICY_SETTINGS = (
    "target_flops",
    "target_params",
    "model",
    "data",
    "download",
    "mean",
    "std",
    "augment",
    "weights",
    "outputs",
    "seed",
    "epochs",
    "dense_epochs",
    "ensemble_images",
    "ensemble_samples",
    "ensemble_seconds",
    "keep",
    "min_channels",
    "round_to",
    "plugin",
    "quiet",
)


def add_settings_options(
    command: Callable[..., None], names: tuple[str, ...] | None = None
) -> Callable[..., None]:
    """Add to a command's own options one for each of these fields of SearchSettings."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [
        p.replace(kind=KEYWORD_ONLY) for p in own if p.kind != inspect.Parameter.VAR_KEYWORD
    ]
    hints = get_type_hints(SearchSettings)
    for field in fields(SearchSettings):
        if names is not None and field.name not in names:
            continue
        annotation: Any = LIST_OPTION_TYPES.get(field.name, hints[field.name])
        default: Any = [] if field.name in LIST_OPTION_TYPES else field.default
        option = typer.Option(help=field.metadata["help"], show_default=field.default is not None)
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
    """The options in the types that the record has."""
    return {name: tuple(v) if name in LIST_OPTION_TYPES else v for name, v in options.items()}


def settings_set_by_user(context: typer.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that the user wrote; the others have their defaults."""
    return {
        name: value
        for name, value in settings_from_options(options).items()
        if str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    }
