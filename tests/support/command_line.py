"""The command line: as a user calls it, in a process of its own, or in the process of the test."""

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
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


def call_here(*words, cwd=ROOT):
    """Run a command in this process, which saves the imports; the result is that of `call`."""
    from paretoprune.search.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())


def in_process(capsys, *words):
    """A command in this process: its exit code and what it printed."""
    from paretoprune.search.cli.app import main

    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return exit_.value.code, capsys.readouterr()
