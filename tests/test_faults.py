"""A search that is killed, stopped, or whose trials fail: nothing lost, nothing left behind."""

import json
import os
import signal
import subprocess
import time

import optuna
import psutil
import pytest
from door import ROOT, call, command
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

TRIALS = 10


def start(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = words or ("--target-flops", "0.4", "--trials", TRIALS, "--workers", 2, "--epochs", 2)
    where = ("--resume", folder) if (folder / "config.json").exists() else ("--out", folder)
    if "--resume" in where:
        words = ()
    return subprocess.Popen(
        command("search", *words, *where), cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def settled(folder):
    path = folder / "journal.log"
    return path.read_bytes().count(b'"values":[') if path.exists() else 0


def wait_for(process, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def studies(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return [optuna.load_study(study_name=n, storage=storage) for n in ("search", "controls")]


def completed_jobs(folder):
    return [
        (study.study_name, t.user_attrs["job"]["slot"], t.datetime_complete)
        for study in studies(folder)
        for t in study.get_trials(states=(TrialState.COMPLETE,))
    ]


def processes_of(folder, session):
    """Everything that still belongs to a search: its session, or its run folder in the words."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        try:
            if os.getsid(process.pid) == session or str(folder) in words:
                found.append(words[:80])
        except OSError:
            continue
    return found


def assert_nothing_left(folder, session):
    end = time.monotonic() + 15
    while (left := processes_of(folder, session)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not left


def test_a_search_killed_again_and_again_ends_as_an_unbroken_one(tmp_path):
    folder, finished = tmp_path / "run", []
    for goal in (0, 2, 7):  # 0: during start-up, before any trial
        process = start(folder)
        if goal:
            wait_for(process, lambda goal=goal: settled(folder) >= goal)
        else:
            wait_for(process, (folder / "dense.safetensors").exists)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        before = completed_jobs(folder) if goal else []
        assert set(finished) <= set(before)  # nothing finished is lost
        finished = before
    done = call("search", "--resume", folder)
    assert done.returncode == 0, done.stderr
    after = completed_jobs(folder)
    assert set(finished) <= set(after)
    slots = sorted((study, slot) for study, slot, _ in after)
    assert slots == [("controls", 0), ("controls", 1), *(("search", i) for i in range(TRIALS))]
    assert not any(s.get_trials(states=(TrialState.RUNNING,)) for s in studies(folder))
    policies = [
        json.dumps([t.user_attrs["job"]["policy"], t.user_attrs["job"]["target"]])
        for t in studies(folder)[0].trials
        if t.user_attrs.get("job") and t.user_attrs["job"]["attempt"] == 0
    ]
    assert len(set(policies)) == len(policies)
    again = call("search", "--resume", folder)
    assert again.returncode == 0
    assert completed_jobs(folder) == after


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_search_shows_its_front_and_leaves_nothing_behind(tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(process, lambda: settled(folder) >= 4)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in out + err
    assert "Front" in out
    assert f"paretoprune search --resume {folder}" in out.replace("\n", " ")
    assert json.loads((folder / "front.json").read_text())["points"]
    assert_nothing_left(folder, process.pid)


def test_a_stop_before_the_first_trial_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(process, (folder / "config.json").exists)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert "--resume" in out
    assert_nothing_left(folder, process.pid)


def test_a_second_driver_of_the_same_folder_is_refused(tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    try:
        wait_for(process, (folder / ".lock").exists)
        second = call("search", "--resume", folder)
        assert second.returncode == 2
        assert "one search at a time" in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        process.kill()
        process.communicate()


FRAGILE = '''
import os
import torch
from torch import nn

class Fragile(nn.Module):
    """Breaks in training once it is cut to an odd width (or to any)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        if self.training and self.first.out_channels + self.second.out_channels < 32:
            HOW
        return self.last(torch.relu(self.second(x)).mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Fragile()
'''


def fragile_search(tmp_path, how, *words):
    (tmp_path / "fragile.py").write_text(FRAGILE.replace("HOW", how))
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    done = subprocess.run(
        command("search", "--model", "fragile:build", "--target-flops", "0.4", "--trials", 4,
                "--workers", 1, "--epochs", 1, "--dense-epochs", 2, "--out", folder, *words),
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=200,
    )  # fmt: skip
    return done, folder


def test_if_every_trial_fails_the_first_reason_is_told(tmp_path):
    done, folder = fragile_search(tmp_path, "raise RuntimeError('too thin for me')")
    assert done.returncode == 1
    assert "RuntimeError: too thin for me" in done.stderr
    assert "Traceback" not in done.stderr
    errors = list(folder.glob("trials/*/error.txt"))
    assert len(errors) == 6
    assert "Traceback" in errors[0].read_text()


def test_trials_that_raise_or_yield_nan_fail_alone(tmp_path):
    how = (
        "if self.first.out_channels % 2: raise RuntimeError('odd')\n"
        "            if self.first.out_channels % 4 == 0: x = x * float('nan')"
    )
    done, folder = fragile_search(tmp_path, how, "--trials", 8)
    search, _ = studies(folder)
    states = [t.state for t in search.trials]
    reasons = [t.user_attrs["failure"] for t in search.trials if t.state == TrialState.FAIL]
    assert states.count(TrialState.COMPLETE) + len(reasons) == 8
    assert reasons, done.stdout
    assert all("odd" in r or "NaN" in r or "nan" in r or "finite" in r for r in reasons)
    if TrialState.COMPLETE in states:
        assert done.returncode == 0, done.stderr
        front = json.loads((folder / "front.json").read_text())
        assert all(0 <= p["accuracy"] <= 1 for p in front["points"])


def test_a_worker_that_dies_fails_its_trial_and_the_search_goes_on(tmp_path):
    done, folder = fragile_search(tmp_path, "os._exit(1) if self.first.out_channels % 2 else None")
    search, controls = studies(folder)
    ended = [t for s in (search, controls) for t in s.trials]
    assert len(ended) == 6, done.stderr
    assert all(t.state in (TrialState.COMPLETE, TrialState.FAIL) for t in ended)
    failed = [t for t in ended if t.state == TrialState.FAIL]
    assert failed, "no cut network of this search has an odd width"
    assert {t.user_attrs["failure"] for t in failed} == {"the worker process died"}
