"""SIGINT and SIGTERM: the driver stops at once, but never in the middle of a ledger entry.

A second one, while Ray is being ended, leaves as a kill would: the journal takes that.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..storage.run_folder import RunFolder

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL_SECONDS = (
    0.5  # seconds: launchers as timeout(1) send the same one to a process and its group
)


class StopRequested(BaseException):
    """A signal asked the driver to stop; not an Exception, so that nothing on the way eats it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum
        self.run: RunFolder | None = None


class SignalHandler:
    """Whether a signal has come, and whether it may be raised now."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._since = 0.0
        self._shields = 0
        self._ended = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Raise Stopped in the main thread at a signal; a second signal ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self._on_signal) for each in STOP_SIGNALS}
        try:
            yield
        finally:
            self._ended = True
            for each, handler in before.items():
                signal.signal(each, handler)

    def reinstall(self) -> None:
        """Take the signals back from a library that took them (Ray does, when it starts)."""
        if threading.current_thread() is threading.main_thread():
            for each in STOP_SIGNALS:
                signal.signal(each, self._on_signal)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold a signal back until the block is over."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if not self._shields:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise Stopped if a signal has come: for the safe points within a shield."""
        if self._signum is not None:
            raise StopRequested(self._signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum is not None:
            if time.monotonic() - self._since > SAME_SIGNAL_SECONDS:
                os._exit(128 + signum)
            return
        self._signum, self._since = signum, time.monotonic()
        if not self._shields and not self._ended:
            raise StopRequested(signum)
