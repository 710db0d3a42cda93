"""SIGINT and SIGTERM: the driver stops at once, but never in the middle of a journal entry.

A second signal, while Ray shuts down, ends the process like a kill; the journal survives that.
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
SAME_SIGNAL_SECONDS = 0.5  # timeout(1) sends the same signal to a process and to its group


class StopRequested(BaseException):
    """A signal asked the driver to stop. Not an Exception, so that no handler swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum
        self.run: RunFolder | None = None


class SignalHandler:
    """Remembers a signal and raises `StopRequested` where that is safe."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._since = 0.0
        self._shields = 0
        self._ended = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Raise `StopRequested` in the main thread at a signal; a second one ends the process."""
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
        """Install the handlers again after a library replaced them, as Ray does when it starts."""
        if threading.current_thread() is threading.main_thread():
            for each in STOP_SIGNALS:
                signal.signal(each, self._on_signal)

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Defer a signal until the end of the block."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if not self._shields:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise `StopRequested` if a signal has come; for safe points within a shield."""
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
