"""Plots of the measurements in a run folder: scores, ensembles and loss curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...spaces.arrays import NamedArrays
from ...spaces.graph.layout import Layout
from ...spaces.policy.loss_curves import LossCurves, curves_from_arrays, rise_table
from ...spaces.policy.measurements import load_arrays, scores_from_arrays
from .report_data import CurvePlot, MeasurementPlots, ScorePlot

MAX_POINTS_PER_GROUP = 32  # larger groups are thinned out
Values = NDArray[np.float64]
READ_ERRORS = (KeyError, ValueError, TypeError, IndexError, AttributeError)


def measurement_plots(folder: Path, layout: Layout) -> MeasurementPlots:
    """Plots of all files that can be read and fit the layout; other files are skipped."""
    if not layout.groups:
        return MeasurementPlots()
    scores: list[ScorePlot] = []
    curves: list[CurvePlot] = []
    for path in sorted(folder.glob("*.npz")):
        arrays = load_arrays(path.stem, folder) or {}
        try:
            scores += score_plots(path.stem, arrays, layout)
            curves += curve_plots(arrays, layout)
        except READ_ERRORS:
            continue  # of another network or another program
    ensembles_first = sorted(scores, key=lambda plot: (not plot.errors, plot.name))
    return MeasurementPlots(tuple(ensembles_first), tuple(curves))


def score_plots(key: str, arrays: NamedArrays, layout: Layout) -> list[ScorePlot]:
    """Plots of the scores in one file: an ensemble with its errors, or plain scores."""
    if "record" in arrays:
        return [ensemble_plot(key, arrays, layout)]
    summed = {
        name: np.bincount(parts.atom, parts.value, layout.atoms).astype(np.float64)
        for name, parts in scores_from_arrays(arrays).items()
    }
    return [score_plot(name, values, layout) for name, values in summed.items()]


def score_plot(
    name: str, values: Values, layout: Layout, errors: Values | None = None
) -> ScorePlot:
    """Plot of one score: each group's atoms in ascending order, thinned out evenly."""
    if values.shape != (layout.atoms,) or not np.isfinite(values).all():
        raise ValueError(f"{name} does not fit the layout")
    chosen = [
        first + thin_out(np.argsort(values[first:end], kind="stable"))
        for first, end in ((group.first, group.end) for group in layout.groups)
    ]
    return ScorePlot(
        name,
        "score",
        tuple(round_values(values[atoms]) for atoms in chosen),
        () if errors is None else tuple(round_values(errors[atoms]) for atoms in chosen),
    )


def ensemble_plot(key: str, arrays: NamedArrays, layout: Layout) -> ScorePlot:
    """Plot of an ensemble, named after its settings."""
    from ..mask_ensembles import name_from_settings
    from ..mask_ensembles.result import ensemble_from_arrays

    ensemble = ensemble_from_arrays(key, arrays)
    plot = score_plot(
        name_from_settings(ensemble.settings), ensemble.score, layout, ensemble.errors
    )
    checks = tuple((c.samples, c.held_out_r2, c.agreement) for c in ensemble.checks)
    return replace(plot, unit=ensemble.unit, checks=checks)


def curve_plots(arrays: NamedArrays, layout: Layout) -> list[CurvePlot]:
    """Plot of the loss curves in one file, if it holds curves."""
    if "rise" not in arrays:
        return []
    curves = curves_from_arrays(arrays)
    if curves.place.shape != (layout.atoms,):
        raise ValueError("the curves do not fit the layout")
    probe = json.loads(str(arrays["settings"]))["probe"]
    lines = [curve_line(curves, index, g.atoms) for index, g in enumerate(layout.groups)]
    return [CurvePlot(f"{probe} probes", *zip(*lines, strict=True))]


def curve_line(
    curves: LossCurves, group: int, size: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The finite part of one group's curve, thinned out."""
    table = rise_table(curves.probes(group), size)
    removed = thin_out(np.flatnonzero(np.isfinite(table)))
    return tuple(int(k) for k in removed), round_values(table[removed])


def thin_out(items: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most `MAX_POINTS_PER_GROUP` items, evenly spaced, including both ends."""
    count = min(len(items), MAX_POINTS_PER_GROUP)
    positions = np.linspace(0, len(items) - 1, count).round().astype(int)
    thinned: NDArray[np.intp] = items[positions]
    return thinned


def round_values(values: Values | Sequence[float]) -> tuple[float, ...]:
    """Round to the four digits that a plot needs."""
    return tuple(float(f"{value:.4g}") for value in values)
