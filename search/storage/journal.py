"""Optuna's journal file: repair after a kill, then open.

The repair truncates a torn last line and removes the lock of a dead writer. Only the holder of the
run lock may call it: Optuna cannot tell a dead writer from a slow one, and one torn line makes
every later opening of the journal fail.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import OptunaError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ...spaces.errors import UserError
from ...spaces.io.bounded_read import open_regular_file

MAX_JOURNAL_BYTES = 1 << 30
# Errors that Optuna's replay, or parsing a trial's attributes, raises at malformed records.
MALFORMED_RECORD_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
    OptunaError,
)


def open_journal(path: Path) -> JournalStorage:
    """Repair the journal, then open it as an Optuna storage."""
    repair_journal(path)
    return journal_storage(path)


def repair_journal(path: Path) -> None:
    """Remove stale locks and a torn last line, which a killed driver leaves behind."""
    clear_stale_locks(path)
    if path.exists():
        open_regular_file(path, MAX_JOURNAL_BYTES).close()
        truncate_torn_tail(path)


def journal_storage(path: Path) -> JournalStorage:
    """Open the journal as an Optuna storage without repairing it."""
    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def malformed_records_as_user_error(path: Path) -> Iterator[None]:
    """Convert any error that malformed records raise to a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except MALFORMED_RECORD_ERRORS as error:
        what = " ".join(str(error).split())[:80]
        raise UserError(
            f"{path} must be the journal of a search, got malformed records "
            f"({type(error).__name__}: {what}); restore the file from a copy"
        ) from None


def clear_stale_locks(path: Path) -> None:
    """Remove the lock files that Optuna leaves when the lock's holder is killed."""
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)


def truncate_torn_tail(path: Path) -> Path | None:
    """Truncate the journal after its last complete line.

    Args:
        path: The journal file.

    Returns:
        The file that keeps the removed bytes, or None if nothing was removed.

    Raises:
        UserError: A line other than the last is broken.
    """
    content = path.read_bytes()
    whole = complete_length(content)
    if whole == len(content):
        return None
    if is_json_object(content[whole:]):  # only the newline is missing; the record is complete
        append_durably(path, b"\n")
        return None
    if b"\n" in content[whole:].rstrip(b"\n"):
        line = content[:whole].count(b"\n") + 1
        raise UserError(
            "a journal may be broken in its last line only, got a broken line "
            f"{line} in {path}; restore the file from a copy, or delete that line by hand"
        )
    number = 1
    while (kept := path.with_name(f"{path.name}.torn-{number}")).exists():
        number += 1
    kept.write_bytes(content[whole:])
    with open(path, "r+b") as file:
        file.truncate(whole)
        file.flush()
        os.fsync(file.fileno())
    return kept


def complete_length(content: bytes) -> int:
    """Return the length of the leading lines that are complete JSON records."""
    length = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or not is_json_object(line):
            break
        length += len(line)
    return length


def is_json_object(line: bytes) -> bool:
    """Whether the line is one complete JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def append_durably(path: Path, content: bytes) -> None:
    """Append to a file and sync it to disk."""
    with open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
