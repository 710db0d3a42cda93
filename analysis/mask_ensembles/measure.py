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
from ...spaces.policy.measurements import Tables, load_tables, save_tables
from ...trainers.data.types import Data
from ...trainers.runtime.device import Machine
from ..staged_jobs import in_turn
from .estimator import Campaign, begin, next_check
from .jobs import Measurable, Start, Step, base_of, no_network, part_of, unmasked
from .result import Check, Ensemble, ensemble_from_tables, ensemble_to_tables
from .settings import EnsembleSettings

METHOD = 1  # goes up when the same settings would give other numbers
SAVE_SECONDS = 60.0
PART = 2  # chunks measured by one worker at a time
LIMITS = ("samples", "seconds", "agreement")  # more of them goes on from the same sums
OnProgress = Callable[[Check], None]


Steps = Generator[Sequence[Step], list[Any], Ensemble]


def measure_ensemble(
    model: nn.Module,
    channel_map: ChannelMap,
    data: Data,
    settings: EnsembleSettings,
    *,
    folder: Path | None,
    seed: int,
    machine: Machine | None = None,
    on_progress: OnProgress | None = None,
) -> Ensemble:
    """What every atom is worth, by random masks; sums and result are kept in `folder`.

    `on_progress` sees every check: the held-out R^2 and the agreement of two halves.
    """
    on = Measurable(model, channel_map, data, machine)
    steps = ensemble_steps(settings, seed, folder, on_progress)
    found: list[Ensemble] = in_turn([steps], lambda step: step(on))
    return found[0]


def ensemble_steps(
    settings: EnsembleSettings, seed: int, folder: Path | None, on_progress: OnProgress | None
) -> Steps:
    """What is to be run for an ensemble; sums and result are kept in `folder`, which is here."""
    ((base, machine),) = yield [partial(base_of, settings, seed)]
    key, sums_key = keys(base, settings)
    known = load_tables(key, folder) if folder else None
    if known is not None:
        return ensemble_from_tables(key, known)
    saved = load_tables(sums_key, folder) if folder else None
    (start,) = yield [partial(unmasked, settings, seed, machine, saved is None)]
    campaign = begin_or_resume(start, saved)
    last = time.monotonic()
    while not (campaign.settled or campaign.at_limit):
        ahead = campaign.ahead()
        parts = [ahead[first : first + PART] for first in range(0, len(ahead), PART)]
        for part in (yield [partial(part_of, start, campaign.batch, each) for each in parts]):
            campaign.take(part)
        due = campaign.chunk == next_check(campaign.chunk - 1)
        if due:
            yield from check(campaign, on_progress)
        if folder and (due or time.monotonic() - last >= SAVE_SECONDS):
            save_tables(sums_key, campaign.tables(), folder)
            last = time.monotonic()
    if not campaign.checked:
        yield from check(campaign, on_progress)
    if folder:
        save_tables(sums_key, campaign.tables(), folder)
    (ensemble,) = yield [partial(no_network, partial(conclude, campaign, key, start.notes))]
    if folder:
        save_tables(key, ensemble_to_tables(ensemble), folder)
    return ensemble  # type: ignore[no-any-return]


def check(campaign: Campaign, on_progress: OnProgress | None) -> Generator[list[Step], list[Any]]:
    """Look whether it is enough, by whoever has the time: it takes many fits."""
    (found,) = yield [partial(no_network, campaign.look)]
    campaign.checks.append(found)
    if on_progress is not None:
        on_progress(found)


def begin_or_resume(start: Start, saved: Tables | None) -> Campaign:
    """Take up saved sums, if they hold no more samples than are allowed now."""
    campaign = begin(start.draws)
    if start.taylor is not None:
        campaign.taylor = start.taylor
    if saved is not None:
        campaign.taylor = saved["taylor"].astype(np.float64)
        if json.loads(str(saved["progress"]))["chunk"] <= campaign.last:
            campaign.restore(saved)
    campaign.effort, campaign.batch = campaign.effort.plus(start.effort), start.batch
    return campaign


def keys(base: str, settings: EnsembleSettings) -> tuple[str, str]:
    """The hashes of a result, and of the sums that it is made from."""
    values = asdict(settings)
    sums = {name: value for name, value in values.items() if name not in LIMITS}
    sums["chunk"] = min(settings.most_samples, 2048)  # low limits draw in smaller chunks
    return digest(base, values), digest(base, sums)


def digest(base: str, values: dict[str, object]) -> str:
    """A hash of what was measured and how."""
    text = json.dumps([METHOD, base, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def conclude(campaign: Campaign, key: str, notes: tuple[str, ...]) -> Ensemble:
    """The record of a campaign that is over."""
    fit = campaign.fit()
    score, errors = campaign.scores(fit)
    effort = campaign.effort
    if effort.dropped:
        notes += (f"{effort.dropped} of {effort.samples} masks had no finite loss: left out",)
    if effort.halvings:
        notes += (f"memory ran out: batches of {campaign.batch} instead of more",)
    return Ensemble(
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
