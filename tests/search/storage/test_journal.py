"""The journal after a kill: torn lines, stale locks, retries and resumed plans."""

import json
import os

import optuna
import pytest
from trial_stores import measured, open_ledger, run_to_the_end

from paretoprune.search.optimizer.recovery import reopen_trial
from paretoprune.search.storage.journal import truncate_torn_tail
from paretoprune.search.storage.trial_records import DRIVER_ENDED, MAX_ATTEMPTS, front_from_journal
from paretoprune.spaces.errors import UserError


def finished_slots(store):
    return sorted(
        t.user_attrs["job"]["slot"]
        for t in store.records.trials("search", optuna.trial.TrialState.COMPLETE)
    )


def test_every_planned_trial_and_control_runs_once(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    specs = run_to_the_end(store)
    assert len(specs) == store.total == store.settled == 6
    assert finished_slots(store) == [0, 1, 2, 3]
    assert set(store.records.controls()) == {"uniform", "random"}


def test_a_reopened_finished_store_starts_nothing(tmp_path):
    run_to_the_end(open_ledger(tmp_path / "journal.log"))
    store = open_ledger(tmp_path / "journal.log")
    assert store.next_trial() is None
    assert store.settled == store.total


def test_the_journal_cut_within_its_last_three_lines_is_resumed(tmp_path):
    whole = tmp_path / "whole.log"
    store = open_ledger(whole, slots=3)
    for _ in range(4):
        spec = store.next_trial()
        store.finish(spec, measured(spec), {})
    content = whole.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(content) if byte == 10)]
    ends = {*range(starts[-4], len(content), 149), *range(len(content) - 40, len(content) + 1)}
    for end in sorted({*ends, *(start + by for start in starts[-4:] for by in (0, 1))}):
        path = tmp_path / str(end) / "journal.log"
        path.parent.mkdir()
        path.write_bytes(content[:end])
        (path.parent / "journal.log.lock").symlink_to(path)
        before = {
            json.loads(line)["trial_id"]
            for line in content[:end].splitlines()
            if is_whole(line)
            and json.loads(line).get("state") == 1
            and "values" in json.loads(line)
        }
        resumed = open_ledger(path, slots=3)
        specs = run_to_the_end(resumed)
        assert resumed.settled == resumed.total == 5
        assert finished_slots(resumed) == [0, 1, 2]
        assert len(specs) == 5 - len(before), (end, before)
        assert not resumed.records.trials("search", optuna.trial.TrialState.RUNNING)


