"""How trained gates met their target, as a still figure."""

from __future__ import annotations

from ...spaces.records.gate_history import Course
from .front_plot import FRONT, HEIGHT, RIGHT, TARGET, TOP, WIDTH, Axis, Frame, axes
from .svg_png import Drawing, Line, Shape, Words

HIGHEST = 1.05
STEP, SIZE = Axis("step of gate training"), Axis("size, share of dense", percent=True)


def course_drawing(course: Course, title: str) -> Drawing:
    """Both sizes against the steps of training, and what was asked for as dashed lines."""
    frame = Frame((0.0, float(course.steps[-1])), (0.0, HIGHEST))
    shapes: list[Shape] = [*axes(frame, STEP, SIZE), Words((14, 24), title, "#111111", 16)]
    sizes = (
        ("FLOPs", FRONT, course.flops, course.target_flops),
        ("params", TARGET, course.params, course.target_params),
    )
    for k, (name, color, values, asked) in enumerate(sizes):
        points = tuple(map(frame.at, map(float, course.steps), values))
        shapes.append(Line(points, color, 2.0))
        shapes.append(Words((WIDTH - RIGHT - 110 + 60 * k, TOP - 12), name, color, 13))
        if asked is not None:
            ends = frame.at(0.0, asked), frame.at(frame.x[1], asked)
            shapes.append(Line(ends, color, 1.5, 5.0))
    return Drawing(WIDTH, HEIGHT, title, tuple(shapes))
