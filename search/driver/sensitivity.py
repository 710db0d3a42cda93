"""`paretoprune sensitivity`: how much the loss rises when one group after the other is cut."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from ...analysis.jobs import MeasuredNetwork
from ...analysis.loss_curves.figure import curves_figure
from ...analysis.loss_curves.measure import measure_curves
from ...analysis.scores.measure import load_or_measure_scores
from ...spaces.cost.cost import CostModel
from ...spaces.cost.summary import summarize_network
from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.graph.trace import trace_channel_map
from ...spaces.graph.working_copy import make_working_copy
from ...spaces.io.atomic_write import write_bytes_atomic, write_json_atomic
from ...spaces.output_forms import CHOICES, SCORES
from ...spaces.policy.layer_scores import Scores, combine_layers
from ...spaces.policy.loss_curves import CurveSettings, LossCurves, curves_name, rise_tables
from ...spaces.policy.policy import check_choice
from ...trainers.data.image_options import told_chance, told_normalisation, with_options
from ...trainers.data.sources.load import load_data
from ...trainers.metrics.evaluate import evaluate
from ...trainers.models.read_outputs import read_outputs
from ..config.settings import SearchSettings
from ..execution.signals import SignalHandler, StopRequested
from ..results.formatting import make_console
from ..storage.run_folder import as_it_was
from .dense_model import build_from_settings
from .prepare import check_images, check_weights_file
from .resume import imports_code

REPORTED_SHARES = (0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class SensitivityRequest:
    """What to probe, in which order its atoms go, and where the curves are kept."""

    model: str
    data: str
    weights: Path | None
    score: str
    combine: str
    out: Path
    mean: str | None = None
    std: str | None = None
    outputs: str = SCORES


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """One group: rises at the shares removed; price shares are what would go with it whole."""

    group: str
    atoms: int
    rises: tuple[float, ...]
    macs_share: float
    params_share: float


def sensitivity_command(request: SensitivityRequest, settings: CurveSettings) -> int:
    """Probe, print, store, and return the exit code."""
    check_weights_file(request.weights)
    check_choice("--outputs", request.outputs, CHOICES)
    if request.out.exists() and not request.out.is_dir():
        raise UserError(f"--out must be a folder, got the file {request.out}; name another")
    try:
        with as_it_was(request.out), SignalHandler().installed():
            subject = build_probed_network(request)
            if settings.images > len(subject.data.train):
                print(f"--images {settings.images}: train has {len(subject.data.train)}, all used")
            order = ordering_scores(request, subject)
            with group_progress_bar() as on_progress:
                curves = measure_curves(
                    subject,
                    order,
                    settings,
                    folder=request.out / "evidence",
                    on_progress=on_progress,
                )
    except StopRequested as stop:
        print(f"stopped; the same command goes on from {request.out}")
        return stop.exit_code
    table = sensitivity_rows(curves, subject.channel_map)
    write_sensitivity(request, curves, subject.channel_map, table)
    print_sensitivity(curves, table, make_console())
    print(f"written to {request.out}: sensitivity.json, curves.html")
    return 0


def build_probed_network(request: SensitivityRequest) -> MeasuredNetwork:
    """The network, its data and its map."""
    settings = SearchSettings(
        model=request.model, weights=request.weights, mean=request.mean, std=request.std
    )
    images = settings.images()
    check_images(images, request.data, None)
    data = with_options(load_data(request.data, seed=0), images)
    for note in (*data.notes, told_normalisation(data, images)):
        print(note)
    model, notes = make_working_copy(build_from_settings(settings, data, print))
    data, more = read_outputs(model, data, request.outputs)
    for note in (*notes, *more):
        print(note)
    if request.weights is None and not imports_code(request.model):
        print("no --weights: the rises are those of a network that was never trained")
    if request.weights is not None:
        found = evaluate(model, data.validation, data)
        if warning := told_chance(found.accuracy, data):
            print(warning)
    return MeasuredNetwork(model, trace_channel_map(model, tuple(data.input_shape)), data)


def ordering_scores(request: SensitivityRequest, subject: MeasuredNetwork) -> Scores:
    """The score that orders each group's atoms."""
    evidence = load_or_measure_scores(
        subject.model,
        subject.channel_map,
        subject.data,
        folder=request.out / "evidence",
        seed=0,
        names=(request.score,),
    )
    return combine_layers(evidence.scores[request.score], subject.channel_map, request.combine)


@contextmanager
def group_progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, plain lines in a pipe."""
    columns = (TextColumn("groups"), BarColumn(), MofNCompleteColumn(), TextColumn("ETA"),
               TimeRemainingColumn())  # fmt: skip
    on_terminal = sys.stdout.isatty()
    with Bar(*columns, console=Console(), disable=not on_terminal) as shown:
        task = shown.add_task("groups", total=None)

        def report(done: int, total: int) -> None:
            shown.update(task, total=total, completed=done)
            if not on_terminal:
                print(f"{done}/{total} groups", flush=True)

        yield report


def sensitivity_rows(curves: LossCurves, channel_map: ChannelMap) -> list[SensitivityRow]:
    """The table."""
    groups = summarize_network(channel_map, CostModel(channel_map)).groups
    return [
        SensitivityRow(
            group.name,
            group.atoms,
            tuple(float(table[round(share * (len(table) - 1))]) for share in REPORTED_SHARES),
            group.macs_share,
            group.params_share,
        )
        for group, table in zip(groups, rise_tables(curves, channel_map), strict=True)
    ]


def write_sensitivity(
    request: SensitivityRequest,
    curves: LossCurves,
    channel_map: ChannelMap,
    table: list[SensitivityRow],
) -> None:
    """The table as JSON and the curves as a page; the curves themselves lie in evidence/."""
    written = [
        {**asdict(row), "rises": [r if np.isfinite(r) else None for r in row.rises]}
        for row in table
    ]
    name = curves_name(request.score, request.combine, curves.settings.probe)
    record = {
        "schema": 1,
        "curves": name,
        "model": request.model,
        "loss": curves.base,
        "settings": asdict(curves.settings),
        "probes": len(curves.rise),
        "not_finite": curves.failures,
        "shares": REPORTED_SHARES,
        "groups": written,
    }
    write_json_atomic(request.out / "sensitivity.json", record)
    page = curves_figure(curves, channel_map).to_html(include_plotlyjs=True)
    write_bytes_atomic(request.out / "curves.html", page.encode())


def print_sensitivity(curves: LossCurves, table: list[SensitivityRow], console: Console) -> None:
    """Group by group, and what must be known to read it."""
    printed = Table(title=f"rise of the loss ({curves.base:.4f} whole) by share of atoms removed")
    printed.add_column("group")
    for head in ("atoms", *(f"{share:.0%}" for share in REPORTED_SHARES), "FLOPs %", "params %"):
        printed.add_column(head, justify="right")
    for row in table:
        rises = (f"{rise:.4f}" for rise in row.rises)
        prices = (f"{100 * share:.1f}" for share in (row.macs_share, row.params_share))
        printed.add_row(row.group, str(row.atoms), *rises, *prices)
    console.print(printed)
    if curves.failures:
        console.print(f"{curves.failures} probes were NaN or infinite: taken as infinite rises")
