"""The context of trials: sent to each worker once and kept in its memory."""

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
    """What a worker needs to run trials; read-only. `model` is the dense working copy."""

    model: nn.Module
    data: DataSplits
    space: PruningSpace
    measurements: Measurements
    source: ModelSource
    map_sha256: str
    root: Path  # the run folder
    budget: TrialBudget
    machine: DeviceConfig
    teacher: Teacher  # for distillation in the fine-tune
    # limits of measurements that a trial repeats on a pruned model
    measurement_limits: MeasurementLimits = MeasurementLimits()
    batch_halvings: int = 0  # of all batch sizes, after this trial ran out of memory
    plugins: tuple[Plugin, ...] = ()
