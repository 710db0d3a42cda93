"""The networks that the journal's trials have made: none is trained twice.

One whose trial failed was not made: another recipe may succeed.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from .trial_records import Record, evaluation_of, is_repeat, job_of
from .trial_spec import Job


class Networks:
    """The newest trial of each network: of one mask, or where that is not known, of one policy."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._newest: dict[str, tuple[str, int]] = {}  # a study and a number
        for study in ("controls", "search"):
            for trial in record.trials(study):
                job = job_of(trial)
                if job and not (is_repeat(trial) and evaluation_of(trial) is None):
                    self.add(study, job, trial.number)

    def add(self, study: str, job: Job, number: int) -> None:
        """This trial makes the job's network."""
        self._newest[job.identity] = (study, number)

    def __contains__(self, job: Job) -> bool:
        return job.identity in self._newest and self.twin(job).state != TrialState.FAIL

    def twin(self, job: Job) -> FrozenTrial:
        """The trial that makes, or has made, the same network."""
        study, number = self._newest[job.identity]
        return self._record.trials(study)[number]
