"""What a worker prints, C++ included: in a file of its own in the run folder, as it is printed.

A worker that does not see the run folder keeps the file to itself while it works, and adds what
came to the one in the run folder at the end of each trial or errand.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from .fd_redirect import redirect_output
from .remote_files import RemoteRunFolder


@contextmanager
def log_to_worker_file(run_folder: RemoteRunFolder) -> Iterator[None]:
    """Send what is printed meanwhile to this process' file."""
    name = f"worker-{socket.gethostname()}-{os.getpid()}.log"
    if run_folder.is_visible():
        run_folder.logs.mkdir(exist_ok=True)
        with redirect_output(run_folder.logs / name):
            yield
        return
    with NamedTemporaryFile(prefix="paretoprune-log-") as file:
        try:
            with redirect_output(Path(file.name)):
                yield
        finally:
            with suppress(OSError):  # a full disk is told of where it matters
                run_folder.append(run_folder.logs / name, Path(file.name).read_bytes())
