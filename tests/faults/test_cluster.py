"""Searches on a Ray cluster of several nodes on this machine, on a Ray that was there, alone."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import joblib
import psutil
import pytest
from command_line import ROOT, call
from optuna.trial import TrialState
from ray.cluster_utils import Cluster
from search_process import (
    NARROW,
    assert_nothing_left,
    assert_settled,
    completed_jobs,
    finish,
    settled,
    start,
    trials,
    wait_for,
    workers_of,
)

import paretoprune as pp
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.execution.ray_runtime import (
    local_ray_cpus,
    patched_environment,
    ray_environment,
)
from paretoprune.search.storage.trial_records import DRIVER_ENDED


@pytest.fixture
def cluster(monkeypatch):
    """A head without CPUs, so that every trial runs on a node that is added."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place = tempfile.mkdtemp(prefix="cluster-")  # short: sockets lie below it
    monkeypatch.setenv("RAY_TMPDIR", place)
    os.mkdir(os.path.join(place, "ray"))  # Ray notes its address there and does not make it
    nodes = Cluster()
    nodes.add_node(num_cpus=0, include_dashboard=False)
    yield nodes
    nodes.shutdown()
    shutil.rmtree(place, ignore_errors=True)


def failures(folder):
    """How many trials failed, by the reason."""
    return Counter(t.user_attrs["failure"] for t in trials(folder, TrialState.FAIL))


@pytest.mark.slow
def test_a_driver_and_then_a_node_that_are_killed_in_the_middle_lose_nothing(cluster, tmp_path):
    folder, (first, second) = tmp_path / "run", (cluster.add_node(num_cpus=1) for _ in range(2))
    words, at = ("--trials", 10, "--no-halving", "--address", "auto"), cluster.address
    process = start(folder, *words, RAY_ADDRESS=at)
    wait_for(process, lambda: settled(folder) >= 2)
    process.kill()
    finish(process)
    early = completed_jobs(folder)
    process = start(folder, RAY_ADDRESS=at)
    wait_for(process, lambda: settled(folder) >= 5)
    before, interrupted = completed_jobs(folder), failures(folder)
    assert set(interrupted) <= {DRIVER_ENDED}
    cluster.remove_node(second, allow_graceful=False)
    code, out, err = finish(process)
    assert code == 0, err
    assert "running trials on 2 workers" in out
    assert set(early) <= set(before) <= set(completed_jobs(folder))
    assert_settled(folder, 10)
    assert set(failures(folder) - interrupted) <= {"the worker process died"}
    assert first.any_processes_alive()  # the cluster is not ours to end
    assert_nothing_left(folder, process.pid)


