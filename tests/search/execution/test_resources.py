"""Resources of a trial: the arithmetic, and a real Ray with GPUs in name only."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from itertools import accumulate

import pytest
from command_line import ROOT
from ray.cluster_utils import Cluster
from search_process import assert_settled, finish, settled, start, studies, wait_for

from paretoprune.search.execution.resources import even_gpu_share, trials_fitting_node


def test_the_scarcest_resource_limits_the_trials_of_a_node():
    assert trials_fitting_node({"CPU": 16, "GPU": 1}, cpus=1, gpus=0.5) == 2
    assert trials_fitting_node({"CPU": 16, "GPU": 1}, cpus=1, gpus=0.1) == 10
    assert trials_fitting_node({"CPU": 4, "GPU": 8}, cpus=2, gpus=1) == 2
    assert trials_fitting_node({"CPU": 16}, cpus=1, gpus=0.5) == 0
    assert trials_fitting_node({"CPU": 16, "GPU": 1}, cpus=1, gpus=0) == 16


def test_gpus_are_shared_evenly_and_never_beyond_what_there_is():
    assert even_gpu_share(8, 4) == 1
    assert even_gpu_share(1, 3) == 0.333
    assert even_gpu_share(0, 3) == 0


SHARES = """
import ray, sys, torch
from pathlib import Path
from ray import tune
from paretoprune.search.execution.worker_setup import (
    assigned_gpu_fraction, limit_worker_resources,
)

def part(config):
    limit_worker_resources()
    tune.report({"part": assigned_gpu_fraction() or "none"})

ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False)
for gpus in (0.25, 2, 0):
    task = ray.get(ray.remote(assigned_gpu_fraction).options(num_cpus=1, num_gpus=gpus).remote())
    ran = tune.Tuner(
        tune.with_resources(part, {"cpu": 1, "gpu": gpus}),
        run_config=tune.RunConfig(storage_path=sys.argv[1], verbose=0),
    ).fit()[0]
    print("share:", gpus, task or "none", ran.metrics["part"])
"""


def test_a_worker_knows_its_fraction_of_a_shared_gpu(tmp_path):
    """In a task, as for a call, and in the thread of a Tune trial."""
    done = subprocess.run(
        [sys.executable, "-c", SHARES, str(tmp_path)],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},  # else Ray leaves a token in $HOME
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if line.startswith("share:")]
    wanted = ["share: 0.25 0.25 0.25", "share: 2 none none", "share: 0 none none"]
    assert told == wanted, done.stdout + done.stderr


@pytest.fixture
def cluster(monkeypatch):
    """A head without CPUs, a node with a GPU in name, and one with more CPUs but no GPU."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place = tempfile.mkdtemp(prefix="cluster-")
    monkeypatch.setenv("RAY_TMPDIR", place)
    os.mkdir(os.path.join(place, "ray"))
    nodes = Cluster()
    nodes.add_node(num_cpus=0, include_dashboard=False)
    nodes.add_node(num_cpus=2, num_gpus=1)
    nodes.add_node(num_cpus=4)
    yield nodes
    nodes.shutdown()
    shutil.rmtree(place, ignore_errors=True)


def most_at_a_time(folder):
    spans = [t.user_attrs["spans"] for study in studies(folder) for t in study.trials
             if "spans" in t.user_attrs]  # fmt: skip
    begins = [(one["begin"], 1) for one in spans]
    ends = [(one["begin"] + sum(one["seconds"].values()), -1) for one in spans]
    return max(accumulate(change for _, change in sorted(begins + ends)))


def begin(folder, cluster, *words):
    return start(
        folder, "--no-halving", "--address", cluster.address, "--workers", 3,
        "--cpus-per-trial", 1, "--gpus-per-trial", 0.5, *words,
    )  # fmt: skip


@pytest.mark.faults
def test_trials_get_the_shares_that_they_request(cluster, tmp_path):
    folder = tmp_path / "run"
    code, out, err = finish(begin(folder, cluster, "--trials", 3))
    assert code == 0, err
    assert "running trials on 2 workers" in out
    assert "of the time of 2 workers" in out
    assert most_at_a_time(folder) == 2
    assert_settled(folder, 3)


@pytest.mark.faults
def test_waiting_for_a_large_enough_node_is_logged_once(cluster, tmp_path):
    folder = tmp_path / "run"
    words = ("--address", cluster.address, "--cpus-per-trial", 5, "--gpus-per-trial", 0)
    process = start(folder, "--trials", 1, *words)
    patience = threading.Timer(120, process.kill)
    patience.start()
    waits = "no node has 5 CPUs and 0 GPUs now; waiting for one"
    assert any(waits in line for line in process.stdout)
    cluster.add_node(num_cpus=5)
    code, out, err = finish(process)
    patience.cancel()
    assert code == 0, err
    assert waits not in out
    assert_settled(folder, 1)


@pytest.mark.faults
@pytest.mark.slow
def test_a_node_that_joins_later_is_used(cluster, tmp_path):
    """Where trials take longer than a worker's start: a shorter one is not waited for."""
    folder = tmp_path / "run"
    process = begin(folder, cluster, "--trials", 5, "--epochs", 100)
    wait_for(process, lambda: settled(folder) >= 1)
    cluster.add_node(num_cpus=1, num_gpus=1)
    code, out, err = finish(process, 500)
    assert code == 0, err
    assert "running trials on 2 workers" in out
    assert "of the time of 3 workers" in out
    assert most_at_a_time(folder) == 3
