"""Choosing one point of a front, by validation accuracy only, and saying why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...spaces.cost.target import absolute_limit
from ...spaces.errors import UserError
from ...spaces.io.validation import matches_type
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import DenseMetrics, Front
from .formatting import format_metrics

MAX_POINTS_LISTED = 3  # points named where nothing fits


@dataclass(frozen=True, slots=True)
class SelectionCriteria:
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
            if not matches_type(value, "float | None"):
                raise UserError(f"{name} must be a finite number, got {value!r}; write 0.9")
        if not matches_type(self.trial, "int | None"):
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
    def is_accuracy_only(self) -> bool:
        """Nothing but an accuracy is asked for, so that the cheapest point is meant."""
        sizes = (self.max_flops, self.max_params, self.max_latency_ms)
        return self.min_accuracy is not None and all(size is None for size in sizes)

    def violation(self, point: Evaluation, dense: DenseMetrics) -> float:
        """How far a point is from keeping every limit, as a share of it; 0 if it keeps them."""
        pairs: list[tuple[float, float | int | None]] = [
            (point.macs, absolute_limit(self.max_flops, dense.macs)),
            (point.params, absolute_limit(self.max_params, dense.params)),
        ]
        if self.max_latency_ms is not None and point.latency_ms is not None:
            pairs.append((point.latency_ms, self.max_latency_ms))
        over = [max(0.0, value / most - 1) for value, most in pairs if most]
        if self.min_accuracy is not None:
            over.append(max(0.0, 1 - point.accuracy / self.min_accuracy))
        return max(over, default=0.0)

    def accepts(self, point: Evaluation, dense: DenseMetrics) -> bool:
        """True if the point is the one of the trial asked for and keeps to every limit."""
        named = self.trial is None or point.trial == self.trial
        return named and self.violation(point, dense) == 0

    def __str__(self) -> str:
        latency = None if self.max_latency_ms is None else f"{self.max_latency_ms:g} ms"
        limits = {
            "trial =": self.trial,
            "FLOPs <=": format_size_limit(self.max_flops),
            "params <=": format_size_limit(self.max_params),
            "latency <=": latency,
            "accuracy >=": self.min_accuracy,
        }
        return ", ".join(f"{rule} {value}" for rule, value in limits.items() if value is not None)


def format_size_limit(part: float | int | None) -> str | None:
    """A size as a user would say it."""
    if part is None:
        return None
    return f"{part:,}" if isinstance(part, int) else f"{100 * part:g} %"


def select_point(front: Front, criteria: SelectionCriteria) -> Evaluation:
    """The point of best validation accuracy within the limits, or the front's knee within them.

    With only an accuracy asked for, the cheapest point that reaches it.
    """
    criteria.check()
    points = selectable_points(front)
    check_latency_measured(points, criteria)
    fitting = [point for point in points if criteria.accepts(point, front.dense)]
    if not fitting:
        raise UserError(no_match_message(front, points, criteria))
    if criteria.knee:
        return knee_point(fitting)
    if criteria.is_accuracy_only:
        return min(fitting, key=lambda point: (point.macs, point.params))
    on_front = {point.path for point in front.points}
    return max(fitting, key=lambda p: (p.accuracy, p.path in on_front, -p.loss, -p.macs))


def selectable_points(front: Front) -> list[Evaluation]:
    """The front's points, and the answer at the target where it is not one of them."""
    points = list(front.points)
    if front.at_target and all(p.trial != front.at_target.trial for p in points):
        points.append(front.at_target)
    return points


def check_latency_measured(points: Sequence[Evaluation], criteria: SelectionCriteria) -> None:
    """A latency can be asked for once the search has ended and measured it."""
    if criteria.max_latency_ms is not None and any(point.latency_ms is None for point in points):
        raise UserError(
            "--max-latency-ms needs measured latencies, got a front without; they are measured "
            "at the end of a search: go on with paretoprune search --resume RUN"
        )


def knee_point(points: Sequence[Evaluation]) -> Evaluation:
    """The point farthest above the line from the smallest to the most accurate one."""
    ordered = sorted(points, key=lambda point: point.flops_fraction)
    first, last = ordered[0], max(ordered, key=lambda point: point.accuracy)
    width = (last.flops_fraction - first.flops_fraction) or 1.0
    height = (last.accuracy - first.accuracy) or 1.0

    def gain(point: Evaluation) -> float:
        along = (point.flops_fraction - first.flops_fraction) / width
        return (point.accuracy - first.accuracy) / height - along

    return max(ordered, key=gain)


def no_match_message(
    front: Front, points: Sequence[Evaluation], criteria: SelectionCriteria
) -> str:
    """The error that names the nearest points."""
    if not points:
        return "a front must have a point to pick, got none; let the search finish a trial"
    if criteria.trial is not None and all(point.trial != criteria.trial for point in points):
        known = ", ".join(str(point.trial) for point in points)
        return f"--trial must be on the front, got {criteria.trial}; the front has {known}"
    asked = [point for point in points if point.trial == criteria.trial]
    if asked:
        inner = replace(criteria, trial=None)
        within = [point for point in points if inner.accepts(point, front.dense)]
        other = f": trial {max(within, key=lambda p: p.accuracy).trial} does" if within else ""
        return (
            f"--trial {criteria.trial} must keep every other limit ({inner}), got "
            f"{format_metrics_with_latency(asked[0])}; leave it out{other}"
        )
    near = sorted(points, key=lambda point: criteria.violation(point, front.dense))[
        :MAX_POINTS_LISTED
    ]
    named = "; ".join(
        f"trial {point.trial} ({format_metrics_with_latency(point)})" for point in near
    )
    return (
        f"a point must keep every limit ({criteria}), got none that does; the nearest: {named}; "
        f"{no_match_remedy(criteria)}"
    )


def no_match_remedy(criteria: SelectionCriteria) -> str:
    """What to do where nothing keeps the limits."""
    if criteria.is_accuracy_only:
        return "ask for less, or fine-tune longer: search with more --epochs or --final-epochs"
    return "ask for less, or search with a lower target"


def format_metrics_with_latency(point: Evaluation) -> str:
    """The figures of a point, its latency with them."""
    latency = "" if point.latency_ms is None else f", {point.latency_ms:.2f} ms"
    return format_metrics(point) + latency


def explain_selection(front: Front, criteria: SelectionCriteria, point: Evaluation) -> str:
    """Why this point and no other, in one line."""
    points = selectable_points(front)
    count = sum(criteria.accepts(each, front.dense) for each in points)
    if criteria.trial is not None:
        return f"why: trial {point.trial} was asked for"
    among = f"of the {count} of {len(points)} points within {criteria}"
    if not str(criteria):
        among = f"of all {len(points)} points"
    if criteria.knee:
        return f"why: the bend of the front, {among}"
    if criteria.is_accuracy_only:
        return f"why: the fewest FLOPs {among}"
    return f"why: the best validation accuracy {among}"


def describe_neighbors(front: Front, point: Evaluation) -> list[str]:
    """What the next smaller and the next larger point of the front would give and take."""
    smaller = [each for each in front.points if each.macs < point.macs]
    larger = [each for each in front.points if each.macs > point.macs]
    lines = []
    if smaller:
        lines.append(describe_difference("smaller", max(smaller, key=lambda p: p.macs), point))
    if larger:
        lines.append(describe_difference("larger", min(larger, key=lambda p: p.macs), point))
    return lines


def describe_difference(kind: str, other: Evaluation, point: Evaluation) -> str:
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
