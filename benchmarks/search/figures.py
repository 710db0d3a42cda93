"""What a cell reports: the front by validation, its accuracy on test, its hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.search.rules import HIGH, LEAST_ACCURACY, SIZES
from paretoprune.spaces.records.hypervolume import hypervolume


@dataclass(frozen=True, slots=True)
class Point:
    """One fine-tuned network: its share of the FLOPs and its accuracies."""

    label: str
    flops: float
    validation: float
    test: float | None = None


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no smaller or equal one beats on validation, smallest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.flops, -p.validation)):
        if not front or point.validation > front[-1].validation:
            front.append(point)
    return front


def at_size(front: Sequence[Point], size: float) -> Point | None:
    """The best point by validation that costs no more than a share of the FLOPs."""
    fitting = [point for point in front if point.flops <= size]
    return max(fitting, key=lambda p: p.validation, default=None)


def volume(front: Sequence[Point], split: str) -> float:
    """The area over (accuracy, FLOPs) that the front dominates, from the reference."""
    rows = [(getattr(point, split), -point.flops) for point in front]
    points = np.array([row for row in rows if row[0] is not None], dtype=float).reshape(-1, 2)
    return round(hypervolume(points, np.array([LEAST_ACCURACY, -HIGH])), 6)


def figures(front: Sequence[Point]) -> dict[str, Any]:
    """The front and its figures, as JSON values."""
    found = {str(size): at_size(front, size) for size in SIZES}
    return {
        "front": [asdict(point) for point in front],
        "hypervolume": {split: volume(front, split) for split in ("validation", "test")},
        "at": {size: asdict(point) if point else None for size, point in found.items()},
    }