def is_whole(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_torn_tail_is_kept_in_a_second_file(tmp_path):
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    kept = truncate_torn_tail(path)
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    assert kept.read_bytes() == b'{"c"'
    assert truncate_torn_tail(path) is None


def test_a_broken_line_in_the_middle_raises_and_the_file_is_unchanged(tmp_path):
    path = tmp_path / "journal.log"
    content = b'{"a": 1}\n{"b"\n{"c": 3}\n{"d": 4}\n'
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken line 2"):
        truncate_torn_tail(path)
    assert path.read_bytes() == content


def test_an_interrupted_trial_is_retried_under_a_new_number(tmp_path):
    first = open_ledger(tmp_path / "journal.log")
    for _ in range(3):  # both controls, then trial 0
        spec = first.next_trial()
        first.finish(spec, measured(spec), {})
    lost = first.next_trial()
    second = open_ledger(tmp_path / "journal.log")
    again = second.next_trial()
    assert (again.slot, again.network_key) == (lost.slot, lost.network_key)
    assert again.number != lost.number
    assert again.attempt == 1


def test_an_interrupted_control_runs_again(tmp_path):
    lost = open_ledger(tmp_path / "journal.log").next_trial()
    assert lost.control
    again = open_ledger(tmp_path / "journal.log").next_trial()
    assert (again.control, again.attempt) == (lost.control, 1)


def test_trials_that_the_user_stops_are_always_retried(tmp_path):
    path = tmp_path / "journal.log"
    for control in (True, True, False):
        for _ in range(MAX_ATTEMPTS[DRIVER_ENDED] + 1):
            store = open_ledger(path, slots=1)
            spec = store.next_trial()
            assert (spec.control is not None, spec.attempt) == (control, 0)
            store.interrupt_running()
        store = open_ledger(path, slots=1)
        spec = store.next_trial()
        store.finish(spec, measured(spec), {})
    assert store.is_finished
    assert store.records.failures() == {}


def test_a_policy_that_kills_every_driver_fails_in_the_end(tmp_path):
    path = tmp_path / "journal.log"
    store = open_ledger(path, slots=1)
    for _ in range(2):
        spec = store.next_trial()
        store.finish(spec, measured(spec), {})
    for _ in range(MAX_ATTEMPTS[DRIVER_ENDED]):
        assert store.next_trial() is not None
        store = open_ledger(path, slots=1)
    assert store.next_trial() is None
    assert len(store.records.failures()) == 1
    assert store.settled == store.total


def test_a_resumed_search_proposes_no_network_twice(tmp_path):
    path = tmp_path / "journal.log"
    network_keys = []
    for _ in range(6):
        store = open_ledger(path, slots=22)
        for _ in range(4):
            spec = store.next_trial()
            store.finish(spec, measured(spec), {})
            if not spec.control:
                network_keys.append(spec.network_key)
    assert store.next_trial() is None
    assert len(set(network_keys)) == len(network_keys) == 22


def test_a_finished_store_continues_with_a_longer_plan_and_keeps_its_trials(tmp_path):
    path = tmp_path / "journal.log"
    first = [(spec.slot, spec.network_key) for spec in run_to_the_end(open_ledger(path, slots=4))]
    before = open_ledger(path, slots=4).records.evaluations()
    longer = open_ledger(path, slots=10)
    assert not longer.is_finished
    more = [(spec.slot, spec.network_key) for spec in run_to_the_end(longer)]
    assert [slot for slot, _ in more] == [4, 5, 6, 7, 8, 9]
    assert not {key for _, key in first} & {key for _, key in more}
    assert longer.records.evaluations()[:4] == before
    assert longer.is_finished


def test_an_unbroken_and_a_resumed_store_propose_the_same(tmp_path):
    unbroken = [spec.network_key for spec in run_to_the_end(open_ledger(tmp_path / "a.log", 12))]
    broken = []
    for _ in range(7):
        store = open_ledger(tmp_path / "b.log", 12)
        for _ in range(2):
            spec = store.next_trial()
            store.finish(spec, measured(spec), {})
            broken.append(spec.network_key)
    assert broken == unbroken


def test_a_failed_trial_keeps_its_reason_and_is_not_run_again(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    spec = store.next_trial()
    store.fail(spec, "ArithmeticError: loss must be finite")
    assert store.records.failures() == {spec.folder: "ArithmeticError: loss must be finite"}
    run_to_the_end(store)
    reopened = open_ledger(tmp_path / "journal.log")
    assert reopened.next_trial() is None
    assert reopened.records.failures() == {spec.folder: "ArithmeticError: loss must be finite"}


def test_the_front_is_rebuilt_from_the_journal_alone(tmp_path):
    path = tmp_path / "journal.log"
    store = open_ledger(path)
    run_to_the_end(store)
    assert front_from_journal(path) == store.front()
    os.truncate(path, path.stat().st_size - 3)
    assert (
        front_from_journal(path) is not None
    )  # reading tolerates a torn line; it repairs nothing


def test_a_journal_without_a_finished_trial_has_no_front(tmp_path):
    assert front_from_journal(tmp_path / "journal.log") is None
    open_ledger(tmp_path / "journal.log")
    assert front_from_journal(tmp_path / "journal.log") is None


def test_the_private_attribute_that_reopens_a_trial_is_there_in_this_optuna():
    """Checked with Optuna 5.0: `FrozenTrial._trial_id` is not public."""
    study = optuna.create_study()
    study.ask()
    reopen_trial(study, study.trials[0]).set_user_attr("failure", "x")
    assert study.trials[0].user_attrs == {"failure": "x"}, optuna.__version__
