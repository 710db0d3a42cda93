"""Files of a trial: fetch its inputs to the worker, store its outputs in the run folder.

A worker that sees the run folder works in it. Another one works in a temporary folder.
"""

from __future__ import annotations

from ...trainers.pruning.serialization import TRIAL_WEIGHTS_FILE
from ..storage.artifacts import download_weights, upload_file
from ..storage.trial_spec import TrialSpec
from ..trial.context import TrialContext
from .remote_files import RemoteRunFolder, read_files, write_files


def fetch_continued_network(
    spec: TrialSpec, context: TrialContext, run_folder: RemoteRunFolder, artifacts: str | None
) -> None:
    """Fetch the network that the trial trains further, if it continues another trial."""
    if spec.continues is None:
        return
    folder = context.root / spec.continues
    if not run_folder.is_visible():
        write_files(folder, run_folder.read(spec.continues))
    if artifacts is not None and not (folder / TRIAL_WEIGHTS_FILE).exists():
        write_files(folder, {TRIAL_WEIGHTS_FILE: download_weights(artifacts, spec.continues)})


def store_trial_files(
    folder: str, context: TrialContext, run_folder: RemoteRunFolder, artifacts: str | None
) -> None:
    """Store the files of a trial in the run folder; weights at the artifacts URL if given."""
    local = context.root / folder
    if artifacts is not None:
        upload_file(
            artifacts, f"{folder}/{TRIAL_WEIGHTS_FILE}", (local / TRIAL_WEIGHTS_FILE).read_bytes()
        )
        (local / TRIAL_WEIGHTS_FILE).unlink()
    if not run_folder.is_visible():
        run_folder.write(folder, read_files(local))
