"""What a trial needs and makes, brought to where its worker is and from there to where it belongs.

A worker that sees the run folder works in it. One that does not works in a folder of its own.
"""

from __future__ import annotations

from ...trainers.pruning.serialization import WEIGHTS
from ..storage.artifacts import fetched, store
from ..storage.trial_spec import Job
from ..trial.context import Context
from .remote_files import Home, read_files, write_files


def bring(job: Job, context: Context, home: Home, artifacts: str | None) -> None:
    """Bring here what is trained on, if the job goes on with another's network."""
    if job.continues is None:
        return
    folder = context.root / job.continues
    if not home.is_here():
        write_files(folder, home.read(job.continues))
    if artifacts is not None and not (folder / WEIGHTS).exists():
        write_files(folder, {WEIGHTS: fetched(artifacts, job.continues)})


def deliver(folder: str, context: Context, home: Home, artifacts: str | None) -> None:
    """Take the trial's files to where they belong: on return they are there, durably."""
    here = context.root / folder
    if artifacts is not None:
        store(artifacts, f"{folder}/{WEIGHTS}", (here / WEIGHTS).read_bytes())
        (here / WEIGHTS).unlink()
    if not home.is_here():
        home.write(folder, read_files(here))
