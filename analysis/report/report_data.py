"""What the report shows of a run, gathered from its folder: numbers and words, no modules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...spaces.graph.layout import Layout
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.gate_history import GateHistory
from ...spaces.records.pareto_front import Front


@dataclass(frozen=True, slots=True)
class ReportedTrial:
    """One finished trial (or control) as a reader meets it."""

    name: str  # "trial 7", "control uniform"
    evaluation: Evaluation
    policy_text: str  # its policy, in a few words
    kept: tuple[int, ...] | None = None  # atoms of each group; None where they are not known
    pick_command: str | None = (
        None  # the command that writes its network; None where weights are gone
    )
    gate_history: GateHistory | None = None  # of its gates


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of the differences between trials of like size one field of the policy explains."""

    field: str
    share: float  # of what all fields explain; they add up to 1
    noise_share: float  # what it could explain of shuffled accuracies by luck

    @property
    def is_significant(self) -> bool:
        """More than it explains of noise."""
        return self.share > self.noise_share


@dataclass(frozen=True, slots=True)
class Insights:
    """What mattered: importances, and what the front's policies have in common."""

    trials: int  # finished ones
    importances: tuple[Importance, ...] = ()
    sentences: tuple[str, ...] = ()
    note: str = ""  # why there is no more
    stopped: int = 0  # trials that nothing is said of, having been stopped on their way
    screening: str = ""  # what it was worth, where it was done


@dataclass(frozen=True, slots=True)
class ScorePlot:
    """One score along the layers: in each group the ranked atoms' values, errors where known."""

    name: str
    unit: str
    values: tuple[tuple[float, ...], ...]  # by group, ascending; large groups are thinned out
    errors: tuple[tuple[float, ...], ...] = ()  # standard errors of the same
    checks: tuple[tuple[int, float, float], ...] = ()  # masks, held-out R^2, agreement of halves


@dataclass(frozen=True, slots=True)
class CurvePlot:
    """Loss curves: by group, the number of atoms removed and the rise of the loss."""

    name: str
    removed: tuple[tuple[int, ...], ...]
    rise: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class MeasurementPlots:
    """What the evidence folder has to show."""

    scores: tuple[ScorePlot, ...] = ()
    curves: tuple[CurvePlot, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialCounts:
    """How many trials are over and how."""

    settled: int = 0  # finished, failed, stopped or known already
    running: int = 0
    stopped: int = 0  # on their way, being hopeless
    repeats: int = 0  # of a network that was known already
    finals: int = 0  # longer fine-tunes


@dataclass(frozen=True, slots=True)
class Report:
    """A run, finished or not."""

    title: str
    front: Front | None = None  # None before the first finished trial
    requested_text: str = ""  # the requested sizes in words
    control_comparison: str = ""  # what was found beside the controls, in words
    trials: tuple[ReportedTrial, ...] = ()  # the finished ones in the order of their ends
    controls: tuple[ReportedTrial, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)  # reasons by name
    planned: int = 0
    counts: TrialCounts = TrialCounts()
    layout: Layout = Layout()  # without groups where the run does not say
    measurements: MeasurementPlots = MeasurementPlots()
    insights: Insights = Insights(0)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
