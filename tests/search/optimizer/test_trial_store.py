"""The trial store: initial trials, duplicates, stops, constraints, longer fine-tunes."""

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
    """Predict a mask that depends on the score alone: three masks at each size."""
    text = f"{policy.score} {target.flops}"
    return hashlib.sha256(text.encode()).hexdigest()[:16], 0.5


def search_trials(store, *states):
    return store.records.trials("search", *states)


def test_initial_proposals_come_first_and_keep_their_origin(tmp_path):
    initial = {
        0: Proposal(Policy("taylor"), "preset:taylor"),
        1: Proposal(Policy("l2"), "screened"),
    }
    store = open_ledger(tmp_path / "journal.log", initial=initial)
    specs = [spec for spec in run_to_the_end(store) if not spec.control]
    assert [spec.origin for spec in specs] == ["preset:taylor", "screened", "sampled", "sampled"]
    assert specs[0].policy == Policy("taylor")
    assert search_trials(store)[0].params["score"] == "taylor"


def test_no_network_is_trained_twice(tmp_path):
    store = open_ledger(tmp_path / "journal.log", slots=12, look=by_score)
    specs = run_to_the_end(store)
    assert (
        len(specs) == len({spec.mask for spec in specs}) == 7
    )  # three scores at two sizes; random
    assert store.settled == store.total == 14
    assert store.records.count_duplicates() == 6  # one is a control's
    repeats = [t for t in search_trials(store) if "repeat_of" in t.user_attrs]
    assert len(repeats) > 6  # each slot draws several times before it takes what is known
    made = {t.user_attrs["job"]["mask"]: t for study in ("controls", "search")
            for t in store.records.trials(study)
            if "evaluation" in t.user_attrs and "repeat_of" not in t.user_attrs}  # fmt: skip
    names = set()
    for trial in repeats:
        names.add(trial.user_attrs["repeat_of"])
        assert trial.values in [original.values for original in made.values()]
    assert "control-uniform" in names  # a control's network is known as well
    assert len(store.records.evaluations()) == 6


def test_a_network_that_a_control_produced_can_be_the_best_at_the_target(tmp_path):
    """Otherwise a search could never return the uniform policy of its own space."""

    def all_one(policy, target):
        return f"one at {target.flops}", None

    store = open_ledger(tmp_path / "journal.log", slots=1, look=all_one)
    specs = run_to_the_end(store)
    assert [spec.control for spec in specs] == ["uniform", "random"]
    assert store.settled == store.total == 3
    front, control = store.front(), specs[1]
    assert [point.path for point in front.points] == [f"trials/{control.folder}"]
    assert front.at_target.trial == 0
    assert front.at_target.path in store.needed_paths()
    again = open_ledger(tmp_path / "journal.log", slots=2, look=all_one)
    again.next_trial()
    assert len(again.records.evaluations()) == 1


def test_the_sampler_replaces_a_proposal_that_is_a_duplicate(tmp_path):
    initial = {n: Proposal(Policy("taylor"), f"preset:{n}") for n in (0, 2)}
    store = open_ledger(tmp_path / "journal.log", slots=4, initial=initial, look=by_score)
    specs = [spec for spec in run_to_the_end(store) if not spec.control]
    assert next(spec.origin for spec in specs if spec.policy.score == "taylor") == "preset:0"
    assert store.records.count_duplicates() == 0  # none settles a trial
    assert len(store.records.evaluations()) == 4
    assert store.settled == store.total


def test_a_network_whose_trial_failed_can_be_proposed_again(tmp_path):
    initial = {n: Proposal(Policy("taylor"), f"preset:{n}") for n in (0, 2)}
    store = open_ledger(tmp_path / "journal.log", slots=4, initial=initial, look=by_score)
    origins = []
    while spec := store.next_trial():
        if spec.origin == "preset:0":
            store.fail(spec, "ArithmeticError: the loss must be finite")
        else:
            store.finish(spec, measured(spec), {})
        origins.append(spec.origin)
    assert {"preset:0", "preset:2"} <= set(origins)


