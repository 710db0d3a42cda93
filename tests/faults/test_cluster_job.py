"""A search sent to a cluster with `ray job submit`: two nodes and a token, one node dies."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from command_line import ROOT
from search_process import NARROW, assert_settled, completed_jobs, settled, wait_for

RAY = Path(sys.executable).with_name("ray")
PLUGIN = """
import paretoprune as pp

@pp.score("mine")
def mine(network):
    return network.per_atom(lambda weight: weight.abs().flatten(1).amax(1))
"""


@pytest.fixture
def place():
    """A short folder, since sockets lie below it; what writes its logs there is ended."""
    folder = Path(tempfile.mkdtemp(prefix="job-"))
    yield folder
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # Not by its command line: Ray's agents rename themselves, and spin once it is gone.
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def processes(*words):
    """The processes whose command line has all these words in it."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if all(word in " ".join(process.info["cmdline"] or ()) for word in words)
    ]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.socket()) for _ in range(count)]
        for door in doors:
            door.bind(("127.0.0.1", 0))
        return [door.getsockname()[1] for door in doors]


@pytest.mark.slow
def test_a_submitted_search_outlives_a_node_and_loses_nothing(place, tmp_path):
    pytest.importorskip("aiohttp_cors", reason="jobs need pip install -e '.[cluster]'")
    (place / "token").write_text(secrets.token_hex(32))
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"}
    protected = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place / "token")}
    path = os.pathsep.join([str(RAY.parent), os.environ["PATH"]])  # a job's `python` is ours
    environment = {**plain, **protected, "PATH": path}
    port, door = free_ports(2)

    def ray(*words):
        return subprocess.run(
            [RAY, *map(str, words)], env=environment, capture_output=True, text=True, timeout=120
        )

    def start(node, cpus, *words):
        """A node with a folder of its own, as on a machine of its own."""
        done = ray("start", "--temp-dir", place / node, "--num-cpus", cpus, *words)
        assert done.returncode == 0, done.stderr

    head = ("--include-dashboard", "true", "--dashboard-port", door)
    start("head", 0, "--head", "--port", port, *head)
    for node in ("one", "two"):
        start(node, 1, "--address", f"127.0.0.1:{port}")
    submit = ("job", "submit", "--address", f"http://127.0.0.1:{door}")
    end = time.monotonic() + 120
    while ray(*submit, "--", "true").returncode and time.monotonic() < end:
        time.sleep(1)  # the head takes jobs a while after it has started
    left = shutil.ignore_patterns(".git", ".venv", "docs", "*cache*")
    shutil.copytree(ROOT, tmp_path / "tree", symlinks=True, ignore=left)
    (tmp_path / "tree" / "mine.py").write_text(PLUGIN)
    run = tmp_path / "run"
    words = (*NARROW, "--address", "auto", "--trials", 10, "--no-halving", "--out", run)
    words += ("--plugin", "mine.py", "--scores", "taylor,mine")
    process = subprocess.Popen(
        [RAY, *submit, "--working-dir", ".", "--", "python", "search.py", *map(str, words)],
        cwd=tmp_path / "tree", env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_for(process, lambda: settled(run) >= 4)
    before = completed_jobs(run)
    (raylet,) = processes("raylet/raylet", str(place / "two"))
    raylet.kill()
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "running trials on 2 workers" in said
    assert set(before) <= set(completed_jobs(run))
    assert_settled(run, 10)
    assert b'"score":"mine"' in (run / "journal.log").read_bytes().replace(b" ", b"")
