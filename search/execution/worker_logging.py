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

from .fd_redirect import output_to
from .remote_files import Home


@contextmanager
def logged(home: Home) -> Iterator[None]:
    """Send what is printed meanwhile to this process' file."""
    name = f"worker-{socket.gethostname()}-{os.getpid()}.log"
    if home.is_here():
        home.logs.mkdir(exist_ok=True)
        with output_to(home.logs / name):
            yield
        return
    with NamedTemporaryFile(prefix="paretoprune-log-") as file:
        try:
            with output_to(Path(file.name)):
                yield
        finally:
            with suppress(OSError):  # a full disk is told of where it matters
                home.append(home.logs / name, Path(file.name).read_bytes())