def test_a_kill_while_a_duplicate_is_told_settles_it(tmp_path, monkeypatch):
    """A duplicate runs nothing, so it is not run after the kill either."""
    path = tmp_path / "journal.log"
    store = open_ledger(path, slots=6, look=by_score)
    told = optuna.Study.tell

    class Killed(BaseException):
        pass

    def tell(study, trial, *values, **state):
        if isinstance(trial, optuna.Trial) and {"repeat_of", "job"} <= trial.user_attrs.keys():
            raise Killed
        return told(study, trial, *values, **state)

    monkeypatch.setattr(optuna.Study, "tell", tell)
    with pytest.raises(Killed):
        run_to_the_end(store)
    monkeypatch.undo()
    resumed = open_ledger(path, slots=6, look=by_score)
    masks = [spec.mask for spec in run_to_the_end(resumed)]
    assert len(masks) == len(set(masks))
    assert resumed.settled == resumed.total


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_a_duplicate_has_the_constraint_values_of_its_network(tmp_path, sampler):
    def limits(evaluation):
        return {"accuracy": 0.5 - evaluation.accuracy}

    path = tmp_path / "journal.log"
    store = open_ledger(path, slots=9, look=by_score, constraints_func=limits, sampler=sampler)
    run_to_the_end(store)
    done = search_trials(store, TrialState.COMPLETE)
    assert any("repeat_of" in t.user_attrs for t in done)
    for trial in done:
        assert trial.constraints["accuracy"] == 0.5 - trial.values[0]


def test_a_duplicate_of_a_retried_network_has_its_final_result(tmp_path):
    store = open_ledger(tmp_path / "journal.log", slots=12, look=by_score)
    died = set()
    while spec := store.next_trial():
        if spec.attempt == 0 and not spec.control:
            died.add(spec.mask)
            store.fail(spec, WORKER_DIED)
        else:
            store.finish(spec, measured(spec), {})
    assert len(died) == 5
    repeats = [t for t in search_trials(store) if "repeat_of" in t.user_attrs]
    assert repeats
    assert {t.state for t in repeats} == {TrialState.COMPLETE}
    assert store.settled == store.total


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_duplicate_of_a_stopped_network_is_pruned(tmp_path, sampler):
    """The sampler ignores failed trials and would draw the same policy again and again."""
    path = tmp_path / "journal.log"
    store = open_ledger(path, slots=12, look=by_score, sampler=sampler)
    stopped = set()
    while spec := store.next_trial():
        if spec.control:
            store.finish(spec, measured(spec), {})
        else:
            store.stop(spec, {"begin": 0.0, "seconds": {}, "rungs": []})
            stopped.add(spec.folder)
    repeats = [t for t in search_trials(store) if t.user_attrs.get("repeat_of") in stopped]
    assert {t.state for t in repeats} == {TrialState.PRUNED}
    assert store.records.count_stopped() == len(stopped)
    assert store.settled == store.total


def test_a_resumed_store_knows_the_networks_of_the_first(tmp_path):
    path = tmp_path / "journal.log"
    first = open_ledger(path, slots=12, look=by_score)
    seen = set()
    for _ in range(5):
        spec = first.next_trial()
        first.finish(spec, measured(spec), {})
        seen.add(spec.mask)
    second = open_ledger(path, slots=12, look=by_score)
    masks = [spec.mask for spec in run_to_the_end(second) if not spec.control]
    assert not seen & set(masks)
    assert second.settled == second.total


