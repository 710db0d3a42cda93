"""Relatives: runs of the same dense network and data, which need not train or measure it again.

What they measured is linked into the new run file by file, so that every folder stays whole when
another is moved or deleted. Evidence is named by a hash of all that it depends on: what does not
fit is not read.
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
    """Link the evidence of the relatives into a run, and their `dense` network if they trained it.

    Weights that the user gave are read anew: their file may have changed. A network whose training
    was shortened serves runs with the same --max-minutes only.
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
    """The same file under another name, or a copy where the disk has no links."""
    try:
        os.link(source, path)
    except OSError:
        partial = partial_path(path)
        shutil.copyfile(source, partial)
        commit_file(partial, path)
