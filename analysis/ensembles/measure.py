"""Measure an ensemble, once: read back if it is known, gone on with if it was cut off."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import nn

from ...spaces.channels import ChannelMap
from ...spaces.errors import UserError
from ...spaces.evidence import load_tables, save_tables
from ...trainers.batches import draw
from ...trainers.machine import Machine, device_of, machine_for, place
from ...trainers.split import Data, Split
from ..evidence import evidence_key
from .campaign import Campaign, begin
from .probe import Probe
from .record import Check, Ensemble, ensemble_from_tables, ensemble_to_tables
from .settings import EnsembleSettings

METHOD = 1  # goes up when the same settings would give other numbers
SAVE_SECONDS = 60.0
SET_IMAGES = 512  # where a network forces one mask for a whole set
LIMITS = ("samples", "seconds", "agreement")  # more of them goes on from the same sums
OnProgress = Callable[[Check], None]


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
    refuse_hopeless(channel_map)
    machine = machine or machine_for(model, data.input_shape)
    split = draw(data.train, settings.images)
    here = device_of(model)
    base = evidence_key(model, channel_map, data, split, seed) + repr(machine)
    key, sums_key = keys(base, settings)
    known = load_tables(key, folder) if folder else None
    if known is not None:
        return ensemble_from_tables(key, known)
    try:
        probe = Probe(place(model, machine), channel_map, data, split, settings, machine)
        notes = fall_back(probe)
        campaign = resume(begin(probe, seed), sums_key, folder)
        run(campaign, sums_key, folder, on_progress)
        ensemble = conclude(campaign, key, notes)
    finally:
        model.to(here)
    if folder:
        save_tables(key, ensemble_to_tables(ensemble), folder)
    return ensemble


def refuse_hopeless(channel_map: ChannelMap) -> None:
    """Raise unless some atom can be removed without emptying its group."""
    if channel_map.atoms == 0 or np.bincount(channel_map.group_of).max() < 2:
        raise UserError(
            "an ensemble must have a group of two atoms or more, got "
            f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups; "
            "paretoprune inspect says what protects the others"
        )


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


def fall_back(probe: Probe) -> tuple[str, ...]:
    """Give a network that regroups its batch one mask for the whole set, and say so."""
    if probe.settings.per == "batch" or probe.takes_own_masks():
        return ()
    per = probe.settings.per
    images = min(probe.settings.images, SET_IMAGES)
    probe.settings = replace(probe.settings, per="batch", joined=False, images=images)
    probe.split = Split(probe.split.images[:images], probe.split.labels[:images])
    return (f"one mask a set instead of one a {per}: this network regroups its batch",)


def resume(campaign: Campaign, sums_key: str, folder: Path | None) -> Campaign:
    """Take up saved sums, if they hold no more samples than are allowed now."""
    saved = load_tables(sums_key, folder) if folder else None
    if saved is not None:
        chunk = json.loads(str(saved["progress"]))["chunk"]
        if chunk * campaign.chunk_size <= campaign.probe.settings.most_samples:
            campaign.restore(saved)
            return campaign
    if campaign.probe.settings.prior == "taylor":
        campaign.taylor = campaign.probe.taylor()
    return campaign


def run(
    campaign: Campaign, sums_key: str, folder: Path | None, on_progress: OnProgress | None
) -> None:
    """Run to the end, saving the sums after checks and every minute."""
    last = time.monotonic()

    def save(due: bool) -> None:
        nonlocal last
        if folder and (due or time.monotonic() - last >= SAVE_SECONDS):
            save_tables(sums_key, campaign.tables(), folder)
            last = time.monotonic()

    campaign.run(save, on_progress or (lambda check: None))
    save(True)


def conclude(campaign: Campaign, key: str, notes: tuple[str, ...]) -> Ensemble:
    """The record of a campaign that is over."""
    fit = campaign.fit()
    score, errors = campaign.scores(fit)
    effort = campaign.effort
    if effort.dropped:
        notes += (f"{effort.dropped} of {effort.samples} masks had no finite loss: left out",)
    if effort.halvings:
        notes += (f"memory ran out: batches of {campaign.probe.size} instead of more",)
    return Ensemble(
        key=key,
        settings=campaign.probe.settings,
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
