"""The command line as a user calls it: in a process of its own, in a pipe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def command(*words):
    return [sys.executable, "-m", "paretoprune", *map(str, words)]


def call(*words, cwd=ROOT, timeout=300):
    """Run a command and keep what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, timeout=timeout, env=environment
    )


def in_process(capsys, *words):
    """A command in this process: its exit code and what it printed."""
    from paretoprune.search.cli.app import main

    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return exit_.value.code, capsys.readouterr()
