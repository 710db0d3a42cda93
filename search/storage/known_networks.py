"""The networks that the journal's trials have made: none is trained twice.

One whose trial failed was not made: another recipe may succeed.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from .trial_records import TrialRecords, evaluation_of, is_duplicate, trial_spec_of
from .trial_spec import TrialSpec


class KnownNetworks:
    """The newest trial of each network: of one mask, or where that is not known, of one policy."""

    def __init__(self, records: TrialRecords) -> None:
        self._record = records
        self._newest: dict[str, tuple[str, int]] = {}  # a study and a number
        for study in ("controls", "search"):
            for trial in records.trials(study):
                job = trial_spec_of(trial)
                if job and not (is_duplicate(trial) and evaluation_of(trial) is None):
                    self.add(study, job, trial.number)

    def add(self, study: str, spec: TrialSpec, number: int) -> None:
        """This trial makes the job's network."""
        self._newest[spec.network_key] = (study, number)

    def __contains__(self, spec: TrialSpec) -> bool:
        return (
            spec.network_key in self._newest and self.find_duplicate(spec).state != TrialState.FAIL
        )

    def find_duplicate(self, spec: TrialSpec) -> FrozenTrial:
        """The trial that makes, or has made, the same network."""
        study, number = self._newest[spec.network_key]
        return self._record.trials(study)[number]
