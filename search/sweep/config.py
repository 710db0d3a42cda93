"""The TOML file of a sweep: models x data x seeds x targets, common settings and overrides."""

from __future__ import annotations

import hashlib
import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError, with_arguments
from ...spaces.io.bounded_read import read_bounded
from ..config.settings import SearchSettings
from ..config.settings_parsing import parse_setting

AXIS_SETTINGS = {"models": "model", "data": "data", "seeds": "seed", "targets": "target_flops"}
SEARCH_KEY, OVERRIDE_KEY, MATCH_KEY = "search", "override", "match"
TOP_LEVEL_KEYS = (*AXIS_SETTINGS, SEARCH_KEY, OVERRIDE_KEY)
MATCHABLE_SETTINGS = ("model", "data", "seed", "target_flops", "target_params")
EXCLUDED_SETTINGS = ("out", "quiet", "json")  # the sweep sets these
SHARED_SETTINGS = ("address", "workers", "plugin")  # the same in all runs, which share Ray
SWEEP_SETTINGS = tuple(
    field.name for field in fields(SearchSettings) if field.name not in EXCLUDED_SETTINGS
)
MAX_SWEEP_FILE_BYTES = 1 << 20

TomlTable = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SweepEntry:
    """One search of a sweep, named like its folder."""

    name: str
    settings: SearchSettings

    @property
    def dense_key(self) -> tuple[object, ...]:
        """Equal for entries with the same dense network and data."""
        s = self.settings
        images = s.mean, s.std, s.augment
        on_cpu = s.gpus_per_trial == 0
        return s.model, s.data, s.seed, s.weights, s.outputs, s.dense_epochs, on_cpu, images


def read_sweep_file(path: Path) -> tuple[SweepEntry, ...]:
    """Read the searches of a sweep from a TOML file.

    Args:
        path: The file; docs/guide/sweeps.md describes its format.

    Returns:
        The searches in the order of the file.

    Raises:
        UserError: The file is not valid.
    """
    try:
        return build_entries(read_toml(path))
    except UserError as error:
        raise UserError(f"{path}: {with_arguments(str(error))}") from None


def read_toml(path: Path) -> TomlTable:
    """Read a TOML file."""
    try:
        return tomllib.loads(read_bounded(path, MAX_SWEEP_FILE_BYTES).decode())
    except FileNotFoundError:
        raise UserError("a sweep must be a TOML file, got none; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"a sweep must be a TOML file, got {error}; docs/guide/sweeps.md shows the format"
        ) from None


def build_entries(values: TomlTable) -> tuple[SweepEntry, ...]:
    """Build the product of the axes, with the settings and overrides of each search."""
    check_keys("the file", values, TOP_LEVEL_KEYS)
    common = parse_settings_table(values.get(SEARCH_KEY, {}), f"[{SEARCH_KEY}]", SWEEP_SETTINGS)
    axes = [
        read_axis(values[key], key, name) for key, name in AXIS_SETTINGS.items() if key in values
    ]
    check_set_once(common, values)
    overrides = [
        SweepOverride.from_table(table)
        for table in check_override_tables(values.get(OVERRIDE_KEY, []))
    ]
    entries: dict[str, SweepEntry] = {}
    seen: dict[tuple[object, ...], str] = {}
    for parts in itertools.product(*axes):
        chosen = merge_tables((common, *parts))
        chosen = merge_tables((chosen, *(o.settings for o in overrides if o.matches(chosen))))
        settings = SearchSettings(**chosen)
        settings.check()
        identity = run_identity(settings)
        if identity in seen:
            raise UserError(f"runs must differ, got {seen[identity]} twice; remove one of the two")
        name = unique_run_name(settings, identity, entries)
        seen[identity] = name
        entries[name] = SweepEntry(name, settings)
    for override in overrides:
        if not any(override.matches(settings_as_dict(e.settings)) for e in entries.values()):
            raise UserError(
                f"[[{OVERRIDE_KEY}]] must match a run, got {MATCH_KEY} = {override.match}; "
                "correct it"
            )
    return tuple(entries.values())


@dataclass(frozen=True, slots=True)
class SweepOverride:
    """Settings for the runs that have all the values of `match`."""

    match: TomlTable
    settings: TomlTable

    @classmethod
    def from_table(cls, table: TomlTable) -> SweepOverride:
        """Parse one [[override]] table."""
        where = f"[[{OVERRIDE_KEY}]]"
        match = table.get(MATCH_KEY)
        if not isinstance(match, dict) or not match:
            raise UserError(
                f"{where} must name which runs it is for, got {MATCH_KEY} = {match}; "
                f'write {MATCH_KEY} = {{model = "resnet56"}}'
            )
        rest = {name: value for name, value in table.items() if name != MATCH_KEY}
        allowed = [n for n in SWEEP_SETTINGS if n not in (*SHARED_SETTINGS, *MATCHABLE_SETTINGS)]
        return cls(
            parse_settings_table(match, f"{where} {MATCH_KEY}", MATCHABLE_SETTINGS),
            parse_settings_table(rest, where, allowed),
        )

    def matches(self, chosen: Mapping[str, Any]) -> bool:
        """Whether a run with these settings has all the values of `match`."""
        defaults = SearchSettings()
        return all(
            is_same_value(chosen.get(name, getattr(defaults, name)), value)
            for name, value in self.match.items()
        )


