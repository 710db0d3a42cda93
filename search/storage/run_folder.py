"""The run folder: its paths, its lock, its config, and how to create, open and clean it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.io.bounded_read import read_json

STARTUP_FILES = (".lock", "ray.log", ".ray-token")  # files that exist before config.json does
CONFIG_SCHEMA = 1
CONFIG_FIELDS = {
    "settings": dict,
    "model_given": bool,
    "data_given": bool,
    "data_sha256": str,
    "plugins": list,
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run's files."""

    root: Path

    @property
    def config(self) -> Path:
        """Settings of the run, and choices that its driver makes once."""
        return self.root / "config.json"

    @property
    def journal(self) -> Path:
        """Optuna's journal, which holds all trials."""
        return self.root / "journal.log"

    @property
    def dense(self) -> Path:
        """Weights of the dense network."""
        return self.root / "dense.safetensors"

    @property
    def dense_checkpoint(self) -> Path:
        """Checkpoint of the dense network's training; deleted when the training ends."""
        return self.root / "dense.checkpoint"

    @property
    def measurements(self) -> Path:
        """Folder of the measurements."""
        return self.root / "evidence"

    @property
    def space(self) -> Path:
        """Names and widths of the network's groups, and the versions of the software."""
        return self.root / "space.json"

    @property
    def front(self) -> Path:
        """The front, derived from the journal."""
        return self.root / "front.json"

    @property
    def report(self) -> Path:
        """The report page, derived from the journal."""
        return self.root / "report.html"

    @property
    def log(self) -> Path:
        """Output of Ray's own processes."""
        return self.root / "ray.log"

    @property
    def token(self) -> Path:
        """Authentication token of the local Ray, mode 600."""
        return self.root / ".ray-token"

    def trial_folder(self, name: int | str) -> Path:
        """The folder of a trial, by number, or of a control, by name."""
        return self.root / "trials" / str(name)


def default_run_folder(data: str, model: str) -> Path:
    """Return an unused path under runs/, named by data, model and time."""
    words = [part.replace(":", "-").replace("/", "-").strip("-.") for part in (data, model)]
    stem = "-".join(word[-24:] for word in words if word)
    root = Path("runs") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    number, path = 1, root
    while path.exists():
        number, path = number + 1, Path(f"{root}-{number}")
    return path


def create_run_folder(path: Path) -> RunFolder:
    """Create an empty run folder. Existing files are never overwritten."""
    check_local_path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        busy = any(
            entry.name not in STARTUP_FILES for entry in path.iterdir()
        )  # a driver killed at its start leaves only these
    except OSError as error:
        raise UserError(
            f"--out must be a folder that can be written, got {path} ({error.strerror}); "
            "name another folder"
        ) from None
    if busy:
        remedy = "name a new one"
        if (path / "config.json").exists():
            remedy = f"continue it with --resume {path}, or name a new one"
        raise UserError(f"--out must be an empty folder, got {path}; {remedy}")
    if not os.access(path, os.W_OK):
        raise UserError(f"--out must be writable, got {path}; name another folder")
    return RunFolder(path)


def check_local_path(path: Path) -> None:
    """Raise UserError for a URL, which `Path` would turn into a local folder `s3:`."""
    if path.parts and path.parts[0].endswith(":"):
        url = str(path).replace(":/", "://", 1)
        raise UserError(
            f"--out must be a local folder, got {url}; to store the trials' weights at a URL, "
            "pass --artifacts"
        )


def not_there(path: Path) -> tuple[Path, ...]:
    """Return the folders that creating this one would create, innermost first."""
    return tuple(one for one in (path, *path.parents) if not os.path.lexists(one))


@contextmanager
def remove_if_unstarted(run: RunFolder, made: tuple[Path, ...] = ()) -> Iterator[None]:
    """Remove the files of a run that raises UserError before its first trial or has no config.

    Args:
        run: A run folder that was empty before. The caller holds its lock.
        made: The folders that were created for it; they are removed if they are empty.
    """
    refused = False
    try:
        yield
    except UserError:
        refused = not run.journal.exists()
        raise
    finally:
        if refused or not run.config.exists():
            names = None if refused else STARTUP_FILES
            take_back(run.root, names=names)
            remove_empty((run.root, *made))


def take_back(
    root: Path, *, names: Collection[str] | None = None, keep: Collection[str] = ()
) -> None:
    """Delete the folder's entries with these names, or all except those in `keep`."""
    with suppress(OSError):
        for entry in list(root.iterdir()):
            if entry.name in keep or (names is not None and entry.name not in names):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def remove_empty(folders: Sequence[Path]) -> None:
    """Delete those of the folders that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def as_it_was(folder: Path, *, any_error: bool = False) -> Iterator[None]:
    """Remove what the block added to the folder if the block raises UserError.

    Args:
        folder: The folder; it need not exist before.
        any_error: Do the same for every other exception.
    """
    made = not_there(folder)
    before = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    try:
        yield
    except BaseException as error:
        if any_error or isinstance(error, UserError):
            take_back(folder, keep=before)
            remove_empty(made)
        raise


def open_run(path: Path) -> tuple[RunFolder, dict[str, Any]]:
    """Open an existing run folder.

    Args:
        path: The folder of a search.

    Returns:
        The run folder and the content of its config.json.

    Raises:
        UserError: The folder has no valid config.json.
    """
    run = RunFolder(path)
    try:
        config = read_json(run.config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"RUN must be the folder of a search, got {path} without config.json; "
            "a search creates it under runs/ or at --out"
        ) from None
    schema = config.get("schema") if isinstance(config, dict) else None
    if schema != CONFIG_SCHEMA:
        raise UserError(
            f"{run.config} must have schema {CONFIG_SCHEMA}, got {schema!r}; update paretoprune"
        )
    for name, kind in CONFIG_FIELDS.items():
        if not isinstance(config.get(name), kind):
            raise UserError(
                f"{run.config} must have a valid {name!r}, got {config.get(name)!r}; "
                "start a new search"
            )
    for record in config["plugins"]:
        if not isinstance(record, dict) or not is_plugin_record(record):
            raise UserError(
                f"{run.config} must have the path and sha256 of each plugin, got {record!r}; "
                "start a new search"
            )
    return run, config


def update_config_settings(run: RunFolder, **values: Any) -> None:
    """Replace some of the settings in config.json."""
    update_config(run, settings=read_json(run.config)["settings"] | values)


def update_config(run: RunFolder, **values: Any) -> None:
    """Replace some of the values in config.json."""
    write_json_atomic(run.config, {**read_json(run.config), **values})


def is_plugin_record(record: dict[str, Any]) -> bool:
    """Whether this is a plugin's record as a config holds it."""
    return isinstance(record.get("path"), str) and isinstance(record.get("sha256"), str)


@contextmanager
def lock_run(run: RunFolder, what: str = "search") -> Iterator[None]:
    """Lock the run for one driver. The kernel releases the lock when the driver dies."""
    try:
        file = os.open(run.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"the run folder must be writable, got {run.root} ({error.strerror}); use a copy of it"
        ) from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"a run folder must be used by one {what} at a time, got {run.root}, which is in "
                "use; wait until it ends or stop it"
            ) from None
        yield
    finally:
        os.close(file)
