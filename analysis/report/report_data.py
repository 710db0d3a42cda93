"""Data of the report: plain numbers and texts, gathered from a run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spaces.graph.layout import Layout
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.gate_history import GateHistory
from ...spaces.records.pareto_front import Front


@dataclass(frozen=True, slots=True)
class ReportedTrial:
    """One finished trial or control."""

    name: str  # "trial 7", "control uniform"
    evaluation: Evaluation
    policy_text: str  # short description of its policy
    kept: tuple[int, ...] | None = None  # kept atoms of each group; None if unknown
    pick_command: str | None = None  # command that writes its network; None without weights
    gate_history: GateHistory | None = None


@dataclass(frozen=True, slots=True)
class Importance:
    """Share of the accuracy differences between trials of similar size that a field explains."""

    field: str
    share: float  # of the sum over all fields, which is 1
    noise_share: float  # share that it explains of shuffled accuracies, by chance

    @property
    def is_significant(self) -> bool:
        """Whether the field explains more than chance."""
        return self.share > self.noise_share


@dataclass(frozen=True, slots=True)
class Insights:
    """Importances of policy fields, and what the policies of the front have in common."""

    trials: int  # finished trials
    importances: tuple[Importance, ...] = ()
    sentences: tuple[str, ...] = ()
    note: str = ""  # why importances are missing, if they are
    stopped: int = 0  # trials that were stopped early and left out
    screening: str = ""  # quality of the screening, if it was used


@dataclass(frozen=True, slots=True)
class ScorePlot:
    """One score by group: the sorted values of the atoms, with standard errors if known."""

    name: str
    unit: str
    values: tuple[tuple[float, ...], ...]  # by group, ascending; large groups are thinned out
    errors: tuple[tuple[float, ...], ...] = ()  # standard errors, in the same order
    checks: tuple[tuple[int, float, float], ...] = ()  # masks, held-out R^2, agreement of halves


@dataclass(frozen=True, slots=True)
class CurvePlot:
    """Loss curves: by group, the number of atoms removed and the rise of the loss."""

    name: str
    removed: tuple[tuple[int, ...], ...]
    rise: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class MeasurementPlots:
    """All plots of the measurements."""

    scores: tuple[ScorePlot, ...] = ()
    curves: tuple[CurvePlot, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialCounts:
    """Numbers of trials by state."""

    settled: int = 0  # finished, failed, stopped or duplicate
    running: int = 0
    stopped: int = 0  # stopped early by halving
    repeats: int = 0  # duplicates of an evaluated network
    finals: int = 0  # longer fine-tunes


@dataclass(frozen=True, slots=True)
class Report:
    """A run, finished or in progress."""

    title: str
    front: Front | None = None  # None before the first finished trial
    requested_text: str = ""  # the requested sizes as text
    control_comparison: str = ""  # comparison with the controls, as text
    trials: tuple[ReportedTrial, ...] = ()  # finished trials in order of completion
    controls: tuple[ReportedTrial, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)  # reasons by trial name
    planned: int = 0
    counts: TrialCounts = TrialCounts()
    layout: Layout = Layout()  # without groups if the run has no layout
    measurements: MeasurementPlots = MeasurementPlots()
    insights: Insights = Insights(0)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
