"""The recipe: policy + mask, enough to rebuild a small network from its dense one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .policy import Policy, policy_from_json
from .target import Target, target_from_json

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where the dense network comes from. `name` is None for a module that the user passed in."""

    name: str | None
    classes: int
    input_shape: tuple[int, ...]
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """One trial's network: which atoms of which network are kept, and by what policy."""

    source: Source
    atoms: int
    removed: tuple[int, ...]
    map_sha256: str
    weights_sha256: str
    policy: Policy
    target: Target
    seed: int
    schema: int = SCHEMA

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool [A], True = kept."""
        keep = np.ones(self.atoms, bool)
        keep[list(self.removed)] = False
        return keep

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def recipe_from_json(values: Any, where: str = "recipe.json") -> Recipe:
    """Read a recipe; a missing or unknown field is an error, a newer schema is refused."""
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        schema = values.get("schema") if isinstance(values, dict) else None
        raise UserError(f"{where} must have schema {SCHEMA}, got {schema!r}; update paretoprune")
    known = {field.name for field in fields(Recipe)}
    for name in sorted(set(values) ^ known):
        fault = "has an unknown" if name in values else "lacks the"
        raise UserError(f"{where} {fault} field {name!r}; write it again with paretoprune pick")
    try:
        source = dict(values["source"])
        source["input_shape"] = tuple(int(n) for n in source["input_shape"])
        source["keep"] = tuple(str(p) for p in source["keep"])
        atoms, removed = int(values["atoms"]), tuple(int(a) for a in values["removed"])
        plain = {k: values[k] for k in ("map_sha256", "weights_sha256", "seed", "schema")}
        recipe = Recipe(
            source=Source(**source),
            atoms=atoms,
            removed=removed,
            policy=policy_from_json(values["policy"]),
            target=target_from_json(values["target"]),
            **plain,
        )
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{where} must hold a recipe, got {error}; write it again") from None
    if not 0 < atoms <= 10**8 or any(not 0 <= a < atoms for a in removed):
        raise UserError(f"{where} must remove atoms below {atoms}, got others; write it again")
    return recipe


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file; each fault is one line."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"a picked network's folder must hold {path.name}, got none in {path.parent}; "
            "make one with paretoprune pick"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} must be a JSON file, got {error}; write it again") from None
    return recipe_from_json(values, str(path))
