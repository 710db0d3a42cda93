"""Every command that the README shows runs as it stands; .ci/run runs the first two."""

import re
import shlex

from command_line import ROOT, call


def terminal_lines():
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- terminal -->\n((?:    .*\n)+)", text).group(1)
    return [shlex.split(line) for line in block.splitlines()]


def test_the_readmes_terminal_commands_run_in_their_order(tmp_path):
    lines = terminal_lines()
    assert [words[:2] for words in lines] == [
        ["paretoprune", name]
        for name in ("search", "front", "report", "pick", "finetune", "export", "inspect", "prune")
    ]
    for words in lines:
        done = call(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout
    assert (tmp_path / "picked/model.safetensors").exists()


def test_the_readme_is_of_the_length_that_people_read():
    assert 80 <= len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_two_first_commands_stand_where_ci_reads_them():
    text = (ROOT / "README.md").read_text()
    for mark, words in (
        ("demo", "search.py --target-flops 0.4"),
        ("test", "pytest -m 'not slow'"),
    ):
        line = re.search(rf"<!-- {mark} -->\n    (.*)\n", text).group(1)
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")
        assert line.endswith(words)
