"""The run folder: where its files are, who may write to it, and whether it is a run at all."""

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

STARTUP_FILES = (".lock", "ray.log", ".ray-token")  # what is there before a run has its config
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
    """The paths of one run."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings of the run, and the choices made once by its driver."""
        return self.root / "config.json"

    @property
    def journal(self) -> Path:
        """The ledger: Optuna's journal."""
        return self.root / "journal.log"

    @property
    def dense(self) -> Path:
        """The dense network's weights."""
        return self.root / "dense.safetensors"

    @property
    def dense_checkpoint(self) -> Path:
        """Where its training stands, until it is over."""
        return self.root / "dense.checkpoint"

    @property
    def measurements(self) -> Path:
        """The tables measured once."""
        return self.root / "evidence"

    @property
    def space(self) -> Path:
        """Names and widths of the network's groups, and the versions that made the run."""
        return self.root / "space.json"

    @property
    def front(self) -> Path:
        """The result, derived from the ledger."""
        return self.root / "front.json"

    @property
    def report(self) -> Path:
        """The result as one page, derived from the ledger."""
        return self.root / "report.html"

    @property
    def log(self) -> Path:
        """What Ray's own processes print."""
        return self.root / "ray.log"

    @property
    def token(self) -> Path:
        """The secret of the local Ray, mode 600."""
        return self.root / ".ray-token"

    def trial_folder(self, name: int | str) -> Path:
        """The folder of one trial, by number, or of a control, by name."""
        return self.root / "trials" / str(name)


def default_run_folder(data: str, model: str) -> Path:
    """A new name under runs/: data, model and the time."""
    words = [part.replace(":", "-").replace("/", "-").strip("-.") for part in (data, model)]
    stem = "-".join(word[-24:] for word in words if word)
    root = Path("runs") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    number, path = 1, root
    while path.exists():
        number, path = number + 1, Path(f"{root}-{number}")
    return path


def create_run_folder(path: Path) -> RunFolder:
    """Make an empty run folder; nothing that exists is ever overwritten."""
    check_local_path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        busy = any(
            entry.name not in STARTUP_FILES for entry in path.iterdir()
        )  # a start killed at once
    except OSError as error:
        raise UserError(
            f"--out must be a folder that can be written, got {path} ({error.strerror}); "
            "name another folder"
        ) from None
    if busy:
        remedy = "name a new one"
        if (path / "config.json").exists():
            remedy = f"go on with --resume {path}, or name a new one"
        raise UserError(f"--out must be an empty folder, got {path}; {remedy}")
    if not os.access(path, os.W_OK):
        raise UserError(f"--out must be writable, got {path}; name another folder")
    return RunFolder(path)


def check_local_path(path: Path) -> None:
    """Refuse a URL, of which a path would make a folder `s3:` here."""
    if path.parts and path.parts[0].endswith(":"):
        url = str(path).replace(":/", "://", 1)
        raise UserError(
            f"--out must be a folder of a file system, got {url}; --artifacts takes URLs, for the "
            "trials' weights"
        )


def not_there(path: Path) -> tuple[Path, ...]:
    """The folders that making this one makes, the inner ones first."""
    return tuple(one for one in (path, *path.parents) if not os.path.lexists(one))


@contextmanager
def remove_if_unstarted(run: RunFolder, made: tuple[Path, ...] = ()) -> Iterator[None]:
    """Leave nothing of a run that is refused before its first trial, or ends without a config.

    The caller holds the run, which was empty before; `made`: the folders that were not there.
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
    root: Path, *, names: Collection[str] | None = None, but: Collection[str] = ()
) -> None:
    """Delete the entries of a folder: those of these names, or all but some."""
    with suppress(OSError):
        for entry in list(root.iterdir()):
            if entry.name in but or (names is not None and entry.name not in names):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def remove_empty(folders: Sequence[Path]) -> None:
    """Delete those of the folders that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def as_it_was(folder: Path, *, whatever: bool = False) -> Iterator[None]:
    """If the block refuses what was asked, the folder has what it had before and no more.

    `whatever`: so too if the block ends in any other way than well.
    """
    made = not_there(folder)
    before = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    try:
        yield
    except BaseException as error:
        if whatever or isinstance(error, UserError):
            take_back(folder, but=before)
            remove_empty(made)
        raise


def open_run(path: Path) -> tuple[RunFolder, dict[str, Any]]:
    """An existing run and its config; one line if it is none."""
    run = RunFolder(path)
    try:
        config = read_json(run.config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"RUN must be the folder of a search, got {path} without config.json; "
            "searches write to runs/ or --out"
        ) from None
    schema = config.get("schema") if isinstance(config, dict) else None
    if schema != CONFIG_SCHEMA:
        raise UserError(
            f"{run.config} must have schema {CONFIG_SCHEMA}, got {schema!r}; update paretoprune"
        )
    for name, kind in CONFIG_FIELDS.items():
        if not isinstance(config.get(name), kind):
            raise UserError(
                f"{run.config} must hold {name!r}, got {config.get(name)!r}; start a new search"
            )
    for record in config["plugins"]:
        if not isinstance(record, dict) or not is_plugin_record(record):
            raise UserError(
                f"{run.config} must name each plugin's path and sha256, got {record!r}; "
                "start a new search"
            )
    return run, config


def update_config_settings(run: RunFolder, **values: Any) -> None:
    """Let later launches find these of the settings in config.json."""
    update_config(run, settings=read_json(run.config)["settings"] | values)


def update_config(run: RunFolder, **values: Any) -> None:
    """Let later launches find these in config.json."""
    write_json_atomic(run.config, {**read_json(run.config), **values})


def is_plugin_record(record: dict[str, Any]) -> bool:
    """True for what a config says of a plugin."""
    return isinstance(record.get("path"), str) and isinstance(record.get("sha256"), str)


@contextmanager
def lock_run(run: RunFolder, what: str = "search") -> Iterator[None]:
    """Hold the run for one driver; the kernel frees the lock when the driver dies."""
    try:
        file = os.open(run.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"the run folder must be writable, got {run.root} ({error.strerror}); copy it"
        ) from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"a run folder serves one {what} at a time, got {run.root}, which is running; "
                "wait for it or stop it"
            ) from None
        yield
    finally:
        os.close(file)
