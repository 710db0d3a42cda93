"""Implementations of the commands search, transfer, front and pick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.records.pareto_front import Front
from ..config.settings import SearchSettings
from ..driver.progress import SearchProgress
from ..driver.resume import resume_command
from ..driver.search import AllTrialsFailedError, RunInputs, new_search, resume_search
from ..driver.warm_start import images_like, proposals_from_run
from ..execution.signals import StopRequested
from ..results.formatting import make_console, show_front, show_insights
from ..results.model_folder import write_model_folder
from ..results.run_summary import read_run_front, run_insights, summarize_run
from ..results.selection import (
    SelectionCriteria,
    describe_neighbors,
    explain_selection,
    format_metrics_with_latency,
    select_point,
)
from ..storage.run_folder import RunFolder, open_run


def run_search(options: dict[str, Any], resume: Path | None, like: Path | None = None) -> int:
    """Run `paretoprune search` or, with `like`, `paretoprune transfer`. Return the exit code."""
    policies = proposals_from_run(like) if like else ()
    if like:
        options = images_like(like, options.get("data", SearchSettings().data), options)
    as_json = options.get("json", False)
    quiet = as_json or options.get("quiet", False)
    inputs = RunInputs(SearchProgress(quiet=quiet), warm_start=policies)
    try:
        if resume is None:
            run, front = new_search(SearchSettings(**options), inputs)
        else:
            run, front = resume_search(resume, inputs, options)
    except StopRequested as stop:
        return report_stop(stop, as_json=as_json, quiet=quiet)
    except AllTrialsFailedError as error:
        print(f"all trials failed; the first error: {error}", file=sys.stderr)
        return 1
    if as_json:
        print_front_json(front)
    else:
        print_run(run, front)
    return 0


def print_front_json(front: Front) -> None:
    """Print the front as JSON, as in front.json."""
    print(json.dumps(front.to_json(), indent=2))


def print_run(run: RunFolder, front: Front) -> None:
    """Print the front as a table, then the insights from the trials."""
    console = make_console()
    show_front(front, run.root, console)
    show_insights(run_insights(summarize_run(run)), console)


def report_stop(stop: StopRequested, *, as_json: bool, quiet: bool) -> int:
    """Print the front so far and the command that resumes, after Ctrl-C or SIGTERM."""
    if stop.run is None:
        return stop.exit_code
    run, config = open_run(stop.run.root)
    front = summarize_run(run).front
    if front is not None:
        write_json_atomic(run.front, front.to_json())
        if as_json:
            print_front_json(front)
        else:
            show_front(front, run.root, make_console())
    message = f"stopped; to continue: {resume_command(run.root, config)}"
    print(message, file=sys.stderr if quiet else sys.stdout)
    return stop.exit_code


def print_front(path: Path, *, as_json: bool) -> None:
    """Run `paretoprune front`."""
    run, front = read_run_front(path)
    if as_json:
        print_front_json(front)
    else:
        print_run(run, front)


def pick_point(path: Path, criteria: SelectionCriteria, out: Path) -> None:
    """Run `paretoprune pick`."""
    run, front = read_run_front(path)
    point, dense = select_point(front, criteria), front.dense
    write_model_folder(run.root, point, dense, out)
    print(
        f"trial {point.trial}: {format_metrics_with_latency(point)}; "
        f"dense accuracy {dense.accuracy:.4f}"
    )
    for line in (explain_selection(front, criteria, point), *describe_neighbors(front, point)):
        print(f"  {line}")
    print(f"written to {out}; its README.md shows how to load it")
