"""From a directory or an archive to cached data: what all sources on disk share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ..cache import SCHEMA, cached
from ..types import Data
from .archive import discard, existing, fingerprint, is_archive, unpack
from .options import Reading


def read_stored(
    name: str, where: str, reading: Reading, make: Callable[[Path, Reading], Data]
) -> Data:
    """The data that `make` builds from the directory, decoded once and mapped ever after."""
    path = existing(where)
    digest = fingerprint(path)
    kind = name.partition(":")[0]
    parts = (SCHEMA, kind, digest, reading.seed, reading.validation_share, reading.image_size)
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def build() -> Data:
        if not is_archive(path):
            return make(path, reading)
        data = make(unpack(path, digest), reading)
        if data.train.source is None:
            discard(digest)
        return data

    return cached(key, name, build)
