"""Files that a stranger may have written: plain ones only, and never larger than expected.

A pipe or a device in the place of a file would hang the reader; a sparse file of a terabyte would
take all memory. Both are refused before a byte is read.
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
    """A plain file that has at most `most` bytes; OSError where there is none."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block
    found = os.fstat(handle)
    fault = None
    if not stat.S_ISREG(found.st_mode):
        fault = f"{path} must be a plain file, got a folder or a device; replace it"
    elif found.st_size > max_bytes:
        fault = (
            f"{path} must have at most {max_bytes:,} bytes, got {found.st_size:,}; "
            "it is not what its name says: get it again"
        )
    if fault:
        os.close(handle)
        raise UserError(fault)
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The bytes of a plain file that has at most `most` of them; OSError where it has none."""
    with open_regular_file(path, max_bytes) as file:
        try:
            return file.read(max_bytes + 1)
        except MemoryError:
            raise UserError(
                f"{path} must fit in memory, got one that does not; get it again"
            ) from None


def read_json(path: Path) -> Any:
    """The values of a JSON file; FileNotFoundError where it is missing, UserError where broken."""
    try:
        return json.loads(read_bounded(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} must be a JSON file, got {error}; write it again") from None
