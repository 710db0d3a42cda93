"""Report of a sweep: a table with one row per search, and one figure per data set."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from ...spaces.records.pareto_front import Front, front_hypervolume
from .front_plot import (
    ACCURACY_AXIS,
    FLOPS_AXIS,
    HEIGHT,
    TEXT_COLOR,
    WIDTH,
    PlotFrame,
    axis_range,
    axis_shapes,
    drop_outliers,
    evaluation_marker,
    point_position,
    staircase_points,
)
from .svg_png import Drawing, Line, Marker, Shape, TextLine, to_svg

# Okabe-Ito colours without yellow, which is hard to see on white.
FRONT_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
SWEEP_COLUMNS = (
    "model",
    "data",
    "target",
    "dense",
    "at target",
    "uniform / random",
    "front",
    "hypervolume",
    "min",
    "state",
)
PAGE_NOTE = (
    "Accuracy is that of the validation split. FLOPs are the MACs of convolutions and linear "
    "layers. Uniform and random are the controls at the target. Hypervolume is that of accuracy "
    "against FLOPs saved, with zero accuracy and no savings as reference point. In the figures, a "
    "star marks the network at the target and a square the dense network."
)
LEGEND_LINE_HEIGHT = 20
PAGE_STYLE = """
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; color: #1c2328;
  background: #fff; font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 1.5rem } .wide { overflow-x: auto } table { border-collapse: collapse }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #dbe0e5; text-align: left }
.failed { color: #b00020 } a { color: #0072b2 }
"""


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One search: its request, its state, and its front, if it has one yet."""

    name: str
    model: str
    data: str
    target: str
    state: str  # waiting, running, interrupted, finished or failed
    minutes: float = 0.0
    reason: str = ""  # why the search failed
    front: Front | None = None
    link: str | None = None  # to its report, relative to this page

    def table_cells(self) -> tuple[str, ...]:
        """The cells under `SWEEP_COLUMNS`."""
        front = self.front
        metrics = ("", "", "", "", "")
        if front is not None:
            answer = front.at_target
            metrics = (
                f"{front.dense.accuracy:.4f}",
                f"{answer.accuracy:.4f}" if answer else "none",
                " / ".join(control_accuracy(front, name) for name in ("uniform", "random")),
                str(len(front.points)),
                f"{front_hypervolume(front.points):.4f}",
            )
        minutes = f"{self.minutes:.1f}" if self.minutes else ""
        return (self.model, self.data, self.target, *metrics, minutes, self.state)


def control_accuracy(front: Front, control: str) -> str:
    """A control's accuracy, or "-" until it is known."""
    found = front.controls.get(control)
    return f"{found.accuracy:.4f}" if found else "-"


def fronts_drawing(rows: Sequence[SweepRow], title: str) -> Drawing:
    """Draw the fronts of several searches on the same data: accuracy against FLOPs."""
    found = [(row.name, row.front) for row in rows if row.front is not None]
    values = [p.accuracy for _, f in found for p in f.points] + [
        f.dense.accuracy for _, f in found
    ]
    frame = PlotFrame((0.0, 1.04), axis_range(drop_outliers(values)))
    shapes: list[Shape] = [
        TextLine((14, 24), title, "#111111", 16),
        *axis_shapes(frame, FLOPS_AXIS, ACCURACY_AXIS),
    ]
    for number, (name, front) in enumerate(found):
        color = FRONT_COLORS[number % len(FRONT_COLORS)]
        shapes += front_shapes(front, name, frame, color)
        y = HEIGHT + LEGEND_LINE_HEIGHT * (number + 0.5)
        shapes.append(Marker((24, y - 4), "circle", color, 5.5))
        shapes.append(TextLine((38, y), name, TEXT_COLOR, 12))
    return Drawing(WIDTH, HEIGHT + LEGEND_LINE_HEIGHT * (len(found) + 1), title, tuple(shapes))


def front_shapes(front: Front, name: str, frame: PlotFrame, color: str) -> list[Shape]:
    """A front's line and points, a star at the target, and a square for the dense network."""
    seen = [point for point in front.points if point.accuracy >= frame.y[0]]
    edge = tuple(point_position(point, frame) for point in staircase_points(seen))
    shapes: list[Shape] = [Line(edge, color, 1.5)] if len(edge) > 1 else []
    shapes += [evaluation_marker(point, frame, "circle", color, 4.0) for point in front.points]
    if front.at_target:
        shapes.append(evaluation_marker(front.at_target, frame, "star", color, 9.0))
    at = frame.to_pixels(1.0, front.dense.accuracy)
    return [*shapes, Marker(at, "square", color, 6.0, f"dense of {name}")]


def sweep_page(title: str, rows: Sequence[SweepRow]) -> str:
    """Return the page as self-contained HTML: the table, then one figure per data set."""
    head = "".join(f"<th>{name}</th>" for name in ("", *SWEEP_COLUMNS))
    body = "".join(row_html(row) for row in rows)
    safe = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{safe}</title><style>{PAGE_STYLE}</style></head><body><h1>{safe}</h1>"
        f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
        f"<p>{PAGE_NOTE}</p>"
        f"{front_figures(rows)}</body></html>\n"
    )


def front_figures(rows: Sequence[SweepRow]) -> str:
    """One drawing per data set, since accuracies on different data are not comparable."""
    drawn = []
    for data in dict.fromkeys(row.data for row in rows):
        own = [row for row in rows if row.data == data and row.front is not None]
        if own:
            drawn.append(to_svg(fronts_drawing(own, f"The fronts on {data}")))
    return "".join(drawn)


def row_html(row: SweepRow) -> str:
    """One search as a table row, linked to its report."""
    name = html.escape(row.name)
    if row.link:
        name = f'<a href="{html.escape(quote(row.link))}">{name}</a>'
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.table_cells())
    columns = len(SWEEP_COLUMNS) + 1
    reason = f'<tr><td class="failed" colspan="{columns}">{html.escape(row.reason)}</td></tr>'
    return f"<tr><td>{name}</td>{cells}</tr>{reason if row.reason else ''}"
