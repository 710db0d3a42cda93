"""Static figure of the front, for notebooks, documents and pages without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from .svg_png import Drawing, Line, Marker, Shape, TextLine

# Okabe-Ito colours, distinguishable with colour blindness; marker shapes differ as well.
FRONT_COLOR, TARGET_COLOR, CONTROL_COLOR, DENSE_COLOR = "#0072b2", "#d55e00", "#666666", "#000000"
TRIAL_COLOR, GRID_COLOR, TEXT_COLOR = "#c9d3da", "#e4e4e4", "#444444"
WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 64, 46
TICK_COUNT = 6
OUTLIER_FENCE = 3.0  # interquartile ranges
LEGEND_GAP, LETTER_WIDTH = 34, 6  # pixels between legend entries and per letter


@dataclass(frozen=True, slots=True)
class PlotFrame:
    """Axis ranges and their mapping to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """Pixel position of a point; points below the frame are drawn on its lower edge."""
        x_share = (x - self.x[0]) / (self.x[1] - self.x[0])
        y_share = max((y - self.y[0]) / (self.y[1] - self.y[0]), 0.0)
        return LEFT + x_share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y_share * (
            HEIGHT - TOP - BOTTOM
        )


@dataclass(frozen=True, slots=True)
class Axis:
    """Label and number format of an axis."""

    name: str
    percent: bool = False

    def format_tick(self, value: float) -> str:
        """Format the label of a tick."""
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


FLOPS_AXIS = Axis("FLOPs, share of dense", percent=True)
ACCURACY_AXIS = Axis("validation accuracy")


def front_drawing(front: Front, title: str, trials: Sequence[Evaluation] = ()) -> Drawing:
    """Draw accuracy against FLOPs: the front, the network at the target, controls, dense."""
    front_and_dense = [p.accuracy for p in front.points] + [front.dense.accuracy]
    values = [*front_and_dense, *(c.accuracy for c in front.controls.values())]
    frame = PlotFrame((0.0, 1.04), axis_range(drop_outliers(values)))
    visible = [t for t in trials if frame.y[0] <= t.accuracy <= frame.y[1]]
    shapes: list[Shape] = [
        *axis_shapes(frame, FLOPS_AXIS, ACCURACY_AXIS),
        *target_line(front, frame),
    ]
    shapes += [Marker(point_position(t, frame), "circle", TRIAL_COLOR, 3.5) for t in visible]
    shown = [point for point in front.points if point.accuracy >= frame.y[0]]
    edge = tuple(point_position(point, frame) for point in staircase_points(shown))
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
    """Of points sorted by FLOPs, those more accurate than every smaller one."""
    edge: list[Evaluation] = []
    for point in points:
        if not edge or point.accuracy > edge[-1].accuracy:
            edge.append(point)
    return tuple(edge)


def point_position(point: Evaluation, frame: PlotFrame) -> tuple[float, float]:
    """Pixel position of an evaluation."""
    return frame.to_pixels(point.flops_fraction, point.accuracy)


def evaluation_marker(
    point: Evaluation, frame: PlotFrame, shape: str, color: str, radius: float = 5.0
) -> Marker:
    """Marker of an evaluation, with its metrics as tooltip."""
    name = "control" if point.trial is None else f"trial {point.trial}"
    title = f"{name}: accuracy {point.accuracy:.4f}, FLOPs {point.flops_fraction:.1%}"
    symbol = shape if point.accuracy >= frame.y[0] else "down"
    return Marker(point_position(point, frame), symbol, color, radius, title)


def drop_outliers(values: Sequence[float]) -> list[float]:
    """Drop values far below the others (Tukey's outer fence), which would squash the axis."""
    low, high = np.percentile(values, (25, 75))
    return [value for value in values if value >= low - OUTLIER_FENCE * (high - low)]


def axis_range(values: Sequence[float]) -> tuple[float, float]:
    """Range of an axis: all values with a margin."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def axis_shapes(frame: PlotFrame, x_axis: Axis, y_axis: Axis) -> list[Shape]:
    """Grid lines, tick labels and labels of both axes."""
    shapes: list[Shape] = []
    for value in ticks(*frame.y):
        (x0, y), (x1, _) = frame.to_pixels(frame.x[0], value), frame.to_pixels(frame.x[1], value)
        shapes.append(Line(((x0, y), (x1, y)), GRID_COLOR))
        shapes.append(TextLine((x0 - 8, y + 4), y_axis.format_tick(value), TEXT_COLOR, 12, "end"))
    for value in ticks(*frame.x):
        x, y = frame.to_pixels(value, frame.y[0])
        shapes.append(Line(((x, TOP), (x, y)), GRID_COLOR))
        shapes.append(TextLine((x, y + 18), x_axis.format_tick(value), TEXT_COLOR, 12, "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    shapes.append(TextLine((middle, HEIGHT - 8), x_axis.name, TEXT_COLOR, 12, "middle"))
    shapes.append(TextLine((14, TOP - 12), y_axis.name, TEXT_COLOR, 12))
    return shapes


def target_line(front: Front, frame: PlotFrame) -> list[Shape]:
    """A dashed line at the requested FLOPs."""
    target = front.requested.fractions((front.dense.macs, front.dense.params))[0]
    if target is None:
        return []
    x, y = frame.to_pixels(target, frame.y[0])
    return [Line(((x, TOP), (x, y)), TARGET_COLOR, 1.5, 5.0)]


def legend(front: Front, title: str) -> list[Shape]:
    """The title and the legend."""
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
    """About `TICK_COUNT` round numbers from `low` to `high`."""
    rough = (high - low) / TICK_COUNT
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
