"""The function that Ray Tune runs. A worker lives on between trials, with its data resident."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from ..spaces.durable import write_bytes
from .context import Context
from .job import Job, job_from_json
from .plugins import load_plugins
from .trial import carry_out

_resident: dict[str, Context] = {}


def run_trial(config: dict[str, Any], holder: list[Any]) -> None:
    """Carry out the job in `config` and report its evaluation, or the reason why there is none.

    `holder` wraps the reference to the context, so that Ray does not fetch it again every trial.
    """
    torch.set_num_threads(1)
    job = job_from_json(config["job"])
    try:
        context = resident_context(holder[0])
        evaluation = json.dumps(carry_out(job, context).to_json())  # Tune would flatten a dict
        tune.report({"evaluation": evaluation, "failure": None})
    except Exception as error:
        tune.report({"evaluation": None, "failure": describe(error)})
        keep_traceback(config["root"], job)


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
