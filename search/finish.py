"""The end of a search: the front from the ledger, its test figures, front.json and the report."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..spaces.durable import write_json
from ..spaces.evaluation import Evaluation
from ..spaces.front import Dense, Front
from ..trainers.evaluate import evaluate
from ..trainers.latency import latency
from ..trainers.saved import WEIGHTS, load_small
from .artifacts import drop_stored, with_weights
from .context import Context
from .ledger import Ledger
from .reporting import write_report
from .run_folder import RunFolder
from .setup import Prepared


def conclude(ledger: Ledger, prepared: Prepared, run: RunFolder) -> Front:
    """Measure the front on the test split, once; write the results; drop what is not needed."""
    front = measured(ledger.front(), prepared.context)
    write_json(run.front, front.to_json())
    write_report(run.root, run.report)
    drop_stored(run.root, drop_weights(ledger, run))
    return front


def measured(front: Front, context: Context) -> Front:
    """The front with test accuracy and latency of every network that it names."""
    known: dict[str, Evaluation] = {}

    def measure(point: Evaluation) -> Evaluation:
        if point.path not in known:
            known[point.path] = measured_point(point, context)
        return known[point.path]

    return replace(
        front,
        dense=measured_dense(front.dense, context),
        points=tuple(measure(point) for point in front.points),
        at_target=measure(front.at_target) if front.at_target else None,
        controls={name: measure(point) for name, point in front.controls.items()},
    )


def measured_point(point: Evaluation, context: Context) -> Evaluation:
    """A trial's evaluation with the test accuracy and the latency of its network."""
    folder = with_weights(context.root, point.path)
    small = load_small(folder, context.model, context.space.channel_map)
    test, milliseconds = figures(small, context)
    return replace(point, test_accuracy=test, latency_ms=milliseconds)


def measured_dense(dense: Dense, context: Context) -> Dense:
    """The same of the dense network."""
    test, milliseconds = figures(context.model, context)
    return replace(dense, test_accuracy=test, latency_ms=milliseconds)


def figures(model: nn.Module, context: Context) -> tuple[float | None, float]:
    """Test accuracy (if there is a test split) and latency of one network."""
    data, machine = context.data, context.machine
    test = evaluate(model, data.test, data, machine=machine).accuracy if data.test else None
    return test, latency(model, data.input_shape, machine=machine).median_ms


def drop_weights(ledger: Ledger, run: RunFolder) -> list[str]:
    """Of settled trials, keep the weights that the front names; of the others the recipe stays.

    The paths of those others.
    """
    front = ledger.front()
    named = [*front.points, *([front.at_target] if front.at_target else [])]
    kept = {point.path for point in named}
    dropped = [e.path for e in ledger.record.evaluations() if e.path not in kept]
    for path in dropped:
        (run.root / path / WEIGHTS).unlink(missing_ok=True)
    return dropped
