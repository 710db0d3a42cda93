"""`paretoprune export`: a picked network as a file for other programs, timed beside dense."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from torch import nn

from ...spaces.errors import UserError
from ...spaces.io.validation import fits
from ...spaces.output_forms import WHOLE
from ...spaces.records.recipe import Recipe, read_recipe
from ...trainers.metrics.latency import Latency, time_in_turn
from ...trainers.models.export import FORMATS, Exported, ExportTask, export_network, noise
from ...trainers.pruning.serialization import RECIPE, load_network, named_model
from ...trainers.runtime.device import Machine
from ..results.formatting import plain_console


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for; `batch` is a number or the word dynamic."""

    folder: Path
    to: str
    out: Path | None = None
    batch: str = "dynamic"
    threads: int = 1
    model: str | None = None

    def task(self, recipe: Recipe) -> ExportTask:
        """The checked task."""
        if self.batch != "dynamic" and not self.batch.isdecimal():
            raise UserError(
                f"--batch must be dynamic or a number, got {self.batch!r}; write --batch dynamic"
            )
        batch = None if self.batch == "dynamic" else int(self.batch)
        task = ExportTask(
            self.to, recipe.source.input_shape, batch, self.threads, recipe.source.classes
        )
        task.check()
        return task


def export_command(wanted: Wanted) -> None:
    """Export, say what was checked, and show both latencies."""
    recipe = read_recipe(wanted.folder / RECIPE)
    task = wanted.task(recipe)
    path = wanted.out or wanted.folder / f"model{FORMATS[task.to]}"
    check_path(path)
    if path.suffix in FORMATS.values() and path.suffix != FORMATS[task.to]:
        raise UserError(
            f"--out must end in {FORMATS[task.to]} for --to {task.to}, got {path}; rename it"
        )
    loaded = load_network(wanted.folder, named_model(wanted.model, recipe))
    exported = export_network(loaded.model, path, task)
    sizes = ", ".join(map(str, exported.batches))
    print(
        f"written to {path}: eager's scores within {max(exported.worst, 1e-9):.1g} "
        f"at batches of {sizes}",
        flush=True,
    )
    if exported.element != WHOLE:
        print(f"the file returns {exported.element} alone", flush=True)
    dense, pruned = both_latencies(loaded.dense, exported, task)
    show_latencies(dense, pruned, task)


def both_latencies(
    dense: nn.Module, exported: Exported, task: ExportTask
) -> tuple[Latency, Latency]:
    """The dense network exported alike, then both timed in turn."""
    images = noise(task.batch or 1, task.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        other = export_network(dense, Path(folder) / exported.path.name, task)
        first, second = time_in_turn(
            [lambda: other.runner(images), lambda: exported.runner(images)],
            len(images),
            Machine(threads=task.threads),
        )
    return first, second


def show_latencies(dense: Latency, pruned: Latency, task: ExportTask) -> None:
    """Print medians with half the distance between the quartiles."""
    runtime = "onnxruntime" if task.to == "onnx" else "torch.export"
    threads = f"{task.threads} thread{'s' if task.threads > 1 else ''}"
    print(f"latency of {runtime} on the CPU, {threads}, batch {pruned.batch}:")
    table = Table()
    for heading in ("", "ms", "of dense"):
        table.add_column(heading, justify="right")
    for name, one in (("dense", dense), ("pruned", pruned)):
        share = f"{one.median_ms / dense.median_ms:.0%}"
        table.add_row(name, f"{one.median_ms:.3f} +- {one.spread_ms:.3f}", share)
    plain_console().print(table)


def check_path(path: Path) -> None:
    """Refuse a file that could not be written, before the network is built."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"--out must be a file in a folder that exists, got {path}; make it")


def export_small(
    model: nn.Module, recipe: Recipe, path: Path, *, to: str | None, batch: int | None
) -> Path:
    """Export from Python; the format by the file's ending where `to` does not say it."""
    endings = {ending: name for name, ending in FORMATS.items()}
    if to is None and path.suffix not in endings:
        raise UserError(f"path must end in {' or '.join(endings)}, got {path}; or pass to='onnx'")
    if to is not None and path.suffix in endings and endings[path.suffix] != to:
        raise UserError(
            f"path must end in {FORMATS.get(to, to)} for to={to!r}, got {path}; rename it"
        )
    if not fits(batch, "int | None"):
        raise UserError(f"batch must be a whole number, got {batch!r}; write 1, or leave it out")
    check_path(path)
    source = recipe.source
    task = ExportTask(
        to or endings[path.suffix], source.input_shape, batch, classes=source.classes
    )
    return export_network(model, path, task).path
