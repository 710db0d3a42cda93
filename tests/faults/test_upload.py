"""What `ray job submit --working-dir .` takes along: the program whole, and nothing besides."""

import json
import os
import shutil
import subprocess
import sys

from command_line import ROOT

SUBMITTED = """
import json, os, subprocess, sys
import ray

ray.init("local", num_cpus=1, include_dashboard=False, runtime_env={"working_dir": sys.argv[1]})


@ray.remote
def look():
    words = [sys.executable, "search.py", "--target-flops", "2"]
    done = subprocess.run(words, capture_output=True, text=True)
    files = [os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names]
    return done.returncode, done.stderr, files


print(json.dumps(ray.get(look.remote())))
"""


def test_the_program_arrives_and_environments_and_runs_stay(tmp_path):
    tree = tmp_path / "tree"
    left = shutil.ignore_patterns(".git", ".venv", "docs", "*cache*")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=left)
    planted = [".venv/lib/module.py", "runs/a/journal.log", "search/__pycache__/x.pyc"]
    for name in (*planted, "mine.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("here = True\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SUBMITTED, tree], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, said, files = json.loads(done.stdout.splitlines()[-1])
    arrived = {os.path.normpath(name) for name in files}
    assert not arrived & set(planted)
    assert {"mine.py", "search.py", "search/cli/app.py", "paretoprune/__init__.py"} <= arrived
    assert code == 2, said
    assert said.startswith("--target-flops must be in (0, 1]")
