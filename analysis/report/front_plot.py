"""The front as a still figure: for the notebook, for a document, for a page without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from .svg_png import Drawing, Line, Marker, Shape, TextLine

# Okabe and Ito's colours, told apart by readers of any colour vision; shapes differ as well.
FRONT_COLOR, TARGET_COLOR, CONTROL_COLOR, DENSE_COLOR = "#0072b2", "#d55e00", "#666666", "#000000"
TRIAL_COLOR, GRID_COLOR, TEXT_COLOR = "#c9d3da", "#e4e4e4", "#444444"
WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 64, 46
TICK_COUNT = 6
OUTLIER_FENCE = 3.0  # quartile distances
LEGEND_GAP, LETTER_WIDTH = 34, 6  # of the legend: between entries, of a letter


@dataclass(frozen=True, slots=True)
class PlotFrame:
    """Where figures lie on the page."""

    x: tuple[float, float]
    y: tuple[float, float]

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point; what lies below the frame is put on its edge."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = max((y - self.y[0]) / (self.y[1] - self.y[0]), 0.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows."""

    name: str
    percent: bool = False

    def format_tick(self, value: float) -> str:
        """A figure at a rule."""
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


FLOPS_AXIS, ACCURACY_AXIS = (
    Axis("FLOPs, share of dense", percent=True),
    Axis("validation accuracy"),
)


def front_drawing(front: Front, title: str, trials: Sequence[Evaluation] = ()) -> Drawing:
    """Accuracy against FLOPs: the front, the answer at the target, controls, dense."""
    front_and_dense = [p.accuracy for p in front.points] + [front.dense.accuracy]
    named = [*front_and_dense, *(c.accuracy for c in front.controls.values())]
    frame = PlotFrame((0.0, 1.04), axis_range(drop_outliers(named)))
    faint = [t for t in trials if frame.y[0] <= t.accuracy <= frame.y[1]]
    shapes: list[Shape] = [
        *axis_shapes(frame, FLOPS_AXIS, ACCURACY_AXIS),
        *target_line(front, frame),
    ]
    shapes += [Marker(point_position(t, frame), "circle", TRIAL_COLOR, 3.5) for t in faint]
    seen = [point for point in front.points if point.accuracy >= frame.y[0]]
    edge = tuple(point_position(point, frame) for point in staircase_points(seen))
    if len(edge) > 1:
        shapes.append(Line(edge, FRONT_COLOR, 2.0))
    shapes += [evaluation_marker(point, frame, "circle", FRONT_COLOR) for point in front.points]
    for _, control in sorted(front.controls.items()):
        shapes.append(evaluation_marker(control, frame, "cross", CONTROL_COLOR, 6.5))
    shapes.append(
        Marker(frame.to_pixels(1.0, front.dense.accuracy), "square", DENSE_COLOR, 7.0, "dense")
    )
    if front.at_target:
        shapes.append(evaluation_marker(front.at_target, frame, "star", TARGET_COLOR, 10.0))
    return Drawing(WIDTH, HEIGHT, f"The front of {title}", (*shapes, *legend(front, title)))


def staircase_points(points: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Of points in order of FLOPs, those more accurate than every smaller one."""
    edge: list[Evaluation] = []
    for point in points:
        if not edge or point.accuracy > edge[-1].accuracy:
            edge.append(point)
    return tuple(edge)


def point_position(point: Evaluation, frame: PlotFrame) -> tuple[float, float]:
    """Where an evaluation lies."""
    return frame.to_pixels(point.flops_fraction, point.accuracy)


def evaluation_marker(
    point: Evaluation, frame: PlotFrame, shape: str, color: str, radius: float = 5.0
) -> Marker:
    """A symbol with its figures on hover."""
    name = "control" if point.trial is None else f"trial {point.trial}"
    title = f"{name}: accuracy {point.accuracy:.4f}, FLOPs {point.flops_fraction:.1%}"
    symbol = shape if point.accuracy >= frame.y[0] else "down"
    return Marker(point_position(point, frame), symbol, color, radius, title)


def drop_outliers(values: Sequence[float]) -> list[float]:
    """Without those far below the others (Tukey's outer fence), beside which none can be told."""
    low, high = np.percentile(values, (25, 75))
    return [value for value in values if value >= low - OUTLIER_FENCE * (high - low)]


def axis_range(values: Sequence[float]) -> tuple[float, float]:
    """The axis that shows all values with some air."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 0.05
    return low - air, high + air


def axis_shapes(frame: PlotFrame, across: Axis, upward: Axis) -> list[Shape]:
    """Rules, their figures and the names of both axes."""
    shapes: list[Shape] = []
    for value in ticks(*frame.y):
        (x0, y), (x1, _) = frame.to_pixels(frame.x[0], value), frame.to_pixels(frame.x[1], value)
        shapes.append(Line(((x0, y), (x1, y)), GRID_COLOR))
        shapes.append(TextLine((x0 - 8, y + 4), upward.format_tick(value), TEXT_COLOR, 12, "end"))
    for value in ticks(*frame.x):
        x, y = frame.to_pixels(value, frame.y[0])
        shapes.append(Line(((x, TOP), (x, y)), GRID_COLOR))
        shapes.append(TextLine((x, y + 18), across.format_tick(value), TEXT_COLOR, 12, "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    shapes.append(TextLine((middle, HEIGHT - 8), across.name, TEXT_COLOR, 12, "middle"))
    shapes.append(TextLine((14, TOP - 12), upward.name, TEXT_COLOR, 12))
    return shapes


def target_line(front: Front, frame: PlotFrame) -> list[Shape]:
    """A dashed line at the requested FLOPs."""
    target = front.requested.fractions((front.dense.macs, front.dense.params))[0]
    if target is None:
        return []
    x, y = frame.to_pixels(target, frame.y[0])
    return [Line(((x, TOP), (x, y)), TARGET_COLOR, 1.5, 5.0)]


def legend(front: Front, title: str) -> list[Shape]:
    """The title and what the symbols mean."""
    entries = [("circle", FRONT_COLOR, "front"), ("square", DENSE_COLOR, "dense")]
    if front.at_target:
        entries.insert(1, ("star", TARGET_COLOR, "at the target"))
    entries += [("cross", CONTROL_COLOR, "controls")] if front.controls else []
    shapes: list[Shape] = [TextLine((14, 24), title, "#111111", 16)]
    x = WIDTH - RIGHT - sum(LEGEND_GAP + LETTER_WIDTH * len(word) for _, _, word in entries)
    for symbol, color, word in entries:
        shapes.append(Marker((x + 6, TOP - 16), symbol, color, 5.5))
        shapes.append(TextLine((x + 17, TOP - 12), word, TEXT_COLOR, 12))
        x += LEGEND_GAP + LETTER_WIDTH * len(word)
    return shapes


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about `TICKS` of them."""
    rough = (high - low) / TICK_COUNT
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
