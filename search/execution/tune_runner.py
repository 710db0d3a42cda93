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
from ..optimizer.pareto_halving import Halving, HalvingScheduler
from ..storage.artifacts import place_in
from ..storage.trial_records import SHORT
from ..trial.context import Context
from .remote_files import Shared, make_home
from .resources import gpus_each, workers_in
from .signals import Stopped, Stopping
from .trainable import run_trial
from .tune_searcher import LedgerSearcher


class StopBetweenSteps(tune.Callback):
    """Tune's seam for stopping at a signal: its loop comes by here several times a second."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Nothing of Ray's or of the ledger's is half done here."""
        self._stopping.raise_if_asked()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to restore them; we never restore."""
        return {}


def tune_trials(
    searcher: LedgerSearcher,
    context: Context,
    settings: SearchSettings,
    stop: StopBetweenSteps,
    scratch: Path,
    halving: Halving,
    carry_out: Callable[[dict[str, Any], Shared], None] = run_trial,
) -> None:
    """Run until the searcher has no job left; `carry_out` does one of them in a worker."""
    artifacts = place_in(context.root)
    shared = Shared(ray.put(context), make_home(context.root), artifacts)
    trainable = tune.with_resources(
        tune.with_parameters(carry_out, shared=shared),
        {"cpu": settings.cpus_per_trial, "gpu": gpus_of(context, settings)},
    )
    workers = settings.workers or workers_of(context, settings)  # more than fit wait for nodes
    for turn in itertools.count():
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=workers,
                scheduler=HalvingScheduler(halving),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{turn}", storage_path=str(scratch), verbose=0, callbacks=[stop]
            ),
        )
        try:
            tuner.fit()
            return
        except Stopped as stop:
            release(stop)
            raise
        except RuntimeError as error:
            if not (short_of_memory(error) and searcher.abandon(SHORT)):
                raise


def release(stop: Stopped) -> None:
    """Let go of Tune's workers, which a Ray that goes on after us would keep busy.

    Tune frees them where an Exception comes by, which Stopped is not, or where its controller is
    collected: until then the traceback holds that.
    """
    traceback.clear_frames(stop.__traceback__)
    gc.collect()


def short_of_memory(error: RuntimeError) -> bool:
    """Ray itself ended workers to keep the machine alive; Tune ends with them, unlike at a crash.

    Each time costs every running trial one of its attempts, so that this cannot go on for ever.
    """
    return isinstance(error.__cause__, ray.exceptions.OutOfMemoryError)


def gpus_of(context: Context, settings: SearchSettings) -> float:
    """The GPUs of one trial: none unasked, where trials run on the CPU."""
    unasked = settings.gpus_per_trial is None and context.machine.device == "cpu"
    return 0 if unasked else gpus_each(settings)


def workers_of(context: Context, settings: SearchSettings) -> int:
    """How many trials run at a time on the nodes that are there now."""
    return workers_in(settings, gpus_of(context, settings))
