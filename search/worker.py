"""The function that Ray Tune runs. A worker lives on between trials, with its data resident."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from ..spaces.durable import write_bytes
from .context import Context
from .job import Job, Rung, job_from_json
from .plugins import load_plugins
from .trial import carry_out

TIMEOUT = "timeout.txt"  # left in a trial's folder by the worker that it killed
_resident: dict[str, Context] = {}


def run_trial(config: dict[str, Any], holder: list[Any]) -> None:
    """Carry out the job in `config` and report its evaluation, or the reason why there is none.

    `holder` wraps the reference to the context, so that Ray does not fetch it again every trial.
    """
    torch.set_num_threads(1)
    job, judged = job_from_json(config["job"]), bool(config["judged"])
    try:
        context = resident_context(holder[0])
        with ended_after(context.effort.timeout, Path(config["root"]) / "trials" / job.folder):
            carried = carry_out(job, context, on_rung=report_rung if judged else None)
        spans = {"begin": carried.begin, "seconds": carried.seconds}
        tune.report(result(evaluation=carried.evaluation.to_json(), spans=spans))
    except Exception as error:
        tune.report(result(failure=describe(error)))
        keep_traceback(config["root"], job)


def result(**values: Any) -> dict[str, Any]:
    """What is reported: always the same names, each as JSON, since Tune would flatten a dict."""
    names = ("evaluation", "spans", "rung", "failure")
    return {name: json.dumps(values[name]) if name in values else None for name in names}


def report_rung(rung: Rung) -> None:
    """Show where the trial stands; Tune ends this thread here if the trial is to stop."""
    tune.report(result(rung=asdict(rung)))


@contextmanager
def ended_after(seconds: float | None, folder: Path) -> Iterator[None]:
    """End this whole process if the block takes longer; a file in the folder says so.

    Nothing gentler ends a thread that hangs in native code. Ray replaces the worker.
    """
    if seconds is None:
        yield
        return

    def end() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / TIMEOUT, f"--trial-timeout of {seconds:g} s exceeded".encode())
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def resident_context(reference: Any) -> Context:
    """The context of this run, fetched once a worker."""
    key = reference.hex()
    if key not in _resident:
        _resident.clear()
        context: Context = ray.get(reference)
        load_plugins(context.plugins)
        _resident[key] = context
    return _resident[key]


def describe(error: Exception) -> str:
    """One line for the ledger."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]


def keep_traceback(root: str, job: Job) -> None:
    """The whole traceback for who wants to see it, in the trial's folder."""
    folder = Path(root) / "trials" / job.folder
    os.makedirs(folder, exist_ok=True)
    write_bytes(folder / "error.txt", traceback.format_exc().encode())
