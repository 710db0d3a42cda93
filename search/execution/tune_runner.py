"""Run the trials of a trial store with Ray Tune, in workers that live on between trials."""

from __future__ import annotations

import gc
import itertools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from ..config.settings import SearchSettings
from ..optimizer.pareto_halving import ParetoHalving
from ..storage.artifacts import artifacts_url_of_run
from ..storage.trial_records import OUT_OF_MEMORY
from ..trial.context import TrialContext
from .remote_files import WorkerInputs, make_remote_run_folder
from .resources import cluster_trial_concurrency, requested_or_even_gpus
from .signals import SignalHandler, StopRequested
from .trainable import run_trial
from .tune_scheduler import ParetoHalvingScheduler
from .tune_searcher import TrialStoreSearcher


class StopCallback(tune.Callback):
    """Stops Tune at a signal. Tune's loop calls it several times a second."""

    def __init__(self, signals: SignalHandler) -> None:
        self._signals = signals

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Raise a pending signal: neither Ray nor the store is in the middle of a step here."""
        self._signals.raise_if_requested()

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its callbacks to restore them, and we never restore."""
        return {}


def run_trials_with_tune(
    searcher: TrialStoreSearcher,
    context: TrialContext,
    settings: SearchSettings,
    stop: StopCallback,
    scratch: Path,
    halving: ParetoHalving,
    run_one_trial: Callable[[dict[str, Any], WorkerInputs], None] = run_trial,
) -> None:
    """Run until the searcher has no trial left; `run_one_trial` runs in a worker."""
    artifacts = artifacts_url_of_run(context.root)
    shared = WorkerInputs(ray.put(context), make_remote_run_folder(context.root), artifacts)
    trainable = tune.with_resources(
        tune.with_parameters(run_one_trial, shared=shared),
        {"cpu": settings.cpus_per_trial, "gpu": gpus_for_trial(context, settings)},
    )
    workers = settings.workers or trial_concurrency(context, settings)  # may wait for nodes
    for attempt in itertools.count():
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=workers,
                scheduler=ParetoHalvingScheduler(halving),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{attempt}", storage_path=str(scratch), verbose=0, callbacks=[stop]
            ),
        )
        try:
            tuner.fit()
            return
        except StopRequested as stop:
            release_workers(stop)
            raise
        except RuntimeError as error:
            if not (is_ray_out_of_memory(error) and searcher.fail_running(OUT_OF_MEMORY)):
                raise


def release_workers(stop: StopRequested) -> None:
    """Release Tune's workers, which a Ray that outlives the search would keep busy.

    Tune releases them at an Exception, which `StopRequested` is not, or when its controller is
    collected. The frames of the traceback hold the controller until they are cleared.
    """
    traceback.clear_frames(stop.__traceback__)
    gc.collect()


def is_ray_out_of_memory(error: RuntimeError) -> bool:
    """Return whether Ray killed workers to free memory; Tune ends then, unlike at a crash.

    Each such end costs every running trial one attempt, so the loop terminates.
    """
    return isinstance(error.__cause__, ray.exceptions.OutOfMemoryError)


def gpus_for_trial(context: TrialContext, settings: SearchSettings) -> float:
    """Return the GPUs of one trial: 0 if trials run on the CPU and none was requested."""
    on_cpu = settings.gpus_per_trial is None and context.machine.device == "cpu"
    return 0 if on_cpu else requested_or_even_gpus(settings)


def trial_concurrency(context: TrialContext, settings: SearchSettings) -> int:
    """Return how many trials run at a time on the present nodes."""
    return cluster_trial_concurrency(settings, gpus_for_trial(context, settings))
