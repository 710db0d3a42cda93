"""A disk cache of decoded data, keyed by a content hash and memory-mapped by every worker.

The arrays are mapped copy-on-write, so all processes share their pages: a worker uses address
space, not memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...spaces.errors import UserError
from .splits import DataSplits, Split

SCHEMA = 2  # 1 had a bool for `augment`
CACHE_SUBFOLDERS = ("arrays", "unpacked")
SPLIT_NAMES = ("train", "validation", "test")


def cache_folder() -> Path:
    """The cache folder: PARETOPRUNE_CACHE, or ~/.cache/paretoprune if it is not set."""
    named = os.environ.get("PARETOPRUNE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "paretoprune"


def cache_size_bytes() -> int:
    """The disk space of decoded arrays and unpacked archives."""
    files = (path for part in CACHE_SUBFOLDERS for path in (cache_folder() / part).rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())


def clear_cache() -> None:
    """Delete all decoded arrays and unpacked archives; other files in the cache are kept."""
    for part in CACHE_SUBFOLDERS:
        shutil.rmtree(cache_folder() / part, ignore_errors=True)


def load_or_build_data(key: str, name: str, make: Callable[[], DataSplits]) -> DataSplits:
    """Load the data stored under a key; if missing, one process builds them while others wait.

    Splits too large for memory are not stored: their batches are read from the image files.
    """
    from filelock import FileLock

    folder = cache_folder() / "arrays" / key
    if not (folder / "data.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "data.json").is_file():
                data = make()
                if data.train.image_files is not None:
                    return data
                save_data(data, folder)
    return replace(load_data_arrays(folder), name=name)


def save_data(data: DataSplits, folder: Path) -> None:
    """Write the arrays and their metadata; the folder appears complete or not at all."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for part in SPLIT_NAMES:
        split: Split | None = getattr(data, part)
        if split is not None:
            np.save(partial / f"{part}_images.npy", split.images.cpu().numpy())
            np.save(partial / f"{part}_labels.npy", split.labels.cpu().numpy())
    record = {
        "schema": SCHEMA,
        "name": data.name,
        "classes": data.classes,
        "mean": data.mean,
        "std": data.std,
        "input_shape": data.input_shape,
        "augment": data.augment,
        "notes": data.notes,
    }
    (partial / "data.json").write_text(json.dumps(record, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_data_arrays(folder: Path) -> DataSplits:
    """Load stored data with memory-mapped arrays."""
    record = json.loads((folder / "data.json").read_text())
    if record["schema"] != SCHEMA:
        raise UserError(
            f"stored data must have schema {SCHEMA}, got {record['schema']} in {folder}; "
            "clear the cache and read the data again"
        )
    train, validation, test = (_load_split(folder, part) for part in SPLIT_NAMES)
    if train is None or validation is None:
        raise UserError(
            f"stored data must be complete, got {folder} without arrays; clear the cache"
        )
    return DataSplits(
        name=record["name"],
        train=train,
        validation=validation,
        test=test,
        classes=record["classes"],
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
        input_shape=tuple(record["input_shape"]),
        augment=record["augment"],
        notes=tuple(record.get("notes", ())),
    )


def _load_split(folder: Path, part: str) -> Split | None:
    if not (folder / f"{part}_images.npy").is_file():
        return None

    def map_array(kind: str) -> Tensor:
        array = np.load(folder / f"{part}_{kind}.npy", mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(array)

    return Split(map_array("images"), map_array("labels"))
