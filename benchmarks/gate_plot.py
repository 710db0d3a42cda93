"""Figure of the network's sizes during gate training."""

from __future__ import annotations

from paretoprune.analysis.report.front_plot import (
    FRONT_COLOR,
    HEIGHT,
    RIGHT,
    TARGET_COLOR,
    TOP,
    WIDTH,
    Axis,
    PlotFrame,
    axis_shapes,
)
from paretoprune.analysis.report.svg_png import Drawing, Line, Shape, TextLine
from paretoprune.spaces.records.gate_history import GateHistory

Y_MAX = 1.05
STEP_AXIS, SIZE_AXIS = Axis("step of gate training"), Axis("size, share of dense", percent=True)


def gate_history_drawing(history: GateHistory, title: str) -> Drawing:
    """Plot FLOPs and parameters against training steps, with the targets as dashed lines."""
    frame = PlotFrame((0.0, float(history.steps[-1])), (0.0, Y_MAX))
    shapes: list[Shape] = [
        *axis_shapes(frame, STEP_AXIS, SIZE_AXIS),
        TextLine((14, 24), title, "#111111", 16),
    ]
    sizes = (
        ("FLOPs", FRONT_COLOR, history.flops, history.target_flops),
        ("params", TARGET_COLOR, history.params, history.target_params),
    )
    for k, (name, color, values, target) in enumerate(sizes):
        points = tuple(map(frame.to_pixels, map(float, history.steps), values))
        shapes.append(Line(points, color, 2.0))
        shapes.append(TextLine((WIDTH - RIGHT - 110 + 60 * k, TOP - 12), name, color, 13))
        if target is not None:
            ends = frame.to_pixels(0.0, target), frame.to_pixels(frame.x[1], target)
            shapes.append(Line(ends, color, 1.5, 5.0))
    return Drawing(WIDTH, HEIGHT, title, tuple(shapes))
