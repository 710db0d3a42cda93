"""Choosing one point of a front, by validation accuracy only, and saying why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...spaces.cost.target import limit
from ...spaces.errors import UserError
from ...spaces.io.validation import fits
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Dense, Front
from .formatting import figures

NEAREST = 3  # points named where nothing fits


@dataclass(frozen=True, slots=True)
class Wish:
    """What a picked point has to keep to. Sizes: a float is a fraction, an int absolute."""

    max_flops: float | int | None = None
    max_params: float | int | None = None
    min_accuracy: float | None = None
    knee: bool = False
    trial: int | None = None
    max_latency_ms: float | None = None

    def check(self) -> None:
        """Refuse limits that nothing could keep."""
        accuracy, latency = self.min_accuracy, self.max_latency_ms
        for name, value in (("--min-accuracy", accuracy), ("--max-latency-ms", latency)):
            if not fits(value, "float | None"):
                raise UserError(f"{name} must be a finite number, got {value!r}; write 0.9")
        if not fits(self.trial, "int | None"):
            raise UserError(f"--trial must be a whole number, got {self.trial!r}; write 3")
        if not isinstance(self.knee, bool):
            raise UserError(f"--knee must be true or false, got {self.knee!r}; leave it out")
        if self.knee and self.trial is not None:
            raise UserError(
                f"--trial and --knee each name a point, got both (--trial {self.trial}); "
                "leave one out"
            )
        if accuracy is not None and not 0 < accuracy <= 1:
            raise UserError(
                f"--min-accuracy must be in (0, 1], got {accuracy}; for ninety percent write 0.9"
            )
        if latency is not None and not 0 < latency < math.inf:
            raise UserError(f"--max-latency-ms must be above 0, got {latency}; write 2.5")

    @property
    def only_accuracy(self) -> bool:
        """Nothing but an accuracy is asked for, so that the cheapest point is meant."""
        sizes = (self.max_flops, self.max_params, self.max_latency_ms)
        return self.min_accuracy is not None and all(size is None for size in sizes)

    def excess(self, point: Evaluation, dense: Dense) -> float:
        """How far a point is from keeping every limit, as a share of it; 0 if it keeps them."""
        pairs: list[tuple[float, float | int | None]] = [
            (point.macs, limit(self.max_flops, dense.macs)),
            (point.params, limit(self.max_params, dense.params)),
        ]
        if self.max_latency_ms is not None and point.latency_ms is not None:
            pairs.append((point.latency_ms, self.max_latency_ms))
        over = [max(0.0, value / most - 1) for value, most in pairs if most]
        if self.min_accuracy is not None:
            over.append(max(0.0, 1 - point.accuracy / self.min_accuracy))
        return max(over, default=0.0)

    def admits(self, point: Evaluation, dense: Dense) -> bool:
        """True if the point is the one of the trial asked for and keeps to every limit."""
        named = self.trial is None or point.trial == self.trial
        return named and self.excess(point, dense) == 0

    def __str__(self) -> str:
        latency = None if self.max_latency_ms is None else f"{self.max_latency_ms:g} ms"
        limits = {
            "trial =": self.trial,
            "FLOPs <=": size(self.max_flops),
            "params <=": size(self.max_params),
            "latency <=": latency,
            "accuracy >=": self.min_accuracy,
        }
        return ", ".join(f"{rule} {value}" for rule, value in limits.items() if value is not None)


def size(part: float | int | None) -> str | None:
    """A size as a user would say it."""
    if part is None:
        return None
    return f"{part:,}" if isinstance(part, int) else f"{100 * part:g} %"


def choose(front: Front, wish: Wish) -> Evaluation:
    """The point of best validation accuracy within the limits, or the front's knee within them.

    With only an accuracy asked for, the cheapest point that reaches it.
    """
    wish.check()
    points = candidates(front)
    check_measured(points, wish)
    fitting = [point for point in points if wish.admits(point, front.dense)]
    if not fitting:
        raise UserError(nothing_fits(front, points, wish))
    if wish.knee:
        return knee(fitting)
    if wish.only_accuracy:
        return min(fitting, key=lambda point: (point.macs, point.params))
    on_front = {point.path for point in front.points}
    return max(fitting, key=lambda p: (p.accuracy, p.path in on_front, -p.loss, -p.macs))


def candidates(front: Front) -> list[Evaluation]:
    """The front's points, and the answer at the target where it is not one of them."""
    points = list(front.points)
    if front.at_target and all(p.trial != front.at_target.trial for p in points):
        points.append(front.at_target)
    return points


