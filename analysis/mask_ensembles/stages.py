"""The steps of an ensemble job that need the network: its hash, the dense losses, the chunks."""

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
from ...trainers.data.splits import Split
from ...trainers.runtime.device import DeviceConfig, device_config_for, device_of, to_device
from ..jobs import MeasuredNetwork
from ..scores.measure import measurement_key
from .chunks import ChunkGroupResult, ChunkSampler, measure_part
from .masked_loss import MaskedLossProbe
from .result import MeasurementEffort
from .settings import EnsembleSettings

Values = NDArray[np.float64]
SET_IMAGES = 512  # images per mask when a network does not support one mask per sample


EnsembleStep = Callable[[MeasuredNetwork], Any]


def without_network(function: Callable[[], Any], _network: MeasuredNetwork) -> Any:
    """Run a step that does not need the network."""
    return function()


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleStart:
    """Everything that is computed before the first mask."""

    sampler: ChunkSampler
    machine: DeviceConfig
    dense: Values  # loss of each image without a mask
    taylor: Values | None  # mean of the prior, if the settings use it
    effort: MeasurementEffort
    batch: int  # images per batch that fitted into memory
    notes: tuple[str, ...]


@contextlib.contextmanager
def open_probe(
    network: MeasuredNetwork, settings: EnsembleSettings, machine: DeviceConfig
) -> Iterator[MaskedLossProbe]:
    """Open a probe on the device; move the network back afterwards."""
    split = fixed_subset(network.data.train, settings.images)
    original_device = device_of(network.model)
    try:
        model = to_device(network.model, machine)
        yield MaskedLossProbe(model, network.channel_map, network.data, split, settings, machine)
    finally:
        network.model.to(original_device)


def network_key(
    settings: EnsembleSettings, seed: int, network: MeasuredNetwork
) -> tuple[str, DeviceConfig]:
    """Hash of the network and images, and the device settings that all steps use."""
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
    """Measure the losses without a mask and, for a `new` estimator, the mean of the prior."""
    started = time.perf_counter()
    with open_probe(network, settings, machine) as probe:
        notes = fall_back_to_set_masks(probe)
        probe.measure_dense()
        taylor = probe.taylor() if new and settings.prior == "taylor" else None
        return EnsembleStart(
            sampler=ChunkSampler(
                probe.settings, network.channel_map.group_of, len(probe.split), seed
            ),
            machine=machine,
            dense=probe.dense,
            taylor=taylor,
            effort=probe.effort(time.perf_counter() - started),
            batch=probe.size,
            notes=notes,
        )


def run_chunks(
    start: EnsembleStart, batch: int, chunks: Sequence[int], network: MeasuredNetwork
) -> ChunkGroupResult:
    """Measure some chunks of an ensemble."""
    settings = replace(start.sampler.settings, batch=batch)
    with open_probe(network, settings, start.machine) as probe:
        probe.dense = start.dense
        return measure_part(probe, start.sampler, chunks)


def check_removable(channel_map: ChannelMap) -> None:
    """Raise UserError if no atom can be removed without emptying its group."""
    if channel_map.atoms == 0 or np.bincount(channel_map.group_of).max() < 2:
        raise UserError(
            "an ensemble needs a group of at least two atoms, got "
            f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups; "
            "run `paretoprune inspect` to see which layers are protected"
        )


def fall_back_to_set_masks(probe: MaskedLossProbe) -> tuple[str, ...]:
    """Use one mask for the whole set if the network regroups its batch; return a note."""
    if probe.settings.per == "batch" or probe.supports_sample_masks():
        return ()
    per = probe.settings.per
    images = min(probe.settings.images, SET_IMAGES)
    probe.settings = replace(probe.settings, per="batch", joined=False, images=images)
    probe.split = Split(probe.split.images[:images], probe.split.labels[:images])
    return (f"one mask per set instead of one per {per}: this network regroups its batch",)
