"""The report: one self-contained HTML page with the front as a plot and as a table."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from ..spaces.evaluation import Evaluation
from ..spaces.front import Front

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ccc }
th:last-child, td:last-child { text-align: left; overflow-wrap: anywhere }
.wide { overflow-x: auto }
"""


def render_report(front: Front, title: str) -> str:
    """The page as text."""
    name = html.escape(title)
    plot = front_plot(front).to_html(full_html=False, include_plotlyjs=True)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><h1>The front of {name}</h1>\n{plot}\n"
        "<p>Accuracy is of the validation split, which chose; the test split was read once, "
        "at the end. FLOPs are multiply-adds (MACs) of convolutions and linear layers.</p>\n"
        f'<div class="wide">{table_of(front)}</div>\n</body></html>\n'
    )


def front_plot(front: Front) -> go.Figure:
    """Accuracy against FLOPs: the front, the answer at the target, the controls, dense."""
    figure = go.Figure()
    best = upper_edge(front.points)
    rest = tuple(point for point in front.points if point not in best)
    figure.add_trace(trace("front", best, mode="lines+markers", color="#0072b2"))
    if rest:
        figure.add_trace(trace("front, for its params", rest, color="#56b4e9"))
    if front.at_target:
        figure.add_trace(
            trace("at the target", (front.at_target,), symbol="star", color="#d55e00")
        )
    for name, point in sorted(front.controls.items()):
        figure.add_trace(trace(f"control: {name}", (point,), symbol="x", color="#666666"))
    figure.add_trace(
        go.Scatter(
            x=[1.0],
            y=[front.dense.accuracy],
            name="dense",
            mode="markers",
            marker={"symbol": "square", "size": 11, "color": "#000000"},
        )
    )
    target = front.requested.fractions((front.dense.macs, front.dense.params))[0]
    if target is not None:
        figure.add_vline(x=target, line_dash="dash", annotation_text="target")
    figure.update_layout(
        template="plotly_white",
        xaxis={"title": "FLOPs, fraction of dense", "tickformat": ".0%"},
        yaxis={"title": "validation accuracy"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        margin={"t": 60, "r": 20},
    )
    return figure


def upper_edge(points: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
    """Of points in order of FLOPs, those more accurate than every smaller one."""
    edge: list[Evaluation] = []
    for point in points:
        if not edge or point.accuracy > edge[-1].accuracy:
            edge.append(point)
    return tuple(edge)


def trace(
    name: str,
    points: tuple[Evaluation, ...],
    *,
    color: str,
    mode: str = "markers",
    symbol: str = "circle",
) -> go.Scatter:
    """One named set of points with its policies as hover text."""
    return go.Scatter(
        x=[point.flops_fraction for point in points],
        y=[point.accuracy for point in points],
        text=[html.escape(policy_text(point)) for point in points],
        name=name,
        mode=mode,
        marker={"size": 14 if symbol == "star" else 9, "symbol": symbol, "color": color},
    )


def table_of(front: Front) -> str:
    """The same figures as a table."""
    heads = ("trial", "accuracy", "test", "FLOPs", "params", "latency ms", "policy")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = [row(str(p.trial), p) for p in reversed(front.points)]
    rows += [row(f"control: {name}", p) for name, p in sorted(front.controls.items())]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def row(name: str, point: Evaluation) -> str:
    """One line of the table."""
    cells = (
        name,
        f"{point.accuracy:.4f}",
        "" if point.test_accuracy is None else f"{point.test_accuracy:.4f}",
        f"{point.flops_fraction:.1%}",
        f"{point.params_fraction:.1%}",
        "" if point.latency_ms is None else f"{point.latency_ms:.2f}",
        policy_text(point),
    )
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def policy_text(point: Evaluation) -> str:
    """The policy in words, its numbers rounded; front.json has them in full."""
    values = point.policy.to_json().items()
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values)
