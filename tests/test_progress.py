"""What a running search shows of the time to go."""

import io
import sys
from types import SimpleNamespace

import pytest
from test_journal import measured, open_ledger

from paretoprune.search import progress as module
from paretoprune.search.progress import Progress
from paretoprune.search.telling import once, telling
from paretoprune.spaces.front import Dense
from paretoprune.spaces.target import Target


@pytest.fixture
def clock(monkeypatch):
    """A time that stands still until it is set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def begun(tmp_path, until=None):
    ledger, progress = open_ledger(tmp_path / "journal.log"), Progress(quiet=True)
    progress.begin(ledger, Target(0.5), Dense(0.9, 100, 100), until)
    return ledger, progress


def finish_one(ledger, progress):
    job = ledger.next_job()
    ledger.finish(job, measured(job), {})
    progress.on_trial(job, measured(job))


def test_the_time_to_go_is_that_of_the_pace_and_runs_down_between_trials(tmp_path, clock):
    ledger, progress = begun(tmp_path)
    assert progress.remaining() == "--:--"
    clock.seconds += 60
    finish_one(ledger, progress)
    left = ledger.total - 1
    assert progress.remaining() == f"{left}:00"
    clock.seconds += 45
    assert progress.remaining() == f"{left - 1}:15"


def test_a_limit_in_minutes_bounds_the_time_to_go(tmp_path, clock):
    ledger, progress = begun(tmp_path, until=clock.seconds + 120)
    assert progress.remaining() == "2:00"
    clock.seconds += 60
    finish_one(ledger, progress)
    assert progress.remaining() == "1:00"
    clock.seconds += 70  # what still runs is over when it is over
    finish_one(ledger, progress)
    assert (ledger.total, progress.remaining()) == (6, "4:20")


class Terminal(io.StringIO):
    """What is written to it, as to a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_each_trial_has_a_line_and_the_table_says_how_many_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    ledger, progress = open_ledger(tmp_path / "journal.log"), Progress(quiet=False)
    progress.begin(ledger, Target(0.5), Dense(0.9, 100, 100))
    try:
        jobs = [ledger.next_job() for _ in range(3)]
        ledger.finish(jobs[0], measured(jobs[0]), {})
        progress.on_trial(jobs[0], measured(jobs[0]))
        table = progress.table()
    finally:
        progress.close()
    shown = sys.stdout.getvalue()
    assert "control uniform: accuracy" in shown
    columns = {str(column.header): next(iter(column.cells)) for column in table.columns}
    assert columns["running"] == "2"
    assert columns["trials"] == f"1/{ledger.total}"


def test_what_is_measured_in_rounds_is_announced_once():
    lines = []
    say = once(lines.append)
    for _ in range(3):
        telling(say)("masks of policies", 1, 16)
    telling(say)("scores", 1, 1)
    for _ in range(2):
        say("dense network")
    assert lines == ["measuring masks of policies", "measuring scores", *["dense network"] * 2]
