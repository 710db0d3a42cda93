"""Errors that end a search in one line: a full disk, and workers that die."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class WorkersDiedError(RuntimeError):
    """Every worker that ran one call died of it. The text is one line for the user."""


class DiskFullError(RuntimeError):
    """The disk is full. The text is one line for the user."""


class DiskFullInterrupt(BaseException):
    """The disk is full. Not an Exception: Ray Tune would count it as a failed trial."""


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether a full disk caused this error, directly or through its causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            return True
        # safetensors gives the error number in its text only
        if any(f"(os error {code})" in str(error) for code in DISK_FULL_ERRNOS):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def interrupt_on_full_disk() -> Iterator[None]:
    """Turn every exception that a full disk caused in this block into `DiskFullInterrupt`."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullInterrupt(one_line_message(error)) from error
        raise


def one_line_message(error: BaseException) -> str:
    """Return the text of an error on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
