"""The values of trained gates as a score: what stays open as gradient descent shares a budget.

Gates and a copy of the weights are trained until half of the FLOPs that can go are gone (Enderich
et al. 2021 share the budget so); the weights are thrown away, the gates' values rank the atoms.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from ...spaces.allocations.decode import Space
from ...spaces.allocations.ordering import Ordering
from ...spaces.cost.cost import Price
from ...spaces.cost.target import Target
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.layer_scores import whole
from ...spaces.policy.loss_curves import removal_places
from ...spaces.policy.measurements import Evidence, save_tables, scores_to_tables
from ...spaces.policy.policy import PRESETS
from ...trainers.data.types import Data
from ...trainers.pruning.gates.network import LIMIT
from ...trainers.pruning.gates.settings import GateSettings, GateTask
from ...trainers.pruning.gates.training import train_gates
from ...trainers.runtime.device import machine_for
from ...trainers.training.distillation import Teacher
from ...trainers.training.loop import Progress, Tuning
from .calibration_pass import OnProgress
from .measure import digest_of, evidence_key, measure_evidence, read_scores

GATES = "gates"
IMAGES = 32_768  # trained on, unless limited
START = PRESETS["holistic"]  # the gates begin in the order of its score
REPORTS = 20


def gate_evidence(
    model: nn.Module,
    channel_map: ChannelMap,
    data: Data,
    *,
    folder: Path | None,
    seed: int,
    images: int | None = None,
    on_progress: OnProgress | None = None,
) -> Evidence:
    """The score `gates`; trained once for a folder, and further where that was broken off."""
    space, images = Space(channel_map, Price(channel_map)), images or IMAGES
    settings = settings_for(images / len(data.train))
    target = halfway(space, settings.floor)
    base = evidence_key(model, channel_map, data, data.train, seed)
    key = digest_of((base, GATES, repr(asdict(settings)), repr(target)))
    known = read_scores({GATES: key}, folder) if folder else {}
    if known:
        return Evidence(key, known)
    taylor = measure_evidence(
        model, channel_map, data, folder=folder, seed=seed, names=[START.score]
    )
    (scores,) = Ordering(taylor, channel_map, space.price).scores([START])
    checkpoint = folder / f"{key}.{GATES}.safetensors" if folder else None

    def report(progress: Progress) -> bool:
        if on_progress is not None:
            on_progress(round(progress.epoch * len(data.train)), images)
        return True

    machine = machine_for(model, data.input_shape)
    gated = train_gates(
        model,
        data,
        GateTask(space, target, settings, scores, seed),
        teacher=Teacher(model, machine),
        machine=machine,
        checkpoint=checkpoint,
        on_report=report,
    )
    found = {GATES: whole(gated.values + LIMIT)}
    if folder and checkpoint:
        save_tables(key, scores_to_tables(found), folder)
        checkpoint.unlink(missing_ok=True)
    return Evidence(key, found, counts={**taylor.counts, "trained": gated.log.images})


def settings_for(epochs: float) -> GateSettings:
    """Nothing is cut on the way, so that every gate keeps its value."""
    reports = tuple(epochs * k / REPORTS for k in range(1, REPORTS))
    tuning = Tuning(epochs=epochs, reports=reports)
    return GateSettings(tuning, floor=START.floor, shrink_every=None)


def halfway(space: Space, floor: int) -> Target:
    """Half of the FLOPs that can go."""
    channel_map = space.channel_map
    sizes = np.bincount(channel_map.group_of)[channel_map.group_of]
    left = removal_places(np.zeros(channel_map.atoms), channel_map) > sizes - floor
    least, _ = space.price.fraction(left)
    return Target(flops=round((1 + float(least)) / 2, 4))
