"""The context: what every worker needs to carry out trials, shipped once and kept resident."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...analysis.measure import Limits
from ...spaces.allocations.decode import Space
from ...spaces.policy.measurements import Evidence
from ...spaces.records.recipe import Source
from ...trainers.data.types import Data
from ...trainers.runtime.device import Machine
from ...trainers.training.distillation import Teacher
from ..optimizer.plugins import Plugin
from .budget import Effort


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """Read-only for workers. `model` is the dense working copy, already in the map's form."""

    model: nn.Module
    data: Data
    space: Space
    evidence: Evidence
    source: Source
    map_sha256: str
    root: Path  # the run folder
    effort: Effort
    machine: Machine
    teacher: Teacher  # of every trial's fine-tune
    limits: Limits = Limits()  # of evidence that a trial measures anew
    halvings: int = 0  # of all batches, where memory ran out in this trial
    plugins: tuple[Plugin, ...] = ()
