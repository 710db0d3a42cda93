"""The trainable of Ray Tune. A worker lives on between trials and keeps the data in memory."""

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
from ..storage.trial_spec import RungResult, trial_spec_from_json, trial_title
from ..trial.context import TrialContext
from ..trial.execute import execute_trial
from .object_cache import cached_object, with_plugins_loaded
from .remote_files import RemoteRunFolder, WorkerInputs
from .trial_files import fetch_continued_network, store_trial_files
from .worker_setup import limit_worker_resources, log_to_worker_file

TIMEOUT_FILE = "timeout.txt"  # in the folder of a trial whose worker was killed at the limit


def run_trial(config: dict[str, Any], shared: WorkerInputs) -> None:
    """Run the trial in `config` and report its evaluation, or the reason why there is none."""
    limit_worker_resources()
    spec, run_folder = trial_spec_from_json(config["job"]), shared.run_folder
    folder, begin = f"trials/{spec.folder}", time.time()
    on_rung = make_on_rung(begin) if config["judged"] else None
    try:
        with (
            log_to_worker_file(run_folder),
            local_context(
                cached_object(shared.context, with_plugins_loaded), run_folder
            ) as context,
        ):
            print(trial_title(spec.folder), flush=True)
            with kill_worker_after(context, run_folder, folder):
                fetch_continued_network(spec, context, run_folder, shared.artifacts)
                result = execute_trial(spec, context, on_rung=on_rung)
                store_trial_files(folder, context, run_folder, shared.artifacts)
        spans = {"begin": result.begin, "seconds": result.seconds}
        tune.report(reported_values(evaluation=result.evaluation.to_json(), spans=spans))
    except Exception as error:
        full = {"full": one_line_message(error)} if is_disk_full(error) else {}
        tune.report(reported_values(failure=describe_error(error), **full))
        if not full:
            run_folder.write(folder, {"error.txt": traceback.format_exc().encode()})


def reported_values(**values: Any) -> dict[str, Any]:
    """Return metrics with fixed names for Tune, each as JSON, since Tune flattens dicts."""
    names = ("evaluation", "spans", "rung", "failure", "full")
    return {name: json.dumps(values[name]) if name in values else None for name in names}


def make_on_rung(begin: float) -> Callable[[RungResult], None]:
    """Return a callback that reports a rung; Tune ends this thread there to stop the trial."""

    def report_rung(rung: RungResult) -> None:
        spans = {"begin": begin, "seconds": {"until_rung": round(time.time() - begin, 4)}}
        tune.report(reported_values(rung=asdict(rung), spans=spans))

    return report_rung


@contextmanager
def kill_worker_after(
    context: TrialContext, run_folder: RemoteRunFolder, folder: str
) -> Iterator[None]:
    """Kill this process if the block exceeds the time limit; leave a file that says so.

    Nothing gentler ends a thread that hangs in native code. Ray replaces the worker.
    """
    seconds = context.budget.timeout
    if seconds is None:
        yield
        return

    def end() -> None:
        try:
            message = f"--trial-timeout of {seconds:g} s exceeded"
            run_folder.write(folder, {TIMEOUT_FILE: message.encode()})
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


@contextmanager
def local_context(context: TrialContext, run_folder: RemoteRunFolder) -> Iterator[TrialContext]:
    """Yield the context with a root on this node: the run folder, or a temporary folder."""
    if run_folder.is_visible():
        yield context
        return
    with TemporaryDirectory(prefix="paretoprune-trial-") as name:
        yield replace(context, root=Path(name))


def describe_error(error: Exception) -> str:
    """Return the error as one line for the trial store."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
