"""Progress of a search: the remaining time, the count of trials, lines about measurements."""

import io
import re
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from completed_trials import complete
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import network_of, plain
from trial_stores import measured, open_ledger

from paretoprune.analysis.measure import MeasurementContext, run_in_process
from paretoprune.search.driver import progress as module
from paretoprune.search.driver.open_store import make_untrained_evaluator
from paretoprune.search.driver.progress import SearchProgress
from paretoprune.search.execution import progress_messages
from paretoprune.search.execution.progress_messages import log_starts_once, progress_logger
from paretoprune.search.execution.tune_searcher import TrialStoreSearcher
from paretoprune.search.storage.trial_records import WORKER_DIED
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.records.pareto_front import DenseMetrics


@pytest.fixture
def clock(monkeypatch):
    """A time that stands still until it is set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def begin(tmp_path, until=None):
    store, progress = open_ledger(tmp_path / "journal.log"), SearchProgress(quiet=True)
    progress.begin(store, Target(0.5), DenseMetrics(0.9, 100, 100), until)
    return store, progress


def finish_one(store, progress):
    spec = store.next_trial()
    store.finish(spec, measured(spec), {})
    progress.on_trial(spec, measured(spec))


def test_the_remaining_time_follows_the_pace_and_falls_between_trials(tmp_path, clock):
    store, progress = begin(tmp_path)
    assert progress.time_remaining() == "--:--"
    clock.seconds += 60
    finish_one(store, progress)
    left = store.total - 1
    assert progress.time_remaining() == f"{left}:00"
    clock.seconds += 45
    assert progress.time_remaining() == f"{left - 1}:15"


def test_a_time_limit_bounds_the_remaining_time(tmp_path, clock):
    store, progress = begin(tmp_path, until=clock.seconds + 120)
    assert progress.time_remaining() == "2:00"
    clock.seconds += 60
    finish_one(store, progress)
    assert progress.time_remaining() == "1:00"
    clock.seconds += 70  # what still runs is over when it is over
    finish_one(store, progress)
    assert progress.time_remaining() == "0:00"
    assert str(progress.status_line()).endswith("ETA 0:00 (over the time limit)")


@pytest.mark.parametrize(
    ("minutes", "shown"),
    [
        (100, "1 of up to 6 trials"),
        (3.5, "1 of about 3 trials"),  # two controls and the one at the target
        (5, "1 of about 5 trials"),
        (None, "1/6 trials"),
    ],
)
def test_a_time_limit_promises_no_more_trials_than_it_lets_start(tmp_path, clock, minutes, shown):
    until = None if minutes is None else clock.seconds + 60 * minutes
    store, progress = begin(tmp_path, until=until)
    clock.seconds += 60
    finish_one(store, progress)
    assert str(progress.status_line()).startswith(shown)


def test_the_last_trial_in_time_is_shown_with_the_reduced_plan(tmp_path):
    store, progress = open_ledger(tmp_path / "journal.log", slots=24), SearchProgress(quiet=True)
    until, shown = time.monotonic() + 0.2, []
    progress.begin(store, Target(0.5), DenseMetrics(0.9, 100, 100), until)

    def on_trial(spec, outcome):
        progress.on_trial(spec, outcome)
        shown.append(str(progress.status_line()).partition(" trials")[0])

    searcher = TrialStoreSearcher(store, tmp_path, on_trial, until=until)
    while isinstance(config := searcher.suggest("a"), dict):
        complete(searcher, "a", config, seconds=0.3)
    assert shown == ["1/3", "2/3", "3/3"]


STEPS = ("start", "finish", "fail", "die", "prune", "time", "resume", "leave")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=25), st.booleans())
def test_the_count_of_trials_never_falls_and_never_exceeds_the_total(steps, limited):
    with tempfile.TemporaryDirectory() as folder:
        journal, before, running = Path(folder) / "journal.log", 0, []
        store = open_ledger(journal)
        for step in ("resume", *steps):
            if step == "start" and (spec := store.next_trial()):
                running.append(spec)
            elif step == "time":
                store.drop_unstarted()
            elif step in ("resume", "leave"):
                if step == "leave":
                    store.interrupt_running()
                store, running = open_ledger(journal), []
                progress = SearchProgress(quiet=True)
                until = time.monotonic() + 1e3 if limited else None
                progress.begin(store, Target(0.5), DenseMetrics(0.9, 100, 100), until)
            elif running and (step != "prune" or not running[0].control):
                spec = running.pop(0)
                if step == "finish":
                    store.finish(spec, measured(spec), {})
                elif step == "prune":
                    store.stop(spec, {})
                else:
                    store.fail(spec, "CUDA" if step == "fail" else WORKER_DIED)
                progress.on_trial(spec, step)
            done, total = map(
                int, re.findall(r"\d+", str(progress.status_line()).partition(" tr")[0])
            )
            assert before <= done <= total
            before = done


class Terminal(io.StringIO):
    """What is written to it, as to a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_each_trial_has_a_line_and_the_table_says_how_many_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    store, progress = open_ledger(tmp_path / "journal.log"), SearchProgress(quiet=False)
    progress.begin(store, Target(0.5), DenseMetrics(0.9, 100, 100))
    try:
        specs = [store.next_trial() for _ in range(3)]
        store.finish(specs[0], measured(specs[0]), {})
        progress.on_trial(specs[0], measured(specs[0]))
        table = progress.status_table()
    finally:
        progress.close()
    shown = sys.stdout.getvalue()
    assert "control uniform: accuracy" in shown
    columns = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert columns["running"] == "2"
    assert columns["trials"] == f"1/{store.total}"


