"""Every test begins at the same seed; a finished search that several tests look at."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command_line import call


@dataclass(frozen=True)
class Finished:
    """A run folder, its front.json, and what the search printed."""

    folder: Path
    front: dict
    stdout: str


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Networks of random weights are the same in every run (torch seeds itself by chance)."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The default job, with fewer trials."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    done = call("search", "--target-flops", "0.4", "--trials", 8, "--workers", 2, "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Finished(folder, json.loads((folder / "front.json").read_text()), done.stdout)
