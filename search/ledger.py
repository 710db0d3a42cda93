"""The ledger: every trial, in Optuna's journal in the run folder, and nowhere else.

Two studies share the journal: "search" with the sampled trials, "controls" with the controls. A
slot of the plan is settled by one COMPLETE trial, or by one that failed for a reason of its own. A
trial that its driver did not live to settle is told FAIL at the next start, and its policy is
queued again under a new number, at most `ATTEMPTS` times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ..spaces.evaluation import Evaluation
from ..spaces.front import Dense, Front
from ..spaces.policy import CONTROLS
from ..spaces.target import Target
from .job import Job, job_from_json
from .journal import open_journal
from .plan import Slot, derived_seed
from .reading import (
    ATTEMPTS,
    INTERRUPTED,
    controls_in,
    evaluations_in,
    failure_of,
    failures_in,
    job_of,
    latest_by_slot,
    make_front,
    quiet_optuna,
)
from .sampling import make_sampler, opening_policies, params_of, suggest_policy

DIRECTIONS = (
    StudyDirection.MAXIMIZE,
    StudyDirection.MINIMIZE,
    StudyDirection.MINIMIZE,
)
OBJECTIVES = ["accuracy", "FLOPs", "params"]
DRAWS = 8  # of one slot, until a policy is new


class Ledger:
    """Asks Optuna for policies and tells it what came of them, durably."""

    def __init__(
        self,
        journal: Path,
        plan: Sequence[Slot],
        *,
        target: Target,
        scores: Sequence[str],
        seed: int,
    ) -> None:
        """Open (or create) the journal and settle what an earlier driver left behind."""
        quiet_optuna()
        storage = open_journal(journal)
        self._search = optuna.create_study(
            storage=storage, study_name="search", directions=DIRECTIONS, load_if_exists=True
        )
        self._controls = optuna.create_study(
            storage=storage, study_name="controls", directions=DIRECTIONS, load_if_exists=True
        )
        for study in (self._search, self._controls):
            if study.metric_names is None:
                study.set_metric_names(OBJECTIVES)
        self._plan, self._target = plan, target
        self._scores, self._seed = scores, seed
        self._running: dict[str, optuna.Trial] = {}
        self._identities = {
            job.identity for t in self._search.get_trials(deepcopy=False) if (job := job_of(t))
        }
        self._settle_unfinished()
        self._fresh = deque(self._unsettled())
        self._waiting_controls = deque(self._unsettled_controls())

    @property
    def total(self) -> int:
        """Planned trials, controls included."""
        return len(self._plan) + len(CONTROLS)

    @property
    def settled(self) -> int:
        """Planned trials that are over, controls included."""
        return len(self.evaluations()) + len(self.controls()) + len(self.failures())

    def evaluations(self) -> list[Evaluation]:
        """The finished sampled trials, in the order of their numbers."""
        return evaluations_in(self._search)

    def controls(self) -> dict[str, Evaluation]:
        """The finished controls by name."""
        return controls_in(self._controls)

    def failures(self) -> dict[str, str]:
        """The reasons of the trials that failed for good, by the trial's folder name."""
        return {**failures_in(self._search), **failures_in(self._controls)}

    def front(self) -> Front:
        """The front of what is finished."""
        return make_front(self.evaluations(), self.controls(), self._search.user_attrs["summary"])

    def set_summary(self, dense: Dense) -> None:
        """Keep beside the trials what the front is derived from besides them."""
        summary = {"seed": self._seed, "requested": self._target.to_json(), "dense": asdict(dense)}
        if self._search.user_attrs.get("summary") != summary:
            self._search.set_user_attr("summary", summary)

    def next_job(self) -> Job | None:
        """Ask for the next trial: what was interrupted first, then controls, then the plan."""
        if self._search.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return self._start_enqueued()
        if self._waiting_controls:
            return self._register(self._controls.ask(), self._waiting_controls.popleft())
        return self._start_slot(self._fresh.popleft()) if self._fresh else None

    def finish(self, job: Job, evaluation: Evaluation) -> None:
        """Tell Optuna the result. The trial's files must be on disk before this."""
        trial = self._running.pop(job.folder)
        trial.set_user_attr("evaluation", evaluation.to_json())
        self._study_of(job).tell(trial, list(evaluation.objectives))

    def fail(self, job: Job, reason: str) -> None:
        """Tell Optuna that the trial failed, and why."""
        trial = self._running.pop(job.folder)
        trial.set_user_attr("failure", reason)
        self._study_of(job).tell(trial, state=TrialState.FAIL)

    def _study_of(self, job: Job) -> optuna.Study:
        return self._controls if job.control else self._search

    def _start_enqueued(self) -> Job:
        """Ask for the job that was enqueued first; Optuna gives back its own parameters."""
        trial = self._search.ask()
        policy = suggest_policy(trial, self._scores)
        job = job_from_json(trial.user_attrs["job"])
        return self._register(trial, replace(job, policy=policy, number=trial.number))

    def _register(self, trial: optuna.Trial, job: Job) -> Job:
        trial.set_user_attr("job", job.to_json())
        self._running[job.folder] = trial
        self._identities.add(job.identity)
        return job

    def _start_slot(self, slot: Slot) -> Job:
        """A policy for a fresh slot: an opening one, or the first new one that is sampled."""
        opening = opening_policies(self._scores)
        if slot.index % 2 == 0 and slot.index // 2 < len(opening):
            self._enqueue(Job(slot.index, opening[slot.index // 2], slot.target, slot.seed))
            return self._start_enqueued()
        job = self._sample(slot, 0)
        for draw in range(1, DRAWS):
            if job.identity not in self._identities:
                break
            self._drop_repeat(job)
            job = self._sample(slot, draw)
        return self._register(self._running[job.folder], job)

    def _sample(self, slot: Slot, draw: int) -> Job:
        self._search.sampler = make_sampler(derived_seed(self._seed, slot.index, draw))
        trial = self._search.ask()
        policy = suggest_policy(trial, self._scores)
        job = Job(slot.index, policy, slot.target, slot.seed, number=trial.number)
        self._running[job.folder] = trial
        return job

    def _drop_repeat(self, job: Job) -> None:
        trial = self._running.pop(job.folder)
        trial.set_user_attr("repeat", True)
        self._search.tell(trial, state=TrialState.FAIL)

    def _enqueue(self, job: Job) -> None:
        self._search.enqueue_trial(params_of(job.policy), user_attrs={"job": job.to_json()})

    def _settle_unfinished(self) -> None:
        """Tell the trials of a dead driver FAIL, then queue their policies again."""
        for study in (self._search, self._controls):
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                trial = optuna.Trial(study, frozen._trial_id)
                trial.set_user_attr("failure", INTERRUPTED)
                study.tell(frozen.number, state=TrialState.FAIL)
        latest = latest_by_slot(self._search)
        for job, frozen in latest.values():
            if failure_of(frozen) == INTERRUPTED and job.attempt + 1 < ATTEMPTS:
                self._enqueue(replace(job, attempt=job.attempt + 1, number=None))

    def _unsettled(self) -> list[Slot]:
        """The slots that no trial has been started for."""
        taken = latest_by_slot(self._search)
        return [slot for slot in self._plan if slot.index not in taken]

    def _unsettled_controls(self) -> list[Job]:
        """The controls that still have to run."""
        latest = latest_by_slot(self._controls)
        jobs = []
        for index, (name, policy) in enumerate(CONTROLS.items()):
            job = Job(index, policy, self._target, derived_seed(self._seed, -1), control=name)
            if index in latest:
                last, trial = latest[index]
                if failure_of(trial) != INTERRUPTED or last.attempt + 1 >= ATTEMPTS:
                    continue
                job = replace(job, attempt=last.attempt + 1)
            jobs.append(job)
        return jobs
