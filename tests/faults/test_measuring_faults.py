"""A network that kills every worker: the search ends in one line that says how to resume."""

from search_process import assert_nothing_left, finish, start

DEADLY = """
import os
import signal
import sys

from torch import nn


class Deadly(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 10)

    def forward(self, x):
        if "default_worker" in sys.argv[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.last(self.second(self.first(x).relu()).relu().mean((2, 3)))


def build():
    return Deadly()
"""


def test_measurements_that_kill_every_worker_end_the_search_in_one_line(tmp_path):
    (tmp_path / "deadly.py").write_text(DEADLY)
    folder = tmp_path / "run"
    words = ("--model", "deadly:build", "--workers", 1, "--trials", 2)
    process = start(folder, *words, path=(tmp_path,))
    code, out, err = finish(process)
    assert code == 1, out + err
    assert "Traceback" not in out + err
    said = err.strip().splitlines()[-1]
    assert "was killed, often for lack of memory (WorkerCrashedError)" in said
    assert f"then run paretoprune search --resume {folder}" in said
    assert_nothing_left(folder, process.pid)
