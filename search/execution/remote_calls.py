"""Errands in Ray's workers: what they bring along, how they are sent and watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)

from ...analysis.jobs import PendingCall, StagedJob, StageQueue
from ..config.settings import SearchSettings
from ..config.worker_errors import WorkersDiedError
from ..optimizer.plugins import Plugin, load_plugins
from .executor import RemoteCall, RemoteMeasurement
from .message_queue import MessageQueue
from .messages import LogFunction
from .object_cache import cached_object
from .remote_files import RemoteRunFolder, make_remote_run_folder, write_files
from .resources import cluster_trial_concurrency, missing_resources_message, requested_or_even_gpus
from .signals import SignalHandler
from .worker_limits import limit_worker_resources
from .worker_logging import log_to_worker_file

POLL_SECONDS = 0.2
WORKER_DEATH_ERRORS = (
    WorkerCrashedError,
    NodeDiedError,
    OutOfMemoryError,
    ObjectLostError,
)  # after retries


@dataclass(frozen=True, slots=True, eq=False)
class RemoteCallContext:
    """What every errand of a call is run with; `root` is the run's folder."""

    argument: Any
    plugins: tuple[Plugin, ...]
    root: Path


def run_remote_calls(
    jobs: Sequence[StagedJob[RemoteCall]],
    call_context: RemoteCallContext,
    settings: SearchSettings,
    log: LogFunction,
    signals: SignalHandler,
) -> list[Any]:
    """Send at most as many at a time as trials would run, and wait for all of them."""
    shared, home = ray.put(call_context), make_remote_run_folder(call_context.root)
    board = home.on_driver_node(MessageQueue).remote()  # where no other node's end takes it
    gpus = requested_or_even_gpus(settings)
    send = ray.remote(run_remote_call).options(num_cpus=settings.cpus_per_trial, num_gpus=gpus)
    rota, told = StageQueue(jobs), set[str]()
    running: dict[Any, PendingCall[RemoteCall]] = {}
    try:
        while rota.has_pending or running:
            while rota.has_pending and len(running) < cluster_trial_concurrency(settings, gpus):
                turn = rota.pop()
                running[send.remote(turn.call, [shared], home, board)] = turn
            ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            missing = missing_resources_message(settings, gpus)
            for line in [*([missing] if missing else []), *ray.get(board.take.remote())]:
                if line not in told:  # several workers measure parts of one thing
                    told.add(line)
                    log(line)
            for one in ended:
                rota.complete(running.pop(one), get_result(one))
            signals.raise_if_requested()
    finally:
        for one in running:
            ray.cancel(one, force=True)
        ray.kill(board)
    return rota.results


def get_result(reference: Any) -> Any:
    """What an errand returned; what it raised is raised here as if it had been run here."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from None
    except WORKER_DEATH_ERRORS as error:
        raise WorkersDiedError(
            "every worker that was given one piece of the measurements was killed, often for "
            f"want of memory ({type(error).__name__})"
        ) from error


def run_remote_call(
    call: RemoteCall, shared: list[Any], run_folder: RemoteRunFolder, queue: Any
) -> Any:
    """One errand, in a worker; `shared` is in a list so that Ray leaves the reference as it is."""
    limit_worker_resources()
    said: list[Any] = []

    def say(line: str) -> None:
        print(line, flush=True)
        said.append(queue.say.remote(line))

    with (
        log_to_worker_file(run_folder),
        local_measurements_folder(
            call, cached_object(shared[0], with_plugins).argument, run_folder
        ) as on,
    ):
        found = call(on, say)
    ray.get(said)  # the driver looks at the board once it has the result
    return found


def with_plugins(call_context: RemoteCallContext) -> RemoteCallContext:
    """The same, its plugins loaded."""
    load_plugins(call_context.plugins)
    return call_context


@contextmanager
def local_measurements_folder(
    call: RemoteCall, argument: Any, run_folder: RemoteRunFolder
) -> Iterator[Any]:
    """Evidence is kept in the run's folder; where that is not seen, in a copy of it."""
    keeps = isinstance(call, RemoteMeasurement) and call.uses_folder
    if not keeps or argument.folder is None or run_folder.is_visible():
        yield argument
        return
    with TemporaryDirectory(prefix="paretoprune-evidence-") as name:
        folder, before = Path(name), run_folder.read(argument.folder.name)
        write_files(folder, before)
        yield replace(argument, folder=folder)
        new = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in before}
        run_folder.write(argument.folder.name, new)
