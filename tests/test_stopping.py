"""A stop by a signal: what is printed, and what a second signal does."""

import json
import signal
import subprocess
import sys

import pytest
from door import ROOT
from run_folders import RunWriter, hostile_network

from paretoprune.search.commands import stopped
from paretoprune.search.run_folder import RunFolder
from paretoprune.search.stopping import ONE_SIGNAL, Stopped

SIGNALLED = """
import os, signal, sys, time
from paretoprune.search.stopping import Stopped, Stopping

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

try:
    with Stopping().listening():
        try:
            interrupt()
        except Stopped:
            time.sleep(float(sys.argv[1]))
            interrupt()
            print("cleared up")
            raise
except Stopped as stop:
    raise SystemExit(stop.exit_code)
"""


@pytest.fixture
def writer(tmp_path):
    return RunWriter(tmp_path / "run", hostile_network())


def stop_in(writer, capsys, **asked):
    """What a stop of this run prints."""
    stop = Stopped(signal.SIGINT)
    stop.run = RunFolder(writer.folder)
    assert stopped(stop, **asked) == 130
    return capsys.readouterr()


def test_a_stopped_search_prints_json_alone_where_json_is_asked_for(writer, capsys):
    nothing = stop_in(writer, capsys, as_json=True, quiet=True)
    assert nothing.out == ""
    writer.add()
    printed = stop_in(writer, capsys, as_json=True, quiet=True)
    assert json.loads(printed.out) == json.loads((writer.folder / "front.json").read_text())
    assert printed.err.startswith("stopped; to go on: paretoprune search --resume")


def test_a_stopped_quiet_search_prints_its_result_alone(writer, capsys):
    writer.add()
    loud = stop_in(writer, capsys, as_json=False, quiet=False)
    quiet = stop_in(writer, capsys, as_json=False, quiet=True)
    assert loud.err == ""
    assert loud.out == quiet.out + quiet.err
    assert "to pick:" in quiet.out
    assert "to go on" not in quiet.out


def test_a_stop_keeps_what_was_measured_of_the_front_before(writer, capsys):
    writer.add()
    before = writer.conclude()["points"]
    stop_in(writer, capsys, as_json=True, quiet=True)
    assert json.loads((writer.folder / "front.json").read_text())["points"] == before


@pytest.mark.parametrize(("pause", "rest"), [(0.0, "cleared up\n"), (2 * ONE_SIGNAL, "")])
def test_a_second_signal_leaves_at_once_but_one_that_came_twice_does_not(pause, rest):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(pause)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, rest)
