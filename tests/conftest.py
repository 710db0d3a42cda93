"""A finished search that several tests look at, and the command line as a user calls it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def command(*words):
    return [sys.executable, "-m", "paretoprune.search.cli", *map(str, words)]


def call(*words, cwd=ROOT, timeout=300):
    """Run the command line in a process of its own, in a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, timeout=timeout, env=environment
    )


@dataclass(frozen=True)
class Finished:
    """A run folder, its front.json, and what the search printed."""

    folder: Path
    front: dict
    stdout: str


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The default job, with fewer trials."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    done = call("search", "--target-flops", "0.4", "--trials", 8, "--workers", 2, "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Finished(folder, json.loads((folder / "front.json").read_text()), done.stdout)
