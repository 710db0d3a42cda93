"""Every command that the README shows runs as it stands; .ci/run runs the first two."""

import re
import shutil

import pytest
from command_line import ROOT, call
from doc_blocks import readme_commands

pytestmark = pytest.mark.xdist_group("run")  # with the other tests of the README's search


def test_the_readmes_terminal_commands_run_in_their_order(run, tmp_path):
    """The first one is the search whose folder many tests read."""
    search, *rest = readme_commands()
    assert [words[0] for words in rest] == [
        "front", "report", "pick", "finetune", "export", "inspect", "prune"
    ]  # fmt: skip
    assert search[0] == "search"
    assert search[-2:] == ["--out", "runs/first"]
    shutil.copytree(run.folder, tmp_path / "runs/first")
    for words in rest:
        done = call(*words, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout
    assert (tmp_path / "picked/model.safetensors").exists()


def test_the_readme_is_of_the_length_that_people_read():
    assert 80 <= len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_two_first_commands_stand_where_ci_reads_them():
    text = (ROOT / "README.md").read_text()
    for mark, words in (
        ("demo", "search.py --target-flops 0.4"),
        ("test", "pytest -n 2 --dist loadgroup -m 'not slow and not faults'"),
    ):
        line = re.search(rf"<!-- {mark} -->\n    (.*)\n", text).group(1)
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")
        assert line.endswith(words)