def test_a_stopped_trial_is_pruned_and_never_on_the_front(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    specs = []
    while spec := store.next_trial():
        specs.append(spec)
        if spec.slot == 1 and not spec.control:
            store.stop(
                spec, {"rungs": [{"index": 0, "accuracy": 1.0, "flops": 0.1, "params": 0.1}]}
            )
        else:
            store.finish(spec, measured(spec), {})
    assert store.settled == store.total
    assert store.records.count_stopped() == 1
    (pruned,) = search_trials(store, TrialState.PRUNED)
    assert pruned.number not in {point.trial for point in store.front().points}
    assert [rung.accuracy for rung in store.records.rungs()] == [1.0]


def test_a_trial_whose_worker_died_is_retried_once(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    attempts = []
    while spec := store.next_trial():
        if spec.slot == 0:
            attempts.append((spec.control, spec.attempt))
            assert store.fail(spec, WORKER_DIED) == (spec.attempt == 0)
        else:
            store.finish(spec, measured(spec), {})
    assert set(attempts) == {(None, 0), (None, 1), ("uniform", 0), ("uniform", 1)}
    assert len(attempts) == 4
    assert store.settled == store.total
    assert list(store.records.failures().values()) == [WORKER_DIED, WORKER_DIED]


def test_constraints_do_not_remove_points_from_the_front(tmp_path):
    def limits(evaluation):
        return {"accuracy": 0.5 - evaluation.accuracy}

    store = open_ledger(tmp_path / "journal.log", slots=8, constraints_func=limits)
    run_to_the_end(store)
    broken = [t for t in search_trials(store) if t.constraints["accuracy"] > 0]
    assert 0 < len(broken) < 8
    assert store.front().points == non_dominated(store.records.evaluations())
    study = store.records.study("search")
    assert not {t.number for t in study.best_trials} & {t.number for t in broken}


def test_the_front_and_the_controls_get_longer_fine_tunes_at_the_end(tmp_path):
    path = tmp_path / "journal.log"
    store = open_ledger(path, final_epochs=10.0)
    specs = run_to_the_end(store)
    plain = [spec for spec in specs if spec.continues is None]
    finals = specs[len(plain) :]
    assert len(plain) == 6
    assert all(spec.continues for spec in finals)
    assert {spec.control for spec in finals} == {None, "uniform", "random"}
    assert store.is_finished
    assert store.settled == store.total == len(specs)
    assert all(e.path.startswith("trials/final-") for e in store.records.controls().values())
    again = open_ledger(path, final_epochs=10.0)
    assert again.next_trial() is None
    assert again.is_finished


def test_a_resumed_plan_runs_only_the_longer_fine_tunes_that_are_missing(tmp_path):
    path = tmp_path / "journal.log"
    store = open_ledger(path, slots=12, final_epochs=10.0)
    for _ in range(6):
        spec = store.next_trial()
        store.finish(spec, measured(spec), {})
    store.drop_unstarted()
    before = {spec.continues for spec in run_to_the_end(store)}
    assert len(before) > 2
    assert store.is_finished
    resumed = open_ledger(path, slots=12, final_epochs=10.0)
    assert not resumed.is_finished
    specs = []
    while spec := resumed.next_trial():
        specs.append(spec)
        if spec.continues:
            assert spec.control or spec.continues in resumed.needed_paths()
        resumed.finish(spec, replace(measured(spec), accuracy=0.9 + spec.slot / 1e3), {})
    after = {spec.continues for spec in specs if spec.continues}
    assert after
    assert not after & before
    assert not any(spec.control for spec in specs)
    searched = resumed.records.evaluations_of("search")
    assert {point.path for point in non_dominated(searched)} <= after | before
    assert resumed.settled == resumed.total


def test_dropped_trials_do_not_start_until_the_search_is_resumed(tmp_path):
    store = open_ledger(tmp_path / "journal.log", slots=8)
    for _ in range(4):
        spec = store.next_trial()
        store.finish(spec, measured(spec), {})
    store.drop_unstarted()
    assert store.next_trial() is None
    assert store.is_finished
    resumed = open_ledger(tmp_path / "journal.log", slots=8)
    assert len(run_to_the_end(resumed)) == 6


def test_latency_can_be_an_objective(tmp_path):
    names = ("accuracy", "flops_fraction", "params_fraction", "latency_ms")
    store = open_ledger(tmp_path / "journal.log", objectives=names)
    while spec := store.next_trial():
        store.finish(spec, replace(measured(spec), latency_ms=10.0 - spec.slot), {})
    assert search_trials(store)[0].values[3] == pytest.approx(10.0)
    assert store.front().objectives == names
    assert len(store.records.study("search").directions) == 4
    assert store.records.study("search").directions[3] == optuna.study.StudyDirection.MINIMIZE


def test_a_longer_fine_tune_has_the_latency_of_its_trial(tmp_path):
    """Timing noise must not put both on the front."""
    names = ("accuracy", "flops_fraction", "params_fraction", "latency_ms")
    store = open_ledger(tmp_path / "journal.log", slots=1, final_epochs=2.0, objectives=names)
    while spec := store.next_trial():
        accuracy, noise = (0.6, 0.1) if spec.continues else (0.5, 0.0)
        found = replace(measured(spec), accuracy=accuracy, latency_ms=5.0 + noise)
        store.finish(spec, found, {})
    front = store.front()
    (point,) = front.points
    assert point.path == "trials/final-0"
    assert point.latency_ms == 5.0
    headers = [column.header for column in front_table(front).columns]
    assert headers == ["accuracy", "test", "FLOPs %", "params %", "ms", "trial", "from", "policy"]


def test_the_front_of_no_trials_is_empty():
    assert non_dominated([]) == ()
    assert front_hypervolume([]) == 0.0
