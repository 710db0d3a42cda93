"""Output of workers: in the run folder at once, and never on the screen."""

import os
import subprocess
import sys

import pytest
from command_line import ROOT
from search_process import assert_nothing_left, start, wait_for

TALKING = """
import os
import torch
from torch import nn


class Talking(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x):
        if self.first.out_channels < 8 and self.training:
            print("from Python")
            os.write(2, b"from below\\n")
        return self.last(self.first(x).relu().mean((2, 3)))


def build():
    torch.manual_seed(0)
    return Talking()
"""


def said_in(folder):
    return "".join(path.read_text() for path in folder.glob("logs/worker-*.log"))


def test_what_workers_print_is_in_the_run_folder_when_the_driver_is_killed(tmp_path):
    (tmp_path / "talking.py").write_text(TALKING)
    folder = tmp_path / "run"
    words = ("--model", "talking:build", "--workers", 1, "--trials", 300)
    process = start(folder, *words, path=(tmp_path,))
    try:
        wait_for(process, lambda: "from below" in said_in(folder))
    finally:
        process.kill()
    out, err = process.communicate()
    assert_nothing_left(folder, process.pid)
    said = said_in(folder)
    assert "measuring scores" in said  # a call
    assert "control uniform" in said or "trial 0" in said
    assert "from Python" in said
    assert "from below" not in out + err


IN_PYTHON = """
import ray
import paretoprune as pp

ray.init("local", num_cpus=1, include_dashboard=False)
for run in ("one", "two"):
    pp.search("talking:build", "digits", target_flops=0.5, trials=1, epochs=0.1, dense_epochs=0.1,
              scores="taylor", screening=False, schedules="one-shot", ensemble_images=1024,
              allocations="global-threshold", out=run, quiet=True)
ray.get(ray.remote(lambda: print("after the searches", flush=True)).remote())
"""


@pytest.mark.slow
def test_runs_on_one_ray_have_logs_of_their_own(tmp_path):
    """And a worker that is given back prints where it printed before."""
    (tmp_path / "talking.py").write_text(TALKING)
    paths = os.pathsep.join((str(ROOT), str(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", IN_PYTHON], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for run in ("one", "two"):
        assert "from below" in said_in(tmp_path / run)
        assert "after" not in said_in(tmp_path / run)
    assert "from below" not in done.stdout + done.stderr
