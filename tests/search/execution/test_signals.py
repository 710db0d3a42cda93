"""Stopping by a signal: what is printed, and what a second signal does."""

import json
import os
import signal
import subprocess
import sys

import pytest
from command_line import ROOT
from run_folders import RunWriter, hostile_network

from paretoprune.search.cli.handlers import report_stop
from paretoprune.search.execution.signals import SAME_SIGNAL_SECONDS, StopRequested
from paretoprune.search.storage.run_folder import RunFolder

SIGNALLED = """
import os, signal, sys, time
from paretoprune.search.execution.signals import StopRequested, SignalHandler

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

try:
    with SignalHandler().installed():
        try:
            interrupt()
        except StopRequested:
            time.sleep(float(sys.argv[1]))
            interrupt()
            print("cleared up")
            raise
except StopRequested as stop:
    raise SystemExit(stop.exit_code)
"""


IN_A_RAY_OF_ONES_OWN = """
import os, signal, sys, threading, time
from pathlib import Path
import ray
import paretoprune as pp

def cpus():
    return ray.available_resources().get("CPU", 0)

def interrupt():
    while not (journal.exists() and '"job"' in journal.read_text() and cpus() == 0):
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)

run = Path(sys.argv[1])
journal = run / "journal.log"
ray.init("local", num_cpus=2, include_dashboard=False)
threading.Thread(target=interrupt, daemon=True).start()
try:
    pp.search(
        "digits-resnet", "digits", target_flops=0.4, trials=20, epochs=500, dense_epochs=1,
        schedules="one-shot", allocations="global-threshold", scores="l2", screening=False,
        halving=False, ensemble_images=1024, out=run,
    )
except KeyboardInterrupt:
    end = time.monotonic() + 10
    while cpus() < 2 and time.monotonic() < end:
        time.sleep(0.1)
    print("free:", cpus())
"""


@pytest.fixture
def writer(tmp_path):
    return RunWriter(tmp_path / "run", hostile_network())


def stop_in(writer, capsys, **asked):
    """What a stop of this run prints."""
    stop = StopRequested(signal.SIGINT)
    stop.run = RunFolder(writer.folder)
    assert report_stop(stop, **asked) == 130
    return capsys.readouterr()


def test_a_stopped_search_prints_json_alone_where_json_is_asked_for(writer, capsys):
    nothing = stop_in(writer, capsys, as_json=True, quiet=True)
    assert nothing.out == ""
    writer.add()
    printed = stop_in(writer, capsys, as_json=True, quiet=True)
    assert json.loads(printed.out) == json.loads((writer.folder / "front.json").read_text())
    assert printed.err.startswith("stopped; to continue: paretoprune search --resume")


def test_a_stopped_quiet_search_prints_its_result_alone(writer, capsys):
    writer.add()
    loud = stop_in(writer, capsys, as_json=False, quiet=False)
    quiet = stop_in(writer, capsys, as_json=False, quiet=True)
    assert loud.err == ""
    assert loud.out == quiet.out + quiet.err
    assert "to pick:" in quiet.out
    assert "to continue" not in quiet.out


def test_a_stop_keeps_what_was_measured_of_the_front_before(writer, capsys):
    writer.add()
    before = writer.conclude()["points"]
    stop_in(writer, capsys, as_json=True, quiet=True)
    assert json.loads((writer.folder / "front.json").read_text())["points"] == before


@pytest.mark.parametrize(("pause", "rest"), [(0.0, "cleared up\n"), (2 * SAME_SIGNAL_SECONDS, "")])
def test_a_second_signal_leaves_at_once_but_one_that_came_twice_does_not(pause, rest):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(pause)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (130, rest)


def test_an_interrupted_search_leaves_the_cpus_of_a_ray_that_was_there_before(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_RAY_OF_ONES_OWN, str(tmp_path / "run")],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},  # else Ray leaves a token in $HOME
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["free: 2.0"], done.stdout + done.stderr
