"""The evaluation: what was measured of one trial. Numbers and the policy; no network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..cost.target import Target, target_from_json
from ..io.validation import record_from_json
from ..policy.policy import Policy, policy_from_json


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One measured trial. `accuracy` and `loss` are of the validation split."""

    trial: int | None  # None for a control
    accuracy: float
    loss: float
    macs: int
    params: int
    flops_fraction: float
    params_fraction: float
    epochs: float
    seconds: float
    policy: Policy
    target: Target
    path: str  # of its recipe and weights, relative to the run folder
    test_accuracy: float | None = None
    latency_ms: float | None = None
    origin: str | None = None  # of the policy: preset:NAME, own:SCORE, screened or sampled
    predicted: float | None = None  # the rise of the loss that the surrogate foretold

    @property
    def objectives(self) -> tuple[float, float, float]:
        """Accuracy up, FLOPs down, params down."""
        return self.accuracy, self.flops_fraction, self.params_fraction

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def evaluation_from_json(values: Any) -> Evaluation:
    """Read an evaluation; fields that this version does not know are ignored."""
    nested = {"policy": policy_from_json, "target": target_from_json}
    return record_from_json(Evaluation, values, "an evaluation", nested=nested, exact=False)
