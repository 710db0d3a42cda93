"""The report as one HTML file: no request leaves it, and its figures are drawn where it is read.

SVG drawn by a small script of our own instead of plotly: the page stays small, its points are
elements that keyboard and screen reader reach, and its colours follow the reader's. A reader whose
viewer blocks scripts sees the still figure and a table.
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

SCRIPT_FILES = ("plot.js", "front.js", "sections.js", "evidence.js", "page.js")
SCRIPT_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}  # within a script element
TABLE_COLUMNS = ("trial", "accuracy", "test", "FLOPs", "params", "latency ms")


def render_page(report: Report, *, live: bool = False) -> str:
    """The page as text; a live one asks its server for news."""
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
    """A file that lies beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def json_for_script(values: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever a user named a layer."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).translate(SCRIPT_ESCAPES)


def static_front(report: Report) -> str:
    """The front for a reader without scripts."""
    front = report.front
    if front is None:
        return "<p>No trial has finished yet.</p>"
    trials = [one.evaluation for one in report.trials]
    verdict = (
        f"<p>{html.escape(report.control_comparison)}</p>" if report.control_comparison else ""
    )
    return to_svg(front_drawing(front, report.title, trials)) + verdict + front_html_table(front)


def front_html_table(front: Front) -> str:
    """The front's figures as a table."""
    head = "".join(f'<th scope="col">{name}</th>' for name in TABLE_COLUMNS)
    named = [(str(point.trial), point) for point in reversed(front.points)]
    named += [(f"control {name}", point) for name, point in sorted(front.controls.items())]
    body = "".join(metrics_row(name, point, format_latency(point)) for name, point in named)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def format_latency(point: Evaluation | DenseMetrics) -> str:
    """Its latency, where it was measured."""
    return "" if point.latency_ms is None else f"{point.latency_ms:.2f}"


def metrics_row(name: str, point: Evaluation, *more: str) -> str:
    """One row of a table of figures, with more cells at its end."""
    return table_row(
        name,
        f"{point.accuracy:.4f}",
        "" if point.test_accuracy is None else f"{point.test_accuracy:.4f}",
        f"{point.flops_fraction:.1%}",
        f"{point.params_fraction:.1%}",
        *more,
    )


def table_row(*cells: str) -> str:
    """One row of a table."""
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
