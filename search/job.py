"""The job: one trial as it is sent to a worker and kept in the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..spaces.policy import Policy, policy_from_json
from ..spaces.target import Target, target_from_json


@dataclass(frozen=True, slots=True)
class Job:
    """What one trial has to do. `control` names the control it is, if it is one."""

    slot: int
    policy: Policy
    target: Target
    seed: int
    attempt: int = 0
    number: int | None = None  # of the Optuna trial; None for a control
    control: str | None = None
    min_accuracy: float | None = None  # a gradual schedule stops above it

    @property
    def folder(self) -> str:
        """The trial's folder below trials/."""
        return f"control-{self.control}" if self.control else str(self.number)

    @property
    def identity(self) -> str:
        """Equal for jobs that would do the very same."""
        return json.dumps([self.policy.to_json(), self.target.to_json()], sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def job_from_json(values: dict[str, Any]) -> Job:
    """Read a job written by `to_json`."""
    policy, target = policy_from_json(values["policy"]), target_from_json(values["target"])
    return Job(**{**values, "policy": policy, "target": target})
