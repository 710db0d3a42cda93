"""The cells of a results file as a table: mean over seeds, the best first by accuracy at 0.4."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.search.rules import SIZES

HEAD = f"{'contender':22}" + "".join(f"{f'at {size}':>16}" for size in SIZES)


def by_contender(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The cells of each contender, whatever their seeds."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for name, cell in found["cells"].items():
        cells.setdefault(name.rpartition(" seed ")[0], []).append(cell)
    return cells


def table(found: dict[str, Any]) -> str:
    """Test accuracy at the quoted sizes, hypervolume on test, what was spent."""
    rows = by_contender(found)
    lines = [f"{HEAD}{'hypervolume':>16}{'minutes':>9}{'k trained':>10}{'seeds':>6}"]
    for name in sorted(rows, key=lambda name: -accuracy(rows[name], SIZES[0])[0]):
        cells = rows[name]
        at = "".join(f"{spread(*accuracy(cells, size)):>16}" for size in SIZES)
        area = spread(*mean_of([cell["hypervolume"]["test"] for cell in cells]))
        wall = statistics.mean(cell["wall_seconds"] for cell in cells) / 60
        images = statistics.mean(cell["images_trained"] for cell in cells) / 1000
        lines.append(f"{name:22}{at}{area:>16}{wall:9.1f}{images:10.0f}{len(cells):6}")
    if found["missing"]:
        lines.append(f"missing: {', '.join(found['missing'])}")
    return "\n".join(lines)


def accuracy(cells: Sequence[dict[str, Any]], size: float) -> tuple[float, float]:
    """Mean test accuracy at a size, and its standard deviation over seeds."""
    points = [cell["at"][str(size)] for cell in cells]
    return mean_of([point["test"] if point else 0.0 for point in points])


def mean_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; of one value the latter is 0."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def spread(mean: float, deviation: float) -> str:
    """As printed."""
    return f"{mean:.4f} ±{deviation:.4f}"
