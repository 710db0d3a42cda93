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
from ...spaces.io.atomic_write import write_bytes
from ...trainers.pruning.serialization import WEIGHTS


def lasting(url: str | None) -> str | None:
    """The URL as every process reads it, wherever it runs: folders become absolute."""
    if url is None:
        return None
    if not url.strip():
        raise UserError("--artifacts must be a URL or a folder, got none; leave it out")
    kind, _ = fsspec.core.split_protocol(url)
    if "::" in url or kind not in (None, "file", "local"):
        return url
    return os.path.abspath(str(LocalFileSystem._strip_protocol(url)))


def place_of(url: str | None, name: str) -> str | None:
    """Where the weights of the run lie whose folder had this name."""
    return None if url is None else f"{url.rstrip('/')}/{name}"


def place_in(root: Path) -> str | None:
    """The same, by the run's config."""
    try:
        settings = json.loads((root / "config.json").read_text())["settings"]
        return place_of(settings.get("artifacts"), Path(settings["out"]).name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a folder without a search's config keeps its weights itself


def check_place(url: str | None, out: Path) -> None:
    """Refuse a place that cannot be written or is another run's, before anything is spent."""
    place = place_of(url, out.resolve().name)
    if place is None:
        return
    try:
        files, path = fsspec.core.url_to_fs(place)
        taken = bool(files.find(path))
        store(place, "probe", b"paretoprune")
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


def store(place: str, name: str, content: bytes) -> None:
    """Write one file."""
    with fsspec.open(f"{place}/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)


def with_weights(root: Path, path: str) -> Path:
    """The folder of a trial, with its weights in it."""
    folder, place = root / path, place_in(root)
    if place is not None and not (folder / WEIGHTS).exists():
        write_bytes(folder / WEIGHTS, fetched(place, path))
    return folder


def fetched(place: str, path: str) -> bytes:
    """The weights of a trial."""
    url = f"{place}/{path}/{WEIGHTS}"
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
            return content
    except Exception as error:
        raise UserError(
            f"weights of this run must be where --artifacts put them, got {error} for {url}; "
            "see that it can be read from here"
        ) from None


def drop_stored(root: Path, paths: Collection[str]) -> None:
    """Delete the weights of these trials."""
    place = place_in(root)
    if place is None:
        return
    files, top = fsspec.core.url_to_fs(place)
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.rm(f"{top}/{path}/{WEIGHTS}")
