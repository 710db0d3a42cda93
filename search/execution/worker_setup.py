"""Set up a worker process: one thread, a share of the GPU's memory, and a log file.

Ray counts fractions of a GPU but does not enforce them. Without a limit, the first of several
trials may take all memory, and another one runs out of the memory that it was assigned.

The log file holds all output of the process, also that of C++ code. A worker that does not see
the run folder writes to a temporary file, and appends it to the file in the run folder at the end
of each trial or call.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import ray
import torch

from .fd_redirect import redirect_output
from .remote_files import RemoteRunFolder


def limit_worker_resources() -> None:
    """Limit threads and GPU memory of this worker process."""
    torch.set_num_threads(1)
    fraction = assigned_gpu_fraction()
    if fraction is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(fraction)


def assigned_gpu_fraction() -> float | None:
    """Return the fraction of a GPU that this worker shares with others; None if it does not."""
    assigned = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    fraction = float(assigned.get("GPU", 0))
    return fraction if 0 < fraction < 1 else None


@contextmanager
def log_to_worker_file(run_folder: RemoteRunFolder) -> Iterator[None]:
    """Redirect the output of the block to the file of this process."""
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
            with suppress(OSError):  # a full disk is reported where results are written
                run_folder.append(run_folder.logs / name, Path(file.name).read_bytes())
