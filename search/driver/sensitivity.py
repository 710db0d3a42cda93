"""`paretoprune sensitivity`: how much the loss rises when each group alone is pruned."""

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
from ...trainers.data.image_options import chance_warning, describe_normalisation, with_options
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
    """The options of `paretoprune sensitivity`."""

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
    """One group: rises of the loss at the shares removed, and the group's share of the cost."""

    group: str
    atoms: int
    rises: tuple[float, ...]
    macs_share: float
    params_share: float


def sensitivity_command(request: SensitivityRequest, settings: CurveSettings) -> int:
    """Measure, print and store the loss curves of all groups; return the exit code.

    Args:
        request: The model, data, weights, the score that orders atoms, and the output folder.
        settings: How loss curves are measured.

    Raises:
        UserError: an option is not valid, or the model does not fit the data.

    Example:
        >>> request = SensitivityRequest(
        ...     "digits-resnet", "digits", None, "taylor", "sum", Path("out")
        ... )
        >>> sensitivity_command(request, CurveSettings(images=128))  # doctest: +SKIP
    """
    check_weights_file(request.weights)
    check_choice("--outputs", request.outputs, CHOICES)
    if request.out.exists() and not request.out.is_dir():
        raise UserError(f"--out must be a folder, got the file {request.out}; name another folder")
    try:
        with as_it_was(request.out), SignalHandler().installed():
            network = build_probed_network(request)
            if settings.images > len(network.data.train):
                images = len(network.data.train)
                print(f"--images {settings.images}: the training split has {images}, all are used")
            order = ordering_scores(request, network)
            with group_progress_bar() as on_progress:
                curves = measure_curves(
                    network,
                    order,
                    settings,
                    folder=request.out / "evidence",
                    on_progress=on_progress,
                )
    except StopRequested as stop:
        print(f"stopped; the same command continues from {request.out}")
        return stop.exit_code
    rows = sensitivity_rows(curves, network.channel_map)
    write_sensitivity(request, curves, network.channel_map, rows)
    print_sensitivity(curves, rows, make_console())
    print(f"written to {request.out}: sensitivity.json, curves.html")
    return 0


def build_probed_network(request: SensitivityRequest) -> MeasuredNetwork:
    """Build the network, load its data and trace its channel map."""
    settings = SearchSettings(
        model=request.model, weights=request.weights, mean=request.mean, std=request.std
    )
    images = settings.images()
    check_images(images, request.data, None)
    data = with_options(load_data(request.data, seed=0), images)
    for note in (*data.notes, describe_normalisation(data, images)):
        print(note)
    model, notes = make_working_copy(build_from_settings(settings, data, print))
    data, more = read_outputs(model, data, request.outputs)
    for note in (*notes, *more):
        print(note)
    if request.weights is None and not imports_code(request.model):
        print("no --weights: the loss rises are those of an untrained network")
    if request.weights is not None:
        metrics = evaluate(model, data.validation, data)
        if warning := chance_warning(metrics.accuracy, data):
            print(warning)
    return MeasuredNetwork(model, trace_channel_map(model, tuple(data.input_shape)), data)


def ordering_scores(request: SensitivityRequest, network: MeasuredNetwork) -> Scores:
    """Measure the score that orders the atoms of each group."""
    measurements = load_or_measure_scores(
        network.model,
        network.channel_map,
        network.data,
        folder=request.out / "evidence",
        seed=0,
        names=(request.score,),
    )
    scores = measurements.scores[request.score]
    return combine_layers(scores, network.channel_map, request.combine)


@contextmanager
def group_progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, plain lines in a pipe."""
    columns = (TextColumn("groups"), BarColumn(), MofNCompleteColumn(), TextColumn("ETA"),
               TimeRemainingColumn())  # fmt: skip
    on_terminal = sys.stdout.isatty()
    with Bar(*columns, console=Console(), disable=not on_terminal) as bar:
        task = bar.add_task("groups", total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, total=total, completed=done)
            if not on_terminal:
                print(f"{done}/{total} groups", flush=True)

        yield report


def sensitivity_rows(curves: LossCurves, channel_map: ChannelMap) -> list[SensitivityRow]:
    """Return one row for each group."""
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
    rows: list[SensitivityRow],
) -> None:
    """Write sensitivity.json and curves.html; the curves themselves are in evidence/."""
    written = [
        {**asdict(row), "rises": [r if np.isfinite(r) else None for r in row.rises]}
        for row in rows
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


def print_sensitivity(curves: LossCurves, rows: list[SensitivityRow], console: Console) -> None:
    """Print the rises of the loss, one group a row."""
    table = Table(title=f"rise of the loss (dense: {curves.base:.4f}) by share of atoms removed")
    table.add_column("group")
    for head in ("atoms", *(f"{share:.0%}" for share in REPORTED_SHARES), "FLOPs %", "params %"):
        table.add_column(head, justify="right")
    for row in rows:
        rises = (f"{rise:.4f}" for rise in row.rises)
        costs = (f"{100 * share:.1f}" for share in (row.macs_share, row.params_share))
        table.add_row(row.group, str(row.atoms), *rises, *costs)
    console.print(table)
    if curves.failures:
        console.print(f"{curves.failures} probes were NaN or infinite and count as infinite rises")
