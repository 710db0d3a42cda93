"""The end of a search: the front from the ledger, its test figures, front.json and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from ..analysis.pieces import single
from ..spaces.durable import write_json
from ..spaces.evaluation import Evaluation
from ..spaces.front import Dense, Front, non_dominated
from ..trainers.evaluate import evaluate
from ..trainers.latency import latency
from ..trainers.saved import WEIGHTS, load_small
from .artifacts import drop_stored, with_weights
from .context import Context
from .crew import Hands
from .ledger import Ledger
from .reporting import write_report
from .run_folder import RunFolder
from .telling import Say


def conclude(ledger: Ledger, context: Context, run: RunFolder, hands: Hands) -> Front:
    """Measure the front on the test split, once; write the results; drop what is not needed."""
    front = measured(ledger.front(), context, hands)
    write_json(run.front, front.to_json())
    write_report(run.root, run.report)
    drop_stored(run.root, drop_weights(ledger, run))
    return front


def measured(front: Front, context: Context, hands: Hands) -> Front:
    """The front with test accuracy and latency of every network that it names.

    Where latency is an objective, a network may leave the front: the trials were timed while
    others were running, this is timed alone.
    """
    points = front.named | {control.path: control for control in front.controls.values()}
    found, dense = with_figures(points, front.dense, context, hands)
    return replace(
        front,
        dense=dense,
        points=non_dominated([found[point.path] for point in front.points], front.objectives),
        at_target=found[front.at_target.path] if front.at_target else None,
        controls={name: found[point.path] for name, point in front.controls.items()},
    )


def with_figures(
    points: Mapping[str, Evaluation], dense: Dense, context: Context, hands: Hands
) -> tuple[dict[str, Evaluation], Dense]:
    """These trials, by path, and the dense network with test accuracy and latency.

    One errand: networks that are timed side by side would slow each other down.
    """
    networks = [context.model, *(network_of(path, context) for path in points)]
    (rows,) = hands.do([single(partial(figures_of, networks))], context)
    figures = [{"test_accuracy": accuracy, "latency_ms": ms} for accuracy, ms in rows]
    found = {
        path: replace(point, **own)
        for (path, point), own in zip(points.items(), figures[1:], strict=True)
    }
    return found, replace(dense, **figures[0])


def network_of(path: str, context: Context) -> nn.Module:
    """A trial's network."""
    folder = with_weights(context.root, path)
    return load_small(folder, context.model, context.space.channel_map)


def figures_of(
    networks: list[nn.Module], context: Context, say: Say
) -> list[tuple[float | None, float]]:
    """Test accuracy (if there is a test split) and latency of each."""
    data, machine = context.data, context.machine
    return [
        (
            evaluate(network, data.test, data, machine=machine).accuracy if data.test else None,
            latency(network, data.input_shape, machine=machine).median_ms,
        )
        for network in networks
    ]


def drop_weights(ledger: Ledger, run: RunFolder) -> list[str]:
    """Of settled trials, keep the weights that are needed; of the others the recipe stays.

    The paths of those others.
    """
    kept = ledger.needed()
    dropped = [e.path for e in ledger.record.evaluations() if e.path not in kept]
    for path in dropped:
        (run.root / path / WEIGHTS).unlink(missing_ok=True)
    return dropped
