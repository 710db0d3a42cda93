"""Every test starts from the same seed and uses one thread; one finished search serves many."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it at its import; processes of tests inherit it

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command_line import call
from doc_blocks import readme_commands
from filelock import FileLock

torch.set_num_threads(1)
FAULTS = Path(__file__).parent / "faults"


@dataclass(frozen=True)
class Finished:
    """A run folder, its front.json, and what the search printed."""

    folder: Path
    front: dict
    stdout: str


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests/faults; keep the tests of a file, which share fixtures, in one process."""
    for item in items:
        if FAULTS in item.path.parents:
            item.add_marker(pytest.mark.faults)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Give networks the same random weights in every run; torch seeds itself by chance."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def run(shared_folder):
    """The README's first search, as it stands; the first process that needs it runs it for all."""
    folder, stdout = shared_folder / "runs" / "first", shared_folder / "stdout.txt"
    with FileLock(shared_folder / "run.lock"):
        if not stdout.exists():
            done = call(*readme_commands()[0], cwd=shared_folder)
            assert done.returncode == 0, done.stdout + done.stderr
            stdout.write_text(done.stdout)
    return Finished(folder, json.loads((folder / "front.json").read_text()), stdout.read_text())
