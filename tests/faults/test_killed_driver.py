"""A driver that is killed, stopped or refused: nothing lost, nothing run twice, nothing left."""

import json
import os
import random
import signal
import time

import pytest
from command_line import call
from search_process import (
    assert_nothing_left,
    assert_settled,
    completed_jobs,
    finish,
    settled,
    start,
    studies,
    wait_for,
)


def kill_at(folder, process, goal, rng):
    """kill -9 the driver and nothing else: at so many settled trials, or during its start-up."""
    if goal:
        wait_for(process, lambda: settled(folder) >= goal)
    else:
        wait_for(process, (folder / "config.json").exists)
        time.sleep(rng.uniform(0, 6))  # from loading data to the first trials
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def assert_survives(folder, trials, goals, rng):
    """Kill a search at each of the goals, go on with it, and compare the trials each time."""
    finished = []
    for goal in goals:
        process = start(folder, "--trials", trials, "--workers", 2)
        kill_at(folder, process, goal, rng)
        if (folder / "journal.log").exists():
            before = completed_jobs(folder) if settled(folder) else []
            assert set(finished) <= set(before)
            finished = before
        assert_nothing_left(folder, process.pid)
    code, _, err = finish(start(folder), 600)
    assert code == 0, err
    after = completed_jobs(folder)
    assert set(finished) <= set(after)
    assert_settled(folder, trials)
    planned = [
        json.dumps([t.user_attrs["job"]["policy"], t.user_attrs["job"]["target"]])
        for t in studies(folder)[0].trials
        if t.user_attrs.get("job") and t.user_attrs["job"]["attempt"] == 0
    ]
    assert len(set(planned)) == len(planned)
    return after


def test_five_kills_of_the_driver_lose_nothing_and_run_nothing_twice(tmp_path):
    folder, rng = tmp_path / "run", random.Random(5)
    after = assert_survives(folder, 10, [0, 2, 0, 6, 0], rng)
    code, _, err = finish(start(folder))
    assert code == 0, err
    assert completed_jobs(folder) == after


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_kills_of_a_long_search_lose_nothing_and_run_nothing_twice(tmp_path):
    rng = random.Random(30)
    marks = sorted(rng.sample(range(1, 60), 15))
    goals = [goal for mark in marks for goal in (mark, 0)]
    assert_survives(tmp_path / "run", 60, goals, rng)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_stopped_search_shows_its_front_and_leaves_nothing_behind(tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder, "--trials", 200, "--workers", 2)
    wait_for(process, lambda: settled(folder) >= 4)
    os.kill(process.pid, number)
    ended, out, err = finish(process, 60)
    assert ended == code, err
    assert "Traceback" not in out + err
    assert "Front" in out
    assert f"paretoprune search --resume {folder}" in out.replace("\n", " ")
    assert json.loads((folder / "front.json").read_text())["points"]
    assert_nothing_left(folder, process.pid)


def test_a_stop_before_the_first_trial_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(process, (folder / "config.json").exists)
    second = call("search", "--resume", folder)
    assert second.returncode == 2
    assert "one search at a time" in second.stderr
    assert second.stderr.count("\n") == 1
    os.kill(process.pid, signal.SIGINT)
    code, out, err = finish(process, 60)
    assert code == 130, err
    assert "Traceback" not in out + err
    assert "--resume" in out
    assert_nothing_left(folder, process.pid)
