"""A finished search that several tests look at."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from door import call


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
