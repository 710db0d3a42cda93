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

from ...analysis.staged_jobs import Piece, Rota, Turn
from ..config.settings import SearchSettings
from ..config.worker_errors import WorkersDied
from ..optimizer.plugins import Plugin, load_plugins
from .executor import Errand, Measure
from .message_queue import Board
from .messages import Say
from .object_cache import resident
from .remote_files import Home, make_home, write_files
from .resources import gpus_each, wanting, workers_in
from .signals import Stopping
from .worker_limits import keep_to_share
from .worker_logging import logged

LOOK_SECONDS = 0.2
DEATHS = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)  # after retries


@dataclass(frozen=True, slots=True, eq=False)
class Trip:
    """What every errand of a call is run with; `root` is the run's folder."""

    on: Any
    plugins: tuple[Plugin, ...]
    root: Path


def run_errands(
    pieces: Sequence[Piece[Errand]],
    trip: Trip,
    settings: SearchSettings,
    say: Say,
    stopping: Stopping,
) -> list[Any]:
    """Send at most as many at a time as trials would run, and wait for all of them."""
    shared, home = ray.put(trip), make_home(trip.root)
    board = home.there(Board).remote()  # where no other node's end takes it
    gpus = gpus_each(settings)
    send = ray.remote(run_errand).options(num_cpus=settings.cpus_per_trial, num_gpus=gpus)
    rota, told = Rota(pieces), set[str]()
    running: dict[Any, Turn[Errand]] = {}
    try:
        while rota.waiting or running:
            while rota.waiting and len(running) < workers_in(settings, gpus):
                turn = rota.take()
                running[send.remote(turn.task, [shared], home, board)] = turn
            ended, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            missing = wanting(settings, gpus)
            for line in [*([missing] if missing else []), *ray.get(board.take.remote())]:
                if line not in told:  # several workers measure parts of one thing
                    told.add(line)
                    say(line)
            for one in ended:
                rota.done(running.pop(one), outcome(one))
            stopping.raise_if_asked()
    finally:
        for one in running:
            ray.cancel(one, force=True)
        ray.kill(board)
    return rota.found


def outcome(reference: Any) -> Any:
    """What an errand returned; what it raised is raised here as if it had been run here."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from None
    except DEATHS as error:
        raise WorkersDied(
            "every worker that was given one piece of the measurements was killed, often for "
            f"want of memory ({type(error).__name__})"
        ) from error


def run_errand(errand: Errand, shared: list[Any], home: Home, board: Any) -> Any:
    """One errand, in a worker; `shared` is in a list so that Ray leaves the reference as it is."""
    keep_to_share()
    said: list[Any] = []

    def say(line: str) -> None:
        print(line, flush=True)
        said.append(board.say.remote(line))

    with logged(home), at_hand(errand, resident(shared[0], with_plugins).on, home) as on:
        found = errand(on, say)
    ray.get(said)  # the driver looks at the board once it has the result
    return found


def with_plugins(trip: Trip) -> Trip:
    """The same, its plugins loaded."""
    load_plugins(trip.plugins)
    return trip


@contextmanager
def at_hand(errand: Errand, on: Any, home: Home) -> Iterator[Any]:
    """Evidence is kept in the run's folder; where that is not seen, in a copy of it."""
    keeps = isinstance(errand, Measure) and errand.keeps_files
    if not keeps or on.folder is None or home.is_here():
        yield on
        return
    with TemporaryDirectory(prefix="paretoprune-evidence-") as name:
        folder, before = Path(name), home.read(on.folder.name)
        write_files(folder, before)
        yield replace(on, folder=folder)
        new = {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in before}
        home.write(on.folder.name, new)
