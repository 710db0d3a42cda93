"""The trial store: all trials of a run, in Optuna's journal in the run folder.

The journal holds three studies: "search" for the planned trials, "controls" for the controls and
"finals" for the longer fine-tunes at the end. A planned trial is settled when an Optuna trial for
it completes, is stopped by halving, or fails for a reason that allows no retry. Trials that an
ended driver left running are marked FAIL at the next start, and their policies are enqueued again
under new numbers. `MAX_ATTEMPTS` limits these retries and those after a worker's death; trials
that the user stopped are always retried.
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

MAX_DRAWS_PER_TRIAL = 8  # draws for a planned trial until its network is new


class TrialStore:
    """Asks Optuna for trials and tells it their results, durably."""

    def __init__(self, journal: Path, search_spec: SearchSpec, proposer: Proposer) -> None:
        """Open or create the journal, and fail the trials that an ended driver left running."""
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
        self._final_specs: list[TrialSpec] = []
        for spec, params in fail_unfinished_trials(self.records):
            self._enqueue(spec, params)
        self._unstarted = deque(unstarted_trials(search_spec.plan, self.records))
        self._ends_early = False
        controls = unfinished_specs(control_specs(search_spec), "controls", self.records)
        self._waiting = {"controls": deque(controls), "finals": deque[TrialSpec]()}

    @property
    def total(self) -> int:
        """Number of planned trials, including controls and longer fine-tunes."""
        finals = {spec.plan_key for spec in self._finals()}
        finals |= latest_attempts(self.records.trials("finals")).keys()  # of earlier fronts too
        return len(self._search_spec.plan) + len(CONTROL_POLICIES) + len(finals)

    @property
    def settled(self) -> int:
        """Number of planned trials that are over, including controls and longer fine-tunes."""
        return self.records.count_settled()

    @property
    def running(self) -> int:
        """Number of trials that run now."""
        return len(self._running)

    @property
    def may_end_early(self) -> bool:
        """Whether a time limit can still drop planned trials."""
        return bool(self._unstarted) and not self._ends_early

    @property
    def is_finished(self) -> bool:
        """Whether no trial runs and none remains to run."""
        return not self._running and self.settled >= self.total

    def front(self) -> Front:
        """Return the front of the finished trials."""
        records = self.records
        summary = records.summary or {}
        return build_front(
            records.evaluations(), records.controls(), summary, records.final_metrics
        )

    def needed_paths(self) -> set[str]:
        """Return the paths of networks on the front, of controls and of pending fine-tunes."""
        paths = {
            *self.front().points_by_path,
            *(e.path for e in self.records.evaluations_of("controls")),
        }
        if self._search_spec.final_epochs and not self.is_finished:
            paths |= {point.path for point in front_before_finals(self.records)}
        return paths

    def set_summary(self, dense: DenseMetrics) -> None:
        """Store the values besides the trials that the front is derived from."""
        spec = self._search_spec
        summary = {
            "seed": spec.seed,
            "requested": spec.target.to_json(),
            "objectives": list(spec.objectives),
            "dense": asdict(dense),
        }
        if self.records.summary != summary:
            self.records.study("search").set_user_attr("summary", summary)

    def record_start(self, spans: Mapping[str, Any]) -> None:
        """Store the durations of this launch's phases before its trials."""
        self.records.study("search").set_user_attr("start", dict(spans))

    def record_metrics(self, metrics: MetricsByPath) -> None:
        """Store the metrics measured at the end of the search; front.json is derived from them."""
        known = {**self.records.final_metrics, **metrics}
        self.records.study("search").set_user_attr("figures", known)

    def record_end(self) -> None:
        """Mark the search as concluded if it is finished, so that a resumed run does nothing."""
        if self.is_finished:
            self.records.study("search").set_user_attr("concluded", len(self._search_spec.plan))

    def next_trial(self) -> TrialSpec | None:
        """Start the next trial; None if none can start now.

        The order is: retries, controls, planned trials, and after all of them longer fine-tunes.
        """
        if self.records.trials("search", TrialState.WAITING):
            return self._start_enqueued()
        if self._waiting["controls"]:
            return self._start_in("controls", self._waiting["controls"].popleft())
        while self._unstarted:
            spec = self._start_planned(self._unstarted.popleft())
            if spec is not None:
                return spec
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
        """Drop the planned trials that have not started. Retries stay enqueued.

        If none has started, one trial at the target stays, so that the search has a result.
        """
        plan = self._search_spec.plan
        unstarted = {planned.index for planned in unstarted_trials(plan, self.records)}
        started = [planned for planned in plan if planned.index not in unstarted]
        self._ends_early = True
        self._search_spec = replace(self._search_spec, plan=started or plan[:1])
        self._unstarted = deque(() if started else plan[:1])

    def finish(self, spec: TrialSpec, evaluation: Evaluation, spans: Mapping[str, Any]) -> None:
        """Store the result of a trial. The trial's files must be on disk before."""
        trial = self._running.pop(spec.folder)
        trial.set_user_attr("evaluation", evaluation.to_json())
        if spans:
            trial.set_user_attr("spans", dict(spans))
        self._tell(self._study_of(spec), trial, evaluation)

    def stop(self, spec: TrialSpec, values: Mapping[str, Any]) -> None:
        """Mark a trial as stopped by halving, and store its results at the rungs."""
        trial = self._running.pop(spec.folder)
        trial.set_user_attr("stopped", dict(values))
        self._study_of(spec).tell(trial, state=TrialState.PRUNED)

    def fail(self, spec: TrialSpec, reason: str) -> bool:
        """Mark a trial as failed; True if its policy is retried."""
        trial = self._tell_failed(spec.folder, reason)
        retry = next_attempt(spec, reason)
        if retry is None:
            return False
        if spec.control or spec.continues:
            self._waiting["finals" if spec.continues else "controls"].append(retry)
        else:
            self._enqueue(retry, trial.params)
        return True

    def interrupt_running(self) -> None:
        """Mark the running trials as stopped by the user; a resumed search retries them."""
        for folder in tuple(self._running):
            self._tell_failed(folder, STOPPED_BY_USER)

    def _tell_failed(self, folder: str, reason: str) -> optuna.Trial:
        trial = self._running.pop(folder)
        trial.set_user_attr("failure", reason)
        trial.study.tell(trial, state=TrialState.FAIL)
        return trial

    def _tell(self, study: optuna.Study, trial: optuna.Trial, evaluation: Evaluation) -> None:
        """Tell Optuna the objectives and the constraint values of a trial."""
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
        """Start a trial of a fixed policy."""
        spec = spec if spec.continues else self._with_prediction(spec)
        return self._register(self.records.study(study).ask(), spec)

    def _start_enqueued(self) -> TrialSpec:
        """Start the trial that was enqueued first, with the parameters that Optuna stored."""
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
        """Start a planned trial with the first policy whose network is new.

        Tries the initial proposal, then mutations, then the sampler. None if a duplicate settles
        the planned trial.
        """
        proposal = self._proposer.initial.get(planned.index)
        if proposal is not None:
            spec, params = self._spec_of_proposal(planned, proposal)
            trial = self._ask_with_params(planned, params)
            if spec not in self._known_networks:
                return self._register(trial, spec)
            if self._tell_duplicate(trial, spec, last=False):
                return None
        finished = self.records.finished_with_params()
        for draw in range(MAX_DRAWS_PER_TRIAL):
            mutation = self._proposer.mutate(planned, draw, finished)
            if mutation is None:
                break
            spec, params = self._spec_of_proposal(planned, mutation)
            if spec not in self._known_networks:
                return self._register(self._ask_with_params(planned, params), spec)
        for draw in range(MAX_DRAWS_PER_TRIAL):
            trial, spec = self._sample(planned, draw)
            if spec not in self._known_networks:
                return self._register(trial, spec)
            if self._tell_duplicate(trial, spec, last=draw == MAX_DRAWS_PER_TRIAL - 1):
                break
        return None

    def _spec_of_proposal(
        self, planned: PlannedTrial, proposal: Proposal
    ) -> tuple[TrialSpec, Mapping[str, Any]]:
        """Return the spec of a proposal and the Optuna parameters of its policy."""
        params = proposal.params
        if params is None:
            params = self._proposer.policy_space.params_of(proposal.policy)
        assert params is not None, "the space must contain the proposed policy"
        spec = TrialSpec(
            planned.index, proposal.policy, planned.target, self._seed, origin=proposal.origin
        )
        return self._with_prediction(spec), params

    def _ask_with_params(self, planned: PlannedTrial, params: Mapping[str, Any]) -> optuna.Trial:
        """Ask Optuna for a trial with these parameters; others are sampled at random."""
        study, random = self.records.study("search"), make_sampler("random", planned.index)
        study.sampler = optuna.samplers.PartialFixedSampler(dict(params), random)
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
        """Add the mask's hash and the predicted loss to a spec, if they are known."""
        prediction = self._proposer.predict(spec.policy, spec.target)
        if prediction is None:
            return spec
        return replace(spec, mask=prediction[0], predicted=prediction[1])

    def _tell_duplicate(self, trial: optuna.Trial, spec: TrialSpec, *, last: bool) -> bool:
        """Tell Optuna the result of the trial that has the same network.

        Returns True if that settles the planned trial. The last draw does. So does a network that
        a control produced: the trial gets the control's evaluation and can be on the front.
        """
        duplicate = self._known_networks.find_duplicate(spec)
        evaluation, original = evaluation_of(duplicate), trial_spec_of(duplicate)
        assert original is not None
        study, shared = self.records.study("search"), evaluation is not None and original.control
        trial.set_user_attr("repeat_of", original.folder)
        if last or shared:
            trial.set_user_attr("job", spec.to_json())
        if evaluation is None:
            stopped = duplicate.state == TrialState.PRUNED  # FAIL if the other still runs
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
        """Return the longer fine-tunes; empty until the whole plan is over."""
        if not (self._final_specs or self._unstarted or self._waiting["controls"]):
            self._final_specs = final_specs(self.records, self._search_spec)
        return self._final_specs
