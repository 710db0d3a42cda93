"""The ledger: every trial, in Optuna's journal in the run folder, and nowhere else.

Three studies share the journal: "search" with the sampled trials, "controls" with the controls,
"finals" with the longer fine-tunes at the end. A slot of the plan is settled by one COMPLETE
trial, by one that was stopped on its way, or by one that failed for a reason of its own. A trial
that its driver did not live to settle is told FAIL at the next start, and its policy is queued
again under a new number; so is, once, one whose worker died, and always one that the user stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ...spaces.policy.policy import CONTROLS
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import SIGN, Dense, Front
from ..storage.deduplication import Networks
from ..storage.journal_repair import open_journal, sound
from ..storage.trial_records import (
    STOPPED,
    STUDIES,
    Figures,
    Record,
    evaluation_of,
    job_of,
    latest_attempts,
    make_front,
    quiet_optuna,
    tried_again,
)
from ..storage.trial_spec import Job, job_from_json
from .proposer import Proposer
from .recovery import settle_unfinished, unsettled, unstarted
from .samplers import make_sampler
from .screening import Proposal
from .target_plan import Slot, seed_of_trials
from .trial_queue import Undertaking, brief_front, control_jobs, final_jobs

DRAWS = 8  # of one slot, until a network is new


class Ledger:
    """Asks Optuna for policies and tells it what came of them, durably."""

    def __init__(self, journal: Path, asked: Undertaking, proposer: Proposer) -> None:
        """Open (or create) the journal and settle what an earlier driver left behind."""
        quiet_optuna()
        storage = open_journal(journal)
        directions = [
            StudyDirection.MAXIMIZE if SIGN[name] > 0 else StudyDirection.MINIMIZE
            for name in asked.objectives
        ]
        with sound(journal):
            studies = {
                name: optuna.create_study(
                    storage=storage, study_name=name, directions=directions, load_if_exists=True
                )
                for name in STUDIES
            }
            self.record = Record(studies)
            self.record.check()
        for study in studies.values():
            if study.metric_names is None:
                study.set_metric_names(list(asked.objectives))
        self._asked, self._proposer = asked, proposer
        self._seed = seed_of_trials(asked.seed)
        self._running: dict[str, optuna.Trial] = {}
        self._networks = Networks(self.record)
        self._final_jobs: list[Job] = []
        for job, params in settle_unfinished(self.record):
            self._enqueue(job, params)
        self._fresh = deque(unstarted(asked.plan, self.record))
        self._early = False
        controls = unsettled(control_jobs(asked), "controls", self.record)
        self._waiting = {"controls": deque(controls), "finals": deque[Job]()}

    @property
    def total(self) -> int:
        """Planned trials, controls and longer fine-tunes included."""
        finals = {job.settles for job in self._finals()}
        finals |= latest_attempts(self.record.trials("finals")).keys()  # of fronts before this one
        return len(self._asked.plan) + len(CONTROLS) + len(finals)

    @property
    def settled(self) -> int:
        """Planned trials that are over, controls and longer fine-tunes included."""
        return self.record.settled()

    @property
    def running(self) -> int:
        """Trials that run now."""
        return len(self._running)

    @property
    def may_end_early(self) -> bool:
        """Whether a time limit may still leave planned trials out."""
        return bool(self._fresh) and not self._early

    @property
    def over(self) -> bool:
        """Nothing runs, and nothing is left to run."""
        return not self._running and self.settled >= self.total

    def front(self) -> Front:
        """The front of what is finished."""
        record = self.record
        summary = record.summary or {}
        return make_front(record.evaluations(), record.controls(), summary, record.figures)

    def needed(self) -> set[str]:
        """The paths of the networks that the front names or that are to be trained on."""
        named = {*self.front().named, *(e.path for e in self.record.evaluations_of("controls"))}
        if self._asked.final_epochs and not self.over:
            named |= {point.path for point in brief_front(self.record)}
        return named

    def set_summary(self, dense: Dense) -> None:
        """Keep beside the trials what the front is derived from besides them."""
        asked = self._asked
        summary = {
            "seed": asked.seed,
            "requested": asked.target.to_json(),
            "objectives": list(asked.objectives),
            "dense": asdict(dense),
        }
        if self.record.summary != summary:
            self.record.study("search").set_user_attr("summary", summary)

    def note_start(self, spans: Mapping[str, Any]) -> None:
        """Keep where the time of this launch went before its trials."""
        self.record.study("search").set_user_attr("start", dict(spans))

    def note_figures(self, figures: Figures) -> None:
        """Keep what the end of a search measures of its front: front.json is derived from here."""
        known = {**self.record.figures, **figures}
        self.record.study("search").set_user_attr("figures", known)

    def note_end(self) -> None:
        """All that follows from the trials is on disk: a resumed run has nothing to do."""
        if self.over:
            self.record.study("search").set_user_attr("concluded", len(self._asked.plan))

    def next_job(self) -> Job | None:
        """Ask for the next trial: what was interrupted first, then controls, then the plan, and
        when all are over, the longer fine-tunes. None if nothing can be started now.
        """
        if self.record.trials("search", TrialState.WAITING):
            return self._start_enqueued()
        if self._waiting["controls"]:
            return self._start_in("controls", self._waiting["controls"].popleft())
        while self._fresh:
            job = self._start_slot(self._fresh.popleft())
            if job is not None:
                return job
        if self._running and not self._waiting["finals"]:
            return None
        if not self._waiting["finals"]:
            self._waiting["finals"] = deque(unsettled(self._finals(), "finals", self.record))
        if self._waiting["finals"]:
            return self._start_in("finals", self._waiting["finals"].popleft())
        return None

    def end_early(self) -> None:
        """Start nothing more of the plan: time is up. What was interrupted stays queued.

        One trial at the target is run at any rate: without it all the time was spent for nothing.
        """
        plan = self._asked.plan
        late = {slot.index for slot in unstarted(plan, self.record)}
        begun = [slot for slot in plan if slot.index not in late]
        self._early = True
        self._asked = replace(self._asked, plan=begun or plan[:1])
        self._fresh = deque(() if begun else plan[:1])

    def finish(self, job: Job, evaluation: Evaluation, spans: Mapping[str, Any]) -> None:
        """Tell Optuna the result. The trial's files must be on disk before this."""
        trial = self._running.pop(job.folder)
        trial.set_user_attr("evaluation", evaluation.to_json())
        if spans:
            trial.set_user_attr("spans", dict(spans))
        self._tell(self._study_of(job), trial, evaluation)

    def stop(self, job: Job, values: Mapping[str, Any]) -> None:
        """Tell Optuna that the trial was stopped on its way, and how far it had come."""
        trial = self._running.pop(job.folder)
        trial.set_user_attr("stopped", dict(values))
        self._study_of(job).tell(trial, state=TrialState.PRUNED)

    def fail(self, job: Job, reason: str) -> bool:
        """Tell Optuna that the trial failed, and why. True if its policy is tried again."""
        trial = self._tell_failed(job.folder, reason)
        again = tried_again(job, reason)
        if again is None:
            return False
        if job.control or job.continues:
            self._waiting["finals" if job.continues else "controls"].append(again)
        else:
            self._enqueue(again, trial.params)
        return True

    def leave(self) -> None:
        """The user stops the search: what runs is tried again when it goes on."""
        for folder in tuple(self._running):
            self._tell_failed(folder, STOPPED)

    def _tell_failed(self, folder: str, reason: str) -> optuna.Trial:
        trial = self._running.pop(folder)
        trial.set_user_attr("failure", reason)
        trial.study.tell(trial, state=TrialState.FAIL)
        return trial

    def _tell(self, study: optuna.Study, trial: optuna.Trial, evaluation: Evaluation) -> None:
        """Its objectives, and by how much it breaks the limits."""
        for name, value in self._asked.limits(evaluation).items():
            trial.set_constraint(name, value)
        study.tell(trial, [float(getattr(evaluation, name)) for name in self._asked.objectives])

    def _study_of(self, job: Job) -> optuna.Study:
        if job.continues:
            return self.record.study("finals")
        return self.record.study("controls" if job.control else "search")

    def _start_in(self, study: str, job: Job) -> Job:
        """Start a job that nothing is sampled for."""
        job = job if job.continues else self._seen(job)
        return self._register(self.record.study(study).ask(), job)

    def _start_enqueued(self) -> Job:
        """Start the job that was enqueued first: Optuna gives back its parameters."""
        trial = self.record.study("search").ask()
        self._proposer.policy_space.sample(trial)
        return self._register(trial, job_from_json(trial.user_attrs["job"]))

    def _register(self, trial: optuna.Trial, job: Job) -> Job:
        if not (job.control or job.continues):
            job = replace(job, number=trial.number)
        trial.set_user_attr("job", job.to_json())
        self._running[job.folder] = trial
        if not job.continues:
            self._networks.add("controls" if job.control else "search", job, trial.number)
        return job

    def _start_slot(self, slot: Slot) -> Job | None:
        """The first policy whose network is new: proposed, varied or sampled; None if none is,
        which settles the slot.
        """
        proposal = self._proposer.opening.get(slot.index)
        if proposal is not None:
            job, params = self._proposed(slot, proposal)
            trial = self._answered(slot, params)
            if job not in self._networks:
                return self._register(trial, job)
            if self._repeat(trial, job, last=False):
                return None
        finished = self.record.finished()
        for draw in range(DRAWS):
            varied = self._proposer.vary(slot, draw, finished)
            if varied is None:
                break
            job, params = self._proposed(slot, varied)
            if job not in self._networks:
                return self._register(self._answered(slot, params), job)
        for draw in range(DRAWS):
            trial, job = self._sample(slot, draw)
            if job not in self._networks:
                return self._register(trial, job)
            if self._repeat(trial, job, last=draw == DRAWS - 1):
                break
        return None

    def _proposed(self, slot: Slot, proposal: Proposal) -> tuple[Job, Mapping[str, Any]]:
        """The job of a proposal, and the answers that make its policy."""
        params = proposal.params
        if params is None:
            params = self._proposer.policy_space.params_of(proposal.policy)
        assert params is not None, "what is proposed lies in the space"
        job = Job(slot.index, proposal.policy, slot.target, self._seed, origin=proposal.origin)
        return self._seen(job), params

    def _answered(self, slot: Slot, params: Mapping[str, Any]) -> optuna.Trial:
        """A trial with these answers; chance gives any that they lack."""
        study, rest = self.record.study("search"), make_sampler("random", slot.index)
        study.sampler = optuna.samplers.PartialFixedSampler(dict(params), rest)
        trial = study.ask()
        self._proposer.policy_space.sample(trial)
        return trial

    def _sample(self, slot: Slot, draw: int) -> tuple[optuna.Trial, Job]:
        study = self.record.study("search")
        study.sampler = self._proposer.sampler_for(slot.index, draw)
        trial = study.ask()
        policy = self._proposer.policy_space.sample(trial)
        return trial, self._seen(Job(slot.index, policy, slot.target, self._seed))

    def _seen(self, job: Job) -> Job:
        """The job with what can be told of it beforehand."""
        look = self._proposer.look(job.policy, job.target)
        return replace(job, mask=look[0], predicted=look[1]) if look else job

    def _repeat(self, trial: optuna.Trial, job: Job, *, last: bool) -> bool:
        """Tell what is known of the same network. True if that settles the slot: the last draw
        does, and a network that only a control has made, which may be on the front by this.
        """
        twin = self._networks.twin(job)
        evaluation, made_by = evaluation_of(twin), job_of(twin)
        assert made_by is not None
        study, shared = self.record.study("search"), evaluation is not None and made_by.control
        trial.set_user_attr("repeat_of", made_by.folder)
        if last or shared:
            trial.set_user_attr("job", job.to_json())
        if evaluation is None:
            stopped = twin.state == TrialState.PRUNED  # of one that runs, nothing is known yet
            study.tell(trial, state=TrialState.PRUNED if stopped else TrialState.FAIL)
        elif shared:
            own = replace(evaluation, trial=trial.number, origin=job.origin)
            trial.set_user_attr("evaluation", own.to_json())
            self._tell(study, trial, own)
            self._networks.add("search", job, trial.number)
        else:
            self._tell(study, trial, evaluation)
        return last or bool(shared)

    def _enqueue(self, job: Job, params: Mapping[str, Any]) -> None:
        queued = replace(job, number=None)
        self.record.study("search").enqueue_trial(
            dict(params), user_attrs={"job": queued.to_json()}
        )

    def _finals(self) -> list[Job]:
        """The longer fine-tunes; none until the whole plan is over."""
        if not (self._final_jobs or self._fresh or self._waiting["controls"]):
            self._final_jobs = final_jobs(self.record, self._asked)
        return self._final_jobs
