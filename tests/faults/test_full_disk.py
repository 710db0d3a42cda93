"""The disk is full: the search ends in one line, its journal intact, and can be resumed."""

import resource
import shutil
import subprocess

import pytest
from search_process import (
    assert_nothing_left,
    assert_settled,
    completed_jobs,
    finish,
    settled,
    start,
    wait_for,
    workers_of,
)

TRIALS = 8


def limit_files(pids, size):
    """From now on no file of these processes grows beyond so many bytes."""
    for pid in pids:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def assert_told(folder, process):
    """It ended in one line that says how to resume, and left only the run."""
    code, out, err = finish(process, 120)
    assert code == 1, err
    assert "Traceback" not in out + err
    assert err.count("\n") == 1
    assert "the disk is full" in err
    assert f"paretoprune search --resume {folder}" in err
    assert_nothing_left(folder, process.pid)


def assert_goes_on(folder, before):
    code, _, err = finish(start(folder))
    assert code == 0, err
    assert set(before) <= set(completed_jobs(folder))
    assert_settled(folder, TRIALS)


def test_a_journal_that_cannot_grow_ends_the_search_and_keeps_what_it_has(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "--trials", TRIALS, "--workers", 2)
    wait_for(process, lambda: settled(folder) >= 2)
    size = (folder / "journal.log").stat().st_size
    limit_files([process.pid], size + 300)  # the next record is torn in its middle
    assert_told(folder, process)
    assert (folder / "journal.log").stat().st_size <= size + 300
    assert settled(folder) >= 2
    code, _, err = finish(start(folder))
    assert code == 0, err
    assert_settled(folder, TRIALS)


@pytest.mark.slow
def test_a_worker_that_cannot_write_ends_the_search_and_fails_no_trial(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "--trials", TRIALS, "--workers", 1)
    wait_for(process, lambda: settled(folder) >= 2)
    limit_files([worker.pid for worker in workers_of(process)], 20_000)
    assert_told(folder, process)
    before = completed_jobs(folder)
    assert_goes_on(folder, before)


def mounted(path):
    """A file system of one MiB, where the system lets us have one."""
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(path)]
    return shutil.which("mount") and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_file_system_of_one_mebibyte_is_filled_and_nothing_breaks(tmp_path):
    small = tmp_path / "small"
    if not mounted(small):
        pytest.skip("only root may mount a file system")
    try:
        folder = small / "run"
        process = start(folder, "--trials", TRIALS, "--workers", 1)
        wait_for(process, lambda: settled(folder) >= 2)
        free = shutil.disk_usage(small).free
        (small / "ballast").write_bytes(bytes(free - 4096))
        assert_told(folder, process)
        before = completed_jobs(folder)
        (small / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert_goes_on(folder, before)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
