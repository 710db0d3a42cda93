"""The report as one self-contained HTML file that sends no requests.

A small script draws SVG in the browser. Compared with plotly, the page is small, keyboard and
screen reader can reach each point, and the colours follow the reader's theme. Without scripts, the
page shows the static figure and a table.
"""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import Any

from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import DenseMetrics, Front
from .front_plot import front_drawing
from .page_data import report_values
from .report_data import Report
from .svg_png import to_svg

SCRIPT_FILES = ("plot.js", "front.js", "sections.js", "measurements.js", "page.js")
SCRIPT_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}  # in script elements
TABLE_COLUMNS = ("trial", "accuracy", "test", "FLOPs", "params", "latency ms")


def render_page(report: Report, *, live: bool = False) -> str:
    """Return the page as HTML; a live page polls its server for new values."""
    parts = {
        "title": html.escape(report.title),
        "connect": "'self'" if live else "'none'",
        "live": "true" if live else "false",
        "style": read_asset("page.css"),
        "plain": static_front(report),
        "values": json_for_script(report_values(report)),
        "script": "\n".join(read_asset(name) for name in SCRIPT_FILES),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], read_asset("page.html"))


def read_asset(name: str) -> str:
    """Read a file from this folder."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def json_for_script(values: Any) -> str:
    """JSON that cannot close its script element, whatever names it contains."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).translate(SCRIPT_ESCAPES)


def static_front(report: Report) -> str:
    """The front as figure and table, for readers without scripts."""
    front = report.front
    if front is None:
        return "<p>No trial has finished yet.</p>"
    trials = [one.evaluation for one in report.trials]
    text = report.control_comparison
    comparison = f"<p>{html.escape(text)}</p>" if text else ""
    drawing = front_drawing(front, report.title, trials)
    return to_svg(drawing) + comparison + front_html_table(front)


def front_html_table(front: Front) -> str:
    """The metrics of the front and the controls as an HTML table."""
    head = "".join(f'<th scope="col">{name}</th>' for name in TABLE_COLUMNS)
    named = [(str(point.trial), point) for point in reversed(front.points)]
    named += [(f"control {name}", point) for name, point in sorted(front.controls.items())]
    body = "".join(metrics_row(name, point, format_latency(point)) for name, point in named)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def format_latency(point: Evaluation | DenseMetrics) -> str:
    """The latency in ms, or an empty string if it was not measured."""
    return "" if point.latency_ms is None else f"{point.latency_ms:.2f}"


def metrics_row(name: str, point: Evaluation, *more: str) -> str:
    """One table row of metrics, with more cells at its end."""
    return table_row(
        name,
        f"{point.accuracy:.4f}",
        "" if point.test_accuracy is None else f"{point.test_accuracy:.4f}",
        f"{point.flops_fraction:.1%}",
        f"{point.params_fraction:.1%}",
        *more,
    )


def table_row(*cells: str) -> str:
    """One table row with escaped cells."""
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
