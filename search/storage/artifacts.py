"""Storage of trial weights outside the run folder (`--artifacts URL`), through fsspec.

The weights are at URL/RUN/trials/N/weights.safetensors, where RUN is the name of the run folder
when the search started. All other files stay in the run folder. Readers download the weights into
the run folder when they need them.
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
    """Return the URL with local folders made absolute, so that it is valid in every process."""
    if url is None:
        return None
    if not url.strip():
        raise UserError("--artifacts must be a URL or a folder, got none; leave it out")
    kind, _ = fsspec.core.split_protocol(url)
    if "::" in url or kind not in (None, "file", "local"):
        return url
    return os.path.abspath(local_path_of_url(url))


def local_path_of_url(url: str) -> str:
    """Return the local path of a file URL. Uses a private method of fsspec (checked: 2026.9)."""
    return str(LocalFileSystem._strip_protocol(url))


def artifacts_url(url: str | None, name: str) -> str | None:
    """Return the URL for the weights of the run whose folder has this name."""
    return None if url is None else f"{url.rstrip('/')}/{name}"


def artifacts_url_of_run(root: Path) -> str | None:
    """Return the URL for the weights of an existing run, from its config."""
    try:
        settings = json.loads((root / "config.json").read_text())["settings"]
        return artifacts_url(settings.get("artifacts"), Path(settings["out"]).name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a folder without a search's config holds its own weights


def check_artifacts_url(url: str | None, out: Path) -> None:
    """Raise UserError if the URL is not writable or already holds another run's files."""
    base_url = artifacts_url(url, out.resolve().name)
    if base_url is None:
        return
    try:
        files, path = fsspec.core.url_to_fs(base_url)
        taken = bool(files.find(path))
        upload_file(base_url, "probe", b"paretoprune")
        files.rm(f"{path}/probe")
    except Exception as error:  # each file system raises its own errors
        raise UserError(
            f"--artifacts must be a URL that can be written, got {url} ({error}); "
            "write s3://BUCKET/FOLDER or a folder, and install the fsspec package for its protocol"
        ) from None
    if taken:
        raise UserError(
            f"--artifacts must hold no files under the run's name, got files in {base_url}; "
            "give --out another name, or delete the files if no run needs them"
        )


def upload_file(base_url: str, name: str, content: bytes) -> None:
    """Write one file below the URL."""
    with fsspec.open(f"{base_url}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)


def fetch_trial_folder(root: Path, path: str) -> Path:
    """Return the folder of a trial; download its weights first if they are not in it."""
    folder, base_url = root / path, artifacts_url_of_run(root)
    if base_url is not None and not (folder / TRIAL_WEIGHTS_FILE).exists():
        write_bytes_atomic(folder / TRIAL_WEIGHTS_FILE, download_weights(base_url, path))
    return folder


def download_weights(base_url: str, path: str) -> bytes:
    """Return the content of a trial's weights file."""
    url = f"{base_url}/{path}/{TRIAL_WEIGHTS_FILE}"
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
            return content
    except Exception as error:
        raise UserError(
            f"weights of this run must be readable at the URL of --artifacts, got {error} for "
            f"{url}; check the network and the credentials"
        ) from None


def delete_uploaded_weights(root: Path, paths: Collection[str]) -> None:
    """Delete the uploaded weights of these trials."""
    base_url = artifacts_url_of_run(root)
    if base_url is None:
        return
    files, top = fsspec.core.url_to_fs(base_url)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.rm(f"{top}/{path}/{TRIAL_WEIGHTS_FILE}")
