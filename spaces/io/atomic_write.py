"""Atomic file writes: write a temporary file beside the target, flush it, rename it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def partial_path(path: Path) -> Path:
    """Return the temporary path beside `path` that this process writes before it renames."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def commit_file(partial: Path, path: Path) -> None:
    """Rename a written file to `path`; flush its bytes before and the rename after."""
    fsync_path(partial)
    os.replace(partial, path)
    fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that a kill at any moment leaves the old file or the new file."""
    partial = partial_path(path)
    try:
        partial.write_bytes(content)
        commit_file(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk, a partial file would use space
        raise


def write_json_atomic(path: Path, values: Any) -> None:
    """Write plain values as indented JSON, atomically; NaN raises ValueError."""
    write_bytes_atomic(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
