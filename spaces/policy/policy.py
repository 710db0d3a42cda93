"""The policy: how one trial prunes and fine-tunes. Optuna samples it; JSON stores it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..cost.target import Target
from ..errors import UserError
from ..io.validation import record_from_json

COMBINATIONS = ("sum", "mean", "max", "later")
NORMALISATIONS = ("none", "max", "mean", "l2", "rank", "fan-in")
ALLOCATIONS = ("global-threshold", "uniform", "loss-budget")
CURVE_RULES = ("threshold", "least-sum")
PROBE_MODES = ("eval", "batch")
SCHEDULE_NAMES = ("one-shot", "gradual", "holistic")
GATE_VARIANTS = ("hard", "sigmoid", "hard-concrete")
COST_REFERENCES = ("dense", "present")
CHOICES = {
    "combine": COMBINATIONS,
    "normalisation": NORMALISATIONS,
    "price_at": COST_REFERENCES,
    "allocation": ALLOCATIONS,
    "curves": CURVE_RULES,
    "probe": PROBE_MODES,
    "schedule": SCHEDULE_NAMES,
    "gate_variant": GATE_VARIANTS,
}
RANGES = {
    "caution": (0.0, 3.0),
    "price_power": (0.0, 1.0),
    "price_blend": (0.0, 1.0),
    "threshold": (0.0, 1e9),
    "steps": (1, 1000),
    "step_share": (0.0, 1.0),
    "gate_share": (0.0, 1.0),
    "gate_approach": (0.0, 1.0),
    "distill": (0.0, 1.0),
}
POSITIVE_LIMITS = {  # above 0: (usual value, highest value)
    "gate_learning_rate": (1.0, 100.0),
    "gate_weight": (5.0, 1000.0),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How one trial scores, removes and fine-tunes: score, bias removal, allocation, schedule.

    Args:
        score: The name of a registered score.
        caution: How many standard errors to subtract from the score, where they are known.
        combine: How the scores of an atom in its layers become one: sum, mean, max or later.
        normalisation: Bias removal within each group: none, max, mean, l2, rank or fan-in.
        stages: Pairs a, b of the rescaling a * s + b, one per resolution, the finest first.
        price_power: The score is divided by the cost of the atom to this power, in [0, 1].
        price_blend: 0 measures this cost in MACs, 1 in params.
        price_at: The network whose marginal costs divide: dense, or present (as it shrinks).
        allocation: How one threshold becomes a mask: global-threshold, uniform or loss-budget.
        curves: Rule of loss-budget: threshold (one for all groups) or least-sum.
        threshold: Loss variation allowed by loss-budget; None solves it for the target.
        probe: Norm statistics of the loss curves: eval (running) or batch (of each batch).
        floor: The least number of atoms that every group keeps.
        schedule: one-shot, gradual or holistic.
        steps: Steps of a gradual schedule; each measures the scores again.
        step_share: Fraction of the trial's epochs trained between the steps.
        gate_share: Fraction of the trial's epochs in which a holistic schedule trains gates.
        gate_learning_rate: Learning rate of the gates, summed over their epochs.
        gate_variant: How a gate's value becomes a mask: hard, sigmoid or hard-concrete.
        gate_weight: Final weight of the size penalty relative to the task's loss.
        gate_approach: Fraction of the gate epochs in which this weight grows and the size limits
            shrink to the target.
        refit: Refit the weights that remain after a cut to the dense network by least squares.
        learning_rate: Peak learning rate of the fine-tune.
        distill: Weight of the dense network's outputs in the loss of the fine-tune.

    Raises:
        UserError: If a value is out of range, or two values contradict each other.

    Example:
        >>> policy = Policy(score="taylor", price_power=1.0, floor=2)
        >>> policy.schedule
        'one-shot'
    """

    score: str
    caution: float = 0.0
    combine: str = "sum"
    normalisation: str = "none"
    stages: tuple[float, ...] = ()
    price_power: float = 0.0
    price_blend: float = 0.0
    price_at: str = "dense"
    allocation: str = "global-threshold"
    curves: str = "threshold"
    threshold: float | None = None
    probe: str = "eval"
    floor: int = 1
    schedule: str = "one-shot"
    steps: int = 1
    step_share: float = 0.0
    gate_share: float = 0.0
    gate_learning_rate: float = 1.0
    gate_variant: str = "hard"
    gate_weight: float = 5.0
    gate_approach: float = 0.5
    refit: bool = False
    learning_rate: float = 0.02
    distill: float = 0.7

    def __post_init__(self) -> None:
        """Raise UserError for values out of range or that contradict each other."""
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        for name, (low, high) in RANGES.items():
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), low, high)
        for name, (usual, high) in POSITIVE_LIMITS.items():
            check_positive(name, getattr(self, name), usual, high)
        if not 0 < self.learning_rate < 10:
            raise UserError(
                f"learning_rate must be in (0, 10), got {self.learning_rate}; 0.02 is usual"
            )
        if self.floor < 1:
            raise UserError(f"floor must be at least 1, got {self.floor}; a group cannot be empty")
        if len(self.stages) % 2 or not all(math.isfinite(value) for value in self.stages):
            raise UserError(f"stages must be pairs of numbers a, b, got {list(self.stages)}")
        if (self.schedule == "holistic") != (self.gate_share > 0):
            raise UserError(
                f"gate_share must be above 0 in a holistic schedule and 0 in others, got "
                f"{self.gate_share} with schedule {self.schedule}; change one of the two"
            )
        if self.refit and self.schedule == "holistic":
            raise UserError(
                "refit must be false in a holistic schedule, got true; its gates already train "
                "the remaining weights"
            )

    @property
    def has_loss_threshold(self) -> bool:
        """Whether a given loss-variation threshold cuts every group, also beyond the target."""
        return self.allocation == "loss-budget" and self.threshold is not None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {**asdict(self), "stages": list(self.stages)}


