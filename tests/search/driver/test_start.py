"""A search's first seconds: Ray starts while data load, and a mistake in them leaves nothing."""

import os
import subprocess
import sys
import tempfile

import pytest
from command_line import ROOT, call_here
from search_process import assert_nothing_left, finish, start

from paretoprune.search.execution import ray_runtime as local_ray
from paretoprune.spaces.errors import UserError

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
    done = call_here("search", "--target-flops", 0.4, "--data", "cifar10:nowhere", "--out", folder)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    folder.mkdir(exist_ok=True)
    (folder / "mine.txt").write_text("")
    done = call_here("search", "--target-flops", 0.4, "--data", "cifar10:nowhere", "--out", folder)
    assert "empty folder" in done.stderr
    assert (folder / "mine.txt").exists()


STARTS_RAY = """
import sys
from pathlib import Path
from paretoprune.search.execution.ray_runtime import RayRuntime

with RayRuntime(address=None, cpus=1, token=Path(sys.argv[1])) as start:
    print(start.wait())
"""


def test_ray_starts_where_the_temporary_folder_is_too_deep_for_its_sockets(tmp_path):
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", STARTS_RAY, str(tmp_path / "token")],
        env={**os.environ, "TMPDIR": str(deep)},
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/tmp/paretoprune-")
    assert not list(deep.glob("paretoprune-*"))


def test_the_longest_temporary_folder_is_the_one_that_rays_sockets_have_room_in():
    """Ray's own check, on the longest name that it gives to a socket."""
    from ray._private.utils import validate_socket_filepath

    validate_socket_filepath(
        "/" + "x" * (local_ray.MAX_SCRATCH_PATH_LENGTH - 1) + local_ray.SOCKET_PATH_SUFFIX
    )
    with pytest.raises(OSError, match="AF_UNIX path length"):
        validate_socket_filepath(
            "/" + "x" * local_ray.MAX_SCRATCH_PATH_LENGTH + local_ray.SOCKET_PATH_SUFFIX
        )


def test_a_temporary_folder_too_deep_without_another_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("deep" * 20)))
    monkeypatch.setattr(local_ray, "SHORT_PLACE", "/no/such/place")
    with pytest.raises(UserError, match=r"^TMPDIR must be a folder of at most .* set a shorter"):
        local_ray.make_scratch_folder(hosts=True)
