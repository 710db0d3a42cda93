"""How trained gates met their target, as a still figure."""

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


def gate_history_drawing(course: GateHistory, title: str) -> Drawing:
    """Both sizes against the steps of training, and what was asked for as dashed lines."""
    frame = PlotFrame((0.0, float(course.steps[-1])), (0.0, Y_MAX))
    shapes: list[Shape] = [
        *axis_shapes(frame, STEP_AXIS, SIZE_AXIS),
        TextLine((14, 24), title, "#111111", 16),
    ]
    sizes = (
        ("FLOPs", FRONT_COLOR, course.flops, course.target_flops),
        ("params", TARGET_COLOR, course.params, course.target_params),
    )
    for k, (name, color, values, asked) in enumerate(sizes):
        points = tuple(map(frame.to_pixels, map(float, course.steps), values))
        shapes.append(Line(points, color, 2.0))
        shapes.append(TextLine((WIDTH - RIGHT - 110 + 60 * k, TOP - 12), name, color, 13))
        if asked is not None:
            ends = frame.to_pixels(0.0, asked), frame.to_pixels(frame.x[1], asked)
            shapes.append(Line(ends, color, 1.5, 5.0))
    return Drawing(WIDTH, HEIGHT, title, tuple(shapes))