def blind_node(address, hidden, log):
    """A node of the cluster with a disk of its own where the run folder would be."""
    ray = os.path.join(os.path.dirname(sys.executable), "ray")
    join = f"exec {ray} start --address={address} --num-cpus=1 --block"
    words = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {hidden} && {join}"]
    return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def may_unshare():
    """Whether the system lets us hide a folder from a process."""
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.parametrize("stored", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_worker_that_does_not_see_the_run_folder_delivers_its_files(cluster, tmp_path, stored):
    if not may_unshare():
        pytest.skip("only root may hide a folder from a process")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    folder, store = hidden / "run", tmp_path / "store"
    before = set(Path(tempfile.gettempdir()).glob("paretoprune-trial*"))
    with open(tmp_path / "node.log", "w") as log:
        node = blind_node(cluster.address, hidden, log)
    try:
        words = ["--trials", 3, "--final-epochs", 1, "--no-halving"]
        words += ["--address", cluster.address]
        words += ["--artifacts", f"file://{store}"] if stored else []
        code, out, err = finish(start(folder, *words))
    finally:
        for child in psutil.Process(node.pid).children(recursive=True):
            child.kill()
        node.kill()
        node.wait()
    assert code == 0, err
    assert_settled(folder, 3)
    assert "training the dense network" in out  # there is no CPU for it but the blind node's
    assert list((folder / "evidence").glob("*.npz"))
    message = "".join(path.read_text() for path in folder.glob("logs/worker-*.log"))
    assert {"measuring scores", "control uniform", "trial 2"} <= set(message.splitlines())
    assert set(Path(tempfile.gettempdir()).glob("paretoprune-trial*")) <= before
    front = json.loads((folder / "front.json").read_text())
    finals = list(folder.glob("trials/final-*/recipe.json"))
    assert len(finals) > len(front["controls"])  # the front's are there too
    for point in (*front["points"], *front["controls"].values()):
        longer = "/final-" in point["path"]  # it competes with what it began from
        assert point["epochs"] == (2.0 if longer else 1.0)
        assert pp.load(folder / point["path"]) is not None
    assert all("/final-" in control["path"] for control in front["controls"].values())
    assert len(list(folder.glob("trials/*/recipe.json"))) == len(list(folder.glob("trials/*")))
    if stored:
        kept = {str(path.parent.name) for path in store.rglob("weights.safetensors")}
        named = [*front["points"], front["at_target"], *front["controls"].values()]
        assert {point["path"].split("/")[1] for point in named} <= kept


@pytest.mark.slow
def test_weights_at_a_url_are_fetched_when_they_are_needed(tmp_path):
    folder, store = tmp_path / "run", tmp_path / "store"
    code, _, err = finish(start(folder, "--trials", 3, "--artifacts", f"file://{store}"))
    assert code == 0, err
    for weights in folder.glob("trials/*/weights.safetensors"):
        weights.unlink()
    moved = tmp_path / "moved"
    folder.rename(moved)
    done = call("pick", moved, "--max-flops", 0.4, "--out", tmp_path / "picked")
    assert done.returncode == 0, done.stderr
    assert pp.load(tmp_path / "picked") is not None
    shutil.rmtree(store)
    shutil.rmtree(tmp_path / "picked")
    for weights in moved.glob("trials/*/weights.safetensors"):
        weights.unlink()
    done = call("pick", moved, "--max-flops", 0.4, "--out", tmp_path / "picked")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--artifacts" in done.stderr


IN_PYTHON = """
import os
import ray
import torch
import paretoprune as pp
from paretoprune.search.execution.ray_runtime import RAY_ENVIRONMENT

torch.set_num_threads(2)
if RUNNING:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    node = ray.get_runtime_context().get_node_id()
OURS = (*RAY_ENVIRONMENT, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "PYTHONPATH")
before = [os.environ.get(name) for name in OURS]
found = pp.search("digits-resnet", "digits", target_flops=0.4, trials=2, epochs=1, dense_epochs=3,
                  scores="taylor", screening=False, schedules="one-shot", ensemble_images=1024,
                  allocations="global-threshold", out="run", quiet=True)
assert found.points
assert ray.is_initialized() == RUNNING
assert torch.get_num_threads() == 2
assert before == [os.environ.get(name) for name in OURS]
if RUNNING:
    assert ray.get_runtime_context().get_node_id() == node
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
print("as it was")
"""


@pytest.mark.slow
@pytest.mark.parametrize("running", [True, False])
def test_a_ray_that_was_there_is_used_and_left_as_it_was(tmp_path, running):
    """Running, or only imported: it has read its environment before the search changes that."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", f"RUNNING = {running}\n{IN_PYTHON}"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("as it was\n")


KNOCK = "import ray, sys; ray.init(address=sys.argv[1]); print(ray.cluster_resources()['CPU'])"


def knock(address, **environment):
    """Try to join a Ray as another process of this machine would."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", KNOCK, address], env={**plain, **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def addresses_of(process):
    """Where the Ray of a search listens, as its processes were told."""
    words = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that ended meanwhile
            words += child.cmdline()
    return set(re.findall(r"--gcs-address=(\S+:\d+)", " ".join(words)))


def test_without_the_token_nobody_can_join_the_ray_of_a_search(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "--trials", 300, "--workers", 1)
    try:
        wait_for(process, lambda: workers_of(process) and len(addresses_of(process)) == 1)
        (address,) = addresses_of(process)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / ".ray-token")}
        assert knock(address, **token).stdout == "1.0\n"
        refused = knock(address)
        assert refused.returncode != 0
        assert "oken" in refused.stderr
        assert (folder / ".ray-token").stat().st_mode & 0o777 == 0o600
    finally:
        process.terminate()
        finish(process, 60)
    assert_nothing_left(folder, process.pid)


def test_a_missing_cluster_is_one_line(tmp_path):
    wrong = (("127.0.0.1:1", "ray start --head"), ("ray://host:1", "ray job submit"))
    for number, (address, message) in enumerate(wrong):
        begin = time.monotonic()
        done = call("search", *NARROW, "--address", address, "--out", tmp_path / str(number))
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert time.monotonic() - begin < 60


def test_workers_by_default_are_no_more_than_the_cores_that_may_be_used(monkeypatch):
    """joblib counts them: it knows of affinity, a container's quota and a limit of its own."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert local_ray_cpus(SearchSettings()) == 1
    assert local_ray_cpus(SearchSettings(workers=3)) == 3
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT")
    assert local_ray_cpus(SearchSettings()) == joblib.cpu_count()


def test_the_environment_is_restored_after_ray_and_after_errors(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before, token, lent = dict(os.environ), tmp_path / ".ray-token", {}
    with contextlib.suppress(ValueError), patched_environment(ray_environment(None, token)):
        lent |= os.environ
        raise ValueError
    assert (lent["RAY_AUTH_MODE"], lent["RAY_AUTH_TOKEN_PATH"]) == ("token", str(token))
    assert lent["OMP_NUM_THREADS"] == "1"
    assert dict(os.environ) == before
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with patched_environment(ray_environment(None, tmp_path / "other")):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert not (tmp_path / "other").exists()


def test_a_missing_token_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with socket.create_server(("127.0.0.1", 0)) as door:
        address = f"127.0.0.1:{door.getsockname()[1]}"
        for number, words in enumerate((("--address", address), ())):
            done = call("search", *NARROW, *words, "--out", tmp_path / str(number))
            assert done.returncode == 2, done.stderr
            assert "RAY_AUTH_TOKEN_PATH" in done.stderr
            assert done.stderr.count("\n") == 1
