"""Ray Tune: run the ledger's jobs in workers that stay alive between trials."""

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
    """Tune's seam for stopping at a signal: its loop comes by here several times a second."""

    def __init__(self, signals: SignalHandler) -> None:
        self._stopping = signals

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Nothing of Ray's or of the ledger's is half done here."""
        self._stopping.raise_if_requested()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore them; we never restore."""
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
    """Run until the searcher has no job left; `carry_out` does one of them in a worker."""
    artifacts = artifacts_url_of_run(context.root)
    shared = WorkerInputs(ray.put(context), make_remote_run_folder(context.root), artifacts)
    trainable = tune.with_resources(
        tune.with_parameters(run_one_trial, shared=shared),
        {"cpu": settings.cpus_per_trial, "gpu": gpus_for_trial(context, settings)},
    )
    workers = settings.workers or trial_concurrency(
        context, settings
    )  # more than fit wait for nodes
    for turn in itertools.count():
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
                name=f"tune-{turn}", storage_path=str(scratch), verbose=0, callbacks=[stop]
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
    """Let go of Tune's workers, which a Ray that goes on after us would keep busy.

    Tune frees them where an Exception comes by, which Stopped is not, or where its controller is
    collected: until then the traceback holds that.
    """
    traceback.clear_frames(stop.__traceback__)
    gc.collect()


def is_ray_out_of_memory(error: RuntimeError) -> bool:
    """Ray itself ended workers to keep the machine alive; Tune ends with them, unlike at a crash.

    Each time costs every running trial one of its attempts, so that this cannot go on for ever.
    """
    return isinstance(error.__cause__, ray.exceptions.OutOfMemoryError)


def gpus_for_trial(context: TrialContext, settings: SearchSettings) -> float:
    """The GPUs of one trial: none unasked, where trials run on the CPU."""
    unasked = settings.gpus_per_trial is None and context.machine.device == "cpu"
    return 0 if unasked else requested_or_even_gpus(settings)


def trial_concurrency(context: TrialContext, settings: SearchSettings) -> int:
    """How many trials run at a time on the nodes that are there now."""
    return cluster_trial_concurrency(settings, gpus_for_trial(context, settings))
