"""What is run of an ensemble, by whoever has the network: its beginning, and its parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...trainers.data.batches import draw
from ...trainers.data.types import Data, Split
from ...trainers.runtime.device import Machine, device_of, machine_for, place
from ..scores.measure import evidence_key
from .chunks import Draws, Part, measure_part
from .masked_loss import Probe
from .result import Effort
from .settings import EnsembleSettings

Values = NDArray[np.float64]
SET_IMAGES = 512  # where a network forces one mask for a whole set


@dataclass(frozen=True, slots=True, eq=False)
class Measurable:
    """A trained network, its map, and the data whose train part it is measured on."""

    model: nn.Module
    channel_map: ChannelMap
    data: Data
    machine: Machine | None = None  # None: the best where the model lies


Step = Callable[[Measurable], Any]


def no_network(function: Callable[[], Any], on: Measurable) -> Any:
    """A step that looks at sums alone."""
    return function()


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What is known before the first mask."""

    draws: Draws
    machine: Machine
    dense: Values  # the losses of the images, unmasked
    taylor: Values | None  # the prior's mean, if it was asked for
    effort: Effort
    batch: int  # images at once that memory has room for
    notes: tuple[str, ...]


@contextlib.contextmanager
def probing(on: Measurable, settings: EnsembleSettings, machine: Machine) -> Iterator[Probe]:
    """A probe of the network, which goes back afterwards to where it was."""
    split, here = draw(on.data.train, settings.images), device_of(on.model)
    try:
        model = place(on.model, machine)
        yield Probe(model, on.channel_map, on.data, split, settings, machine)
    finally:
        on.model.to(here)


def base_of(settings: EnsembleSettings, seed: int, on: Measurable) -> tuple[str, Machine]:
    """A hash of the network and the images, on the machine that all steps use."""
    refuse_hopeless(on.channel_map)
    machine = on.machine or machine_for(on.model, on.data.input_shape)
    split = draw(on.data.train, settings.images)
    base = evidence_key(on.model, on.channel_map, on.data, split, seed)
    return base + repr(machine), machine


def unmasked(
    settings: EnsembleSettings, seed: int, machine: Machine, new: bool, on: Measurable
) -> Start:
    """What the unmasked network says, and of a `new` campaign what its prior expects."""
    began = time.perf_counter()
    with probing(on, settings, machine) as probe:
        notes = fall_back(probe)
        probe.measure_dense()
        taylor = probe.taylor() if new and settings.prior == "taylor" else None
        return Start(
            draws=Draws(probe.settings, on.channel_map.group_of, len(probe.split), seed),
            machine=machine,
            dense=probe.dense,
            taylor=taylor,
            effort=probe.effort(time.perf_counter() - began),
            batch=probe.size,
            notes=notes,
        )


def part_of(start: Start, batch: int, chunks: Sequence[int], on: Measurable) -> Part:
    """Some chunks of it."""
    settings = replace(start.draws.settings, batch=batch)
    with probing(on, settings, start.machine) as probe:
        probe.dense = start.dense
        return measure_part(probe, start.draws, chunks)


def refuse_hopeless(channel_map: ChannelMap) -> None:
    """Raise unless some atom can be removed without emptying its group."""
    if channel_map.atoms == 0 or np.bincount(channel_map.group_of).max() < 2:
        raise UserError(
            "an ensemble must have a group of two atoms or more, got "
            f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups; "
            "paretoprune inspect says what protects the others"
        )


def fall_back(probe: Probe) -> tuple[str, ...]:
    """Give a network that regroups its batch one mask for the whole set, and say so."""
    if probe.settings.per == "batch" or probe.takes_own_masks():
        return ()
    per = probe.settings.per
    images = min(probe.settings.images, SET_IMAGES)
    probe.settings = replace(probe.settings, per="batch", joined=False, images=images)
    probe.split = Split(probe.split.images[:images], probe.split.labels[:images])
    return (f"one mask a set instead of one a {per}: this network regroups its batch",)
