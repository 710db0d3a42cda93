"""A search's first seconds: Ray starts while data load, and a mistake in them leaves nothing."""

from door import call
from search_process import assert_nothing_left, finish, start

WAITING = """
import time
from pathlib import Path

import psutil


def data():
    mine, end = psutil.Process(), time.monotonic() + 60
    while time.monotonic() < end:
        names = {child.name() for child in mine.children(recursive=True)}
        if "raylet" in names:
            Path(__file__).with_name("seen").touch()
            break
        time.sleep(0.1)
    return "no data"
"""


def test_ray_starts_while_data_load_and_a_mistake_in_them_leaves_nothing(tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    folder = tmp_path / "run"
    process = start(folder, "--data", "waiting:data", "--trials", 2, path=(tmp_path,))
    code, _, err = finish(process)
    assert (tmp_path / "seen").exists()
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert not folder.exists()
    assert_nothing_left(folder, process.pid)


def test_a_start_that_was_killed_before_its_config_is_no_obstacle(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", ".ray-token", "ray.log"):
        (folder / name).write_text("")
    done = call("search", "--target-flops", 0.4, "--data", "cifar10:nowhere", "--out", folder)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    folder.mkdir(exist_ok=True)
    (folder / "mine.txt").write_text("")
    done = call("search", "--target-flops", 0.4, "--data", "cifar10:nowhere", "--out", folder)
    assert "empty folder" in done.stderr
    assert (folder / "mine.txt").exists()
