"""Where trials' weights are kept elsewhere: a place of the run's own, before anything is spent."""

from __future__ import annotations

import fsspec
import pytest

from paretoprune.search.artifacts import check_place, store
from paretoprune.spaces.errors import UserError


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return f"{request.param}://{tmp_path}/store"


def files_below(url):
    files, path = fsspec.core.url_to_fs(url)
    return files.find(path)


def test_a_free_place_is_left_as_it_was(url, tmp_path):
    check_place(url, tmp_path / "mine")
    check_place(url, tmp_path / "mine")
    assert not files_below(url)


def test_the_place_of_another_run_of_the_same_name_is_refused(url, tmp_path):
    """Two of one name in one bucket: neither may overwrite the weights of the other."""
    store(f"{url}/mine", "trials/0/weights.safetensors", b"theirs")
    with pytest.raises(UserError, match=r"^--artifacts must have nothing yet .* got files in"):
        check_place(url, tmp_path / "elsewhere" / "mine")
    assert len(files_below(url)) == 1
    check_place(url, tmp_path / "other")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for url in (f"file://{tmp_path}/file", "nosuch://bucket"):
        with pytest.raises(UserError, match=r"^--artifacts must be a URL that can be written"):
            check_place(url, tmp_path / "run")
