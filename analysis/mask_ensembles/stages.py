"""What is run of an ensemble, by whoever has the network: its beginning, and its parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...trainers.data.batches import fixed_subset
from ...trainers.data.types import Split
from ...trainers.runtime.device import DeviceConfig, device_config_for, device_of, to_device
from ..jobs import MeasuredNetwork
from ..scores.measure import measurement_key
from .chunks import ChunkGroupResult, ChunkSampler, measure_part
from .masked_loss import MaskedLossProbe
from .result import MeasurementEffort
from .settings import EnsembleSettings

Values = NDArray[np.float64]
SET_IMAGES = 512  # where a network forces one mask for a whole set


EnsembleStep = Callable[[MeasuredNetwork], Any]


def without_network(function: Callable[[], Any], on: MeasuredNetwork) -> Any:
    """A step that looks at sums alone."""
    return function()


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleStart:
    """What is known before the first mask."""

    draws: ChunkSampler
    machine: DeviceConfig
    dense: Values  # the losses of the images, unmasked
    taylor: Values | None  # the prior's mean, if it was asked for
    effort: MeasurementEffort
    batch: int  # images at once that memory has room for
    notes: tuple[str, ...]


@contextlib.contextmanager
def open_probe(
    network: MeasuredNetwork, settings: EnsembleSettings, machine: DeviceConfig
) -> Iterator[MaskedLossProbe]:
    """A probe of the network, which goes back afterwards to where it was."""
    split, here = fixed_subset(network.data.train, settings.images), device_of(network.model)
    try:
        model = to_device(network.model, machine)
        yield MaskedLossProbe(model, network.channel_map, network.data, split, settings, machine)
    finally:
        network.model.to(here)


def network_key(
    settings: EnsembleSettings, seed: int, network: MeasuredNetwork
) -> tuple[str, DeviceConfig]:
    """A hash of the network and the images, on the machine that all steps use."""
    check_removable(network.channel_map)
    machine = network.machine or device_config_for(network.model, network.data.input_shape)
    split = fixed_subset(network.data.train, settings.images)
    base = measurement_key(network.model, network.channel_map, network.data, split, seed)
    return base + repr(machine), machine


def measure_unmasked(
    settings: EnsembleSettings,
    seed: int,
    machine: DeviceConfig,
    new: bool,
    network: MeasuredNetwork,
) -> EnsembleStart:
    """What the unmasked network says, and of a `new` campaign what its prior expects."""
    began = time.perf_counter()
    with open_probe(network, settings, machine) as probe:
        notes = fall_back_to_set_masks(probe)
        probe.measure_dense()
        taylor = probe.taylor() if new and settings.prior == "taylor" else None
        return EnsembleStart(
            draws=ChunkSampler(
                probe.settings, network.channel_map.group_of, len(probe.split), seed
            ),
            machine=machine,
            dense=probe.dense,
            taylor=taylor,
            effort=probe.effort(time.perf_counter() - began),
            batch=probe.size,
            notes=notes,
        )


def run_chunks(
    start: EnsembleStart, batch: int, chunks: Sequence[int], network: MeasuredNetwork
) -> ChunkGroupResult:
    """Some chunks of it."""
    settings = replace(start.draws.settings, batch=batch)
    with open_probe(network, settings, start.machine) as probe:
        probe.dense = start.dense
        return measure_part(probe, start.draws, chunks)


def check_removable(channel_map: ChannelMap) -> None:
    """Raise unless some atom can be removed without emptying its group."""
    if channel_map.atoms == 0 or np.bincount(channel_map.group_of).max() < 2:
        raise UserError(
            "an ensemble must have a group of two atoms or more, got "
            f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups; "
            "paretoprune inspect says what protects the others"
        )


def fall_back_to_set_masks(probe: MaskedLossProbe) -> tuple[str, ...]:
    """Give a network that regroups its batch one mask for the whole set, and say so."""
    if probe.settings.per == "batch" or probe.supports_sample_masks():
        return ()
    per = probe.settings.per
    images = min(probe.settings.images, SET_IMAGES)
    probe.settings = replace(probe.settings, per="batch", joined=False, images=images)
    probe.split = Split(probe.split.images[:images], probe.split.labels[:images])
    return (f"one mask a set instead of one a {per}: this network regroups its batch",)
