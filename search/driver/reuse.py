"""Reuse dense weights and measurements of related runs: same dense network, same data.

The files are linked into the new run one by one, so that each folder stays complete when another
is moved or deleted. The name of a measurement has a hash of all that it depends on: files that do
not fit are not read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...spaces.io.atomic_write import commit_file, partial_path
from ..storage.run_folder import RunFolder, update_config
from .dense_model import DENSE_TRAINING, DenseTraining, training_of


def link_from_related_runs(
    run: RunFolder, related_runs: Sequence[Path], *, dense: bool, max_minutes: float | None = None
) -> None:
    """Link measurements of related runs into a run, and with `dense` their dense weights too.

    Weights that the user gave are read again, since their file may have changed. A dense model
    whose training was shortened is reused only by runs with the same --max-minutes.
    """
    for other in map(RunFolder, related_runs):
        if dense and other.dense.is_file() and not run.dense.exists():
            training = training_of(other) or DenseTraining(0.0, 0.0, None)
            if training.serves(max_minutes):
                update_config(run, **{DENSE_TRAINING: asdict(training)})
                link_or_copy(other.dense, run.dense)
        tables = sorted(other.measurements.glob("*.npz"))
        if tables:
            run.measurements.mkdir(exist_ok=True)
        for table in tables:
            if not (run.measurements / table.name).exists():
                link_or_copy(table, run.measurements / table.name)


def link_or_copy(source: Path, path: Path) -> None:
    """Link a file under another path, or copy it if the disk has no links."""
    try:
        os.link(source, path)
    except OSError:
        partial = partial_path(path)
        shutil.copyfile(source, partial)
        commit_file(partial, path)
