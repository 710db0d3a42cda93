"""How both sizes of a network went to their targets while its gates were trained."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ..trainers.gates.training import Trajectory

COLORS = {"FLOPs": "#0072b2", "params": "#d55e00"}


def trajectory_figure(trajectory: Trajectory) -> go.Figure:
    """Both sizes against the steps of training, and what was asked for as dashed lines."""
    figure = go.Figure()
    steps = np.arange(1, len(trajectory.sizes) + 1)
    for k, (name, color) in enumerate(COLORS.items()):
        sizes, target = trajectory.sizes[:, k], trajectory.target[k]
        figure.add_trace(go.Scatter(x=steps, y=sizes, name=name, line={"color": color}))
        if target is not None:
            figure.add_hline(y=target, line={"dash": "dash", "color": color})
    figure.update_layout(
        template="plotly_white",
        xaxis={"title": "step of gate training"},
        yaxis={"title": "size, fraction of dense", "tickformat": ".0%", "range": [0, 1.05]},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"t": 60, "r": 20},
    )
    return figure
