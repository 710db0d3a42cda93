"""A drawing of lines, markers and text that is written as SVG or PNG.

Both formats come from the same shapes. Pillow paints the PNG, so no browser is needed.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes_atomic

XY = tuple[float, float]
OVERSAMPLING = 4  # paint at four times the resolution and average, for smooth edges
STAR_WAIST = 0.42  # inner radius of a star, relative to its radius
CROSS_ARM = 0.3  # half the thickness of a cross's arms, relative to its radius


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; dashed with dashes of length `dash` if it is not 0."""

    points: tuple[XY, ...]
    color: str
    width: float = 1.0
    dash: float = 0.0


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker: circle, square, star, cross or down (a triangle); `title` is its tooltip."""

    at: XY
    shape: str
    color: str
    radius: float = 5.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text; `anchor` is start, middle or end."""

    at: XY
    text: str
    color: str = "#222222"
    size: float = 12.0
    anchor: str = "start"


Shape = Line | Marker | TextLine


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a white background; notebooks display it as SVG."""

    width: int
    height: int
    title: str
    shapes: tuple[Shape, ...]

    def _repr_svg_(self) -> str:
        return to_svg(self)

    def save(self, path: str | Path) -> None:
        """Write the drawing to a file.

        Args:
            path: The file; its suffix, .svg or .png, sets the format.

        Raises:
            UserError: If the suffix is another one, or the file cannot be written.

        Example:
            front.plot().save("front.png")
        """
        path = Path(path)
        writers = {".svg": lambda: to_svg(self).encode(), ".png": lambda: to_png(self)}
        if path.suffix.lower() not in writers:
            raise UserError(f"a figure's file must end in .svg or .png, got {path}; rename it")
        content = writers[path.suffix.lower()]()
        try:
            write_bytes_atomic(path, content)
        except OSError as error:
            raise UserError(
                f"a figure's file must be writable, got {path} ({error.strerror}); choose another"
            ) from None


def marker_corners(shape: str, radius: float) -> list[XY]:
    """The corners of a marker around (0, 0)."""
    if shape == "cross":
        arm, end = CROSS_ARM * radius, radius
        quarter = [(-arm, -end), (arm, -end), (arm, -arm), (end, -arm), (end, arm), (arm, arm)]
        corners = quarter + [(-x, -y) for x, y in quarter]
        turn = math.sqrt(0.5)
        return [((x - y) * turn, (x + y) * turn) for x, y in corners]
    count, first = {"square": (4, 45), "down": (3, 180), "star": (10, 0)}[shape]
    radii = [radius * (STAR_WAIST if shape == "star" and k % 2 else 1) for k in range(count)]
    angles = [math.radians(first + 360 * k / count) for k in range(count)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def to_svg(drawing: Drawing) -> str:
    """Render the drawing as one SVG element, valid as a file or inside a page."""
    size = f'width="{drawing.width}" height="{drawing.height}"'
    body = "".join(shape_to_svg(shape) for shape in drawing.shapes)
    title = html.escape(drawing.title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}" '
        f'viewBox="0 0 {drawing.width} {drawing.height}" style="max-width:100%;height:auto" '
        f'font-family="system-ui, sans-serif"><title>{title}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{body}</svg>\n'
    )


def shape_to_svg(shape: Shape) -> str:
    """Render one shape as an SVG element."""
    color = html.escape(shape.color)
    if isinstance(shape, Line):
        dash = f' stroke-dasharray="{shape.dash:g}"' if shape.dash else ""
        return (
            f'<polyline points="{svg_points(shape.points)}" fill="none" stroke="{color}" '
            f'stroke-width="{shape.width:g}"{dash}/>'
        )
    x, y = shape.at
    if isinstance(shape, TextLine):
        return (
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" font-size="{shape.size:g}" '
            f'text-anchor="{shape.anchor}">{html.escape(shape.text)}</text>'
        )
    title = f"<title>{html.escape(shape.title)}</title>" if shape.title else ""
    if shape.shape == "circle":
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shape.radius:g}" fill="{color}">'
            f"{title}</circle>"
        )
    corners = tuple((x + dx, y + dy) for dx, dy in marker_corners(shape.shape, shape.radius))
    return f'<polygon points="{svg_points(corners)}" fill="{color}">{title}</polygon>'


def svg_points(points: Sequence[XY]) -> str:
    """Format coordinates for an SVG attribute."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def to_png(drawing: Drawing, scale: float = 2.0) -> bytes:
    """Render the drawing as PNG with `scale` pixels per unit."""
    size = round(drawing.width * scale), round(drawing.height * scale)
    image = Image.new("RGB", (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), "#ffffff")
    canvas = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        paint_shape(canvas, shape, scale * OVERSAMPLING)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BOX).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def paint_shape(canvas: ImageDraw.ImageDraw, shape: Shape, scale: float) -> None:
    """Paint one shape on the canvas."""
    if isinstance(shape, Line):
        for segment in dash_segments(shape):
            ends = [(x * scale, y * scale) for x, y in segment]
            canvas.line(ends, fill=shape.color, width=round(shape.width * scale), joint="curve")
        return
    x, y = shape.at[0] * scale, shape.at[1] * scale
    if isinstance(shape, TextLine):
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        font = ImageFont.load_default(shape.size * scale)
        canvas.text((x, y), shape.text, fill=shape.color, font=font, anchor=anchor)
    elif shape.shape == "circle":
        r = shape.radius * scale
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=shape.color)
    else:
        corners = marker_corners(shape.shape, shape.radius * scale)
        canvas.polygon([(x + dx, y + dy) for dx, dy in corners], fill=shape.color)


def dash_segments(line: Line) -> list[tuple[XY, ...]]:
    """The drawn parts of a line: all of it, or the dashes of a straight dashed line."""
    if not line.dash:
        return [line.points]
    (x0, y0), (x1, y1) = line.points[0], line.points[-1]
    length = math.hypot(x1 - x0, y1 - y0)
    starts = [2 * line.dash * k for k in range(math.ceil(length / (2 * line.dash)))]

    def at(distance: float) -> XY:
        part = min(distance / length, 1.0)
        return x0 + part * (x1 - x0), y0 + part * (y1 - y0)

    return [(at(start), at(start + line.dash)) for start in starts]
