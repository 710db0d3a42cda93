"""`paretoprune export`: write a network for torch.export or ONNX and compare its latency."""

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
    """The options of `paretoprune export`; `batch` is a number or the word dynamic."""

    folder: Path
    to: str
    out: Path | None = None
    batch: str = "dynamic"
    threads: int = 1
    model: str | None = None

    def export_spec(self, recipe: Recipe) -> ExportSpec:
        """Return the checked export of a network with this recipe."""
        if self.batch != "dynamic" and not self.batch.isdecimal():
            raise UserError(
                f"--batch must be dynamic or a number, got {self.batch!r}; write --batch dynamic"
            )
        batch = None if self.batch == "dynamic" else int(self.batch)
        spec = ExportSpec(
            self.to, recipe.source.input_shape, batch, self.threads, recipe.source.classes
        )
        spec.check()
        return spec


def export_command(request: ExportRequest) -> None:
    """Run `paretoprune export`: write the file, print the check and both latencies."""
    recipe = read_recipe(request.folder / RECIPE_FILE)
    spec = request.export_spec(recipe)
    suffix = EXPORT_SUFFIXES[spec.format]
    path = request.out or request.folder / f"model{suffix}"
    check_output_path(path)
    if path.suffix in EXPORT_SUFFIXES.values() and path.suffix != suffix:
        raise UserError(
            f"--out must end in {suffix} for --to {spec.format}, got {path}; rename it"
        )
    loaded = load_network(request.folder, build_user_model(request.model, recipe))
    exported = export_network(loaded.model, path, spec)
    sizes = ", ".join(map(str, exported.batches))
    print(
        f"written to {path}: the outputs differ from the eager network by at most "
        f"{max(exported.max_difference, 1e-9):.1g} "
        f"at batches of {sizes}",
        flush=True,
    )
    if exported.element != WHOLE:
        print(f"the file returns only {exported.element}", flush=True)
    dense, pruned = compare_latencies(loaded.dense, exported, spec)
    show_latencies(dense, pruned, spec)


def compare_latencies(
    dense: nn.Module, exported: ExportedModel, spec: ExportSpec
) -> tuple[Latency, Latency]:
    """Export the dense network in the same way and time both files in turn."""
    images = random_images(spec.batch or 1, spec.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        exported_dense = export_network(dense, Path(folder) / exported.path.name, spec)
        first, second = measure_latencies_interleaved(
            [lambda: exported_dense.runner(images), lambda: exported.runner(images)],
            len(images),
            DeviceConfig(threads=spec.threads),
        )
    return first, second


def show_latencies(dense: Latency, pruned: Latency, spec: ExportSpec) -> None:
    """Print the medians with half the interquartile range."""
    runtime = "onnxruntime" if spec.format == "onnx" else "torch.export"
    threads = f"{spec.threads} thread{'s' if spec.threads > 1 else ''}"
    print(f"latency of {runtime} on the CPU, {threads}, batch {pruned.batch}:")
    table = Table()
    for heading in ("", "ms", "of dense"):
        table.add_column(heading, justify="right")
    for name, latency in (("dense", dense), ("pruned", pruned)):
        share = f"{latency.median_ms / dense.median_ms:.0%}"
        table.add_row(name, f"{latency.median_ms:.3f} +- {latency.spread_ms:.3f}", share)
    make_console().print(table)


def check_output_path(path: Path) -> None:
    """Raise a `UserError` if the file cannot be written, before the network is built."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(
            f"--out must be a file in a folder that exists, got {path}; create the folder"
        )


def export_picked_model(
    model: nn.Module, recipe: Recipe, path: Path, *, to: str | None, batch: int | None
) -> Path:
    """Export from Python and return the path; without `to`, the file's suffix is the format."""
    formats = {suffix: name for name, suffix in EXPORT_SUFFIXES.items()}
    if to is None and path.suffix not in formats:
        raise UserError(f"path must end in {' or '.join(formats)}, got {path}; or pass to='onnx'")
    if to is not None and path.suffix in formats and formats[path.suffix] != to:
        raise UserError(
            f"path must end in {EXPORT_SUFFIXES.get(to, to)} for to={to!r}, got {path}; rename it"
        )
    if not matches_type(batch, "int | None"):
        raise UserError(f"batch must be a whole number, got {batch!r}; write 1, or leave it out")
    check_output_path(path)
    source = recipe.source
    spec = ExportSpec(
        to or formats[path.suffix], source.input_shape, batch, classes=source.classes
    )
    return export_network(model, path, spec).path
