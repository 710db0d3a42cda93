"""No room left on the disk: a search ends in one line, and goes on where it was."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class NoRoom(BaseException):
    """Nothing more can be written; not an Exception, which Tune would lay to a trial's charge."""


class DiskFull(RuntimeError):
    """The same for who called: the text is the one line."""


def lacks_room(error: BaseException | None) -> bool:
    """True if this error, or one that it came from, is of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(f"(os error {code})" in str(error) for code in FULL):  # as safetensors says it
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def room_needed() -> Iterator[None]:
    """What fails in this block for want of room ends the search, whoever catches exceptions."""
    try:
        yield
    except Exception as error:
        if lacks_room(error):
            raise NoRoom(one_line(error)) from error
        raise


def one_line(error: BaseException) -> str:
    """What the system said."""
    return " ".join(str(error).split())[:300]
