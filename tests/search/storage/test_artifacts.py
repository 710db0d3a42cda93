"""Artifact URLs: one folder for each run, valid in every process."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
from command_line import call, call_here
from search_process import NARROW

from paretoprune.search.storage.artifacts import (
    absolute_url,
    check_artifacts_url,
    local_path_of_url,
    upload_file,
)
from paretoprune.spaces.errors import UserError


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return f"{request.param}://{tmp_path}/store"


def files_below(url):
    files, path = fsspec.core.url_to_fs(url)
    return files.find(path)


def test_the_check_leaves_no_files_at_the_url(url, tmp_path):
    check_artifacts_url(url, tmp_path / "mine")
    check_artifacts_url(url, tmp_path / "mine")
    assert not files_below(url)


def test_a_url_with_files_under_the_runs_name_is_refused(url, tmp_path):
    """Two runs with one name must not overwrite each other's weights."""
    upload_file(f"{url}/mine", "trials/0/weights.safetensors", b"theirs")
    with pytest.raises(UserError, match=r"^artifacts must hold no files .* got files in"):
        check_artifacts_url(url, tmp_path / "elsewhere" / "mine")
    assert len(files_below(url)) == 1
    check_artifacts_url(url, tmp_path / "other")


def test_a_url_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for url in (f"file://{tmp_path}/file", "nosuch://bucket"):
        with pytest.raises(UserError, match=r"^artifacts must be a URL that can be written"):
            check_artifacts_url(url, tmp_path / "run")


def test_a_local_folder_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for written in ("store", "./store", "store/", "file://store", f"file://{tmp_path}/store"):
        assert absolute_url(written) == f"{tmp_path}/store"
    assert absolute_url("~/store") == "/home/me/store"
    assert absolute_url("../store") == f"{tmp_path.parent}/store"
    for url in ("s3://bucket/store", "memory://store", "simplecache::s3://bucket/store", None):
        assert absolute_url(url) == url
    with pytest.raises(UserError, match=r"^artifacts must be a URL or a folder, got none"):
        absolute_url("")


def test_relative_folders_are_valid_for_workers_and_other_working_folders(tmp_path):
    """Workers run in Ray's folders, and `pick` anywhere."""
    folder = tmp_path / "mine"
    folder.mkdir()
    words = ("--trials", 1, "--workers", 1, "--out", ".", "--artifacts", "../store")
    done = call("search", *NARROW, *words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "store" / "mine" / "trials").glob("*/weights.safetensors"))
    assert Path(json.loads((folder / "config.json").read_text())["settings"]["out"]) == folder
    for fetched in folder.glob("trials/*/weights.safetensors"):
        fetched.unlink()
    picked = call_here("pick", "mine", "--knee", "--out", "picked", cwd=tmp_path)
    assert picked.returncode == 0, picked.stderr
    assert (tmp_path / "picked" / "model.safetensors").exists()


def test_the_private_method_that_reads_file_urls_is_there_in_this_fsspec():
    """Checked with fsspec 2026.9: `LocalFileSystem._strip_protocol` is not public."""
    assert local_path_of_url("file:///some/store") == "/some/store", fsspec.__version__
    assert local_path_of_url("/some/store/") == "/some/store", fsspec.__version__
