"""Measurements of the trained network: arrays of numbers, cached on disk under a hash."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from ..arrays import FloatArray, NamedArrays
from ..errors import UserError
from ..io.atomic_write import commit_file, partial_path
from ..io.bounded_read import open_regular_file
from .layer_scores import LayerScores
from .loss_curves import LossCurves

SCHEMA = 2
MAX_ARRAYS_BYTES = 64 << 30  # an ensemble's sums grow with the square of the number of atoms


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """The measurements of one network.

    Attributes:
        key: The hash of everything that the values depend on.
        scores: Scores by name.
        errors: Standard errors [A] of scores, by name.
        curves: Loss curves by `curves_name`.
        counts: The work of this run: forward and backward passes, images, masks and probes.
            Values read from disk count as no work.
    """

    key: str
    scores: dict[str, LayerScores]
    errors: dict[str, FloatArray] = field(default_factory=dict)
    curves: dict[str, LossCurves] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def save_arrays(key: str, tables: NamedArrays, folder: Path) -> Path:
    """Write arrays atomically to `folder/key.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.npz"
    partial = partial_path(path)
    meta = json.dumps({"schema": SCHEMA, "key": key})
    with open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, meta=np.array(meta), **tables)
    commit_file(partial, path)
    return path


def load_arrays(key: str, folder: Path) -> NamedArrays | None:
    """Read the arrays saved under `key`; None if the file is missing, damaged or outdated.

    Raises:
        UserError: If a newer version wrote the file.
    """
    path = folder / f"{key}.npz"
    try:
        with (
            open_regular_file(path, MAX_ARRAYS_BYTES) as file,
            np.load(file, allow_pickle=False) as tables,
        ):
            if is_compressed(tables.zip):
                return None
            meta = json.loads(str(tables["meta"]))
            found = {name: tables[name] for name in tables.files if name != "meta"}
    except FileNotFoundError:
        return None
    except (ValueError, OSError, KeyError, EOFError, MemoryError, BadZipFile):
        return None
    if not isinstance(meta, dict) or meta.get("key") != key or meta["schema"] < SCHEMA:
        return None  # an older schema is measured again
    if meta["schema"] > SCHEMA:
        raise UserError(
            f"measurements must have schema {SCHEMA}, got {meta['schema']!r} in {path}; "
            "update paretoprune"
        )
    return found


def is_compressed(archive: ZipFile) -> bool:
    """Whether an archive is compressed: `save_arrays` never compresses, and size is unbounded."""
    return any(member.compress_type != ZIP_STORED for member in archive.infolist())


def scores_to_arrays(scores: dict[str, LayerScores]) -> NamedArrays:
    """Convert scores to arrays for `save_arrays`, three per score."""
    return {
        f"{name}/{part}": getattr(parts, part)
        for name, parts in scores.items()
        for part in ("value", "atom", "layer")
    }


def scores_from_arrays(tables: NamedArrays) -> dict[str, LayerScores]:
    """Restore the scores that `scores_to_arrays` converted."""
    names = [name.removesuffix("/value") for name in tables if name.endswith("/value")]
    return {
        name: LayerScores(*(tables[f"{name}/{part}"] for part in ("value", "atom", "layer")))  # type: ignore[arg-type]
        for name in names
    }
