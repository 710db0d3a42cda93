"""A search's first seconds: a mistake is refused before Ray starts, and leaves nothing."""

import os
import subprocess
import sys
import tempfile

import pytest
from command_line import ROOT, call_here
from search_process import assert_nothing_left, finish, start

from paretoprune.search.execution import ray_runtime
from paretoprune.spaces.errors import UserError

WITHOUT_RAY = """
import sys
from paretoprune.search.cli.app import main

try:
    main(["search", "--target-flops", "0.4", *sys.argv[1:]])
finally:
    print("ray imported:", "ray" in sys.modules)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "nosuch"), "model must be one of"),
        (("--model", "lenet5"), "lenet5"),  # it does not take the images of digits
        (("--data", "folder:nowhere"), "nowhere"),
        (("--weights", "README.md"), "README.md"),
        (("--target-params", "0.0001"), "--target-params must be at least"),
        (("--scores", "nosuch"), "--scores"),
        (("--plugin", "nowhere.py"), "--plugin must be a Python file"),
    ],
)
def test_a_mistyped_option_is_refused_before_ray_is_even_imported(tmp_path, words, said):
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *words, "--out", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout.endswith("ray imported: False\n")
    assert not folder.exists()


def test_a_request_that_no_worker_fits_leaves_nothing(tmp_path):
    """Only Ray knows the GPUs: this mistake shows after its start, before any training."""
    folder = tmp_path / "run"
    process = start(folder, "--trials", 2, "--gpus-per-trial", 99)
    code, out, err = finish(process)
    assert code == 2, err
    assert "lower --cpus-per-trial or --gpus-per-trial" in err
    assert err.count("\n") == 1, err
    assert "training the dense network" not in out
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

with RayRuntime(address=None, cpus=1, token=Path(sys.argv[1])) as runtime:
    print(runtime.start())
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
        "/" + "x" * (ray_runtime.MAX_SCRATCH_PATH_LENGTH - 1) + ray_runtime.SOCKET_PATH_SUFFIX
    )
    with pytest.raises(OSError, match="AF_UNIX path length"):
        validate_socket_filepath(
            "/" + "x" * ray_runtime.MAX_SCRATCH_PATH_LENGTH + ray_runtime.SOCKET_PATH_SUFFIX
        )


def test_a_temporary_folder_too_deep_without_another_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("deep" * 20)))
    monkeypatch.setattr(ray_runtime, "SHORT_TEMP_FOLDER", "/no/such/place")
    with pytest.raises(UserError, match=r"^TMPDIR must be a folder of at most .* set a shorter"):
        ray_runtime.make_scratch_folder(hosts=True)
