"""Ensembles by name: a preset, or one with settings of your own, as `ensemble:keep=0.9`.

So a policy says how its masks are drawn and what is made of them, and one search may hold several.
How much is measured is not in a name: that is for the limits of the search.
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
    """True where a score of this name comes from random masks."""
    return name.partition(":")[0] in ENSEMBLE_PRESETS


def settings_from_name(name: str) -> EnsembleSettings:
    """The settings that a score's name stands for."""
    base, *changes = name.split(":")
    changed: dict[str, object] = {}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals or field not in NAME_FIELDS or field in changed:
            raise UserError(
                f"score {name!r} must change each of {', '.join(NAME_FIELDS)} once at most, "
                f"as {base}:keep=0.9, got {change!r}; change it"
            )
        changed[field] = parse_field(name, field, value)
    return replace(ENSEMBLE_PRESETS[base], **changed)  # type: ignore[arg-type]


def parse_field(name: str, field: str, value: str) -> object:
    """A value of the kind that this setting has."""
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
    """The name that stands for these settings, whatever their limits are."""
    base = next(name for name, preset in ENSEMBLE_PRESETS.items() if preset.per == settings.per)
    values = [
        (field, getattr(settings, field), getattr(ENSEMBLE_PRESETS[base], field))
        for field in NAME_FIELDS
    ]
    return "".join(
        [base, *(f":{f}={format_field(own)}" for f, own, usual in values if own != usual)]
    )


def format_field(value: object) -> str:
    """A value as a name has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
