"""How busy the workers were: the arithmetic of spans, and what a real search reaches."""

import re
import time

import pytest
from search_process import finish, start, studies
from trial_stores import measured, open_ledger

from paretoprune.search.results.utilization import (
    StartupTime,
    startup_time,
    utilization_from_spans,
    worker_utilization,
)
from paretoprune.search.storage.trial_records import read_trial_records
from paretoprune.search.trial.timing import Timer


def span(begin, **seconds):
    return {"begin": begin, "seconds": seconds}


def test_utilization_is_compute_over_all_workers_from_first_begin_to_last_end():
    spans = [
        span(10.0, schedule=1.0, training=2.0, evaluation=0.5, saving=0.5),  # until 14
        span(10.0, training=4.0),
        span(15.0, training=5.0),  # until 20; the other worker has nothing to do
    ]
    busy = utilization_from_spans(spans, workers=2)
    assert busy.wall_seconds == 10.0
    assert busy.compute_seconds == 12.5
    assert busy.share == pytest.approx(12.5 / 20)
    assert busy.sentence() == "model compute took 62% of the time of 2 workers in 10 s"


def test_without_trials_there_is_no_utilization():
    assert utilization_from_spans([], workers=2) is None
    assert utilization_from_spans([{"rungs": []}], workers=2) is None


def test_stopped_trials_count_and_those_of_an_earlier_start_do_not(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    specs = [store.next_trial() for _ in range(4)]
    store.finish(specs[0], measured(specs[0]), span(50.0, training=9.0))
    store.finish(specs[1], measured(specs[1]), span(100.0, training=4.0))
    store.finish(specs[2], measured(specs[2]), {})
    store.stop(specs[3], {**span(104.0, until_rung=2.0), "rungs": []})
    busy = worker_utilization(store.records, workers=1, since=99.0)
    assert (busy.wall_seconds, busy.compute_seconds) == (6.0, 6.0)
    assert worker_utilization(store.records, workers=1, since=200.0) is None


def test_the_startup_time_separates_work_from_waiting(tmp_path):
    store = open_ledger(tmp_path / "journal.log")
    specs = [store.next_trial() for _ in range(3)]
    work = {"data": 2.0, "dense": 30.0, "evidence": 5.0, "screening": 1.0}
    store.record_start(span(100.0, start=3.5, **work))
    assert startup_time(store.records, since=140.0) is None
    store.finish(specs[0], measured(specs[0]), span(90.0, training=9.0))  # of an earlier launch
    store.finish(specs[1], measured(specs[1]), span(144.0, training=9.0))
    store.finish(specs[2], measured(specs[2]), span(143.0, training=9.0))
    start = startup_time(store.records, since=140.0)
    assert start == StartupTime(43.0, 38.0)


def test_a_block_timed_separately_is_not_part_of_the_next_lap():
    timer = Timer()
    time.sleep(0.05)
    for _ in range(2):
        with timer.separately("start"):
            time.sleep(0.1)
    time.sleep(0.05)
    timer.lap("evidence")
    assert timer.seconds["start"] == pytest.approx(0.2, abs=0.05)
    assert timer.seconds["evidence"] == pytest.approx(0.1, abs=0.05)


@pytest.mark.slow
def test_nine_tenths_of_the_workers_time_is_model_compute(tmp_path):
    folder, begin = tmp_path / "run", time.time()
    code, out, err = finish(
        start(folder, "--trials", 24, "--workers", 2, "--epochs", 40, "--no-halving"), 500
    )
    assert code == 0, err
    spans = [t.user_attrs["spans"] for study in studies(folder) for t in study.trials
             if "spans" in t.user_attrs]  # fmt: skip
    seconds = sorted(sum(one["seconds"].values()) for one in spans)
    assert seconds[len(seconds) // 2] > 2, "the claim is of trials of two seconds and more"
    match = re.search(r"model compute took (\d+)% of the time of 2 workers", out)
    assert int(match[1]) >= 90
    kept = studies(folder)[0].user_attrs["start"]
    work = sum(kept["seconds"][name] for name in ("data", "dense", "evidence", "screening"))
    first = min(one["begin"] for one in spans)
    assert first - begin - work < 15  # from the start of the process, imports and all
    startup = startup_time(read_trial_records(folder / "journal.log"), 0.0)
    assert startup.seconds - startup.work_seconds < first - begin - work + 0.1
