"""Index of the networks that trials have produced, so that no network is trained twice.

A network whose trial failed does not count: another recipe may succeed.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from .trial_records import TrialRecords, evaluation_of, is_duplicate, trial_spec_of
from .trial_spec import TrialSpec


class KnownNetworks:
    """The newest trial of each network, by `TrialSpec.network_key`."""

    def __init__(self, records: TrialRecords) -> None:
        self._records = records
        self._newest: dict[str, tuple[str, int]] = {}  # study name and trial number
        for study in ("controls", "search"):
            for trial in records.trials(study):
                spec = trial_spec_of(trial)
                if spec and not (is_duplicate(trial) and evaluation_of(trial) is None):
                    self.add(study, spec, trial.number)

    def add(self, study: str, spec: TrialSpec, number: int) -> None:
        """Record that this trial produces the network of the spec."""
        self._newest[spec.network_key] = (study, number)

    def __contains__(self, spec: TrialSpec) -> bool:
        return (
            spec.network_key in self._newest and self.find_duplicate(spec).state != TrialState.FAIL
        )

    def find_duplicate(self, spec: TrialSpec) -> FrozenTrial:
        """Return the trial that produces, or has produced, the same network."""
        study, number = self._newest[spec.network_key]
        return self._records.trials(study)[number]
