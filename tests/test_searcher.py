"""The searcher by itself: what it asks the ledger for, and when it stops asking."""

import json
import time

from test_journal import measured, open_ledger

from paretoprune.search.job import job_from_json
from paretoprune.search.searcher import LedgerSearcher


def complete(searcher, trial_id, config, seconds, waited=0.0):
    """End a trial with an evaluation, so many seconds after its worker began it."""
    time.sleep(waited + seconds)
    evaluation = measured(job_from_json(config["job"])).to_json()
    told = {"evaluation": json.dumps(evaluation), "spans": json.dumps({})}
    searcher.on_trial_complete(trial_id, {**told, "time_total_s": seconds})


def test_no_trial_is_started_that_would_end_too_late(tmp_path):
    """Not even while there is time left, if a trial before it took longer than what is left."""
    ledger = open_ledger(tmp_path / "journal.log")
    searcher = LedgerSearcher(ledger, tmp_path, lambda *_: None, until=time.monotonic() + 1.0)
    first = searcher.suggest("a")
    complete(searcher, "a", first, seconds=0.3)
    second = searcher.suggest("b")
    assert isinstance(second, dict)  # 0.7 s are left for 0.3
    complete(searcher, "b", second, seconds=0.5)
    config = searcher.suggest("c")
    while isinstance(config, dict):  # controls stay: they are not of the plan
        assert config["job"]["control"] is not None
        complete(searcher, "c", config, seconds=0.0)
        config = searcher.suggest("c")
    assert config == "FINISHED"
    assert ledger.over


def test_waiting_for_a_worker_is_no_part_of_a_trials_length(tmp_path):
    ledger = open_ledger(tmp_path / "journal.log")
    searcher = LedgerSearcher(ledger, tmp_path, lambda *_: None, until=time.monotonic() + 1.0)
    complete(searcher, "a", searcher.suggest("a"), seconds=0.05, waited=0.6)
    complete(searcher, "b", searcher.suggest("b"), seconds=0.05)
    config = searcher.suggest("c")
    assert config["job"]["control"] is None  # 0.3 s are left for 0.05


def test_without_a_limit_the_whole_plan_is_run(tmp_path):
    """However long its trials take."""
    ledger = open_ledger(tmp_path / "journal.log")
    searcher = LedgerSearcher(ledger, tmp_path, lambda *_: None)
    started = 0
    while isinstance(config := searcher.suggest(str(started)), dict):
        complete(searcher, str(started), config, seconds=0.0)
        started += 1
    assert started == ledger.total
