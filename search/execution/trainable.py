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

from ..config.errors import is_disk_full, one_line_message
from ..optimizer.plugins import load_plugins
from ..storage.trial_spec import RungResult, trial_spec_from_json, trial_title
from ..trial.context import TrialContext
from ..trial.run import execute_trial
from .file_sync import fetch_continued_network, store_trial_files
from .object_cache import cached_object
from .remote_files import RemoteRunFolder, WorkerInputs
from .worker_limits import limit_worker_resources
from .worker_logging import log_to_worker_file

TIMEOUT_FILE = "timeout.txt"  # left in a trial's folder by the worker that it killed


def run_trial(config: dict[str, Any], shared: WorkerInputs) -> None:
    """Carry out the job in `config` and report its evaluation, or the reason why there is none."""
    limit_worker_resources()
    job, judged, home = (
        trial_spec_from_json(config["job"]),
        bool(config["judged"]),
        shared.run_folder,
    )
    folder, begin = f"trials/{job.folder}", time.time()
    try:
        with (
            log_to_worker_file(home),
            local_context(cached_object(shared.context, with_plugins), home) as context,
        ):
            print(trial_title(job.folder), flush=True)
            with kill_worker_after(context, home, folder):
                fetch_continued_network(job, context, home, shared.artifacts)
                carried = execute_trial(
                    job, context, on_rung=make_on_rung(begin) if judged else None
                )
                store_trial_files(folder, context, home, shared.artifacts)
        spans = {"begin": carried.begin, "seconds": carried.seconds}
        tune.report(reported_values(evaluation=carried.evaluation.to_json(), spans=spans))
    except Exception as error:
        full = {"full": one_line_message(error)} if is_disk_full(error) else {}
        tune.report(reported_values(failure=describe_error(error), **full))
        if not full:
            home.write(folder, {"error.txt": traceback.format_exc().encode()})


def reported_values(**values: Any) -> dict[str, Any]:
    """What is reported: always the same names, each as JSON, since Tune would flatten a dict."""
    names = ("evaluation", "spans", "rung", "failure", "full")
    return {name: json.dumps(values[name]) if name in values else None for name in names}


def make_on_rung(begin: float) -> Callable[[RungResult], None]:
    """Shows where the trial stands; Tune ends this thread there if the trial is to stop."""

    def report_rung(rung: RungResult) -> None:
        spans = {"begin": begin, "seconds": {"until_rung": round(time.time() - begin, 4)}}
        tune.report(reported_values(rung=asdict(rung), spans=spans))

    return report_rung


@contextmanager
def kill_worker_after(
    context: TrialContext, run_folder: RemoteRunFolder, folder: str
) -> Iterator[None]:
    """End this whole process if the block takes too long; a file in the folder says so.

    Nothing gentler ends a thread that hangs in native code. Ray replaces the worker.
    """
    seconds = context.budget.timeout
    if seconds is None:
        yield
        return

    def end() -> None:
        try:
            said = f"--trial-timeout of {seconds:g} s exceeded"
            run_folder.write(folder, {TIMEOUT_FILE: said.encode()})
            if not run_folder.is_visible():
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


def with_plugins(context: TrialContext) -> TrialContext:
    """The context of this run, its plugins loaded."""
    load_plugins(context.plugins)
    return context


@contextmanager
def local_context(context: TrialContext, run_folder: RemoteRunFolder) -> Iterator[TrialContext]:
    """The context with a root that is here: the run's, or one that is gone after the trial."""
    if run_folder.is_visible():
        yield context
        return
    with TemporaryDirectory(prefix="paretoprune-trial-") as name:
        yield replace(context, root=Path(name))


def describe_error(error: Exception) -> str:
    """One line for the ledger."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
