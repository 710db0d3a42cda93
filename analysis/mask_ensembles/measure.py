"""Measure an ensemble once: a finished one is read from the folder, an interrupted one resumed.

`ensemble_stages` is a staged job. One stage holds the chunks of masks up to the next convergence
check, which may run in parallel; the check itself is the next stage. The caller decides where the
calls run; `measure_ensemble` runs them serially in this process.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...spaces.arrays import NamedArrays
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.measurements import load_arrays, save_arrays
from ...trainers.data.splits import DataSplits
from ...trainers.runtime.device import DeviceConfig
from ..jobs import MeasuredNetwork, run_jobs_serially
from .estimator import EnsembleEstimator, new_estimator, next_check_chunk
from .result import ConvergenceCheck, EnsembleResult, ensemble_from_arrays, ensemble_to_arrays
from .settings import EnsembleSettings
from .stages import (
    EnsembleStart,
    EnsembleStep,
    measure_unmasked,
    network_key,
    run_chunks,
    without_network,
)

METHOD_VERSION = 1  # raise it when the same settings give other numbers
SAVE_SECONDS = 60.0
PART = 2  # chunks per call
LIMIT_FIELDS = ("samples", "seconds", "agreement")  # a higher limit resumes from the sums
OnCheck = Callable[[ConvergenceCheck], None]


EnsembleJob = Generator[Sequence[EnsembleStep], list[Any], EnsembleResult]


def measure_ensemble(
    model: nn.Module,
    channel_map: ChannelMap,
    data: DataSplits,
    settings: EnsembleSettings,
    *,
    folder: Path | None,
    seed: int,
    machine: DeviceConfig | None = None,
    on_progress: OnCheck | None = None,
) -> EnsembleResult:
    """Score every atom by random masks.

    Args:
        model: A trained network.
        channel_map: Its channel map.
        data: The data; only images of the train split are used.
        settings: How masks are drawn and fitted, and the limits.
        folder: Keeps the sums and the result; None keeps nothing.
        seed: Seed of masks and images.
        machine: Device settings; None: the best for the model's device.
        on_progress: Receives every convergence check.

    Returns:
        The scores with standard errors, and the linear model.
    """
    network = MeasuredNetwork(model, channel_map, data, machine)
    steps = ensemble_stages(settings, seed, folder, on_progress)
    found: list[EnsembleResult] = run_jobs_serially([steps], lambda step: step(network))
    return found[0]


def ensemble_stages(
    settings: EnsembleSettings, seed: int, folder: Path | None, on_progress: OnCheck | None
) -> EnsembleJob:
    """The staged job of an ensemble; this process reads and writes `folder`, workers do not."""
    ((base, machine),) = yield [partial(network_key, settings, seed)]
    key, sums_key = cache_keys(base, settings)
    known = load_arrays(key, folder) if folder else None
    if known is not None:
        return ensemble_from_arrays(key, known)
    saved = load_arrays(sums_key, folder) if folder else None
    (start,) = yield [partial(measure_unmasked, settings, seed, machine, saved is None)]
    estimator = begin_or_resume(start, saved)
    saved_at = time.monotonic()
    while not (estimator.settled or estimator.at_limit):
        chunks = estimator.next_chunks()
        parts = [chunks[first : first + PART] for first in range(0, len(chunks), PART)]
        for part in (yield [partial(run_chunks, start, estimator.batch, each) for each in parts]):
            estimator.add_results(part)
        due = estimator.chunk == next_check_chunk(estimator.chunk - 1)
        if due:
            yield from run_check(estimator, on_progress)
        if folder and (due or time.monotonic() - saved_at >= SAVE_SECONDS):
            save_arrays(sums_key, estimator.state_arrays(), folder)
            saved_at = time.monotonic()
    if not estimator.checked:
        yield from run_check(estimator, on_progress)
    if folder:
        save_arrays(sums_key, estimator.state_arrays(), folder)
    (ensemble,) = yield [
        partial(without_network, partial(build_ensemble, estimator, key, start.notes))
    ]
    if folder:
        save_arrays(key, ensemble_to_arrays(ensemble), folder)
    return ensemble  # type: ignore[no-any-return]


def run_check(
    estimator: EnsembleEstimator, on_progress: OnCheck | None
) -> Generator[list[EnsembleStep], list[Any]]:
    """Check convergence in a call of its own, because it takes many fits."""
    (found,) = yield [partial(without_network, estimator.check_convergence)]
    estimator.checks.append(found)
    if on_progress is not None:
        on_progress(found)


def begin_or_resume(start: EnsembleStart, saved: NamedArrays | None) -> EnsembleEstimator:
    """Resume from saved sums, unless they hold more samples than the limit allows."""
    estimator = new_estimator(start.sampler)
    if start.taylor is not None:
        estimator.taylor = start.taylor
    if saved is not None:
        estimator.taylor = saved["taylor"].astype(np.float64)
        if json.loads(str(saved["progress"]))["chunk"] <= estimator.max_chunks:
            estimator.load_state_arrays(saved)
    estimator.effort, estimator.batch = estimator.effort.plus(start.effort), start.batch
    return estimator


def cache_keys(base: str, settings: EnsembleSettings) -> tuple[str, str]:
    """The cache keys of the result and of its sums."""
    values = asdict(settings)
    sums = {name: value for name, value in values.items() if name not in LIMIT_FIELDS}
    sums["chunk"] = min(settings.max_samples, 2048)  # a low limit makes chunks smaller
    return settings_digest(base, values), settings_digest(base, sums)


def settings_digest(base: str, values: dict[str, object]) -> str:
    """Hash of the network (`base`) and the settings."""
    text = json.dumps([METHOD_VERSION, base, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def build_ensemble(
    estimator: EnsembleEstimator, key: str, notes: tuple[str, ...]
) -> EnsembleResult:
    """Build the result of a finished estimator."""
    fit = estimator.fit()
    score, errors = estimator.scores(fit)
    effort = estimator.effort
    if effort.dropped:
        notes += (f"{effort.dropped} of {effort.samples} masks without a finite loss left out",)
    if effort.halvings:
        notes += (f"memory ran out: the batch size was reduced to {estimator.batch}",)
    return EnsembleResult(
        key=key,
        settings=estimator.sampler.settings,
        score=score,
        errors=errors,
        coefficients=fit.coefficients,
        centre=fit.centre,
        level=fit.level,
        level_error=fit.level_error,
        root=fit.root.astype(np.float32),
        reach=estimator.reach,
        checks=tuple(estimator.checks),
        effort=effort,
        settled=estimator.settled,
        notes=notes,
    )
