"""The searcher by itself: what it asks the store for, and when it stops asking."""

import time

from completed_trials import complete
from trial_stores import open_ledger

from paretoprune.search.execution.tune_searcher import TrialStoreSearcher


def test_no_trial_is_started_that_would_end_too_late(tmp_path):
    """Not even while there is time left, if a trial before it took longer than what is left."""
    store = open_ledger(tmp_path / "journal.log")
    searcher = TrialStoreSearcher(store, tmp_path, lambda *_: None, until=time.monotonic() + 1.0)
    first = searcher.suggest("a")
    complete(searcher, "a", first, seconds=0.3)
    second = searcher.suggest("b")
    assert isinstance(second, dict)  # 0.7 s are left for 0.3
    complete(searcher, "b", second, seconds=0.5)
    late = []
    while isinstance(config := searcher.suggest("c"), dict):
        late.append(config["job"])
        complete(searcher, "c", config, seconds=0.0)
    assert config == "FINISHED"
    assert store.is_finished
    assert [job["slot"] for job in late if job["control"] is None] == [0]  # without it: no result


def test_one_trial_at_the_target_runs_even_if_time_is_over_before_it(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    searcher = TrialStoreSearcher(store, tmp_path, lambda *_: None, until=time.monotonic() - 1.0)
    jobs = []
    while isinstance(config := searcher.suggest("a"), dict):
        jobs.append(config["job"])
        complete(searcher, "a", config, seconds=0.0)
    assert [job["slot"] for job in jobs if job["control"] is None] == [0]
    assert store.is_finished
    assert store.front().at_target is not None


def test_the_wait_for_a_worker_is_not_part_of_a_trials_duration(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    searcher = TrialStoreSearcher(store, tmp_path, lambda *_: None, until=time.monotonic() + 1.0)
    complete(searcher, "a", searcher.suggest("a"), seconds=0.05, waited=0.6)
    complete(searcher, "b", searcher.suggest("b"), seconds=0.05)
    config = searcher.suggest("c")
    assert config["job"]["control"] is None  # 0.3 s are left for 0.05


def test_without_a_limit_the_whole_plan_is_run(tmp_path):
    """However long its trials take."""
    store = open_ledger(tmp_path / "journal.log")
    searcher = TrialStoreSearcher(store, tmp_path, lambda *_: None)
    started = 0
    while isinstance(config := searcher.suggest(str(started)), dict):
        complete(searcher, str(started), config, seconds=0.0)
        started += 1
    assert started == store.total
