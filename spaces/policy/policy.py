"""The policy: how one trial prunes and fine-tunes. JSON in and out; Optuna samples it."""

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
POSITIVE_LIMITS = {  # the usual value, and the highest; above 0
    "gate_learning_rate": (1.0, 100.0),
    "gate_weight": (5.0, 1000.0),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """score x bias removal x allocation x schedule, and the recipe of the brief fine-tune."""

    score: str
    caution: float = 0.0  # standard errors taken off the score, where they are known
    combine: str = "sum"  # of the parts that a coupled atom has in its layers
    normalisation: str = "none"  # bias removal within each group
    stages: tuple[float, ...] = ()  # a and b of a * s + b, stage by stage: one a resolution
    price_power: float = 0.0  # the score is divided by the atom's price to this power
    price_blend: float = 0.0  # 0 = the price in MACs, 1 = in params
    price_at: str = "dense"  # the network whose marginal prices divide: whole, or as it shrinks
    allocation: str = "global-threshold"
    curves: str = "threshold"  # of loss-budget: one threshold for all groups, or the least sum
    threshold: float | None = None  # of loss variation; None: solved for the target
    probe: str = "eval"  # of the curves: on running statistics, or on each batch's own
    floor: int = 1  # atoms that every group keeps
    schedule: str = "one-shot"
    steps: int = 1  # of a gradual schedule: each measures the scores of the present network anew
    step_share: float = 0.0  # of the trial's epochs, spent between the steps
    gate_share: float = 0.0  # of the trial's epochs, in which the gates of a holistic one train
    gate_learning_rate: float = 1.0  # of its gates, counted by the run
    gate_variant: str = "hard"  # how a gate's value becomes its mask while it trains
    gate_weight: float = 5.0  # of both sizes beside the task's loss, in the end
    gate_approach: float = 0.5  # of those epochs, in which that weight grows and the aim falls
    refit: bool = False  # of what a cut leaves, by least squares to the dense network
    learning_rate: float = 0.02
    distill: float = 0.7  # weight of the dense network's outputs in the fine-tune's loss

    def __post_init__(self) -> None:
        """Refuse values that no trial could carry out."""
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
                f"{self.gate_share} in a {self.schedule} one; change one of the two"
            )
        if self.refit and self.schedule == "holistic":
            raise UserError(
                "refit must be false in a holistic schedule, got true; what its gates leave has "
                "been trained so already"
            )

    @property
    def has_loss_threshold(self) -> bool:
        """A threshold of loss variation is given, to which every group is cut in any case."""
        return self.allocation == "loss-budget" and self.threshold is not None

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
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
    """Raise unless a score of this name is known; `what` is where it was named."""
    known = list(known)
    if name not in known:
        raise UserError(
            f"{what} must be one of {', '.join(known)}, got {name!r}; "
            "a score of your own comes with --plugin FILE"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise unless low <= value <= high (NaN is refused too)."""
    if not low <= value <= high:
        raise UserError(f"{name} must be in [{low:g}, {high:g}], got {value}")


def check_positive(name: str, value: float, usual: float, high: float) -> None:
    """Raise unless 0 < value <= high."""
    if not 0 < value <= high:
        raise UserError(f"{name} must be in (0, {high:g}], got {value}; {usual:g} is usual")


POLICY_PRESETS: dict[str, Policy] = {  # in the order in which a search tries them
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
    """The presets; where a target names params, what divides by price divides by both prices."""
    if target.params is None:
        return POLICY_PRESETS
    return {
        name: replace(policy, price_blend=0.5) if policy.price_power else policy
        for name, policy in POLICY_PRESETS.items()
    }
