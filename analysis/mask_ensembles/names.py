"""Ensembles by name: a preset, or one with settings of your own, as `ensemble:keep=0.9`.

So a policy says how its masks are drawn and what is made of them, and one search may hold several.
How much is measured is not in a name: that is for the limits of the search.
"""

from __future__ import annotations

from dataclasses import fields, replace

from ...spaces.errors import UserError
from .settings import PRESETS, EnsembleSettings

NAMED = (
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
KINDS = {field.name: str(field.type) for field in fields(EnsembleSettings)}
TRUTHS = {"true": True, "false": False}


def is_ensemble(name: str) -> bool:
    """True where a score of this name comes from random masks."""
    return name.partition(":")[0] in PRESETS


def settings_named(name: str) -> EnsembleSettings:
    """The settings that a score's name stands for."""
    base, *changes = name.split(":")
    changed: dict[str, object] = {}
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals or field not in NAMED or field in changed:
            raise UserError(
                f"score {name!r} must change each of {', '.join(NAMED)} once at most, "
                f"as {base}:keep=0.9, got {change!r}; change it"
            )
        changed[field] = read(name, field, value)
    return replace(PRESETS[base], **changed)  # type: ignore[arg-type]


def read(name: str, field: str, value: str) -> object:
    """A value of the kind that this setting has."""
    try:
        if KINDS[field] == "bool":
            return TRUTHS[value]
        return float(value) if KINDS[field] == "float" else value
    except (KeyError, ValueError):
        rule = "true or false" if KINDS[field] == "bool" else "a number"
        raise UserError(
            f"{field} must be {rule} in score {name!r}, got {value!r}; give {rule}"
        ) from None


def name_of(settings: EnsembleSettings) -> str:
    """The name that stands for these settings, whatever their limits are."""
    base = next(name for name, preset in PRESETS.items() if preset.per == settings.per)
    values = [(field, getattr(settings, field), getattr(PRESETS[base], field)) for field in NAMED]
    return "".join([base, *(f":{f}={shown(own)}" for f, own, usual in values if own != usual)])


def shown(value: object) -> str:
    """A value as a name has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
