"""The command line as a user calls it: in a process of its own, in a pipe."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(*words):
    return [sys.executable, "-m", "paretoprune.search.cli", *map(str, words)]


def call(*words, cwd=ROOT, timeout=300):
    """Run a command and keep what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, timeout=timeout, env=environment
    )
