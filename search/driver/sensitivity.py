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

from ...analysis.loss_curves.figure import curves_figure
from ...analysis.loss_curves.measure import measure_curves
from ...analysis.loss_curves.prober import Subject
from ...analysis.scores.measure import measure_evidence
from ...spaces.cost.cost import Price
from ...spaces.cost.summary import summarise
from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.graph.trace import trace_channels
from ...spaces.graph.working_copy import working_copy
from ...spaces.io.atomic_write import write_bytes, write_json
from ...spaces.output_forms import CHOICES, SCORES
from ...spaces.policy.layer_scores import Scores, combine
from ...spaces.policy.loss_curves import Curves, CurveSettings, curves_name, rise_tables
from ...spaces.policy.policy import check_choice
from ...trainers.data.image_options import told_chance, told_normalisation, with_options
from ...trainers.data.sources.load import load_data
from ...trainers.metrics.evaluate import evaluate
from ...trainers.models.read_outputs import read_outputs
from ..config.settings import SearchSettings
from ..execution.signals import Stopped, Stopping
from ..results.formatting import plain_console
from ..storage.run_folder import as_it_was
from .dense_model import build
from .prepare import check_images, weights_exist
from .resume import imports_code

SHARES = (0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Sensitivity:
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
class Row:
    """One group: rises at the shares removed; price shares are what would go with it whole."""

    group: str
    atoms: int
    rises: tuple[float, ...]
    macs_share: float
    params_share: float


def sensitivity_command(asked: Sensitivity, settings: CurveSettings) -> int:
    """Probe, print, store, and return the exit code."""
    weights_exist(asked.weights)
    check_choice("--outputs", asked.outputs, CHOICES)
    if asked.out.exists() and not asked.out.is_dir():
        raise UserError(f"--out must be a folder, got the file {asked.out}; name another")
    try:
        with as_it_was(asked.out), Stopping().listening():
            subject = build_subject(asked)
            if settings.images > len(subject.data.train):
                print(f"--images {settings.images}: train has {len(subject.data.train)}, all used")
            order = order_by(asked, subject)
            with bar() as on_progress:
                curves = measure_curves(
                    subject,
                    order,
                    settings,
                    folder=asked.out / "evidence",
                    on_progress=on_progress,
                )
    except Stopped as stop:
        print(f"stopped; the same command goes on from {asked.out}")
        return stop.exit_code
    table = rows(curves, subject.channel_map)
    store(asked, curves, subject.channel_map, table)
    show(curves, table, plain_console())
    print(f"written to {asked.out}: sensitivity.json, curves.html")
    return 0


def build_subject(asked: Sensitivity) -> Subject:
    """The network, its data and its map."""
    settings = SearchSettings(
        model=asked.model, weights=asked.weights, mean=asked.mean, std=asked.std
    )
    images = settings.images()
    check_images(images, asked.data, None)
    data = with_options(load_data(asked.data, seed=0), images)
    for note in (*data.notes, told_normalisation(data, images)):
        print(note)
    model, notes = working_copy(build(settings, data, print))
    data, more = read_outputs(model, data, asked.outputs)
    for note in (*notes, *more):
        print(note)
    if asked.weights is None and not imports_code(asked.model):
        print("no --weights: the rises are those of a network that was never trained")
    if asked.weights is not None:
        found = evaluate(model, data.validation, data)
        if warning := told_chance(found.accuracy, data):
            print(warning)
    return Subject(model, trace_channels(model, tuple(data.input_shape)), data)


def order_by(asked: Sensitivity, subject: Subject) -> Scores:
    """The score that orders each group's atoms."""
    evidence = measure_evidence(
        subject.model,
        subject.channel_map,
        subject.data,
        folder=asked.out / "evidence",
        seed=0,
        names=(asked.score,),
    )
    return combine(evidence.scores[asked.score], subject.channel_map, asked.combine)


@contextmanager
def bar() -> Iterator[Callable[[int, int], None]]:
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


def rows(curves: Curves, channel_map: ChannelMap) -> list[Row]:
    """The table."""
    groups = summarise(channel_map, Price(channel_map)).groups
    return [
        Row(
            group.name,
            group.atoms,
            tuple(float(table[round(share * (len(table) - 1))]) for share in SHARES),
            group.macs_share,
            group.params_share,
        )
        for group, table in zip(groups, rise_tables(curves, channel_map), strict=True)
    ]


def store(asked: Sensitivity, curves: Curves, channel_map: ChannelMap, table: list[Row]) -> None:
    """The table as JSON and the curves as a page; the curves themselves lie in evidence/."""
    written = [
        {**asdict(row), "rises": [r if np.isfinite(r) else None for r in row.rises]}
        for row in table
    ]
    name = curves_name(asked.score, asked.combine, curves.settings.probe)
    record = {
        "schema": 1,
        "curves": name,
        "model": asked.model,
        "loss": curves.base,
        "settings": asdict(curves.settings),
        "probes": len(curves.rise),
        "not_finite": curves.failures,
        "shares": SHARES,
        "groups": written,
    }
    write_json(asked.out / "sensitivity.json", record)
    page = curves_figure(curves, channel_map).to_html(include_plotlyjs=True)
    write_bytes(asked.out / "curves.html", page.encode())


def show(curves: Curves, table: list[Row], console: Console) -> None:
    """Group by group, and what must be known to read it."""
    printed = Table(title=f"rise of the loss ({curves.base:.4f} whole) by share of atoms removed")
    printed.add_column("group")
    for head in ("atoms", *(f"{share:.0%}" for share in SHARES), "FLOPs %", "params %"):
        printed.add_column(head, justify="right")
    for row in table:
        rises = (f"{rise:.4f}" for rise in row.rises)
        prices = (f"{100 * share:.1f}" for share in (row.macs_share, row.params_share))
        printed.add_row(row.group, str(row.atoms), *rises, *prices)
    console.print(printed)
    if curves.failures:
        console.print(f"{curves.failures} probes were NaN or infinite: taken as infinite rises")
