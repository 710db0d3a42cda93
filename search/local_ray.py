"""Ray for one run: started with a token and without its dashboard, or a cluster's, or given."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..spaces.errors import UserError

QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}

_OURS: dict[str, str] = {}  # the settings that this process made itself


@contextmanager
def ray_session(*, address: str | None, workers: int, token: Path) -> Iterator[Path]:
    """A connected Ray, and a scratch folder for its files. One that was there before stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address is None:
        use_token(token)
        let_workers_import()
    import ray

    scratch = Path(tempfile.mkdtemp(prefix="paretoprune-"))
    ours = not ray.is_initialized()
    try:
        if ours:
            connect(address, workers, scratch)
        yield scratch
    finally:
        if ours:
            ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def use_token(path: Path) -> None:
    """Ray listens on every address of the machine; with a token nobody else can run code there.

    One token a process, since Ray reads it once; a copy in every run folder, for its processes.
    """
    if "RAY_AUTH_MODE" in os.environ and "RAY_AUTH_TOKEN_PATH" not in _OURS:
        return
    token = _OURS.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, token.encode())
    os.close(file)
    _OURS["RAY_AUTH_TOKEN_PATH"] = str(path.resolve())
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path.resolve())


def let_workers_import() -> None:
    """Let worker processes find this package where it runs from a clone that is not installed."""
    home = str(Path(__file__).resolve().parents[1])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if home not in paths and (Path(home) / "paretoprune").is_dir():
        os.environ["PYTHONPATH"] = os.pathsep.join([home, *filter(None, paths)])


def connect(address: str | None, workers: int, scratch: Path) -> None:
    """Start a local Ray, or join the one at `address`."""
    import ray

    if address is None:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=str(scratch),
        )
        return
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"--address must be a running Ray cluster, got {address} ({first}); "
            "start one with ray start --head, or leave --address out"
        ) from None
