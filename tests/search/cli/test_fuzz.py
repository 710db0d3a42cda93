"""Any words on the command line, any damage to a config: one line and exit 2."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil

import pytest
from command_line import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretoprune.search.cli.app import app, main
from paretoprune.spaces.errors import UserError

NOWHERE = "/no/such/place"  # every command that gets so far as to look is told so
COMMANDS = sorted(str(command.name) for command in app.registered_commands)
# What is needed so that no command finds anything to do, however right its other words are.
IDLE = {
    "search": ("--weights", NOWHERE),
    "prune": ("--data", f"folder:{NOWHERE}"),
    "train": ("--data", f"folder:{NOWHERE}"),
    "sensitivity": ("--data", f"folder:{NOWHERE}"),
    "transfer": ("--weights", NOWHERE),
    "inspect": ("--model", "nowhere:build"),
}
VALUES = st.one_of(
    st.sampled_from(["0.4", "40%", "50M", "nan", "inf", "-1", "0", "1e999", "", "resnet20", "l2",
                     "digits", "a,b", "0.2,0.8", "taylor", NOWHERE, "--", "-", "\x00", "é",
                     "9" * 400]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
)  # fmt: skip


def options_of(command):
    """The options that a command has."""
    for registered in app.registered_commands:
        if registered.name == command:
            names = registered.callback.__annotations__
            return [f"--{name.replace('_', '-')}" for name in names if name != "return"]
    return []


@st.composite
def lines(draw):
    """A command, some of its options or of others', and values of any kind."""
    command = draw(st.sampled_from(COMMANDS))
    known = [*options_of(command), "--target-flops", "--out", "--nope", "-x"]
    words = [command]
    for _ in range(draw(st.integers(0, 4))):
        words.append(draw(st.sampled_from(known)))
        if draw(st.booleans()):
            words.append(draw(VALUES))
    if draw(st.booleans()):
        words.append(draw(VALUES))
    return [word for word in words if word not in ("--help", "--clear", "--download")]


def ends_well(words, tmp_path):
    """Run the words in this process: the exit code, and what was said."""
    words = [*words, *IDLE.get(words[0], ())]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(tmp_path),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        main(words)
    return exit_.value.code, err.getvalue()


CASES = [150, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]


@pytest.mark.parametrize("cases", CASES)
def test_any_words_are_answered_in_one_line(cases, tmp_path):
    @settings(max_examples=cases, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(lines())
    def run(words):
        code, said = ends_well(words, tmp_path)
        assert code in (0, 2), (words, code, said)
        assert said.count("\n") == (code == 2), (words, said)

    run()


@pytest.mark.slow
def test_any_words_are_answered_in_one_line_by_a_real_process(tmp_path):
    found = []

    @settings(max_examples=50, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(lines().filter(lambda words: not any("\x00" in word for word in words)))
    def run(words):
        done = call(*words, *IDLE.get(words[0], ()), cwd=tmp_path, timeout=60)
        found.append(words)
        assert done.returncode in (0, 2), (words, done.stderr)
        assert done.stderr.count("\n") == (done.returncode == 2), (words, done.stderr)

    run()
    assert len(found) >= 50


HARD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from([math.nan, -1, [], {}, [[1]], "\x00", "../..", 10**30]),
)  # fmt: skip


@pytest.mark.parametrize("cases", CASES)
def test_no_damage_to_a_config_is_more_than_one_line(cases, run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    whole = json.loads((run.folder / "config.json").read_text())
    shutil.copy(run.folder / "journal.log", folder)
    from paretoprune.search.driver.resume import resumed_settings
    from paretoprune.search.storage.run_folder import open_run

    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=cases, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from([(), ("settings",)]), st.data())
    def damage(path, data):
        broken = json.loads(json.dumps(whole))
        inner = broken
        for key in path:
            inner = inner[key]
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(HARD)
        (folder / "config.json").write_text(json.dumps(broken))
        try:
            _, config = open_run(folder)
            resumed_settings(config, {}, model=None, data=None)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1

    damage()
    assert min(outcomes.values()) > 0
