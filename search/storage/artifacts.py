"""Trials' weights kept elsewhere (`--artifacts URL`): any file system that fsspec knows.

They lie at URL/RUN/trials/N/weights.safetensors, RUN being the name that the run folder had at its
start. All else stays in the run folder; who needs weights has them fetched into it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes_atomic
from ...trainers.pruning.serialization import TRIAL_WEIGHTS_FILE


def absolute_url(url: str | None) -> str | None:
    """The URL as every process reads it, wherever it runs: folders become absolute."""
    if url is None:
        return None
    if not url.strip():
        raise UserError("--artifacts must be a URL or a folder, got none; leave it out")
    kind, _ = fsspec.core.split_protocol(url)
    if "::" in url or kind not in (None, "file", "local"):
        return url
    return os.path.abspath(str(LocalFileSystem._strip_protocol(url)))


def artifacts_url(url: str | None, name: str) -> str | None:
    """Where the weights of the run lie whose folder had this name."""
    return None if url is None else f"{url.rstrip('/')}/{name}"


def artifacts_url_of_run(root: Path) -> str | None:
    """The same, by the run's config."""
    try:
        settings = json.loads((root / "config.json").read_text())["settings"]
        return artifacts_url(settings.get("artifacts"), Path(settings["out"]).name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a folder without a search's config keeps its weights itself


def check_artifacts_url(url: str | None, out: Path) -> None:
    """Refuse a place that cannot be written or is another run's, before anything is spent."""
    place = artifacts_url(url, out.resolve().name)
    if place is None:
        return
    try:
        files, path = fsspec.core.url_to_fs(place)
        taken = bool(files.find(path))
        upload_file(place, "probe", b"paretoprune")
        files.rm(f"{path}/probe")
    except Exception as error:  # each file system has errors of its own
        raise UserError(
            f"--artifacts must be a URL that can be written, got {url} ({error}); "
            "write s3://BUCKET/FOLDER or a folder, and install the fsspec package of its kind"
        ) from None
    if taken:
        raise UserError(
            f"--artifacts must have nothing yet at the run's name, got files in {place}; "
            "give --out another name, or delete them if no run needs them"
        )


def upload_file(base_url: str, name: str, content: bytes) -> None:
    """Write one file."""
    with fsspec.open(f"{base_url}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)


def fetch_trial_folder(root: Path, path: str) -> Path:
    """The folder of a trial, with its weights in it."""
    folder, place = root / path, artifacts_url_of_run(root)
    if place is not None and not (folder / TRIAL_WEIGHTS_FILE).exists():
        write_bytes_atomic(folder / TRIAL_WEIGHTS_FILE, download_weights(place, path))
    return folder


def download_weights(base_url: str, path: str) -> bytes:
    """The weights of a trial."""
    url = f"{base_url}/{path}/{TRIAL_WEIGHTS_FILE}"
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
            return content
    except Exception as error:
        raise UserError(
            f"weights of this run must be where --artifacts put them, got {error} for {url}; "
            "see that it can be read from here"
        ) from None


def delete_uploaded_weights(root: Path, paths: Collection[str]) -> None:
    """Delete the weights of these trials."""
    place = artifacts_url_of_run(root)
    if place is None:
        return
    files, top = fsspec.core.url_to_fs(place)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.rm(f"{top}/{path}/{TRIAL_WEIGHTS_FILE}")