def policy_from_json(values: Any) -> Policy:
    """Read a policy that `Policy.to_json` wrote; an unknown field is an error."""
    if isinstance(values, dict):
        known = [field.name for field in fields(Policy)]
        for name in values:
            if name not in known:
                raise UserError(f"policy has no field {name!r}; its fields are {', '.join(known)}")
        if "score" not in values:
            raise UserError(
                "policy must have the field 'score', got none; name a registered score"
            )
    return record_from_json(Policy, values, "policy")


def check_score(name: str, known: Iterable[str], what: str = "score") -> None:
    """Raise UserError unless `name` is a known score; `what` names the option or field."""
    known = list(known)
    if name not in known:
        raise UserError(
            f"{what} must be one of {', '.join(known)}, got {name!r}; "
            "for a score of your own pass --plugin FILE"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError unless low <= value <= high; NaN is an error too."""
    if not low <= value <= high:
        raise UserError(f"{name} must be in [{low:g}, {high:g}], got {value}")


def check_positive(name: str, value: float, usual: float, high: float) -> None:
    """Raise UserError unless 0 < value <= high."""
    if not 0 < value <= high:
        raise UserError(f"{name} must be in (0, {high:g}], got {value}; {usual:g} is usual")


POLICY_PRESETS: dict[str, Policy] = {  # in the order of the initial trials
    "taylor-by-price": Policy(
        score="taylor", price_power=1.0, price_at="present", floor=2, refit=True
    ),
    "pruning-at-a-glance": Policy(score="mean-abs-weight"),
    "gradually-global": Policy(score="l2", normalisation="max", schedule="gradual", steps=10),
    "holistic": Policy(
        score="taylor", price_power=1.0, floor=2, schedule="holistic", gate_share=0.5
    ),
    "balanced-pruning": Policy(
        score="weight-gradient-rank", combine="later", allocation="loss-budget"
    ),
    "linear-ensembles": Policy(score="ensemble-batch"),
}
CONTROL_POLICIES: dict[str, Policy] = {
    "uniform": Policy(score="mean-abs-weight", allocation="uniform", refit=True),
    "random": Policy(score="random", refit=True),
}


def presets_for(target: Target) -> dict[str, Policy]:
    """Return the presets; with a params target, cost-based ones weigh MACs and params equally."""
    if target.params is None:
        return POLICY_PRESETS
    return {
        name: replace(policy, price_blend=0.5) if policy.price_power else policy
        for name, policy in POLICY_PRESETS.items()
    }
