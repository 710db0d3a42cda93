"""How trained gates met their target, as a still figure."""

from __future__ import annotations

from ...spaces.course import Course
from .drawing import Drawing, Line, Shape, Words
from .figure import FRONT, HEIGHT, INK, LEFT, RIGHT, RULE, TARGET, TOP, WIDTH, Frame, ticks

HIGHEST = 1.05


def course_drawing(course: Course, title: str) -> Drawing:
    """Both sizes against the steps of training, and what was asked for as dashed lines."""
    frame = Frame((0.0, float(course.steps[-1])), (0.0, HIGHEST))
    shapes: list[Shape] = [*axes(frame), Words((14, 24), title, "#111111", 16)]
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


def axes(frame: Frame) -> list[Shape]:
    """Rules, their figures and the names of both axes."""
    shapes: list[Shape] = []
    for value in ticks(*frame.y):
        left, right = frame.at(0.0, value), frame.at(frame.x[1], value)
        shapes.append(Line((left, right), RULE))
        shapes.append(Words((left[0] - 8, left[1] + 4), f"{100 * value:.4g} %", INK, 12, "end"))
    for value in ticks(*frame.x):
        x, y = frame.at(value, 0.0)
        shapes.append(Line(((x, TOP), (x, y)), RULE))
        shapes.append(Words((x, y + 18), f"{value:.4g}", INK, 12, "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    shapes.append(Words((middle, HEIGHT - 8), "step of gate training", INK, 12, "middle"))
    shapes.append(Words((14, TOP - 12), "size, share of dense", INK, 12))
    return shapes
