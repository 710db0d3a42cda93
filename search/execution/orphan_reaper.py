"""A small process that cleans up after a driver that was killed.

When a driver is killed, Ray ends by itself, except for its files and its agents, which wait
minutes for a server that is gone. The reaper reads its stdin, a pipe that only the driver holds:
it closes when the driver ends. If the scratch folder still exists then, the driver was killed.

The reaper runs as a script and imports the standard library only, so that it starts at once.
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
    """Handle of the reaper process in the driver."""

    def __init__(self, scratch: Path) -> None:
        """Start the process. Remove the folder before `stop`."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(scratch)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal does not reach it
        )

    def stop(self) -> None:
        """End the process; the driver has cleaned up itself."""
        self._process.communicate()


def kill_orphans(scratch: Path) -> None:
    """Kill all processes of the Ray that keeps its files in the folder; remove the folder."""
    while holders := [pid for pid in all_pids() if is_ray_using(pid, scratch)]:
        for pid in holders:
            kill_process(pid)
        time.sleep(0.1)
    shutil.rmtree(scratch, ignore_errors=True)


def all_pids() -> list[int]:
    """Return the ids of all processes; none where there is no /proc."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def is_ray_using(pid: int, scratch: Path) -> bool:
    """Return whether this is a process of Ray with an open file in the folder."""
    process, below = Path("/proc") / str(pid), f"{scratch}/"
    try:
        if not RAY_COMMAND_PATTERN.search((process / "cmdline").read_bytes()):
            return False
        return any(os.readlink(file).startswith(below) for file in (process / "fd").iterdir())
    except OSError:  # it has just ended, or belongs to another user
        return False


def kill_process(pid: int) -> None:
    """Kill a process if it still exists."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.stdin.read()
    if Path(sys.argv[1]).exists():
        kill_orphans(Path(sys.argv[1]))
