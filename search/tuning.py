"""Ray Tune: run the ledger's jobs in workers that stay alive between trials."""

from __future__ import annotations

from pathlib import Path

import ray
from ray import tune

from .context import Context
from .searcher import LedgerSearcher
from .settings import SearchSettings
from .worker import run_trial


def tune_trials(
    searcher: LedgerSearcher, context: Context, settings: SearchSettings, scratch: Path
) -> None:
    """Run until the searcher has no job left."""
    holder = [ray.put(context)]
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, holder=holder), {"cpu": 1, "gpu": settings.gpus_per_trial}
    )
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    workers = int(resources.get("CPU", 1))
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=min(settings.workers or workers, workers),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(scratch), verbose=0),
    )
    tuner.fit()
