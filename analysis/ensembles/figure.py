"""The ensemble as a plot: what every atom is worth along the layers, and how that settled."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ...spaces.channels import ChannelMap
from .record import Ensemble

DEVIATIONS = 1.96  # of the error bars: 95 %


def ensemble_figure(ensemble: Ensemble, channel_map: ChannelMap) -> go.Figure:
    """Coefficients with 95 % intervals, group by group, above held-out R^2 and agreement."""
    figure = make_subplots(
        rows=2,
        cols=1,
        row_heights=[0.68, 0.32],
        vertical_spacing=0.14,
        subplot_titles=("what an atom is worth", "convergence"),
    )
    for group in range(len(channel_map.groups)):
        figure.add_trace(group_trace(ensemble, channel_map, group), row=1, col=1)
    samples = [check.samples for check in ensemble.checks]
    curves = (
        ("held-out R<sup>2</sup>", [c.held_out_r2 for c in ensemble.checks], "#0072b2"),
        ("agreement of halves", [c.agreement for c in ensemble.checks], "#d55e00"),
    )
    for name, values, color in curves:
        line = go.Scatter(
            x=samples, y=values, name=name, mode="lines+markers", marker={"color": color}
        )
        figure.add_trace(line, row=2, col=1)
    figure.update_xaxes(title="atom, in the order of layers", row=1, col=1)
    figure.update_yaxes(title=score_title(ensemble), row=1, col=1)
    figure.update_xaxes(title="masks", type="log", row=2, col=1)
    figure.update_yaxes(range=[min(0, *curves[0][1]), 1], row=2, col=1)
    figure.update_layout(
        template="plotly_white",
        height=700,
        legend={"orientation": "h", "y": -0.12},
        margin={"t": 60, "r": 20},
    )
    return figure


def group_trace(ensemble: Ensemble, channel_map: ChannelMap, group: int) -> go.Scatter:
    """The atoms of one group."""
    atoms = np.flatnonzero(channel_map.group_of == group)
    name = html.escape(channel_map.groups[group].name)
    return go.Scatter(
        x=atoms,
        y=ensemble.score[atoms],
        error_y={"array": DEVIATIONS * ensemble.errors[atoms], "thickness": 1, "width": 0},
        name=name,
        mode="markers",
        marker={"size": 5, "color": ("#0072b2", "#009e73")[group % 2]},
        showlegend=False,
        hovertemplate=f"{name}, atom %{{x}}: %{{y:.4f}} &#177; %{{error_y.array:.4f}}",
    )


def score_title(ensemble: Ensemble) -> str:
    """What the scores count."""
    unit, variant = ensemble.unit, ensemble.settings.variant
    return unit if variant == "mean" else f"{variant} of the {unit}"
