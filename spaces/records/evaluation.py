"""The evaluation: the metrics of one trial with its policy and target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..cost.target import Target, target_from_json
from ..io.validation import record_from_json
from ..policy.policy import Policy, policy_from_json


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of one trial; `accuracy` and `loss` are those of the validation split."""

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
    path: str  # of the recipe and weights, relative to the run folder
    test_accuracy: float | None = None
    latency_ms: float | None = None
    origin: str | None = None  # of the policy: preset:NAME, own:SCORE, screened or sampled
    predicted: float | None = None  # rise of the loss that the surrogate predicted

    @property
    def objectives(self) -> tuple[float, float, float]:
        """Accuracy (to maximise), and the fractions of FLOPs and params (to minimise)."""
        return self.accuracy, self.flops_fraction, self.params_fraction

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def evaluation_from_json(values: Any) -> Evaluation:
    """Read an evaluation that `to_json` wrote; unknown fields are ignored."""
    nested = {"policy": policy_from_json, "target": target_from_json}
    return record_from_json(Evaluation, values, "an evaluation", nested=nested, exact=False)
