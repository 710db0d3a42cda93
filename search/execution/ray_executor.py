"""An executor that runs calls as Ray tasks, each with the resources of one trial."""

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
from ray.util.queue import Queue

from ...analysis.jobs import PendingCall, StagedJob, StageQueue
from ..config.errors import WorkersDiedError
from ..config.settings import SearchSettings
from ..optimizer.plugins import Plugin
from .executor import RemoteCall
from .object_cache import cached_object, with_plugins_loaded
from .progress_messages import LogFunction
from .remote_files import RemoteRunFolder, make_remote_run_folder, write_files
from .resources import cluster_trial_concurrency, missing_resources_message, requested_or_even_gpus
from .signals import SignalHandler
from .worker_setup import limit_worker_resources, log_to_worker_file

POLL_SECONDS = 0.2
WORKER_DEATH_ERRORS = (  # Ray raises them after its retries
    WorkerCrashedError,
    NodeDiedError,
    OutOfMemoryError,
    ObjectLostError,
)


@dataclass(frozen=True, slots=True, eq=False)
class SharedInputs:
    """What every call of a run gets; a worker fetches it once."""

    argument: Any
    plugins: tuple[Plugin, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RayExecutor:
    """Runs calls in Ray workers, at most as many at a time as trials would run."""

    settings: SearchSettings
    root: Path  # the run folder
    plugins: tuple[Plugin, ...]
    signals: SignalHandler
    log: LogFunction

    def run(self, jobs: Sequence[StagedJob[RemoteCall]], argument: Any) -> list[Any]:
        """Run the calls and return the result of each job; log what the workers report.

        A signal is raised between two polls. Several workers measure parts of one thing, so a
        line is logged once.

        Raises:
            WorkersDiedError: Ray lost every worker that was given one of the calls.
        """
        if not jobs:
            return []
        shared = ray.put(SharedInputs(argument, self.plugins))
        folder = make_remote_run_folder(self.root)
        messages = Queue(actor_options=folder.driver_node_options())
        gpus = requested_or_even_gpus(self.settings)
        task = ray.remote(run_call).options(num_cpus=self.settings.cpus_per_trial, num_gpus=gpus)
        stages, logged = StageQueue(jobs), set[str]()
        running: dict[Any, PendingCall[RemoteCall]] = {}
        with self.signals.shield():
            try:
                while stages.has_pending or running:
                    free = cluster_trial_concurrency(self.settings, gpus) - len(running)
                    while stages.has_pending and free > 0:
                        pending, free = stages.pop(), free - 1
                        running[task.remote(pending.call, [shared], folder, messages)] = pending
                    ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                    missing = missing_resources_message(self.settings, gpus)
                    for line in [*([missing] if missing else []), *pop_all(messages)]:
                        if line not in logged:
                            logged.add(line)
                            self.log(line)
                    for reference in ended:
                        stages.complete(running.pop(reference), get_result(reference))
                    self.signals.raise_if_requested()
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)
                messages.shutdown(force=True)
        return stages.results


def pop_all(messages: Queue) -> list[str]:
    """All lines in the queue."""
    return list(messages.get_nowait_batch(messages.qsize()))


def get_result(reference: Any) -> Any:
    """Return what a call returned, or raise what it raised as if it had run here."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from None
    except WORKER_DEATH_ERRORS as error:
        raise WorkersDiedError(
            "every worker that ran one of the measurements was killed, often for lack of memory "
            f"({type(error).__name__})"
        ) from error


def run_call(
    call: RemoteCall, shared: list[Any], run_folder: RemoteRunFolder, messages: Queue
) -> Any:
    """Run one call in a worker. `shared` is in a list so that Ray does not resolve it."""
    limit_worker_resources()

    def log(line: str) -> None:
        print(line, flush=True)
        messages.put(line)  # returns once the queue has it: the driver sees it with the result

    with log_to_worker_file(run_folder):
        inputs = cached_object(shared[0], with_plugins_loaded)
        with local_measurements_folder(call, inputs.argument, run_folder) as argument:
            return call(argument, log)


@contextmanager
def local_measurements_folder(
    call: RemoteCall, argument: Any, run_folder: RemoteRunFolder
) -> Iterator[Any]:
    """Give a call that `uses_folder` a copy of the folder where the run folder is not visible.

    Files that the call adds to the copy are then written to the run folder.
    """
    if not getattr(call, "uses_folder", False) or not argument.folder or run_folder.is_visible():
        yield argument
        return
    with TemporaryDirectory(prefix="paretoprune-evidence-") as name:
        folder, known = Path(name), run_folder.read(argument.folder.name)
        write_files(folder, known)
        yield replace(argument, folder=folder)
        new = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in known}
        run_folder.write(argument.folder.name, new)
