"""No room left on the disk: a search ends in one line, and goes on where it was."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class DiskFullInterrupt(BaseException):
    """Nothing more can be written; not an Exception, which Tune would lay to a trial's charge."""


class DiskFullError(RuntimeError):
    """The same for who called: the text is the one line."""


def is_disk_full(error: BaseException | None) -> bool:
    """True if this error, or one that it came from, is of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
            return True
        if any(
            f"(os error {code})" in str(error) for code in DISK_FULL_ERRNOS
        ):  # as safetensors says it
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def interrupt_on_full_disk() -> Iterator[None]:
    """What fails in this block for want of room ends the search, whoever catches exceptions."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullInterrupt(one_line_message(error)) from error
        raise


def one_line_message(error: BaseException) -> str:
    """What the system said."""
    return " ".join(str(error).split())[:300]
