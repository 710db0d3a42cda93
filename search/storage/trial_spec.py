"""The specification of one trial, as sent to a worker and stored in the journal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ...spaces.cost.target import Target, target_from_json
from ...spaces.policy.policy import Policy, policy_from_json


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """Specification of one trial."""

    slot: int  # index in the plan, or among the controls or the longer fine-tunes
    policy: Policy
    target: Target
    seed: int
    attempt: int = 0
    number: int | None = None  # of the Optuna trial; None for a control
    control: str | None = None  # the control's name; None for other trials
    min_accuracy: float | None = None  # a gradual schedule stops before it falls below
    origin: str = "sampled"  # see Proposal
    predicted: float | None = None  # the predicted increase of the loss
    mask: str | None = None  # hash of the mask, if it is known before the trial runs
    continues: str | None = None  # path of the trial whose network is fine-tuned longer

    @property
    def folder(self) -> str:
        """Name of the trial's folder below trials/."""
        name = f"control-{self.control}" if self.control else str(self.number)
        return f"final-{name}" if self.continues else name

    @property
    def plan_key(self) -> int | str:
        """What the trial settles: a planned trial, a control or a network's longer fine-tune.

        A longer fine-tune has the key of its network, so it stays valid when the front changes.
        """
        return self.folder if self.control or self.continues else self.slot

    @property
    def network_key(self) -> str:
        """Equal for trials of the same network: by the mask if it is known, else by the policy."""
        if self.mask is not None:
            return self.mask
        return json.dumps([self.policy.to_json(), self.target.to_json()], sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {**asdict(self), "policy": self.policy.to_json()}


def trial_spec_from_json(values: dict[str, Any]) -> TrialSpec:
    """Parse a spec written by `TrialSpec.to_json`."""
    policy, target = policy_from_json(values["policy"]), target_from_json(values["target"])
    return TrialSpec(**{**values, "policy": policy, "target": target})


@dataclass(frozen=True, slots=True)
class RungResult:
    """The result of a trial at one rung of successive halving."""

    index: int  # of the rung
    accuracy: float  # the best so far
    flops: float
    params: float
    epochs: float = 0.0  # trained so far, including epochs before pruning
    schedule: str = "one-shot"


def trial_title(folder: str) -> str:
    """Return the display name of the trial with this folder name."""
    plain = folder.removeprefix("final-")
    name = plain.replace("-", " ", 1) if plain.startswith("control-") else f"trial {plain}"
    return name if plain == folder else f"{name}, trained on"
