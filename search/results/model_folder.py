"""The folder of a picked network: model.safetensors, recipe.json, README.md, dense.safetensors.

It needs nothing of the run that it came from, and may move to another machine.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes_atomic
from ...spaces.io.bounded_read import read_bounded
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import DenseMetrics
from ...spaces.records.recipe import Recipe, read_recipe, recipe_metrics
from ...trainers.pruning.serialization import (
    DENSE_WEIGHTS_FILE,
    RECIPE_FILE,
    read_verified_bytes,
    save_network,
    software_versions,
)
from ..storage.artifacts import fetch_trial_folder
from ..storage.run_folder import RunFolder, as_it_was
from .model_card import render_model_card

MAX_BYTES_PER_PARAMETER, SPARE_BYTES = 16, 64 << 20  # of a file that can be a small network's


def write_model_folder(run: Path, point: Evaluation, dense: DenseMetrics, out: Path) -> None:
    """Write the point's network into a new or empty folder."""
    check_path_inside(run, point.path)
    try:
        busy = os.path.isdir(out) and any(out.iterdir())
    except OSError as error:
        raise UserError(unwritable_folder_message(out, error)) from None
    if busy:
        raise UserError(f"--out must be an empty folder, got {out}; name a new one")
    with as_it_was(out, any_error=True):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(unwritable_folder_message(out, error)) from None
        source = fetch_trial_folder(run, point.path)
        copy_network(source, point, dense, out, RunFolder(run).dense)


def check_path_inside(run: Path, path: str) -> Path:
    """The folder of a point, which must lie in its run: a front.json may be a stranger's."""
    root, folder = run.resolve(), (run / path).resolve()
    if root not in (folder, *folder.parents):
        raise UserError(
            f"a point's path must lie in its run, got {path!r}; delete front.json: it is rebuilt "
            "from the journal"
        )
    return run / path


def copy_network(
    source: Path, point: Evaluation, dense: DenseMetrics, out: Path, dense_weights: Path
) -> None:
    """Copy weights, recipe with its figures, and the teacher; add the card."""
    recipe = replace(
        read_recipe(source / RECIPE_FILE),
        versions=software_versions(),
        figures=recipe_metrics(point),
        dense=dense,
    )
    most = MAX_BYTES_PER_PARAMETER * dense.params + SPARE_BYTES
    weights, _ = read_verified_bytes(source, recipe.weights_sha256, most)
    try:
        if dense_weights.is_file():
            content = read_bounded(dense_weights, most)
            write_bytes_atomic(out / DENSE_WEIGHTS_FILE, content)
            recipe = replace(recipe, dense_sha256=hashlib.sha256(content).hexdigest())
        write_network_and_card(out, recipe, weights)
    except OSError as error:
        raise UserError(unwritable_folder_message(out, error)) from None


def write_network_and_card(out: Path, recipe: Recipe, weights: bytes) -> None:
    """Write or replace a folder's network and the card that describes it."""
    save_network(out, recipe, weights)
    write_bytes_atomic(out / "README.md", render_model_card(recipe, out.name).encode())


def unwritable_folder_message(out: Path, error: OSError) -> str:
    """The one line about a folder that cannot be written."""
    return (
        f"--out must be a folder that can be written, got {out} ({error.strerror}); name another"
    )
