"""The end of a search: the front from the ledger, its test figures, front.json and the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from ...analysis.staged_jobs import single
from ...spaces.io.atomic_write import write_json
from ...spaces.records.pareto_front import Front
from ...trainers.metrics.evaluate import evaluate
from ...trainers.metrics.latency import latency
from ...trainers.pruning.serialization import WEIGHTS, load_small
from ..execution.executor import Hands
from ..execution.messages import Say
from ..optimizer.trial_store import Ledger
from ..results.report_builder import write_report
from ..storage.artifacts import drop_stored, with_weights
from ..storage.run_folder import RunFolder
from ..storage.trial_records import DENSE, Figures
from ..trial.context import Context


def conclude(ledger: Ledger, context: Context, run: RunFolder, hands: Hands) -> Front:
    """Measure the front on the test split, once; write the results; drop what is not needed."""
    ledger.note_figures(measured(unmeasured(ledger), context, hands))
    front = ledger.front()
    write_results(front, run)
    drop_stored(run.root, drop_weights(ledger, run))
    ledger.note_end()
    return front


def write_results(front: Front, run: RunFolder) -> None:
    """What is derived from the journal."""
    write_json(run.front, front.to_json())
    write_report(run.root, run.report)


def unmeasured(ledger: Ledger) -> list[str]:
    """The paths of what the front names and no end of a search has measured yet."""
    front, known = ledger.front(), ledger.record.figures
    named = [DENSE, *front.named, *(control.path for control in front.controls.values())]
    return [path for path in dict.fromkeys(named) if path not in known]


def measured(paths: Sequence[str], context: Context, hands: Hands) -> Figures:
    """Test accuracy and latency of the networks in these paths.

    One errand: networks that are timed side by side would slow each other down.
    """
    if not paths:
        return {}
    networks = [network_of(path, context) for path in paths]
    (rows,) = hands.do([single(partial(figures_of, networks))], context)
    return {
        path: {"test_accuracy": accuracy, "latency_ms": ms}
        for path, (accuracy, ms) in zip(paths, rows, strict=True)
    }


def network_of(path: str, context: Context) -> nn.Module:
    """A trial's network, or the dense one."""
    if path == DENSE:
        return context.model
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
