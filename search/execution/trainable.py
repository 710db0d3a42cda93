"""The function that Ray Tune runs. A worker lives on between trials, with its data resident."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray import tune

from ..config.disk_errors import lacks_room, one_line
from ..optimizer.plugins import load_plugins
from ..storage.trial_spec import Rung, job_from_json, named
from ..trial.context import Context
from ..trial.run import carry_out
from .file_sync import bring, deliver
from .object_cache import resident
from .remote_files import Home, Shared
from .worker_limits import keep_to_share
from .worker_logging import logged

TIMEOUT = "timeout.txt"  # left in a trial's folder by the worker that it killed


def run_trial(config: dict[str, Any], shared: Shared) -> None:
    """Carry out the job in `config` and report its evaluation, or the reason why there is none."""
    keep_to_share()
    job, judged, home = job_from_json(config["job"]), bool(config["judged"]), shared.home
    folder, begin = f"trials/{job.folder}", time.time()
    try:
        with logged(home), workplace(resident(shared.context, with_plugins), home) as context:
            print(named(job.folder), flush=True)
            with ended_after(context, home, folder):
                bring(job, context, home, shared.artifacts)
                carried = carry_out(job, context, on_rung=reporting(begin) if judged else None)
                deliver(folder, context, home, shared.artifacts)
        spans = {"begin": carried.begin, "seconds": carried.seconds}
        tune.report(result(evaluation=carried.evaluation.to_json(), spans=spans))
    except Exception as error:
        full = {"full": one_line(error)} if lacks_room(error) else {}
        tune.report(result(failure=describe(error), **full))
        if not full:
            home.write(folder, {"error.txt": traceback.format_exc().encode()})


def result(**values: Any) -> dict[str, Any]:
    """What is reported: always the same names, each as JSON, since Tune would flatten a dict."""
    names = ("evaluation", "spans", "rung", "failure", "full")
    return {name: json.dumps(values[name]) if name in values else None for name in names}


def reporting(begin: float) -> Callable[[Rung], None]:
    """Shows where the trial stands; Tune ends this thread there if the trial is to stop."""

    def report_rung(rung: Rung) -> None:
        spans = {"begin": begin, "seconds": {"until_rung": round(time.time() - begin, 4)}}
        tune.report(result(rung=asdict(rung), spans=spans))

    return report_rung


@contextmanager
def ended_after(context: Context, home: Home, folder: str) -> Iterator[None]:
    """End this whole process if the block takes too long; a file in the folder says so.

    Nothing gentler ends a thread that hangs in native code. Ray replaces the worker.
    """
    seconds = context.effort.timeout
    if seconds is None:
        yield
        return

    def end() -> None:
        try:
            said = f"--trial-timeout of {seconds:g} s exceeded"
            home.write(folder, {TIMEOUT: said.encode()})
            if not home.is_here():
                shutil.rmtree(context.root, ignore_errors=True)
        finally:
            os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def with_plugins(context: Context) -> Context:
    """The context of this run, its plugins loaded."""
    load_plugins(context.plugins)
    return context


@contextmanager
def workplace(context: Context, home: Home) -> Iterator[Context]:
    """The context with a root that is here: the run's, or one that is gone after the trial."""
    if home.is_here():
        yield context
        return
    with TemporaryDirectory(prefix="paretoprune-trial-") as name:
        yield replace(context, root=Path(name))


def describe(error: Exception) -> str:
    """One line for the ledger."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
