"""Load data from a directory or an archive through the cache; used by all sources on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ..cache import SCHEMA, load_or_build_data
from ..splits import DataSplits
from .archive import delete_unpacked, hash_data_path, is_archive, resolve_data_path, unpack_archive
from .options import LoadOptions


def load_cached_source(
    name: str, where: str, reading: LoadOptions, make: Callable[[Path, LoadOptions], DataSplits]
) -> DataSplits:
    """The data that `make` builds from the directory; later calls map the cached arrays."""
    path = resolve_data_path(where)
    digest = hash_data_path(path)
    kind = name.partition(":")[0]
    parts = (SCHEMA, kind, digest, reading.seed, reading.validation_share, reading.image_size)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def build() -> DataSplits:
        if not is_archive(path):
            return make(path, reading)
        data = make(unpack_archive(path, digest), reading)
        if data.train.image_files is None:
            delete_unpacked(digest)
        return data

    return load_or_build_data(key, name, build)