def test_the_count_of_a_measurement_never_falls_and_never_exceeds_the_total(monkeypatch):
    """Whoever measures: two workers, one whose work is done again, or one that counts too far."""
    monkeypatch.setattr(progress_messages, "PROGRESS_INTERVAL_SECONDS", 0.0)
    lines = []
    log = log_starts_once(lines.append)
    first, second = progress_logger(log), progress_logger(log)
    for on_progress, done in [(first, 0), (first, 15), (second, 0), (second, 12), (first, 14),
                       (second, 16), (first, 17)]:  # fmt: skip
        on_progress("scores, of images", done, 16)
    assert lines == ["measuring scores", *(f"  scores, of images: {n} of 16" for n in (15, 16))]


def test_masks_evaluated_untrained_are_counted_over_all_parts_and_calls(monkeypatch):
    monkeypatch.setattr(progress_messages, "PROGRESS_INTERVAL_SECONDS", 0.0)
    network, lines = network_of(plain()), []
    on = MeasurementContext(network.model, network.channel_map, network.data, 0)

    def backwards(pieces, on):
        """The parts end in another order than they begin in, as with several workers."""
        return run_in_process(list(reversed(pieces)), on)[::-1]

    evaluate = make_untrained_evaluator(
        backwards, on, progress_logger(log_starts_once(lines.append))
    )
    masks = np.ones((37, network.channel_map.atoms), dtype=bool)
    losses = evaluate(masks)
    assert len(evaluate(masks[:4])) == 4
    assert np.allclose(losses, losses[0])
    counts = [tuple(map(int, re.findall(r"\d+", line))) for line in lines[1:]]
    assert counts == [(5, 37), (21, 37), (37, 37), (41, 41)]


def test_a_measurement_in_rounds_is_announced_once():
    lines = []
    log = log_starts_once(lines.append)
    for _ in range(3):
        progress_logger(log)("masks of policies", 1, 16)
    progress_logger(log)("scores", 1, 1)
    for _ in range(2):
        log("dense network")
    assert lines == ["measuring masks of policies", "measuring scores", *["dense network"] * 2]
