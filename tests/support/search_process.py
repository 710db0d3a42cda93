"""Start, watch and clean up a very short search in its own process."""

import contextlib
import os
import re
import subprocess
import time

import optuna
import psutil
from command_line import ROOT, command
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

NARROW = (
    "--target-flops", "0.4", "--dense-epochs", 3, "--epochs", 1, "--ensemble-images", 1024,
    "--scores", "taylor,l2", "--no-screening", "--schedules", "one-shot",
    "--allocations", "global-threshold",
)  # fmt: skip
STUDIES = ("search", "controls")


def start(folder, *words, path=(), **environment):
    """Start a search in this folder, or resume it."""
    where = ("--out", folder, *NARROW, *words)
    if (folder / "config.json").exists():
        where = ("--resume", folder)
    paths = os.pathsep.join(map(str, (ROOT, *path)))
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.Popen(
        command("search", *where), cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def settled(folder):
    """Return how many trials have finished or were stopped early."""
    path = folder / "journal.log"
    ends = re.compile(rb'"trial_id":\d+,"state":[12],')
    return len(ends.findall(path.read_bytes())) if path.exists() else 0


def wait_for(process, condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    assert condition()


def finish(process, seconds=240):
    """Wait for the end; return the exit code, stdout and stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def studies(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return [optuna.load_study(study_name=n, storage=storage) for n in STUDIES]


def trials(folder, *states):
    return [t for study in studies(folder) for t in study.get_trials(states=states or None)]


def completed_jobs(folder):
    """Return the settled slots: their trial has finished or was stopped early."""
    return [
        (study.study_name, t.user_attrs["job"]["slot"], t.datetime_complete)
        for study in studies(folder)
        for t in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
        if t.user_attrs.get("job")
    ]


def assert_settled(folder, count):
    """Every slot and both controls are settled, once; nothing is left running."""
    slots = sorted((study, slot) for study, slot, _ in completed_jobs(folder))
    assert slots == [("controls", 0), ("controls", 1), *(("search", i) for i in range(count))]
    assert not trials(folder, TrialState.RUNNING, TrialState.WAITING)


def processes_of(folder, session):
    """Return all processes of a search: in its session, or with its run folder as an argument."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        try:
            if os.getsid(process.pid) == session or str(folder) in words:
                found.append(process)
        except OSError:
            continue
    return found


def workers_of(process):
    """Return the worker processes of a search."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that ended meanwhile
            if child.name().startswith("ray::"):
                found.append(child)
    return found


def assert_nothing_left(folder, session):
    end = time.monotonic() + 20
    while (left := processes_of(folder, session)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left
