"""The end of a search: test metrics of the front, front.json and the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from ...analysis.jobs import single_call_job
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.records.pareto_front import Front
from ...trainers.metrics.evaluate import evaluate
from ...trainers.metrics.latency import measure_latency
from ...trainers.pruning.serialization import TRIAL_WEIGHTS_FILE, load_pruned_model
from ..execution.executor import Executor
from ..execution.progress_messages import LogFunction
from ..optimizer.trial_store import TrialStore
from ..results.report_builder import write_report
from ..storage.artifacts import delete_uploaded_weights, fetch_trial_folder
from ..storage.run_folder import RunFolder
from ..storage.trial_records import DENSE_PATH, MetricsByPath
from ..trial.context import TrialContext


def finalize_search(
    store: TrialStore, context: TrialContext, run: RunFolder, executor: Executor
) -> Front:
    """Evaluate the front on the test split once, write the results, delete unneeded weights."""
    store.record_metrics(measure_test_metrics(unmeasured_paths(store), context, executor))
    front = store.front()
    write_results(front, run)
    delete_uploaded_weights(run.root, delete_unneeded_weights(store, run))
    store.record_end()
    return front


def write_results(front: Front, run: RunFolder) -> None:
    """Write front.json and the report, which derive from the journal."""
    write_json_atomic(run.front, front.to_json())
    write_report(run.root, run.report)


def unmeasured_paths(store: TrialStore) -> list[str]:
    """Return the paths of the front and the controls that have no test metrics yet."""
    front, known = store.front(), store.records.final_metrics
    named = [
        DENSE_PATH,
        *front.points_by_path,
        *(control.path for control in front.controls.values()),
    ]
    return [path for path in dict.fromkeys(named) if path not in known]


def measure_test_metrics(
    paths: Sequence[str], context: TrialContext, executor: Executor
) -> MetricsByPath:
    """Return test accuracy and latency of the networks in these paths.

    One call does it, since networks that are timed in parallel slow each other down.
    """
    if not paths:
        return {}
    networks = [load_trial_network(path, context) for path in paths]
    (rows,) = executor.run([single_call_job(partial(evaluate_and_time, networks))], context)
    return {
        path: {"test_accuracy": accuracy, "latency_ms": ms}
        for path, (accuracy, ms) in zip(paths, rows, strict=True)
    }


def load_trial_network(path: str, context: TrialContext) -> nn.Module:
    """Load the network of a trial, or return the dense model."""
    if path == DENSE_PATH:
        return context.model
    folder = fetch_trial_folder(context.root, path)
    return load_pruned_model(folder, context.model, context.space.channel_map)


def evaluate_and_time(
    networks: list[nn.Module], context: TrialContext, log: LogFunction
) -> list[tuple[float | None, float]]:
    """Return test accuracy (None without a test split) and latency in ms of each network."""
    data, machine = context.data, context.machine
    return [
        (
            evaluate(network, data.test, data, machine=machine).accuracy if data.test else None,
            measure_latency(network, data.input_shape, machine=machine).median_ms,
        )
        for network in networks
    ]


def delete_unneeded_weights(store: TrialStore, run: RunFolder) -> list[str]:
    """Delete weights of settled trials that are not needed; return the paths of those trials.

    Their recipes stay.
    """
    kept = store.needed_paths()
    dropped = [e.path for e in store.records.evaluations() if e.path not in kept]
    for path in dropped:
        (run.root / path / TRIAL_WEIGHTS_FILE).unlink(missing_ok=True)
    return dropped
