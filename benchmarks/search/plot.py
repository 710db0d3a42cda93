"""The fronts of all contenders as one SVG: test accuracy over the share of the FLOPs.

Of each contender the seed with the middle hypervolume is drawn; steps, since a front promises
nothing between its points.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.search.contenders import CONTENDERS
from benchmarks.search.rules import HIGH, LOW, SIZES
from benchmarks.search.table import by_contender

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 56, 190, 36, 48
STRONG = ("#d1495b", "#00798c", "#edae49", "#30638e")  # ours, the peers, random
WEAK = ("#8d99ae", "#a3b18a", "#b5838d", "#9a8c98", "#6d6875", "#adb5bd", "#7f7f7f")
GRID = 'stroke="#e3e3e3"'


def draw(found: dict[str, Any]) -> str:
    """The whole figure."""
    place = {name: index for index, name in enumerate(CONTENDERS)}
    contenders = by_contender(found)  # in the order in which their cells came
    names = sorted(contenders, key=lambda name: place.get(name, len(place)))
    fronts = {name: middle(contenders[name])["front"] for name in names}
    tests = [p["test"] for front in fronts.values() for p in front if LOW <= p["flops"] <= HIGH]
    low = max(0.0, int(100 * min(tests, default=0.5)) / 100)
    high = max([found["dense"]["test"] or 0.0, *tests]) + 0.005
    plane = Plane(max(low, high - 0.3), high)
    title = f"{found['network']}, {found['data']}: equal {words(found)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        *axes(plane, found["dense"]["test"]),
    ]
    for index, (name, front) in reversed([*enumerate(fronts.items())]):  # ours on top
        parts.extend(curve(plane, index, name, front))
    return "\n".join([*parts, "</svg>"]) + "\n"


class Plane:
    """From FLOPs and accuracy to places in the figure."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def x(self, flops: float) -> float:
        """The place of a share of the FLOPs."""
        return round(LEFT + (flops - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, accuracy: float) -> float:
        """The place of an accuracy; what lies below the figure is drawn on its edge."""
        share = max(0.0, (accuracy - self.low) / (self.high - self.low))
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def middle(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The cell whose hypervolume is the median."""
    return sorted(cells, key=lambda cell: cell["hypervolume"]["test"])[(len(cells) - 1) // 2]


def words(found: dict[str, Any]) -> str:
    """The budget in words."""
    budget = found["budget"]
    if "minutes" in budget:
        return f"wall time, {budget['minutes']:g} minutes on {found['workers']} cores"
    return f"images, {budget['images']:,}"


def axes(plane: Plane, dense: float | None) -> Iterator[str]:
    """Grid, labels, and the dense network's accuracy."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for tenth in range(round(10 * LOW), round(10 * HIGH) + 1):
        x = plane.x(tenth / 10)
        strong = ' stroke-width="2"' if tenth / 10 in SIZES else ""
        yield f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}" {GRID}{strong}/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tenth / 10}</text>'
    step = 1 if plane.high - plane.low < 0.12 else 5
    for percent in range(round(100 * plane.low), int(100 * plane.high) + 1):
        if percent % step == 0:
            y = plane.y(percent / 100)
            yield f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" {GRID}/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{percent} %</text>'
    if dense is not None:
        y = plane.y(dense)
        yield f'<line x1="{LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#222" {DASH}/>'
        yield f'<text x="{right + 10}" y="{y + 4}">dense</text>'
    middle_x = (LEFT + right) / 2
    yield f'<text x="{middle_x}" y="{HEIGHT - 10}" text-anchor="middle">share of FLOPs kept</text>'


DASH = 'stroke-dasharray="4 4"'


def curve(plane: Plane, index: int, name: str, front: list[dict[str, Any]]) -> Iterator[str]:
    """One front as steps with a mark at each point, and its line in the legend."""
    strong = index < len(STRONG)
    colour = STRONG[index] if strong else WEAK[(index - len(STRONG)) % len(WEAK)]
    weight = 2.5 if index == 0 else 1.5
    smaller = [p for p in front if p["flops"] < LOW][-1:]  # the best counts from the edge on
    drawn = [*smaller, *(p for p in front if LOW <= p["flops"] <= HIGH)]
    inside = [(max(LEFT, plane.x(p["flops"])), plane.y(p["test"])) for p in drawn]
    if inside:
        path = f"M{inside[0][0]} {inside[0][1]}"
        path += "".join(f"H{x}V{y}" for x, y in inside[1:]) + f"H{plane.x(HIGH)}"
        style = f'stroke="{colour}" stroke-width="{weight}" fill="none"'
        yield f'<path d="{path}" {style}/>'
    for x, y in inside:
        yield f'<circle cx="{x}" cy="{y}" r="{weight + 0.5}" fill="{colour}"/>'
    y = TOP + 32 + 20 * index
    x = WIDTH - RIGHT + 10
    yield f'<line x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
    yield f'<text x="{x + 24}" y="{y + 4}">{escape(name)}</text>'
