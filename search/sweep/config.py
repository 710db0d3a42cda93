"""The file of a sweep: models x data x seeds x targets, and what is set for all or for some."""

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
from ..config.settings_parsing import typed

AXES = {"models": "model", "data": "data", "seeds": "seed", "targets": "target_flops"}
SEARCH, OVERRIDE, MATCH = "search", "override", "match"
KEYS = (*AXES, SEARCH, OVERRIDE)
MATCHED = ("model", "data", "seed", "target_flops", "target_params")
NEVER = ("out", "quiet", "json")  # the sweep's own
ALIKE = ("address", "workers", "plugin")  # one Ray, one process: for all runs or for none
SETTINGS = tuple(field.name for field in fields(SearchSettings) if field.name not in NEVER)
MOST_BYTES = 1 << 20

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One search of a sweep; its name is that of its folder."""

    name: str
    settings: SearchSettings

    @property
    def dense_key(self) -> tuple[object, ...]:
        """Equal for entries of the same dense network and data."""
        s = self.settings
        images = s.mean, s.std, s.augment
        on_cpu = s.gpus_per_trial == 0
        return s.model, s.data, s.seed, s.weights, s.outputs, s.dense_epochs, on_cpu, images


def read_sweep(path: Path) -> tuple[Entry, ...]:
    """The searches that the file asks for, in its order; one line if it is wrong."""
    try:
        return entries_of(read_toml(path))
    except UserError as error:
        raise UserError(f"{path}: {with_arguments(str(error))}") from None


def read_toml(path: Path) -> Values:
    """The values of a TOML file."""
    try:
        return tomllib.loads(read_bounded(path, MOST_BYTES).decode())
    except FileNotFoundError:
        raise UserError("a sweep must be a TOML file, got none; check the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"a sweep must be a TOML file, got {error}; docs/sweeps.md shows the format"
        ) from None


def entries_of(values: Values) -> tuple[Entry, ...]:
    """The product of the axes, each with the settings that hold for it."""
    check_keys("the file", values, KEYS)
    for_all = settings_in(values.get(SEARCH, {}), f"[{SEARCH}]", SETTINGS)
    axes = [axis_of(values[key], key, name) for key, name in AXES.items() if key in values]
    check_once(for_all, values)
    overrides = [Override.read(table) for table in tables_in(values.get(OVERRIDE, []))]
    entries: dict[str, Entry] = {}
    seen: dict[tuple[object, ...], str] = {}
    for parts in itertools.product(*axes):
        chosen = merged((for_all, *parts))
        chosen = merged((chosen, *(o.settings for o in overrides if o.holds_for(chosen))))
        settings = SearchSettings(**chosen)
        settings.check()
        identity = identity_of(settings)
        if identity in seen:
            raise UserError(f"runs must differ, got {seen[identity]} twice; drop one of the two")
        name = new_name(settings, identity, entries)
        seen[identity] = name
        entries[name] = Entry(name, settings)
    for override in overrides:
        if not any(override.holds_for(vars_of(e.settings)) for e in entries.values()):
            raise UserError(
                f"[[{OVERRIDE}]] must match a run, got {MATCH} = {override.match}; mend it"
            )
    return tuple(entries.values())


@dataclass(frozen=True, slots=True)
class Override:
    """Settings for those runs that have all the values of `match`."""

    match: Values
    settings: Values

    @classmethod
    def read(cls, table: Values) -> Override:
        """A table of the file."""
        where = f"[[{OVERRIDE}]]"
        match = table.get(MATCH)
        if not isinstance(match, dict) or not match:
            raise UserError(
                f"{where} must say which runs it is for, got {MATCH} = {match}; "
                f'write {MATCH} = {{model = "resnet56"}}'
            )
        rest = {name: value for name, value in table.items() if name != MATCH}
        allowed = [n for n in SETTINGS if n not in (*ALIKE, *MATCHED)]
        return cls(
            settings_in(match, f"{where} {MATCH}", MATCHED), settings_in(rest, where, allowed)
        )

    def holds_for(self, chosen: Mapping[str, Any]) -> bool:
        """True if the run has all the values."""
        defaults = SearchSettings()
        return all(
            same(chosen.get(name, getattr(defaults, name)), value)
            for name, value in self.match.items()
        )


def same(one: object, other: object) -> bool:
    """Equal, where 40% is 0.4."""
    from ...spaces.cost.target import parse_size

    if one == other:
        return True
    try:
        return parse_size("", str(one)) == parse_size("", str(other))
    except UserError:
        return False


def vars_of(settings: SearchSettings) -> Values:
    """The record's fields by name."""
    return {field.name: getattr(settings, field.name) for field in fields(SearchSettings)}


