"""Reads of untrusted files: regular files only, up to a size limit.

A pipe or a device in place of a file would block the reader, and a sparse file of a terabyte would
exhaust the memory. Both raise an error before any byte is read.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UserError

MAX_JSON_BYTES = 256 << 20


def open_regular_file(path: Path, max_bytes: int) -> BinaryIO:
    """Open a regular file of at most `max_bytes` bytes.

    Raises:
        OSError: If the file cannot be opened.
        UserError: If it is not a regular file, or is larger.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block
    status = os.fstat(handle)
    fault = None
    if not stat.S_ISREG(status.st_mode):
        fault = f"{path} must be a regular file, got a folder or a device; replace it"
    elif status.st_size > max_bytes:
        fault = (
            f"{path} must have at most {max_bytes:,} bytes, got {status.st_size:,}; "
            "get the original file again"
        )
    if fault:
        os.close(handle)
        raise UserError(fault)
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes; errors as in `open_regular_file`."""
    with open_regular_file(path, max_bytes) as file:
        try:
            return file.read(max_bytes + 1)
        except MemoryError:
            raise UserError(
                f"{path} must fit in memory, got a file that does not; get the original file again"
            ) from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: If the file is missing.
        UserError: If the file is not valid JSON.
    """
    try:
        return json.loads(read_bounded(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} must be a JSON file, got {error}; write it again") from None
