"""Names of ensemble scores: a preset, optionally with changed settings: `ensemble:keep=0.9`.

A policy thus chooses how masks are drawn and fitted, and one search may use several ensembles.
The name does not state how many masks are measured; the limits of the search do.
"""

from __future__ import annotations

from dataclasses import fields, replace

from ...spaces.errors import UserError
from .settings import ENSEMBLE_PRESETS, EnsembleSettings

NAME_FIELDS = (
    "keep",
    "spread",
    "draw",
    "transform",
    "measure",
    "variant",
    "joined",
    "prior",
    "norms",
    "agreement",
)
FIELD_TYPES = {field.name: str(field.type) for field in fields(EnsembleSettings)}
BOOLEANS = {"true": True, "false": False}


def is_ensemble_name(name: str) -> bool:
    """Whether a score of this name is a mask ensemble."""
    return name.partition(":")[0] in ENSEMBLE_PRESETS


def settings_from_name(name: str) -> EnsembleSettings:
    """Parse the name of an ensemble score; raise UserError if a setting is invalid."""
    base, *changes = name.split(":")
    changed: dict[str, object] = {}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals or field not in NAME_FIELDS or field in changed:
            raise UserError(
                f"score {name!r} must set each of {', '.join(NAME_FIELDS)} at most once, "
                f"got {change!r}; write for example {base}:keep=0.9"
            )
        changed[field] = parse_field(name, field, value)
    return replace(ENSEMBLE_PRESETS[base], **changed)  # type: ignore[arg-type]


def parse_field(name: str, field: str, value: str) -> object:
    """Convert a value to the type of its setting."""
    try:
        if FIELD_TYPES[field] == "bool":
            return BOOLEANS[value]
        return float(value) if FIELD_TYPES[field] == "float" else value
    except (KeyError, ValueError):
        rule = "true or false" if FIELD_TYPES[field] == "bool" else "a number"
        raise UserError(
            f"{field} must be {rule} in score {name!r}, got {value!r}; give {rule}"
        ) from None


def name_from_settings(settings: EnsembleSettings) -> str:
    """The score name of these settings; limits are not part of it."""
    base = next(name for name, preset in ENSEMBLE_PRESETS.items() if preset.per == settings.per)
    defaults = ENSEMBLE_PRESETS[base]
    changes = [
        f":{field}={format_field(getattr(settings, field))}"
        for field in NAME_FIELDS
        if getattr(settings, field) != getattr(defaults, field)
    ]
    return "".join([base, *changes])


def format_field(value: object) -> str:
    """Format a value for a score name."""
    return str(value).lower() if isinstance(value, bool) else str(value)
