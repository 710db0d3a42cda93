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

from ...spaces.policy.policy import CONTROL_POLICIES
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import OBJECTIVE_SIGNS, DenseMetrics, Front
from ..storage.journal import malformed_records_as_user_error, open_journal
from ..storage.known_networks import KnownNetworks
from ..storage.trial_records import (
    STOPPED_BY_USER,
    STUDY_NAMES,
    MetricsByPath,
    TrialRecords,
    build_front,
    evaluation_of,
    latest_attempts,
    next_attempt,
    silence_optuna,
    trial_spec_of,
)
from ..storage.trial_spec import TrialSpec, trial_spec_from_json
from .plan import PlannedTrial, trial_seed
from .proposer import Proposer
from .recovery import fail_unfinished_trials, unfinished_specs, unstarted_trials
from .samplers import make_sampler
from .screening import Proposal
from .search_spec import SearchSpec, control_specs, final_specs, front_before_finals

MAX_DRAWS_PER_TRIAL = 8  # of one slot, until a network is new


class TrialStore:
    """Asks Optuna for policies and tells it what came of them, durably."""

    def __init__(self, journal: Path, search_spec: SearchSpec, proposer: Proposer) -> None:
        """Open (or create) the journal and settle what an earlier driver left behind."""
        silence_optuna()
        storage = open_journal(journal)
        directions = [
            StudyDirection.MAXIMIZE if OBJECTIVE_SIGNS[name] > 0 else StudyDirection.MINIMIZE
            for name in search_spec.objectives
        ]
        with malformed_records_as_user_error(journal):
            studies = {
                name: optuna.create_study(
                    storage=storage, study_name=name, directions=directions, load_if_exists=True
                )
                for name in STUDY_NAMES
            }
            self.records = TrialRecords(studies)
            self.records.check()
        for study in studies.values():
            if study.metric_names is None:
                study.set_metric_names(list(search_spec.objectives))
        self._search_spec, self._proposer = search_spec, proposer
        self._seed = trial_seed(search_spec.seed)
        self._running: dict[str, optuna.Trial] = {}
        self._known_networks = KnownNetworks(self.records)
        self._final_jobs: list[TrialSpec] = []
        for job, params in fail_unfinished_trials(self.records):
            self._enqueue(job, params)
        self._unstarted = deque(unstarted_trials(search_spec.plan, self.records))
        self._early = False
        controls = unfinished_specs(control_specs(search_spec), "controls", self.records)
        self._waiting = {"controls": deque(controls), "finals": deque[TrialSpec]()}

    @property
    def total(self) -> int:
        """Planned trials, controls and longer fine-tunes included."""
        finals = {job.plan_key for job in self._finals()}
        finals |= latest_attempts(
            self.records.trials("finals")
        ).keys()  # of fronts before this one
        return len(self._search_spec.plan) + len(CONTROL_POLICIES) + len(finals)

    @property
    def settled(self) -> int:
        """Planned trials that are over, controls and longer fine-tunes included."""
        return self.records.count_settled()

    @property
    def running(self) -> int:
        """Trials that run now."""
        return len(self._running)

    @property
    def may_end_early(self) -> bool:
        """Whether a time limit may still leave planned trials out."""
        return bool(self._unstarted) and not self._early

    @property
    def is_finished(self) -> bool:
        """Nothing runs, and nothing is left to run."""
        return not self._running and self.settled >= self.total

    def front(self) -> Front:
        """The front of what is finished."""
        record = self.records
        summary = record.summary or {}
        return build_front(record.evaluations(), record.controls(), summary, record.final_metrics)

    def needed_paths(self) -> set[str]:
        """The paths of the networks that the front names or that are to be trained on."""
        named = {
            *self.front().points_by_path,
            *(e.path for e in self.records.evaluations_of("controls")),
        }
        if self._search_spec.final_epochs and not self.is_finished:
            named |= {point.path for point in front_before_finals(self.records)}
        return named

    def set_summary(self, dense: DenseMetrics) -> None:
        """Keep beside the trials what the front is derived from besides them."""
        asked = self._search_spec
        summary = {
            "seed": asked.seed,
            "requested": asked.target.to_json(),
            "objectives": list(asked.objectives),
            "dense": asdict(dense),
        }
        if self.records.summary != summary:
            self.records.study("search").set_user_attr("summary", summary)

    def record_start(self, spans: Mapping[str, Any]) -> None:
        """Keep where the time of this launch went before its trials."""
        self.records.study("search").set_user_attr("start", dict(spans))

    def record_metrics(self, metrics: MetricsByPath) -> None:
        """Keep what the end of a search measures of its front: front.json is derived from here."""
        known = {**self.records.final_metrics, **metrics}
        self.records.study("search").set_user_attr("figures", known)

    def record_end(self) -> None:
        """All that follows from the trials is on disk: a resumed run has nothing to do."""
        if self.is_finished:
            self.records.study("search").set_user_attr("concluded", len(self._search_spec.plan))

    def next_trial(self) -> TrialSpec | None:
        """Ask for the next trial: what was interrupted first, then controls, then the plan, and
        when all are over, the longer fine-tunes. None if nothing can be started now.
        """
        if self.records.trials("search", TrialState.WAITING):
            return self._start_enqueued()
        if self._waiting["controls"]:
            return self._start_in("controls", self._waiting["controls"].popleft())
        while self._unstarted:
            job = self._start_planned(self._unstarted.popleft())
            if job is not None:
                return job
        if self._running and not self._waiting["finals"]:
            return None
        if not self._waiting["finals"]:
            self._waiting["finals"] = deque(
                unfinished_specs(self._finals(), "finals", self.records)
            )
        if self._waiting["finals"]:
            return self._start_in("finals", self._waiting["finals"].popleft())
        return None

    def drop_unstarted(self) -> None:
        """Start nothing more of the plan: time is up. What was interrupted stays queued.

        One trial at the target is run at any rate: without it all the time was spent for nothing.
        """
        plan = self._search_spec.plan
        late = {slot.index for slot in unstarted_trials(plan, self.records)}
        begun = [slot for slot in plan if slot.index not in late]
        self._early = True
        self._search_spec = replace(self._search_spec, plan=begun or plan[:1])
        self._unstarted = deque(() if begun else plan[:1])

    def finish(self, spec: TrialSpec, evaluation: Evaluation, spans: Mapping[str, Any]) -> None:
        """Tell Optuna the result. The trial's files must be on disk before this."""
        trial = self._running.pop(spec.folder)
        trial.set_user_attr("evaluation", evaluation.to_json())
        if spans:
            trial.set_user_attr("spans", dict(spans))
        self._tell(self._study_of(spec), trial, evaluation)

    def stop(self, spec: TrialSpec, values: Mapping[str, Any]) -> None:
        """Tell Optuna that the trial was stopped on its way, and how far it had come."""
        trial = self._running.pop(spec.folder)
        trial.set_user_attr("stopped", dict(values))
        self._study_of(spec).tell(trial, state=TrialState.PRUNED)

    def fail(self, spec: TrialSpec, reason: str) -> bool:
        """Tell Optuna that the trial failed, and why. True if its policy is tried again."""
        trial = self._tell_failed(spec.folder, reason)
        again = next_attempt(spec, reason)
        if again is None:
            return False
        if spec.control or spec.continues:
            self._waiting["finals" if spec.continues else "controls"].append(again)
        else:
            self._enqueue(again, trial.params)
        return True

    def interrupt_running(self) -> None:
        """The user stops the search: what runs is tried again when it goes on."""
        for folder in tuple(self._running):
            self._tell_failed(folder, STOPPED_BY_USER)

    def _tell_failed(self, folder: str, reason: str) -> optuna.Trial:
        trial = self._running.pop(folder)
        trial.set_user_attr("failure", reason)
        trial.study.tell(trial, state=TrialState.FAIL)
        return trial

    def _tell(self, study: optuna.Study, trial: optuna.Trial, evaluation: Evaluation) -> None:
        """Its objectives, and by how much it breaks the limits."""
        for name, value in self._search_spec.constraints_func(evaluation).items():
            trial.set_constraint(name, value)
        study.tell(
            trial, [float(getattr(evaluation, name)) for name in self._search_spec.objectives]
        )

    def _study_of(self, spec: TrialSpec) -> optuna.Study:
        if spec.continues:
            return self.records.study("finals")
        return self.records.study("controls" if spec.control else "search")

    def _start_in(self, study: str, spec: TrialSpec) -> TrialSpec:
        """Start a job that nothing is sampled for."""
        spec = spec if spec.continues else self._with_prediction(spec)
        return self._register(self.records.study(study).ask(), spec)

    def _start_enqueued(self) -> TrialSpec:
        """Start the job that was enqueued first: Optuna gives back its parameters."""
        trial = self.records.study("search").ask()
        self._proposer.policy_space.sample(trial)
        return self._register(trial, trial_spec_from_json(trial.user_attrs["job"]))

    def _register(self, trial: optuna.Trial, spec: TrialSpec) -> TrialSpec:
        if not (spec.control or spec.continues):
            spec = replace(spec, number=trial.number)
        trial.set_user_attr("job", spec.to_json())
        self._running[spec.folder] = trial
        if not spec.continues:
            self._known_networks.add("controls" if spec.control else "search", spec, trial.number)
        return spec

    def _start_planned(self, planned: PlannedTrial) -> TrialSpec | None:
        """The first policy whose network is new: proposed, varied or sampled; None if none is,
        which settles the slot.
        """
        proposal = self._proposer.initial.get(planned.index)
        if proposal is not None:
            job, params = self._spec_of_proposal(planned, proposal)
            trial = self._ask_with_params(planned, params)
            if job not in self._known_networks:
                return self._register(trial, job)
            if self._tell_duplicate(trial, job, last=False):
                return None
        finished = self.records.finished_with_params()
        for draw in range(MAX_DRAWS_PER_TRIAL):
            varied = self._proposer.mutate(planned, draw, finished)
            if varied is None:
                break
            job, params = self._spec_of_proposal(planned, varied)
            if job not in self._known_networks:
                return self._register(self._ask_with_params(planned, params), job)
        for draw in range(MAX_DRAWS_PER_TRIAL):
            trial, job = self._sample(planned, draw)
            if job not in self._known_networks:
                return self._register(trial, job)
            if self._tell_duplicate(trial, job, last=draw == MAX_DRAWS_PER_TRIAL - 1):
                break
        return None

    def _spec_of_proposal(
        self, planned: PlannedTrial, proposal: Proposal
    ) -> tuple[TrialSpec, Mapping[str, Any]]:
        """The job of a proposal, and the answers that make its policy."""
        params = proposal.params
        if params is None:
            params = self._proposer.policy_space.params_of(proposal.policy)
        assert params is not None, "what is proposed lies in the space"
        job = TrialSpec(
            planned.index, proposal.policy, planned.target, self._seed, origin=proposal.origin
        )
        return self._with_prediction(job), params

    def _ask_with_params(self, planned: PlannedTrial, params: Mapping[str, Any]) -> optuna.Trial:
        """A trial with these answers; chance gives any that they lack."""
        study, rest = self.records.study("search"), make_sampler("random", planned.index)
        study.sampler = optuna.samplers.PartialFixedSampler(dict(params), rest)
        trial = study.ask()
        self._proposer.policy_space.sample(trial)
        return trial

    def _sample(self, planned: PlannedTrial, draw: int) -> tuple[optuna.Trial, TrialSpec]:
        study = self.records.study("search")
        study.sampler = self._proposer.sampler_for(planned.index, draw)
        trial = study.ask()
        policy = self._proposer.policy_space.sample(trial)
        return trial, self._with_prediction(
            TrialSpec(planned.index, policy, planned.target, self._seed)
        )

    def _with_prediction(self, spec: TrialSpec) -> TrialSpec:
        """The job with what can be told of it beforehand."""
        look = self._proposer.predict(spec.policy, spec.target)
        return replace(spec, mask=look[0], predicted=look[1]) if look else spec

    def _tell_duplicate(self, trial: optuna.Trial, spec: TrialSpec, *, last: bool) -> bool:
        """Tell what is known of the same network. True if that settles the slot: the last draw
        does, and a network that only a control has made, which may be on the front by this.
        """
        twin = self._known_networks.find_duplicate(spec)
        evaluation, made_by = evaluation_of(twin), trial_spec_of(twin)
        assert made_by is not None
        study, shared = self.records.study("search"), evaluation is not None and made_by.control
        trial.set_user_attr("repeat_of", made_by.folder)
        if last or shared:
            trial.set_user_attr("job", spec.to_json())
        if evaluation is None:
            stopped = twin.state == TrialState.PRUNED  # of one that runs, nothing is known yet
            study.tell(trial, state=TrialState.PRUNED if stopped else TrialState.FAIL)
        elif shared:
            own = replace(evaluation, trial=trial.number, origin=spec.origin)
            trial.set_user_attr("evaluation", own.to_json())
            self._tell(study, trial, own)
            self._known_networks.add("search", spec, trial.number)
        else:
            self._tell(study, trial, evaluation)
        return last or bool(shared)

    def _enqueue(self, spec: TrialSpec, params: Mapping[str, Any]) -> None:
        queued = replace(spec, number=None)
        self.records.study("search").enqueue_trial(
            dict(params), user_attrs={"job": queued.to_json()}
        )

    def _finals(self) -> list[TrialSpec]:
        """The longer fine-tunes; none until the whole plan is over."""
        if not (self._final_jobs or self._unstarted or self._waiting["controls"]):
            self._final_jobs = final_specs(self.records, self._search_spec)
        return self._final_jobs
