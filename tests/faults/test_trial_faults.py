"""Trials that fail in every known way, one after another in one search."""

import itertools
import subprocess

import psutil
import pytest
from optuna.trial import TrialState
from search_process import assert_nothing_left, finish, start, studies, trials

FRAGILE = '''
import os, resource, signal, time
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent
FAULTS = """FAULTS""".split()
MIB = 1 << 20
HOG = 3072


def next_fault():
    """One word for each network that begins its training, in their order."""
    with open(HERE / "begun", "a+") as file:
        file.write(".")
        place = file.tell() - 1
    return FAULTS[place] if place < len(FAULTS) else "none"


def take(mib, room):
    """Allocate in a process that may only grow by so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room * MIB, hard))
    try:
        torch.empty(mib * MIB, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Fragile(nn.Module):
    """Breaks in training once it is cut."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Linear(16, 10)
        self.fault = None

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        if self.training and self.first.out_channels + self.second.out_channels < 32:
            x = self.broken(x)
        return self.last(torch.relu(self.second(x)).mean((2, 3)))

    def broken(self, x):
        self.fault = self.fault or next_fault()
        with open(HERE / f"{self.fault}-batches", "a") as file:
            file.write(f"{len(x)} ")
        if self.fault == "raises":
            raise RuntimeError("too thin\\nfor me")
        if self.fault == "nan":
            return x * float("nan")
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exits":
            os._exit(1)
        if self.fault == "hangs":
            time.sleep(600)
        if self.fault == "large":
            take(8 * len(x), room=400)
        if self.fault == "hog":  # until Ray looks
            held = torch.ones(HOG * MIB, dtype=torch.uint8)
            time.sleep(60)
            del held
        if self.fault == "larger":
            take(8192, room=400)
        return x


def build():
    torch.manual_seed(0)
    return Fragile()
'''


def fragile_search(tmp_path, faults, *words, **environment):
    (tmp_path / "fragile.py").write_text(FRAGILE.replace('"""FAULTS"""', f'"{faults}"'))
    folder = tmp_path / "run"
    words = ("--model", "fragile:build", "--workers", 1, "--no-halving", *words)
    process = start(folder, *words, path=(tmp_path,), **environment)
    try:
        code, out, err = finish(process)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert_nothing_left(folder, process.pid)
    return code, out + err, folder


def failures(folder):
    return [t.user_attrs["failure"] for t in trials(folder, TrialState.FAIL)]


def of_slots(study, *slots):
    """The trials of these slots, or of any; a draw that was known already belongs to none."""
    jobs = [(t, t.user_attrs["job"]) for t in study.trials if "job" in t.user_attrs]
    return [t for t, job in jobs if not slots or job["slot"] in slots]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Two controls and eight trials: what happened to them in the order of their beginning."""
    place = tmp_path_factory.mktemp("broken")
    memory = "large " * 3 + "larger " * 5  # each halving begins the trial again
    faults = f"raises nan killed killed exits none {memory} hangs none none"
    code, said, folder = fragile_search(
        place, faults, "--trials", 6, "--trial-timeout", 12
    )  # fmt: skip
    assert code == 0, said
    assert "Traceback" not in said
    return folder


def test_every_slot_is_settled_and_the_retried_ones_are_counted_once(broken):
    search, controls = studies(broken)
    assert [t.state for t in controls.trials] == [TrialState.FAIL] * 2
    jobs = [t.user_attrs["job"] for t in of_slots(search)]
    attempts = sorted((job["slot"], job["attempt"]) for job in jobs)
    assert attempts == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (5, 0)]
    assert not trials(broken, TrialState.RUNNING, TrialState.WAITING)


def test_a_trial_that_raises_or_yields_nan_fails_alone_with_its_reason(broken):
    _, controls = studies(broken)
    raised, nan = (t.user_attrs["failure"] for t in controls.trials)
    assert raised == "RuntimeError: too thin for me"
    assert "nan" in nan.lower()
    assert len(list(broken.glob("trials/control-*/error.txt"))) == 2


def test_a_killed_worker_has_its_trial_retried_once_and_then_failed(broken):
    died = of_slots(studies(broken)[0], 0)
    assert [t.user_attrs["failure"] for t in died] == ["the worker process died"] * 2


def test_a_worker_that_exits_has_its_trial_retried_and_the_retry_counts(broken):
    ended = of_slots(studies(broken)[0], 1)
    assert [t.state for t in ended] == [TrialState.FAIL, TrialState.COMPLETE]
    assert ended[0].params == ended[1].params


def test_out_of_memory_halves_the_batch_until_it_fits(broken):
    sizes = [int(word) for word in (broken.parent / "large-batches").read_text().split()]
    tried = list(dict.fromkeys(sizes[:3]))
    assert tried[0] > 50 >= tried[-1]
    assert all(2 * small == large for large, small in itertools.pairwise(tried))
    (trial,) = of_slots(studies(broken)[0], 2)
    assert trial.state == TrialState.COMPLETE


def test_what_fits_in_no_batch_fails_with_the_reason(broken):
    sizes = [int(word) for word in (broken.parent / "larger-batches").read_text().split()]
    assert sizes[-1] < 16 <= sizes[-2]
    assert sum("memory" in reason for reason in failures(broken)) == 1


def test_a_trial_that_hangs_fails_at_its_time_limit(broken):
    assert failures(broken).count("--trial-timeout of 12 s exceeded") == 1


def test_a_worker_that_ray_ends_to_save_the_machine_has_its_trial_retried(tmp_path):
    memory = psutil.virtual_memory()
    if memory.available < 6 << 30:
        pytest.skip("less than 6 GiB of memory are free: Ray would end every worker")
    limit = (memory.total - memory.available + (3 << 30)) / memory.total  # the search takes 2
    code, said, folder = fragile_search(
        tmp_path, "none none hog none none", "--trials", 3,
        RAY_memory_usage_threshold=f"{limit:.3f}", RAY_memory_monitor_refresh_ms="100",
    )  # fmt: skip
    assert code == 0, said
    assert "Traceback" not in said
    ended = of_slots(studies(folder)[0], 0)
    assert [t.state for t in ended] == [TrialState.FAIL, TrialState.COMPLETE]
    assert "short of memory" in ended[0].user_attrs["failure"]
    assert not trials(folder, TrialState.RUNNING, TrialState.WAITING)


@pytest.mark.slow
def test_if_every_trial_fails_the_first_reason_is_told(tmp_path):
    code, said, folder = fragile_search(tmp_path, "raises " * 9, "--trials", 2)
    assert code == 1
    assert "all trials failed; the first error: RuntimeError: too thin for me" in said
    assert "Traceback" not in said
    errors = list(folder.glob("trials/*/error.txt"))
    assert len(errors) == 4
    assert "Traceback" in errors[0].read_text()
