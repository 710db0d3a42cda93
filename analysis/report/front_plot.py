"""The front as a still figure: for the notebook, for a document, for a page without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from .svg_png import Drawing, Line, Marker, Shape, Words

# Okabe and Ito's colours, told apart by readers of any colour vision; shapes differ as well.
FRONT, TARGET, CONTROL, DENSE = "#0072b2", "#d55e00", "#666666", "#000000"
FAINT, RULE, INK = "#c9d3da", "#e4e4e4", "#444444"
WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 64, 46
TICKS = 6
FAR = 3.0  # quartile distances
ENTRY, LETTER = 34, 6  # of the legend: between entries, of a letter


@dataclass(frozen=True, slots=True)
class Frame:
    """Where figures lie on the page."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
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

    def said(self, value: float) -> str:
        """A figure at a rule."""
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


SIZE, ACCURACY = Axis("FLOPs, share of dense", percent=True), Axis("validation accuracy")


def front_drawing(front: Front, title: str, trials: Sequence[Evaluation] = ()) -> Drawing:
    """Accuracy against FLOPs: the front, the answer at the target, controls, dense."""
    front_and_dense = [p.accuracy for p in front.points] + [front.dense.accuracy]
    named = [*front_and_dense, *(c.accuracy for c in front.controls.values())]
    frame = Frame((0.0, 1.04), span(not_collapsed(named)))
    faint = [t for t in trials if frame.y[0] <= t.accuracy <= frame.y[1]]
    shapes: list[Shape] = [*axes(frame, SIZE, ACCURACY), *target_line(front, frame)]
    shapes += [Marker(place(t, frame), "circle", FAINT, 3.5) for t in faint]
    seen = [point for point in front.points if point.accuracy >= frame.y[0]]
    edge = tuple(place(point, frame) for point in upper_edge(seen))
    if len(edge) > 1:
        shapes.append(Line(edge, FRONT, 2.0))
    shapes += [mark(point, frame, "circle", FRONT) for point in front.points]
    for _, control in sorted(front.controls.items()):
        shapes.append(mark(control, frame, "cross", CONTROL, 6.5))
    shapes.append(Marker(frame.at(1.0, front.dense.accuracy), "square", DENSE, 7.0, "dense"))
    if front.at_target:
        shapes.append(mark(front.at_target, frame, "star", TARGET, 10.0))
    return Drawing(WIDTH, HEIGHT, f"The front of {title}", (*shapes, *legend(front, title)))


def upper_edge(points: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Of points in order of FLOPs, those more accurate than every smaller one."""
    edge: list[Evaluation] = []
    for point in points:
        if not edge or point.accuracy > edge[-1].accuracy:
            edge.append(point)
    return tuple(edge)


def place(point: Evaluation, frame: Frame) -> tuple[float, float]:
    """Where an evaluation lies."""
    return frame.at(point.flops_fraction, point.accuracy)


def mark(point: Evaluation, frame: Frame, shape: str, color: str, radius: float = 5.0) -> Marker:
    """A symbol with its figures on hover."""
    name = "control" if point.trial is None else f"trial {point.trial}"
    title = f"{name}: accuracy {point.accuracy:.4f}, FLOPs {point.flops_fraction:.1%}"
    symbol = shape if point.accuracy >= frame.y[0] else "down"
    return Marker(place(point, frame), symbol, color, radius, title)


def not_collapsed(values: Sequence[float]) -> list[float]:
    """Without those far below the others (Tukey's outer fence), beside which none can be told."""
    low, high = np.percentile(values, (25, 75))
    return [value for value in values if value >= low - FAR * (high - low)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """The axis that shows all values with some air."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 0.05
    return low - air, high + air


def axes(frame: Frame, across: Axis, upward: Axis) -> list[Shape]:
    """Rules, their figures and the names of both axes."""
    shapes: list[Shape] = []
    for value in ticks(*frame.y):
        (x0, y), (x1, _) = frame.at(frame.x[0], value), frame.at(frame.x[1], value)
        shapes.append(Line(((x0, y), (x1, y)), RULE))
        shapes.append(Words((x0 - 8, y + 4), upward.said(value), INK, 12, "end"))
    for value in ticks(*frame.x):
        x, y = frame.at(value, frame.y[0])
        shapes.append(Line(((x, TOP), (x, y)), RULE))
        shapes.append(Words((x, y + 18), across.said(value), INK, 12, "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    shapes.append(Words((middle, HEIGHT - 8), across.name, INK, 12, "middle"))
    shapes.append(Words((14, TOP - 12), upward.name, INK, 12))
    return shapes


def target_line(front: Front, frame: Frame) -> list[Shape]:
    """A dashed line at the requested FLOPs."""
    target = front.requested.fractions((front.dense.macs, front.dense.params))[0]
    if target is None:
        return []
    x, y = frame.at(target, frame.y[0])
    return [Line(((x, TOP), (x, y)), TARGET, 1.5, 5.0)]


def legend(front: Front, title: str) -> list[Shape]:
    """The title and what the symbols mean."""
    entries = [("circle", FRONT, "front"), ("square", DENSE, "dense")]
    if front.at_target:
        entries.insert(1, ("star", TARGET, "at the target"))
    entries += [("cross", CONTROL, "controls")] if front.controls else []
    shapes: list[Shape] = [Words((14, 24), title, "#111111", 16)]
    x = WIDTH - RIGHT - sum(ENTRY + LETTER * len(word) for _, _, word in entries)
    for symbol, color, word in entries:
        shapes.append(Marker((x + 6, TOP - 16), symbol, color, 5.5))
        shapes.append(Words((x + 17, TOP - 12), word, INK, 12))
        x += ENTRY + LETTER * len(word)
    return shapes


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about `TICKS` of them."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]
