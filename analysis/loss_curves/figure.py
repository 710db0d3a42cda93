"""Plotly figure of loss curves: one line per group, and the threshold."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.loss_curves import LossCurves, rise_table

MIN_PLOTTED_RISE = 1e-6  # lower rises are drawn here: the axis is logarithmic


def curves_figure(
    curves: LossCurves, channel_map: ChannelMap, threshold: float | None = None
) -> go.Figure:
    """Plot the rise of the loss against the removed share of each group; dots are probes."""
    figure = go.Figure()
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    count = len(channel_map.groups)
    for index, (group, size) in enumerate(zip(channel_map.groups, sizes.tolist(), strict=True)):
        probes = {k: v for k, v in curves.probes(index).items() if k and np.isfinite(v)}
        table = rise_table(curves.probes(index), size)
        removed = np.flatnonzero(np.isfinite(table))
        color = f"hsl({round(300 * index / count)}, 60%, 45%)"
        shared = {"name": group.name, "legendgroup": group.name}
        figure.add_trace(
            go.Scatter(
                x=removed / size,
                y=np.maximum(table[removed], MIN_PLOTTED_RISE),
                mode="lines",
                line={"color": color},
                text=[f"{k} of {size} atoms" for k in removed],
                **shared,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[k / size for k in probes],
                y=[max(rise, MIN_PLOTTED_RISE) for rise in probes.values()],
                mode="markers",
                marker={"color": color},
                showlegend=False,
                **shared,
            )
        )
    if threshold is not None:
        figure.add_hline(
            y=threshold, line_dash="dash", annotation_text=f"threshold {threshold:.3g}"
        )
    figure.update_layout(
        template="plotly_white",
        xaxis={"title": "atoms removed from the group", "tickformat": ".0%"},
        yaxis={"title": "rise of the loss", "type": "log"},
        margin={"t": 30, "r": 20},
    )
    return figure
