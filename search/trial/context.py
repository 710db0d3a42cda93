"""The context: what every worker needs to carry out trials, shipped once and kept resident."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...analysis.measure import MeasurementLimits
from ...spaces.allocations.decode import PruningSpace
from ...spaces.policy.measurements import Measurements
from ...spaces.records.recipe import ModelSource
from ...trainers.data.splits import DataSplits
from ...trainers.runtime.device import DeviceConfig
from ...trainers.training.distillation import Teacher
from ..optimizer.plugins import Plugin
from .budget import TrialBudget


@dataclass(frozen=True, slots=True, eq=False)
class TrialContext:
    """Read-only for workers. `model` is the dense working copy, already in the map's form."""

    model: nn.Module
    data: DataSplits
    space: PruningSpace
    measurements: Measurements
    source: ModelSource
    map_sha256: str
    root: Path  # the run folder
    budget: TrialBudget
    machine: DeviceConfig
    teacher: Teacher  # of every trial's fine-tune
    measurement_limits: MeasurementLimits = (
        MeasurementLimits()
    )  # of evidence that a trial measures anew
    batch_halvings: int = 0  # of all batches, where memory ran out in this trial
    plugins: tuple[Plugin, ...] = ()
