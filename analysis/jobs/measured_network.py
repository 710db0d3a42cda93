"""The network that is measured, with its channel map and its data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ...spaces.graph.channels import ChannelMap
from ...trainers.data.splits import DataSplits
from ...trainers.runtime.device import DeviceConfig


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredNetwork:
    """A trained network. Measurements use images of the train split only."""

    model: nn.Module
    channel_map: ChannelMap
    data: DataSplits
    machine: DeviceConfig | None = None  # None: the best settings for the model's device
