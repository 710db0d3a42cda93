"""Measure an ensemble, once: read back if it is known, gone on with if it was cut off.

`ensemble_steps` says what is to be run next, in steps that may be run side by side: the chunks of
masks up to the next check. A check waits for the chunks before it, and the chunks after it for the
check, which may say that it is enough. Who runs the steps is the caller's business;
`measure_ensemble` runs them here.
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

from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.measurements import NamedArrays, load_arrays, save_arrays
from ...trainers.data.types import DataSplits
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

METHOD_VERSION = 1  # goes up when the same settings would give other numbers
SAVE_SECONDS = 60.0
PART = 2  # chunks measured by one worker at a time
LIMIT_FIELDS = ("samples", "seconds", "agreement")  # more of them goes on from the same sums
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
    """What every atom is worth, by random masks; sums and result are kept in `folder`.

    `on_progress` sees every check: the held-out R^2 and the agreement of two halves.
    """
    on = MeasuredNetwork(model, channel_map, data, machine)
    steps = ensemble_stages(settings, seed, folder, on_progress)
    found: list[EnsembleResult] = run_jobs_serially([steps], lambda step: step(on))
    return found[0]


def ensemble_stages(
    settings: EnsembleSettings, seed: int, folder: Path | None, on_progress: OnCheck | None
) -> EnsembleJob:
    """What is to be run for an ensemble; sums and result are kept in `folder`, which is here."""
    ((base, machine),) = yield [partial(network_key, settings, seed)]
    key, sums_key = cache_keys(base, settings)
    known = load_arrays(key, folder) if folder else None
    if known is not None:
        return ensemble_from_arrays(key, known)
    saved = load_arrays(sums_key, folder) if folder else None
    (start,) = yield [partial(measure_unmasked, settings, seed, machine, saved is None)]
    campaign = begin_or_resume(start, saved)
    last = time.monotonic()
    while not (campaign.settled or campaign.at_limit):
        ahead = campaign.next_chunks()
        parts = [ahead[first : first + PART] for first in range(0, len(ahead), PART)]
        for part in (yield [partial(run_chunks, start, campaign.batch, each) for each in parts]):
            campaign.add_results(part)
        due = campaign.chunk == next_check_chunk(campaign.chunk - 1)
        if due:
            yield from run_check(campaign, on_progress)
        if folder and (due or time.monotonic() - last >= SAVE_SECONDS):
            save_arrays(sums_key, campaign.state_arrays(), folder)
            last = time.monotonic()
    if not campaign.checked:
        yield from run_check(campaign, on_progress)
    if folder:
        save_arrays(sums_key, campaign.state_arrays(), folder)
    (ensemble,) = yield [
        partial(without_network, partial(build_ensemble, campaign, key, start.notes))
    ]
    if folder:
        save_arrays(key, ensemble_to_arrays(ensemble), folder)
    return ensemble  # type: ignore[no-any-return]


def run_check(
    campaign: EnsembleEstimator, on_progress: OnCheck | None
) -> Generator[list[EnsembleStep], list[Any]]:
    """Look whether it is enough, by whoever has the time: it takes many fits."""
    (found,) = yield [partial(without_network, campaign.check_convergence)]
    campaign.checks.append(found)
    if on_progress is not None:
        on_progress(found)


def begin_or_resume(start: EnsembleStart, saved: NamedArrays | None) -> EnsembleEstimator:
    """Take up saved sums, if they hold no more samples than are allowed now."""
    campaign = new_estimator(start.draws)
    if start.taylor is not None:
        campaign.taylor = start.taylor
    if saved is not None:
        campaign.taylor = saved["taylor"].astype(np.float64)
        if json.loads(str(saved["progress"]))["chunk"] <= campaign.max_chunks:
            campaign.load_state_arrays(saved)
    campaign.effort, campaign.batch = campaign.effort.plus(start.effort), start.batch
    return campaign


def cache_keys(base: str, settings: EnsembleSettings) -> tuple[str, str]:
    """The hashes of a result, and of the sums that it is made from."""
    values = asdict(settings)
    sums = {name: value for name, value in values.items() if name not in LIMIT_FIELDS}
    sums["chunk"] = min(settings.max_samples, 2048)  # low limits draw in smaller chunks
    return settings_digest(base, values), settings_digest(base, sums)


def settings_digest(base: str, values: dict[str, object]) -> str:
    """A hash of what was measured and how."""
    text = json.dumps([METHOD_VERSION, base, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def build_ensemble(
    campaign: EnsembleEstimator, key: str, notes: tuple[str, ...]
) -> EnsembleResult:
    """The record of a campaign that is over."""
    fit = campaign.fit()
    score, errors = campaign.scores(fit)
    effort = campaign.effort
    if effort.dropped:
        notes += (f"{effort.dropped} of {effort.samples} masks had no finite loss: left out",)
    if effort.halvings:
        notes += (f"memory ran out: batches of {campaign.batch} instead of more",)
    return EnsembleResult(
        key=key,
        settings=campaign.draws.settings,
        score=score,
        errors=errors,
        coefficients=fit.coefficients,
        centre=fit.centre,
        level=fit.level,
        level_error=fit.level_error,
        root=fit.root.astype(np.float32),
        reach=campaign.reach,
        checks=tuple(campaign.checks),
        effort=effort,
        settled=campaign.settled,
        notes=notes,
    )
