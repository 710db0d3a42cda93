"""Optuna's journal after a kill: cut a torn tail off, clear a dead writer's lock, then open it.

Only the holder of the run lock may call this: Optuna itself cannot tell a dead writer from a slow
one, and one torn line makes every later open of the journal fail.
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
# What Optuna's replay, or the reading of a trial's own values, raises at records of another shape.
MALFORMED_RECORD_ERRORS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError,
          RecursionError, OptunaError)  # fmt: skip


def open_journal(path: Path) -> JournalStorage:
    """The storage in `path`, mended first."""
    repair_journal(path)
    return journal_storage(path)


def repair_journal(path: Path) -> None:
    """Undo what a kill did to a journal: its last line torn, or locked."""
    clear_stale_locks(path)
    if path.exists():
        open_regular_file(path, MAX_JOURNAL_BYTES).close()
        truncate_torn_tail(path)


def journal_storage(path: Path) -> JournalStorage:
    """The storage in `path` as it is."""
    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def malformed_records_as_user_error(path: Path) -> Iterator[None]:
    """Records that no search has written are told in one line; whatever they raise."""
    try:
        yield
    except UserError:
        raise
    except MALFORMED_RECORD_ERRORS as error:
        what = " ".join(str(error).split())[:80]
        raise UserError(
            f"{path} must be the journal that a search wrote, got records that are not its own "
            f"({type(error).__name__}: {what}); restore the file from a copy"
        ) from None


def clear_stale_locks(path: Path) -> None:
    """Remove what Optuna's lock leaves behind when its holder was killed."""
    for lock in path.parent.glob(f"{path.name}.lock*"):
        lock.unlink(missing_ok=True)


def truncate_torn_tail(path: Path) -> Path | None:
    """Cut the journal after its last whole line; keep what was cut beside it."""
    content = path.read_bytes()
    whole = complete_length(content)
    if whole == len(content):
        return None
    if is_json_object(content[whole:]):  # only its line end was lost: the record itself counts
        append_durably(path, b"\n")
        return None
    if b"\n" in content[whole:].rstrip(b"\n"):
        line = content[:whole].count(b"\n") + 1
        raise UserError(
            f"only the last line of a journal can be mended, got a broken line {line} in {path}; "
            "restore the file from a copy, or cut that line out by hand"
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
    """Length of the leading lines that are complete JSON records."""
    length = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or not is_json_object(line):
            break
        length += len(line)
    return length


def is_json_object(line: bytes) -> bool:
    """True for a whole JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def append_durably(path: Path, content: bytes) -> None:
    """Add to a file, durably."""
    with open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
