"""The job: one trial as it is sent to a worker and kept in the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ...spaces.cost.target import Target, target_from_json
from ...spaces.policy.policy import Policy, policy_from_json


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """What one trial has to do. `control` names the control it is, if it is one."""

    slot: int
    policy: Policy
    target: Target
    seed: int
    attempt: int = 0
    number: int | None = None  # of the Optuna trial; None for a control
    control: str | None = None
    min_accuracy: float | None = None  # a gradual schedule stops above it
    origin: str = "sampled"  # see Proposal
    predicted: float | None = None  # the rise of the loss that the surrogate foretells
    mask: str | None = None  # a hash of the mask, where it is known beforehand
    continues: str | None = None  # the path of the trial whose network is trained on

    @property
    def folder(self) -> str:
        """The trial's folder below trials/."""
        name = f"control-{self.control}" if self.control else str(self.number)
        return f"final-{name}" if self.continues else name

    @property
    def plan_key(self) -> int | str:
        """What is over with it: a slot of the plan, a control, or one network's longer fine-tune.

        That network may be of any trial, so a front that has changed since keeps what was done.
        """
        return self.folder if self.control or self.continues else self.slot

    @property
    def network_key(self) -> str:
        """Equal for jobs that would do the very same: of one mask, or else of one policy."""
        if self.mask is not None:
            return self.mask
        return json.dumps([self.policy.to_json(), self.target.to_json()], sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def trial_spec_from_json(values: dict[str, Any]) -> TrialSpec:
    """Read a job written by `to_json`."""
    policy, target = policy_from_json(values["policy"]), target_from_json(values["target"])
    return TrialSpec(**{**values, "policy": policy, "target": target})


@dataclass(frozen=True, slots=True)
class RungResult:
    """Where a trial stands when it is judged: the rung's place, and its best accuracy by then.

    `epochs` is how long it was trained until then, before its cut too.
    """

    index: int
    accuracy: float
    flops: float
    params: float
    epochs: float = 0.0
    schedule: str = "one-shot"


def trial_title(folder: str) -> str:
    """What the trial in this folder below trials/ is called."""
    plain = folder.removeprefix("final-")
    name = plain.replace("-", " ", 1) if plain.startswith("control-") else f"trial {plain}"
    return name if plain == folder else f"{name}, trained on"