def check_measured(points: Sequence[Evaluation], wish: Wish) -> None:
    """A latency can be asked for once the search has ended and measured it."""
    if wish.max_latency_ms is not None and any(point.latency_ms is None for point in points):
        raise UserError(
            "--max-latency-ms needs measured latencies, got a front without; they are measured "
            "at the end of a search: go on with paretoprune search --resume RUN"
        )


def knee(points: Sequence[Evaluation]) -> Evaluation:
    """The point farthest above the line from the smallest to the most accurate one."""
    ordered = sorted(points, key=lambda point: point.flops_fraction)
    first, last = ordered[0], max(ordered, key=lambda point: point.accuracy)
    width = (last.flops_fraction - first.flops_fraction) or 1.0
    height = (last.accuracy - first.accuracy) or 1.0

    def gain(point: Evaluation) -> float:
        along = (point.flops_fraction - first.flops_fraction) / width
        return (point.accuracy - first.accuracy) / height - along

    return max(ordered, key=gain)


def nothing_fits(front: Front, points: Sequence[Evaluation], wish: Wish) -> str:
    """The error that names the nearest points."""
    if not points:
        return "a front must have a point to pick, got none; let the search finish a trial"
    if wish.trial is not None and all(point.trial != wish.trial for point in points):
        known = ", ".join(str(point.trial) for point in points)
        return f"--trial must be on the front, got {wish.trial}; the front has {known}"
    asked = [point for point in points if point.trial == wish.trial]
    if asked:
        inner = replace(wish, trial=None)
        within = [point for point in points if inner.admits(point, front.dense)]
        other = f": trial {max(within, key=lambda p: p.accuracy).trial} does" if within else ""
        return (
            f"--trial {wish.trial} must keep every other limit ({inner}), got "
            f"{measured(asked[0])}; leave it out{other}"
        )
    near = sorted(points, key=lambda point: wish.excess(point, front.dense))[:NEAREST]
    named = "; ".join(f"trial {point.trial} ({measured(point)})" for point in near)
    return (
        f"a point must keep every limit ({wish}), got none that does; the nearest: {named}; "
        f"{remedy(wish)}"
    )


def remedy(wish: Wish) -> str:
    """What to do where nothing keeps the limits."""
    if wish.only_accuracy:
        return "ask for less, or fine-tune longer: search with more --epochs or --final-epochs"
    return "ask for less, or search with a lower target"


def measured(point: Evaluation) -> str:
    """The figures of a point, its latency with them."""
    latency = "" if point.latency_ms is None else f", {point.latency_ms:.2f} ms"
    return figures(point) + latency


def reason(front: Front, wish: Wish, point: Evaluation) -> str:
    """Why this point and no other, in one line."""
    points = candidates(front)
    count = sum(wish.admits(each, front.dense) for each in points)
    if wish.trial is not None:
        return f"why: trial {point.trial} was asked for"
    among = f"of the {count} of {len(points)} points within {wish}"
    if not str(wish):
        among = f"of all {len(points)} points"
    if wish.knee:
        return f"why: the bend of the front, {among}"
    if wish.only_accuracy:
        return f"why: the fewest FLOPs {among}"
    return f"why: the best validation accuracy {among}"


def neighbours(front: Front, point: Evaluation) -> list[str]:
    """What the next smaller and the next larger point of the front would give and take."""
    smaller = [each for each in front.points if each.macs < point.macs]
    larger = [each for each in front.points if each.macs > point.macs]
    lines = []
    if smaller:
        lines.append(compared("smaller", max(smaller, key=lambda p: p.macs), point))
    if larger:
        lines.append(compared("larger", min(larger, key=lambda p: p.macs), point))
    return lines


def compared(kind: str, other: Evaluation, point: Evaluation) -> str:
    """One line of differences, in percentage points."""
    parts = [
        f"{name} {100 * (a - b):+.2f}"
        for name, a, b in (
            ("accuracy", other.accuracy, point.accuracy),
            ("FLOPs", other.flops_fraction, point.flops_fraction),
            ("params", other.params_fraction, point.params_fraction),
        )
    ]
    line = f"one {kind}: trial {other.trial}, {', '.join(parts)} percentage points"
    if other.latency_ms is not None and point.latency_ms is not None:
        line += f", {other.latency_ms - point.latency_ms + 0.0:+.3f} ms"
    return line
