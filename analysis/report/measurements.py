"""The evidence folder as plots: scores and ensembles along the layers, loss curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...spaces.graph.layout import Layout
from ...spaces.policy.loss_curves import Curves, curves_from_tables, rise_table
from ...spaces.policy.measurements import Tables, load_tables, scores_from_tables
from .report_data import CurvePlot, EvidencePlots, ScorePlot

MOST_POINTS = 32  # of one group in one plot
Values = NDArray[np.float64]
FAULTS = (KeyError, ValueError, TypeError, IndexError, AttributeError)


def evidence_plots(folder: Path, layout: Layout) -> EvidencePlots:
    """Plots of every whole table that fits the layout; others are left out."""
    if not layout.groups:
        return EvidencePlots()
    scores: list[ScorePlot] = []
    curves: list[CurvePlot] = []
    for path in sorted(folder.glob("*.npz")):
        tables = load_tables(path.stem, folder) or {}
        try:
            scores += score_plots(path.stem, tables, layout)
            curves += curve_plots(tables, layout)
        except FAULTS:
            continue  # not of this network, or not of ours
    ensembles_first = sorted(scores, key=lambda plot: (not plot.errors, plot.name))
    return EvidencePlots(tuple(ensembles_first), tuple(curves))


def score_plots(key: str, tables: Tables, layout: Layout) -> list[ScorePlot]:
    """The scores of one file: an ensemble with its errors, or measured scores."""
    if "record" in tables:
        return [ensemble_plot(key, tables, layout)]
    summed = {
        name: np.bincount(parts.atom, parts.value, layout.atoms).astype(np.float64)
        for name, parts in scores_from_tables(tables).items()
    }
    return [score_plot(name, values, layout) for name, values in summed.items()]


def score_plot(
    name: str, values: Values, layout: Layout, errors: Values | None = None
) -> ScorePlot:
    """Each group's atoms by rank, thinned out evenly."""
    if values.shape != (layout.atoms,) or not np.isfinite(values).all():
        raise ValueError(f"{name} does not fit the layout")
    chosen = [
        first + thin(np.argsort(values[first:end], kind="stable"))
        for first, end in ((group.first, group.end) for group in layout.groups)
    ]
    return ScorePlot(
        name,
        "score",
        tuple(short(values[atoms]) for atoms in chosen),
        () if errors is None else tuple(short(errors[atoms]) for atoms in chosen),
    )


def ensemble_plot(key: str, tables: Tables, layout: Layout) -> ScorePlot:
    """An ensemble under the name of the score that has its settings."""
    from ..mask_ensembles import name_of
    from ..mask_ensembles.result import ensemble_from_tables

    ensemble = ensemble_from_tables(key, tables)
    plot = score_plot(name_of(ensemble.settings), ensemble.score, layout, ensemble.errors)
    checks = tuple((c.samples, c.held_out_r2, c.agreement) for c in ensemble.checks)
    return replace(plot, unit=ensemble.unit, checks=checks)


def curve_plots(tables: Tables, layout: Layout) -> list[CurvePlot]:
    """The curves of one file, if it holds curves."""
    if "rise" not in tables:
        return []
    curves = curves_from_tables(tables)
    if curves.place.shape != (layout.atoms,):
        raise ValueError("the curves do not fit the layout")
    probe = json.loads(str(tables["settings"]))["probe"]
    lines = [curve_line(curves, index, g.atoms) for index, g in enumerate(layout.groups)]
    return [CurvePlot(f"{probe} probes", *zip(*lines, strict=True))]


def curve_line(curves: Curves, group: int, size: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The finite part of one group's table, thinned out."""
    table = rise_table(curves.probes(group), size)
    removed = thin(np.flatnonzero(np.isfinite(table)))
    return tuple(int(k) for k in removed), short(table[removed])


def thin(items: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most `MOST_POINTS` of the items, evenly spaced, both ends among them."""
    places = np.linspace(0, len(items) - 1, min(len(items), MOST_POINTS)).round().astype(int)
    thinned: NDArray[np.intp] = items[places]
    return thinned


def short(values: Values | Sequence[float]) -> tuple[float, ...]:
    """Four digits are enough for a plot."""
    return tuple(float(f"{value:.4g}") for value in values)
