"""The function that Ray Tune runs. A worker lives on between trials, with its data resident."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from ray import tune

from .context import Context
from .delivery import bring, deliver
from .home import Home, Shared
from .job import Rung, job_from_json
from .plugins import load_plugins
from .resident import resident
from .room import lacks_room, one_line
from .trial import carry_out

TIMEOUT = "timeout.txt"  # left in a trial's folder by the worker that it killed


def run_trial(config: dict[str, Any], shared: Shared) -> None:
    """Carry out the job in `config` and report its evaluation, or the reason why there is none."""
    torch.set_num_threads(1)
    job, judged, home = job_from_json(config["job"]), bool(config["judged"]), shared.home
    folder, begin = f"trials/{job.folder}", time.time()
    try:
        context = resident_context(shared)
        with ended_after(context.effort.timeout, home, folder):
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
def ended_after(seconds: float | None, home: Home, folder: str) -> Iterator[None]:
    """End this whole process if the block takes longer; a file in the folder says so.

    Nothing gentler ends a thread that hangs in native code. Ray replaces the worker.
    """
    if seconds is None:
        yield
        return

    def end() -> None:
        try:
            said = f"--trial-timeout of {seconds:g} s exceeded"
            home.write(folder, {TIMEOUT: said.encode()})
        finally:
            os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def resident_context(shared: Shared) -> Context:
    """The context of this run, fetched once a worker; its root is a folder that is here."""

    def at_home(context: Context) -> Context:
        load_plugins(context.plugins)
        if shared.home.is_here():
            return context
        return replace(context, root=Path(tempfile.mkdtemp(prefix="paretoprune-trials-")))

    return resident(shared.context, at_home)


def describe(error: Exception) -> str:
    """One line for the ledger."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
