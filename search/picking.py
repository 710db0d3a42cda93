"""Choosing one point of a front, by validation accuracy only, and writing its network."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..spaces.errors import UserError
from ..spaces.evaluation import Evaluation
from ..spaces.front import Dense, Front
from ..spaces.target import limit
from ..trainers.saved import RECIPE, WEIGHTS
from .show import figures, words


@dataclass(frozen=True, slots=True)
class Wish:
    """What a picked point has to keep to. Sizes: a float is a fraction, an int absolute."""

    max_flops: float | int | None = None
    max_params: float | int | None = None
    min_accuracy: float | None = None
    knee: bool = False
    trial: int | None = None

    def admits(self, point: Evaluation, dense: Dense) -> bool:
        """True if the point keeps to every limit."""
        flops, params = limit(self.max_flops, dense.macs), limit(self.max_params, dense.params)
        return (
            (flops is None or point.macs <= flops)
            and (params is None or point.params <= params)
            and (self.min_accuracy is None or point.accuracy >= self.min_accuracy)
            and (self.trial is None or point.trial == self.trial)
        )


def choose(front: Front, wish: Wish) -> Evaluation:
    """The point of best validation accuracy within the limits, or the front's knee within them.

    With only an accuracy asked for, the cheapest point that reaches it.
    """
    points = candidates(front)
    fitting = [point for point in points if wish.admits(point, front.dense)]
    if not fitting:
        raise UserError(nothing_fits(points, wish))
    if wish.knee:
        return knee(fitting)
    if wish.min_accuracy is not None and wish.max_flops is None and wish.max_params is None:
        return min(fitting, key=lambda point: (point.macs, point.params))
    return max(fitting, key=lambda point: (point.accuracy, -point.loss, -point.macs))


def candidates(front: Front) -> list[Evaluation]:
    """The front's points, and the answer at the target where it is not one of them."""
    points = list(front.points)
    if front.at_target and all(p.trial != front.at_target.trial for p in points):
        points.append(front.at_target)
    return points


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


def nothing_fits(points: Sequence[Evaluation], wish: Wish) -> str:
    """The error that names the nearest points."""
    if wish.trial is not None:
        known = ", ".join(str(point.trial) for point in points)
        return f"--trial must be on the front, got {wish.trial}; the front has {known}"
    if not points:
        return "a front must have a point to pick, got none; let the search finish a trial"
    smallest = min(points, key=lambda point: point.macs)
    best = max(points, key=lambda point: point.accuracy)
    return (
        f"a point must keep every limit, got none that does; the smallest is trial "
        f"{smallest.trial} ({figures(smallest)}), the most accurate trial {best.trial} "
        f"({figures(best)}): ask for less, or search with a lower target"
    )


def write_picked(run: Path, point: Evaluation, out: Path) -> None:
    """Write the point's network into a new or empty folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        busy = any(out.iterdir())
    except OSError as error:
        raise UserError(unwritable(out, error)) from None
    if busy:
        raise UserError(f"--out must be an empty folder, got {out}; name a new one")
    copy_network(run / point.path, point, out)


def copy_network(source: Path, point: Evaluation, out: Path) -> None:
    """Copy weights and recipe, and add a card that says how to load them."""
    for name in (WEIGHTS, RECIPE):
        if not (source / name).is_file():
            raise UserError(f"a run must hold {name} of the picked point, got none in {source}")
    try:
        shutil.copyfile(source / WEIGHTS, out / WEIGHTS)
        shutil.copyfile(source / RECIPE, out / RECIPE)
        (out / "README.md").write_text(card(point, out))
    except OSError as error:
        raise UserError(unwritable(out, error)) from None


def unwritable(out: Path, error: OSError) -> str:
    """The one line about a folder that cannot be written."""
    return (
        f"--out must be a folder that can be written, got {out} ({error.strerror}); name another"
    )


def card(point: Evaluation, out: Path) -> str:
    """The model card: figures, and the lines that load the network."""
    origin = words(point.policy) if point.trial is None else f"trial {point.trial}"
    return (
        f"# A pruned network\n\n{figures(point)} of the dense network "
        f"({point.macs:,} MACs, {point.params:,} params): {origin}.\n\n"
        f"    import paretoprune as pp\n    model = pp.load({str(out)!r})\n\n"
        "A network that was passed in from Python is loaded with `pp.load(path, model=dense)`.\n"
    )
