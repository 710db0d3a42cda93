"""What the commands of the command line do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_json
from ...spaces.io.bounded_read import read_json
from ...spaces.records.pareto_front import Front, front_from_json
from ..config.settings import SearchSettings
from ..driver.progress import Progress
from ..driver.resume import resume_command
from ..driver.search import AllFailed, Given, new_search, resume_search
from ..driver.warm_start import images_like, policies_like
from ..execution.signals import Stopped
from ..results.formatting import plain_console, show_front, show_insights
from ..results.model_folder import write_picked
from ..results.run_summary import insights_of, state_of
from ..results.selection import Wish, choose, measured, neighbours, reason
from ..storage.run_folder import RunFolder, open_run
from ..storage.trial_records import read_record


def run_search(options: dict[str, Any], resume: Path | None, like: Path | None = None) -> int:
    """`paretoprune search`, and `transfer` from the run `like`: the exit code."""
    policies = policies_like(like) if like else ()
    if like:
        options = images_like(like, options.get("data", SearchSettings().data), options)
    as_json = options.get("json", False)
    quiet = as_json or options.get("quiet", False)
    given = Given(Progress(quiet=quiet), warm_start=policies)
    try:
        if resume is None:
            run, front = new_search(SearchSettings(**options), given)
        else:
            run, front = resume_search(resume, given, options)
    except Stopped as stop:
        return stopped(stop, as_json=as_json, quiet=quiet)
    except AllFailed as error:
        print(f"all trials failed; the first one: {error}", file=sys.stderr)
        return 1
    if as_json:
        print_json(front)
    else:
        show_run(run, front)
    return 0


def print_json(front: Front) -> None:
    """The front on stdout, as front.json has it."""
    print(json.dumps(front.to_json(), indent=2))


def show_run(run: RunFolder, front: Front) -> None:
    """The front as a table, and what can be learned from the trials."""
    console = plain_console()
    show_front(front, run.root, console)
    show_insights(insights_of(state_of(run)), console)


def stopped(stop: Stopped, *, as_json: bool, quiet: bool) -> int:
    """After Ctrl-C or SIGTERM: the front so far and the line that goes on, which is no result."""
    if stop.run is None:
        return stop.exit_code
    run, config = open_run(stop.run.root)
    front = state_of(run).front
    if front is not None:
        write_json(run.front, front.to_json())
        if as_json:
            print_json(front)
        else:
            show_front(front, run.root, plain_console())
    go_on = f"stopped; to go on: {resume_command(run.root, config)}"
    print(go_on, file=sys.stderr if quiet else sys.stdout)
    return stop.exit_code


def read_front(path: Path) -> tuple[RunFolder, Front]:
    """The front of a run as it stands: by its journal, or by front.json where that is gone."""
    run, _ = open_run(path)
    record = read_record(run.journal)
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
    run, front = read_front(path)
    if as_json:
        print_json(front)
    else:
        show_run(run, front)


def pick_point(path: Path, wish: Wish, out: Path) -> None:
    """`paretoprune pick`."""
    run, front = read_front(path)
    point, dense = choose(front, wish), front.dense
    write_picked(run.root, point, dense, out)
    print(f"trial {point.trial}: {measured(point)}; dense accuracy {dense.accuracy:.4f}")
    for line in (reason(front, wish, point), *neighbours(front, point)):
        print(f"  {line}")
    print(f"written to {out}; its README.md has the lines that load it")
