"""The ledger beyond kills: presets first, equal networks once, stops, limits, the end."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from trial_stores import measured, open_ledger, run_to_the_end

from paretoprune.search.optimizer.screening import Proposal
from paretoprune.search.results.formatting import front_table
from paretoprune.search.storage.trial_records import WORKER_DIED
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.pareto_front import front_hypervolume, non_dominated


def by_score(policy, target):
    """As if the mask followed from the score alone: three masks a size in all."""
    text = f"{policy.score} {target.flops}"
    return hashlib.sha256(text.encode()).hexdigest()[:16], 0.5


def of_search(ledger, *states):
    return ledger.records.trials("search", *states)


def test_proposed_policies_come_first_and_say_where_they_come_from(tmp_path):
    opening = {
        0: Proposal(Policy("taylor"), "preset:taylor"),
        1: Proposal(Policy("l2"), "screened"),
    }
    ledger = open_ledger(tmp_path / "journal.log", opening=opening)
    jobs = [job for job in run_to_the_end(ledger) if not job.control]
    assert [job.origin for job in jobs] == ["preset:taylor", "screened", "sampled", "sampled"]
    assert jobs[0].policy == Policy("taylor")
    assert of_search(ledger)[0].params["score"] == "taylor"


def test_no_network_is_trained_twice(tmp_path):
    ledger = open_ledger(tmp_path / "journal.log", slots=12, look=by_score)
    jobs = run_to_the_end(ledger)
    assert len(jobs) == len({job.mask for job in jobs}) == 7  # three scores at two sizes; random
    assert ledger.settled == ledger.total == 14
    assert ledger.records.repeats() == 6  # one is a control's
    repeats = [t for t in of_search(ledger) if "repeat_of" in t.user_attrs]
    assert len(repeats) > 6  # each slot draws several times before it takes what is known
    made = {t.user_attrs["job"]["mask"]: t for study in ("controls", "search")
            for t in ledger.records.trials(study)
            if "evaluation" in t.user_attrs and "repeat_of" not in t.user_attrs}  # fmt: skip
    names = set()
    for trial in repeats:
        names.add(trial.user_attrs["repeat_of"])
        assert trial.values in [twin.values for twin in made.values()]
    assert "control-uniform" in names  # a control's network is known as well
    assert len(ledger.records.evaluations()) == 6


def test_a_network_that_a_control_has_made_may_be_the_answer(tmp_path):
    """Else a search whose space has the uniform cut could not give it, however good it is."""

    def all_one(policy, target):
        return f"one at {target.flops}", None

    ledger = open_ledger(tmp_path / "journal.log", slots=1, look=all_one)
    jobs = run_to_the_end(ledger)
    assert [job.control for job in jobs] == ["uniform", "random"]
    assert ledger.settled == ledger.total == 3
    front, control = ledger.front(), jobs[1]
    assert [point.path for point in front.points] == [f"trials/{control.folder}"]
    assert front.at_target.trial == 0
    assert front.at_target.path in ledger.needed_paths()
    again = open_ledger(tmp_path / "journal.log", slots=2, look=all_one)
    again.next_trial()
    assert len(again.records.evaluations()) == 1


def test_a_proposal_that_is_known_leaves_its_slot_to_the_sampler(tmp_path):
    opening = {n: Proposal(Policy("taylor"), f"preset:{n}") for n in (0, 2)}
    ledger = open_ledger(tmp_path / "journal.log", slots=4, opening=opening, look=by_score)
    jobs = [job for job in run_to_the_end(ledger) if not job.control]
    assert next(job.origin for job in jobs if job.policy.score == "taylor") == "preset:0"
    assert ledger.records.repeats() == 0  # no slot is settled by what another slot's trial made
    assert len(ledger.records.evaluations()) == 4
    assert ledger.settled == ledger.total


def test_a_network_whose_trial_failed_is_not_known(tmp_path):
    opening = {n: Proposal(Policy("taylor"), f"preset:{n}") for n in (0, 2)}
    ledger = open_ledger(tmp_path / "journal.log", slots=4, opening=opening, look=by_score)
    origins = []
    while job := ledger.next_trial():
        if job.origin == "preset:0":
            ledger.fail(job, "ArithmeticError: the loss must be finite")
        else:
            ledger.finish(job, measured(job), {})
        origins.append(job.origin)
    assert {"preset:0", "preset:2"} <= set(origins)


def test_a_kill_while_a_repeat_is_told_settles_it(tmp_path, monkeypatch):
    """It had nothing to carry out, so it is not carried out after the kill either."""
    path = tmp_path / "journal.log"
    ledger = open_ledger(path, slots=6, look=by_score)
    told = optuna.Study.tell

    class Killed(BaseException):
        pass

    def tell(study, trial, *values, **state):
        if isinstance(trial, optuna.Trial) and {"repeat_of", "job"} <= trial.user_attrs.keys():
            raise Killed
        return told(study, trial, *values, **state)

    monkeypatch.setattr(optuna.Study, "tell", tell)
    with pytest.raises(Killed):
        run_to_the_end(ledger)
    monkeypatch.undo()
    resumed = open_ledger(path, slots=6, look=by_score)
    masks = [job.mask for job in run_to_the_end(resumed)]
    assert len(masks) == len(set(masks))
    assert resumed.settled == resumed.total


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_a_repeat_breaks_the_limits_as_its_twin_does(tmp_path, sampler):
    def limits(evaluation):
        return {"accuracy": 0.5 - evaluation.accuracy}

    path = tmp_path / "journal.log"
    ledger = open_ledger(path, slots=9, look=by_score, limits=limits, sampler=sampler)
    run_to_the_end(ledger)
    done = of_search(ledger, TrialState.COMPLETE)
    assert any("repeat_of" in t.user_attrs for t in done)
    for trial in done:
        assert trial.constraints["accuracy"] == 0.5 - trial.values[0]


def test_a_repeat_of_a_network_that_was_tried_again_is_told_what_came_of_it(tmp_path):
    ledger = open_ledger(tmp_path / "journal.log", slots=12, look=by_score)
    died = set()
    while job := ledger.next_trial():
        if job.attempt == 0 and not job.control:
            died.add(job.mask)
            ledger.fail(job, WORKER_DIED)
        else:
            ledger.finish(job, measured(job), {})
    assert len(died) == 5
    repeats = [t for t in of_search(ledger) if "repeat_of" in t.user_attrs]
    assert repeats
    assert {t.state for t in repeats} == {TrialState.COMPLETE}
    assert ledger.settled == ledger.total


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_repeat_of_a_stopped_network_is_stopped_as_well(tmp_path, sampler):
    """So the sampler learns of it: told FAIL, which it forgets, it was drawn again and again."""
    path = tmp_path / "journal.log"
    ledger = open_ledger(path, slots=12, look=by_score, sampler=sampler)
    stopped = set()
    while job := ledger.next_trial():
        if job.control:
            ledger.finish(job, measured(job), {})
        else:
            ledger.stop(job, {"begin": 0.0, "seconds": {}, "rungs": []})
            stopped.add(job.folder)
    repeats = [t for t in of_search(ledger) if t.user_attrs.get("repeat_of") in stopped]
    assert {t.state for t in repeats} == {TrialState.PRUNED}
    assert ledger.records.stopped() == len(stopped)
    assert ledger.settled == ledger.total


def test_a_resumed_ledger_knows_the_networks_of_the_first(tmp_path):
    path = tmp_path / "journal.log"
    first = open_ledger(path, slots=12, look=by_score)
    seen = set()
    for _ in range(5):
        job = first.next_trial()
        first.finish(job, measured(job), {})
        seen.add(job.mask)
    second = open_ledger(path, slots=12, look=by_score)
    masks = [job.mask for job in run_to_the_end(second) if not job.control]
    assert not seen & set(masks)
    assert second.settled == second.total


def test_a_stopped_trial_is_pruned_and_never_on_the_front(tmp_path):
    ledger = open_ledger(tmp_path / "journal.log")
    jobs = []
    while job := ledger.next_trial():
        jobs.append(job)
        if job.slot == 1 and not job.control:
            ledger.stop(
                job, {"rungs": [{"index": 0, "accuracy": 1.0, "flops": 0.1, "params": 0.1}]}
            )
        else:
            ledger.finish(job, measured(job), {})
    assert ledger.settled == ledger.total
    assert ledger.records.stopped() == 1
    (pruned,) = of_search(ledger, TrialState.PRUNED)
    assert pruned.number not in {point.trial for point in ledger.front().points}
    assert [rung.accuracy for rung in ledger.records.rungs()] == [1.0]


def test_a_trial_whose_worker_died_is_tried_once_more(tmp_path):
    ledger = open_ledger(tmp_path / "journal.log")
    attempts = []
    while job := ledger.next_trial():
        if job.slot == 0:
            attempts.append((job.control, job.attempt))
            assert ledger.fail(job, WORKER_DIED) == (job.attempt == 0)
        else:
            ledger.finish(job, measured(job), {})
    assert set(attempts) == {(None, 0), (None, 1), ("uniform", 0), ("uniform", 1)}
    assert len(attempts) == 4
    assert ledger.settled == ledger.total
    assert list(ledger.records.failures().values()) == [WORKER_DIED, WORKER_DIED]


def test_limits_become_constraints_and_leave_the_front_whole(tmp_path):
    def limits(evaluation):
        return {"accuracy": 0.5 - evaluation.accuracy}

    ledger = open_ledger(tmp_path / "journal.log", slots=8, limits=limits)
    run_to_the_end(ledger)
    broken = [t for t in of_search(ledger) if t.constraints["accuracy"] > 0]
    assert 0 < len(broken) < 8
    assert ledger.front().points == non_dominated(ledger.records.evaluations())
    study = ledger.records.study("search")
    assert not {t.number for t in study.best_trials} & {t.number for t in broken}


def test_the_front_and_the_controls_are_trained_on_at_the_end(tmp_path):
    path = tmp_path / "journal.log"
    ledger = open_ledger(path, final_epochs=10.0)
    jobs = run_to_the_end(ledger)
    plain = [job for job in jobs if job.continues is None]
    finals = jobs[len(plain) :]
    assert len(plain) == 6
    assert all(job.continues for job in finals)
    assert {job.control for job in finals} == {None, "uniform", "random"}
    assert ledger.is_finished
    assert ledger.settled == ledger.total == len(jobs)
    assert all(e.path.startswith("trials/final-") for e in ledger.records.controls().values())
    again = open_ledger(path, final_epochs=10.0)
    assert again.next_trial() is None
    assert again.is_finished


def test_after_longer_fine_tunes_a_resumed_plan_gets_only_those_that_are_missing(tmp_path):
    path = tmp_path / "journal.log"
    ledger = open_ledger(path, slots=12, final_epochs=10.0)
    for _ in range(6):
        job = ledger.next_trial()
        ledger.finish(job, measured(job), {})
    ledger.drop_unstarted()
    before = {job.continues for job in run_to_the_end(ledger)}
    assert len(before) > 2
    assert ledger.is_finished
    resumed = open_ledger(path, slots=12, final_epochs=10.0)
    assert not resumed.is_finished
    jobs = []
    while job := resumed.next_trial():
        jobs.append(job)
        if job.continues:
            assert job.control or job.continues in resumed.needed_paths()
        resumed.finish(job, replace(measured(job), accuracy=0.9 + job.slot / 1e3), {})
    after = {job.continues for job in jobs if job.continues}
    assert after
    assert not after & before
    assert not any(job.control for job in jobs)
    searched = resumed.records.evaluations_of("search")
    assert {point.path for point in non_dominated(searched)} <= after | before
    assert resumed.settled == resumed.total


def test_when_time_is_up_nothing_more_of_the_plan_is_started(tmp_path):
    ledger = open_ledger(tmp_path / "journal.log", slots=8)
    for _ in range(4):
        job = ledger.next_trial()
        ledger.finish(job, measured(job), {})
    ledger.drop_unstarted()
    assert ledger.next_trial() is None
    assert ledger.is_finished
    resumed = open_ledger(tmp_path / "journal.log", slots=8)
    assert len(run_to_the_end(resumed)) == 6


def test_latency_can_be_an_objective(tmp_path):
    names = ("accuracy", "flops_fraction", "params_fraction", "latency_ms")
    ledger = open_ledger(tmp_path / "journal.log", objectives=names)
    while job := ledger.next_trial():
        ledger.finish(job, replace(measured(job), latency_ms=10.0 - job.slot), {})
    assert of_search(ledger)[0].values[3] == pytest.approx(10.0)
    assert ledger.front().objectives == names
    assert len(ledger.records.study("search").directions) == 4
    assert ledger.records.study("search").directions[3] == optuna.study.StudyDirection.MINIMIZE


def test_a_network_that_was_trained_on_is_as_fast_as_before(tmp_path):
    """Whatever the noise of its second timing: one of the two is on the front, the better one."""
    names = ("accuracy", "flops_fraction", "params_fraction", "latency_ms")
    ledger = open_ledger(tmp_path / "journal.log", slots=1, final_epochs=2.0, objectives=names)
    while job := ledger.next_trial():
        accuracy, noise = (0.6, 0.1) if job.continues else (0.5, 0.0)
        found = replace(measured(job), accuracy=accuracy, latency_ms=5.0 + noise)
        ledger.finish(job, found, {})
    front = ledger.front()
    (point,) = front.points
    assert point.path == "trials/final-0"
    assert point.latency_ms == 5.0
    heads = [column.header for column in front_table(front).columns]
    assert heads == ["accuracy", "test", "FLOPs %", "params %", "ms", "trial", "from", "policy"]


def test_a_front_of_nothing_is_empty():
    assert non_dominated([]) == ()
    assert front_hypervolume([]) == 0.0
