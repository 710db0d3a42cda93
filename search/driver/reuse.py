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

from ...spaces.io.atomic_write import partial_name, take_name
from ..storage.run_folder import RunFolder, keep
from .dense_model import DENSE_TRAINING, DenseTraining, training_of


def take_over(
    run: RunFolder, relatives: Sequence[Path], *, dense: bool, max_minutes: float | None = None
) -> None:
    """Link the evidence of the relatives into a run, and their `dense` network if they trained it.

    Weights that the user gave are read anew: their file may have changed. A network whose training
    was shortened serves runs with the same --max-minutes only.
    """
    for other in map(RunFolder, relatives):
        if dense and other.dense.is_file() and not run.dense.exists():
            training = training_of(other) or DenseTraining(0.0, 0.0, None)
            if training.serves(max_minutes):
                keep(run, **{DENSE_TRAINING: asdict(training)})
                link(other.dense, run.dense)
        tables = sorted(other.evidence.glob("*.npz"))
        if tables:
            run.evidence.mkdir(exist_ok=True)
        for table in tables:
            if not (run.evidence / table.name).exists():
                link(table, run.evidence / table.name)


def link(source: Path, path: Path) -> None:
    """The same file under another name, or a copy where the disk has no links."""
    try:
        os.link(source, path)
    except OSError:
        partial = partial_name(path)
        shutil.copyfile(source, partial)
        take_name(partial, path)