def is_same_value(one: object, other: object) -> bool:
    """Whether both values are equal, as sizes too: 40% is 0.4."""
    from ...spaces.cost.target import parse_size

    if one == other:
        return True
    try:
        return parse_size("", str(one)) == parse_size("", str(other))
    except UserError:
        return False


def settings_as_dict(settings: SearchSettings) -> TomlTable:
    """Return the settings by name."""
    return {field.name: getattr(settings, field.name) for field in fields(SearchSettings)}


def merge_tables(parts: Iterable[TomlTable]) -> TomlTable:
    """Merge tables; later values replace earlier ones."""
    merged: TomlTable = {}
    for part in parts:
        merged |= part
    return merged


def check_set_once(common: TomlTable, values: TomlTable) -> None:
    """Raise UserError for a common setting that an axis replaces in every run."""
    for key, name in AXIS_SETTINGS.items():
        names = ("target_flops", "target_params") if key == "targets" else (name,)
        for one in names if key in values else ():
            if one in common:
                raise UserError(
                    f"[{SEARCH_KEY}] must not have {one!r} if there is a list of {key}, got both; "
                    "remove one of them"
                )


def read_axis(values: object, key: str, name: str) -> list[TomlTable]:
    """Parse an axis: each entry is a value, or a table that adds more settings."""
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise UserError(f"{key} must have an entry, got none; remove the key for the default")
    allowed = [n for n in SWEEP_SETTINGS if n not in SHARED_SETTINGS]
    required = ("target_flops", "target_params") if key == "targets" else (name,)
    entries = []
    for number, value in enumerate(listed, start=1):
        table = value if isinstance(value, dict) else {name: value}
        settings = parse_settings_table(table, f"{key}, entry {number}", allowed)
        if not any(one in settings for one in required):
            raise UserError(
                f"{key}, entry {number} must have {' or '.join(required)}, got none; add one"
            )
        if key == "targets":
            settings = {"target_flops": None, "target_params": None} | settings
        entries.append(settings)
    return entries


def check_override_tables(values: object) -> list[TomlTable]:
    """Return the [[override]] tables; raise UserError if they are not tables."""
    if isinstance(values, list) and all(isinstance(one, dict) for one in values):
        return values
    raise UserError(
        f"{OVERRIDE_KEY} must be tables, got {values!r}; write [[{OVERRIDE_KEY}]] above each"
    )


def parse_settings_table(table: object, where: str, allowed: Sequence[str]) -> TomlTable:
    """Convert a table to settings; names may have hyphens in place of underscores."""
    if not isinstance(table, dict):
        raise UserError(
            f"{where} must be a table of settings, got {table!r}; write NAME = VALUE lines"
        )
    named = {name.replace("-", "_"): value for name, value in table.items()}
    check_keys(where, named, allowed)
    return {name: parse_setting(name, value, where) for name, value in named.items()}


def check_keys(where: str, values: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise UserError for a key that is not allowed."""
    for name in values:
        if name in SHARED_SETTINGS and name not in allowed:
            raise UserError(
                f"{name!r} must be the same in all runs, got it in {where}; move it to [search]"
            )
        if name not in allowed:
            raise UserError(
                f"{where} must have known keys, got {name!r}; its keys are {', '.join(allowed)}"
            )


def run_identity(settings: SearchSettings) -> tuple[object, ...]:
    """Return the values by which the runs of a sweep must differ."""
    target = settings.target()
    return settings.model, settings.data, target.flops, target.params, settings.seed


def unique_run_name(
    settings: SearchSettings, identity: tuple[object, ...], taken: Mapping[str, object]
) -> str:
    """Name a run by its settings; a hash makes a repeated name unique and stable."""
    target = settings.target()
    sizes = (("flops", target.flops), ("params", target.params))
    parts = [source_slug(settings.model), source_slug(settings.data)]
    parts += [f"{part}-{size_slug(size)}" for part, size in sizes if size is not None]
    parts += [f"seed-{settings.seed}"] if settings.seed else []
    name = "-".join(part for part in parts if part)
    if name in taken:
        name += f"-{hashlib.sha256(repr(identity).encode()).hexdigest()[:6]}"
    return name


def source_slug(source: str) -> str:
    """Return the name of a model or a data set for use in a file name, without its directory."""
    kind, _, where = source.partition(":")
    if "/" in where:  # the directory's name says more than "folder"
        kind, where = (Path(where).name, "") if kind == "folder" else (kind, "")
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{kind} {where}").strip("-.")[-40:]


def size_slug(size: float | int) -> str:
    """Format a size for use in a file name: 0.4, or 50M."""
    return f"{size / 1e6:g}M" if isinstance(size, int) else f"{size:g}"
