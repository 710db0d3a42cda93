"""Clears up after a driver that was killed: a small process that outlives it.

A Ray whose driver is killed ends by itself, but for its agents, which wait minutes for a server
that is gone, and its files. The reaper reads its stdin, a pipe that only the driver holds: the end
of it is the end of the driver. If its scratch folder is still there, it left no other way to.

Run as a script of its own: it imports nothing but the standard library, and so starts at once.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

RAY_COMMAND_PATTERN = re.compile(rb"(^|[/\0])ray(::|let|/)|gcs_server")


class OrphanReaper:
    """The driver's side."""

    def __init__(self, scratch: Path) -> None:
        """Start it; the folder is to be removed before `leave`."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(scratch)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is not meant for it
        )

    def stop(self) -> None:
        """The driver has cleared up itself."""
        self._process.communicate()


def kill_orphans(scratch: Path) -> None:
    """Kill what is left of the Ray that keeps its files there, then remove the files."""
    while holders := [pid for pid in all_pids() if is_ray_using(pid, scratch)]:
        for pid in holders:
            kill_process(pid)
        time.sleep(0.1)
    shutil.rmtree(scratch, ignore_errors=True)


def all_pids() -> list[int]:
    """Where there is no /proc, Ray is left to itself."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def is_ray_using(pid: int, scratch: Path) -> bool:
    """True for a process of Ray's that has a file open in this folder."""
    process, below = Path("/proc") / str(pid), f"{scratch}/"
    try:
        if not RAY_COMMAND_PATTERN.search((process / "cmdline").read_bytes()):
            return False
        return any(os.readlink(file).startswith(below) for file in (process / "fd").iterdir())
    except OSError:  # it has just ended, or is somebody else's
        return False


def kill_process(pid: int) -> None:
    """At once, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.stdin.read()
    if Path(sys.argv[1]).exists():
        kill_orphans(Path(sys.argv[1]))
