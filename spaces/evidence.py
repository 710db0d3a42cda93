"""Evidence: tables measured once on the trained network. Numbers only, saved under a hash."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .durable import partial_name, take_name
from .errors import UserError

SCHEMA = 1


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Scores [A] by name, and the hash of all that they were computed from."""

    key: str
    scores: dict[str, NDArray[np.float64]]


def save_evidence(evidence: Evidence, folder: Path) -> Path:
    """Write the tables as one npz under the hash; it appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{evidence.key}.npz"
    partial = partial_name(path)
    meta = json.dumps({"schema": SCHEMA, "key": evidence.key})
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, meta=np.array(meta), **evidence.scores)
    take_name(partial, path)
    return path


def load_evidence(key: str, folder: Path) -> Evidence | None:
    """Read the evidence with this hash; None if it was never measured or is not whole."""
    path = folder / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as tables:
            meta = json.loads(str(tables["meta"]))
            scores = {name: tables[name] for name in tables.files if name != "meta"}
    except FileNotFoundError:
        return None
    except (ValueError, OSError, KeyError, EOFError, BadZipFile):
        return None
    if meta.get("schema") != SCHEMA:
        raise UserError(
            f"evidence must have schema {SCHEMA}, got {meta.get('schema')!r} in {path}; "
            "update paretoprune"
        )
    return Evidence(key, scores) if meta.get("key") == key else None
