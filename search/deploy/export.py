"""`paretoprune export`: a picked network as a file for other programs, timed beside dense."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from torch import nn

from ...spaces.errors import UserError
from ...spaces.io.validation import matches_type
from ...spaces.output_forms import WHOLE
from ...spaces.records.recipe import Recipe, read_recipe
from ...trainers.metrics.latency import Latency, measure_latencies_interleaved
from ...trainers.models.export import (
    EXPORT_SUFFIXES,
    ExportedModel,
    ExportSpec,
    export_network,
    random_images,
)
from ...trainers.pruning.serialization import RECIPE_FILE, build_user_model, load_network
from ...trainers.runtime.device import DeviceConfig
from ..results.formatting import make_console


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the command line asks for; `batch` is a number or the word dynamic."""

    folder: Path
    to: str
    out: Path | None = None
    batch: str = "dynamic"
    threads: int = 1
    model: str | None = None

    def export_spec(self, recipe: Recipe) -> ExportSpec:
        """The checked task."""
        if self.batch != "dynamic" and not self.batch.isdecimal():
            raise UserError(
                f"--batch must be dynamic or a number, got {self.batch!r}; write --batch dynamic"
            )
        batch = None if self.batch == "dynamic" else int(self.batch)
        task = ExportSpec(
            self.to, recipe.source.input_shape, batch, self.threads, recipe.source.classes
        )
        task.check()
        return task


def export_command(request: ExportRequest) -> None:
    """Export, say what was checked, and show both latencies."""
    recipe = read_recipe(request.folder / RECIPE_FILE)
    task = request.export_spec(recipe)
    path = request.out or request.folder / f"model{EXPORT_SUFFIXES[task.format]}"
    check_output_path(path)
    if path.suffix in EXPORT_SUFFIXES.values() and path.suffix != EXPORT_SUFFIXES[task.format]:
        raise UserError(
            f"--out must end in {EXPORT_SUFFIXES[task.format]} for --to {task.format}, got {path}; rename it"
        )
    loaded = load_network(request.folder, build_user_model(request.model, recipe))
    exported = export_network(loaded.model, path, task)
    sizes = ", ".join(map(str, exported.batches))
    print(
        f"written to {path}: eager's scores within {max(exported.max_difference, 1e-9):.1g} "
        f"at batches of {sizes}",
        flush=True,
    )
    if exported.element != WHOLE:
        print(f"the file returns {exported.element} alone", flush=True)
    dense, pruned = compare_latencies(loaded.dense, exported, task)
    show_latencies(dense, pruned, task)


def compare_latencies(
    dense: nn.Module, exported: ExportedModel, task: ExportSpec
) -> tuple[Latency, Latency]:
    """The dense network exported alike, then both timed in turn."""
    images = random_images(task.batch or 1, task.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        other = export_network(dense, Path(folder) / exported.path.name, task)
        first, second = measure_latencies_interleaved(
            [lambda: other.runner(images), lambda: exported.runner(images)],
            len(images),
            DeviceConfig(threads=task.threads),
        )
    return first, second


def show_latencies(dense: Latency, pruned: Latency, task: ExportSpec) -> None:
    """Print medians with half the distance between the quartiles."""
    runtime = "onnxruntime" if task.format == "onnx" else "torch.export"
    threads = f"{task.threads} thread{'s' if task.threads > 1 else ''}"
    print(f"latency of {runtime} on the CPU, {threads}, batch {pruned.batch}:")
    table = Table()
    for heading in ("", "ms", "of dense"):
        table.add_column(heading, justify="right")
    for name, one in (("dense", dense), ("pruned", pruned)):
        share = f"{one.median_ms / dense.median_ms:.0%}"
        table.add_row(name, f"{one.median_ms:.3f} +- {one.spread_ms:.3f}", share)
    make_console().print(table)


def check_output_path(path: Path) -> None:
    """Refuse a file that could not be written, before the network is built."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"--out must be a file in a folder that exists, got {path}; make it")


def export_picked_model(
    model: nn.Module, recipe: Recipe, path: Path, *, to: str | None, batch: int | None
) -> Path:
    """Export from Python; the format by the file's ending where `to` does not say it."""
    endings = {ending: name for name, ending in EXPORT_SUFFIXES.items()}
    if to is None and path.suffix not in endings:
        raise UserError(f"path must end in {' or '.join(endings)}, got {path}; or pass to='onnx'")
    if to is not None and path.suffix in endings and endings[path.suffix] != to:
        raise UserError(
            f"path must end in {EXPORT_SUFFIXES.get(to, to)} for to={to!r}, got {path}; rename it"
        )
    if not matches_type(batch, "int | None"):
        raise UserError(f"batch must be a whole number, got {batch!r}; write 1, or leave it out")
    check_output_path(path)
    source = recipe.source
    task = ExportSpec(
        to or endings[path.suffix], source.input_shape, batch, classes=source.classes
    )
    return export_network(model, path, task).path