def merged(parts: Iterable[Values]) -> Values:
    """All of them; the later one holds."""
    found: Values = {}
    for part in parts:
        found |= part
    return found


def check_once(for_all: Values, values: Values) -> None:
    """Refuse a setting for all runs that a list would replace in each of them."""
    for key, name in AXES.items():
        names = ("target_flops", "target_params") if key == "targets" else (name,)
        for one in names if key in values else ():
            if one in for_all:
                raise UserError(
                    f"[{SEARCH}] must not have {one!r} where there is a list of {key}, got both; "
                    "leave one out"
                )


def axis_of(values: object, key: str, name: str) -> list[Values]:
    """The settings of each place of an axis: a bare value, or a table with more settings."""
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise UserError(f"{key} must have an entry, got none; leave it out for the default")
    allowed = [n for n in SETTINGS if n not in ALIKE]
    needs = ("target_flops", "target_params") if key == "targets" else (name,)
    places = []
    for number, value in enumerate(listed, start=1):
        table = value if isinstance(value, dict) else {name: value}
        found = settings_in(table, f"{key}, entry {number}", allowed)
        if not any(one in found for one in needs):
            raise UserError(f"{key}, entry {number} must have {' or '.join(needs)}, got none")
        if key == "targets":
            found = {"target_flops": None, "target_params": None} | found
        places.append(found)
    return places


def tables_in(values: object) -> list[Values]:
    """The tables of [[override]]."""
    if isinstance(values, list) and all(isinstance(one, dict) for one in values):
        return values
    raise UserError(f"{OVERRIDE} must be tables, got {values!r}; write [[{OVERRIDE}]] above each")


def settings_in(table: object, where: str, allowed: Sequence[str]) -> Values:
    """A table's settings in the types that the record has; `max-flops` is max_flops too."""
    if not isinstance(table, dict):
        raise UserError(f"{where} must be a table of settings, got {table!r}")
    named = {name.replace("-", "_"): value for name, value in table.items()}
    check_keys(where, named, allowed)
    return {name: typed(name, value, where) for name, value in named.items()}


def check_keys(where: str, values: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuse a key that nobody would read."""
    for name in values:
        if name in ALIKE and name not in allowed:
            raise UserError(f"{where} cannot have {name!r}: one for all runs; put it in [search]")
        if name not in allowed:
            raise UserError(f"{where} has no key {name!r}; its keys are {', '.join(allowed)}")


def identity_of(settings: SearchSettings) -> tuple[object, ...]:
    """What tells the runs of a sweep apart."""
    target = settings.target()
    return settings.model, settings.data, target.flops, target.params, settings.seed


def new_name(
    settings: SearchSettings, identity: tuple[object, ...], taken: Mapping[str, object]
) -> str:
    """A speaking name, and of two alike the later one with a hash: names stay as lists grow."""
    target = settings.target()
    sizes = (("flops", target.flops), ("params", target.params))
    parts = [word_of(settings.model), word_of(settings.data)]
    parts += [f"{part}-{size_word(size)}" for part, size in sizes if size is not None]
    parts += [f"seed-{settings.seed}"] if settings.seed else []
    name = "-".join(part for part in parts if part)
    if name in taken:
        name += f"-{hashlib.sha256(repr(identity).encode()).hexdigest()[:6]}"
    return name


def word_of(source: str) -> str:
    """A model's or a data set's name as a part of a file's name, without its directory."""
    kind, _, where = source.partition(":")
    if "/" in where:  # a directory: its own name tells more than "folder" does
        kind, where = (Path(where).name, "") if kind == "folder" else (kind, "")
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{kind} {where}").strip("-.")[-40:]


def size_word(size: float | int) -> str:
    """0.4, or 50M."""
    return f"{size / 1e6:g}M" if isinstance(size, int) else f"{size:g}"
