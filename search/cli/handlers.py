"""What the commands of the command line do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.io.bounded_read import read_json
from ...spaces.records.pareto_front import Front, front_from_json
from ..config.settings import SearchSettings
from ..driver.progress import SearchProgress
from ..driver.resume import resume_command
from ..driver.search import AllTrialsFailedError, RunInputs, new_search, resume_search
from ..driver.warm_start import images_like, proposals_from_run
from ..execution.signals import StopRequested
from ..results.formatting import make_console, show_front, show_insights
from ..results.model_folder import write_model_folder
from ..results.run_summary import run_insights, summarize_run
from ..results.selection import (
    SelectionCriteria,
    describe_neighbors,
    explain_selection,
    format_metrics_with_latency,
    select_point,
)
from ..storage.run_folder import RunFolder, open_run
from ..storage.trial_records import read_trial_records


def run_search(options: dict[str, Any], resume: Path | None, like: Path | None = None) -> int:
    """`paretoprune search`, and `transfer` from the run `like`: the exit code."""
    policies = proposals_from_run(like) if like else ()
    if like:
        options = images_like(like, options.get("data", SearchSettings().data), options)
    as_json = options.get("json", False)
    quiet = as_json or options.get("quiet", False)
    given = RunInputs(SearchProgress(quiet=quiet), warm_start=policies)
    try:
        if resume is None:
            run, front = new_search(SearchSettings(**options), given)
        else:
            run, front = resume_search(resume, given, options)
    except StopRequested as stop:
        return report_stop(stop, as_json=as_json, quiet=quiet)
    except AllTrialsFailedError as error:
        print(f"all trials failed; the first one: {error}", file=sys.stderr)
        return 1
    if as_json:
        print_front_json(front)
    else:
        print_run(run, front)
    return 0


def print_front_json(front: Front) -> None:
    """The front on stdout, as front.json has it."""
    print(json.dumps(front.to_json(), indent=2))


def print_run(run: RunFolder, front: Front) -> None:
    """The front as a table, and what can be learned from the trials."""
    console = make_console()
    show_front(front, run.root, console)
    show_insights(run_insights(summarize_run(run)), console)


def report_stop(stop: StopRequested, *, as_json: bool, quiet: bool) -> int:
    """After Ctrl-C or SIGTERM: the front so far and the line that goes on, which is no result."""
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
    go_on = f"stopped; to go on: {resume_command(run.root, config)}"
    print(go_on, file=sys.stderr if quiet else sys.stdout)
    return stop.exit_code


def read_run_front(path: Path) -> tuple[RunFolder, Front]:
    """The front of a run as it stands: by its journal, or by front.json where that is gone."""
    run, _ = open_run(path)
    record = read_trial_records(run.journal)
    if record is not None:
        front = record.front()
    else:
        front = front_from_json(read_json(run.front)) if run.front.exists() else None
    if front is None:
        raise UserError(
            f"a front needs a finished trial, got none in {path}; "
            f"go on with paretoprune search --resume {path}"
        )
    return run, front


def print_front(path: Path, *, as_json: bool) -> None:
    """`paretoprune front`."""
    run, front = read_run_front(path)
    if as_json:
        print_front_json(front)
    else:
        print_run(run, front)


def pick_point(path: Path, criteria: SelectionCriteria, out: Path) -> None:
    """`paretoprune pick`."""
    run, front = read_run_front(path)
    point, dense = select_point(front, criteria), front.dense
    write_model_folder(run.root, point, dense, out)
    print(
        f"trial {point.trial}: {format_metrics_with_latency(point)}; dense accuracy {dense.accuracy:.4f}"
    )
    for line in (explain_selection(front, criteria, point), *describe_neighbors(front, point)):
        print(f"  {line}")
    print(f"written to {out}; its README.md has the lines that load it")
