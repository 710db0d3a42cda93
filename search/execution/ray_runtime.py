"""Start a local Ray with a token and without its dashboard, or join a cluster."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import joblib

from ...spaces.errors import UserError
from ..config.settings import SearchSettings
from .orphan_reaper import OrphanReaper

RAY_ENVIRONMENT = {
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

CONNECT_TIMEOUT_SECONDS = 5.0
SOCKET_PATH_SUFFIX = (
    "/paretoprune-12345678/session_2000-01-01_00-00-00_123456_4194304/sockets/plasma_store"
)
MAX_SOCKET_PATH_LENGTH = 103 if sys.platform == "darwin" else 107
MAX_SCRATCH_PATH_LENGTH = MAX_SOCKET_PATH_LENGTH - len(SOCKET_PATH_SUFFIX)  # the folder above
SHORT_TEMP_FOLDER = "/tmp"


class RayRuntime:
    """Ray for a driver: one of its own, a cluster's, or the one that this process has already.

    `close` ends the Ray that `start` began and restores the environment. A Ray that was running
    before stays.
    """

    def __init__(self, *, address: str | None, cpus: int, token: Path) -> None:
        self._address, self._cpus, self._token = address, cpus, token
        self._cleanup = ExitStack()

    def __enter__(self) -> RayRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Path:
        """Start or join Ray; return the scratch folder for its files."""
        with ExitStack() as cleanup:
            hosts = self._address is None and not is_ray_initialized()
            environment = ray_environment(self._address, self._token)
            cleanup.enter_context(patched_environment(environment))
            scratch = make_scratch_folder(hosts=hosts)
            cleanup.callback(OrphanReaper(scratch).stop)
            cleanup.callback(shutil.rmtree, scratch, ignore_errors=True)
            import ray  # here, since it reads the environment

            if not ray.is_initialized():
                cleanup.callback(ray.shutdown)
                connect_ray(self._address, self._cpus, scratch)
            self._cleanup = cleanup.pop_all()
        return scratch

    def close(self) -> None:
        """End the Ray that `start` began, remove its files and restore the environment."""
        self._cleanup.close()


def make_scratch_folder(*, hosts: bool) -> Path:
    """Make a folder for Ray's files, with a path short enough for a local Ray's sockets."""
    wanted = place = tempfile.gettempdir()
    if hosts and len(os.fsencode(wanted)) > MAX_SCRATCH_PATH_LENGTH:
        place = SHORT_TEMP_FOLDER
    try:
        return Path(tempfile.mkdtemp(prefix="paretoprune-", dir=place))
    except OSError as error:
        if place == wanted:
            raise
        raise UserError(
            f"TMPDIR must be a folder of at most {MAX_SCRATCH_PATH_LENGTH} characters for Ray's "
            f"sockets, got {wanted}, and {place} cannot be written to instead ({error.strerror}); "
            "set a shorter TMPDIR"
        ) from None


def local_ray_cpus(settings: SearchSettings) -> int:
    """Return the CPUs of a local Ray: as many as the concurrent trials need."""
    return math.ceil(local_trial_concurrency(settings) * settings.cpus_per_trial)


def local_trial_concurrency(settings: SearchSettings) -> int:
    """Return the concurrent trials on the cores that this process or its container may use."""
    return settings.workers or max(1, int(joblib.cpu_count() / settings.cpus_per_trial))


def ray_environment(address: str | None, token: Path) -> dict[str, str]:
    """Return the variables to set for Ray and its workers; those that the user set stay."""
    variables = {name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ}
    if address is None and not is_ray_initialized():
        if "RAY_AUTH_MODE" not in os.environ:
            write_auth_token(token)
            variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token.resolve())}
        variables |= worker_python_path()
    return variables


@contextmanager
def patched_environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block, then restore the former ones."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    reload_ray_config()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        reload_ray_config()


def write_auth_token(path: Path) -> None:
    """Write a new token: Ray listens on all addresses, and the token keeps others out."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(file, secrets.token_hex(32).encode())
    os.close(file)


def reload_ray_config() -> None:
    """Let a Ray that was imported before read the environment again, and forget its token."""
    if "ray" in sys.modules and not is_ray_initialized():
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def is_ray_initialized() -> bool:
    """Return whether this process has a running Ray, which is then used as it is."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def worker_python_path() -> dict[str, str]:
    """Return PYTHONPATH for workers, if this package runs from a clone that is not installed."""
    home = str(Path(__file__).resolve().parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if home in paths or not (Path(home) / "paretoprune").is_dir():
        return {}
    return {"PYTHONPATH": os.pathsep.join([home, *filter(None, paths)])}


def connect_ray(address: str | None, cpus: int, scratch: Path) -> None:
    """Start a local Ray, or join the one at `address`.

    Raises:
        UserError: there is no cluster at the address, or a token is missing.
    """
    from ray.exceptions import AuthenticationError

    try:
        if address is None:
            start_local_ray(cpus, scratch)
        else:
            join_cluster(address)
    except AuthenticationError as error:  # no token; nothing has started yet
        first = str(error).partition(". ")[0]
        raise UserError(
            f"RAY_AUTH_MODE=token must come with a token, got none ({first}); "
            "set RAY_AUTH_TOKEN_PATH to a file with the cluster's, or unset RAY_AUTH_MODE"
        ) from None


def start_local_ray(cpus: int, scratch: Path) -> None:
    """Start a local Ray with its files in the scratch folder."""
    import ray

    ray.init(
        "local",  # else Ray joins any cluster that it finds on this machine
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(scratch),
    )


def join_cluster(address: str) -> None:
    """Join the cluster at `address` as a driver."""
    import ray

    if address.startswith("ray://"):
        raise UserError(
            f"--address must be a cluster that this machine is a node of, got {address}; send the "
            "search there with ray job submit --working-dir . -- python search.py ..."
        )
    if address in ("", "local"):  # Ray would start a local one without our settings
        raise UserError(
            f"--address must be a running Ray cluster, got {address or 'none'}; "
            "leave it out to start a local Ray"
        )
    try:
        check_port_open(address)
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"--address must be a running Ray cluster, got {address} ({first}); "
            "start one with ray start --head, set RAY_AUTH_MODE=token if it asks for a token, "
            "or leave --address out"
        ) from None


def check_port_open(address: str) -> None:
    """Raise at once if nobody listens; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
