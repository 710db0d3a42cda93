"""A sweep: several searches in sequence on one Ray, each in its own run folder.

The same command resumes a sweep: it skips finished runs and resumes interrupted ones. Runs with
the same dense network and data train and measure it once.
"""

from __future__ import annotations

import shlex
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...analysis.report.sweep import SWEEP_COLUMNS, SweepRow
from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes_atomic
from ...trainers.data.sources.load import SOURCES
from ...trainers.models.build import ZOO_BUILDERS
from ..config.errors import DiskFullError
from ..config.settings import SearchSettings, settings_from_json
from ..driver.prepare import check_images, check_weights_file
from ..driver.progress import SearchProgress
from ..driver.resume import CHANGEABLE_SETTINGS
from ..driver.search import AllTrialsFailedError, RunInputs, new_search, resume_search
from ..execution.fd_redirect import redirect_output
from ..execution.ray_runtime import RayRuntime, local_ray_cpus
from ..execution.signals import SignalHandler, StopRequested
from ..optimizer.plugins import plugins_loaded, read_plugin
from ..optimizer.search_space import build_policy_space
from ..results.formatting import make_console, print_line
from ..storage.artifacts import absolute_url
from ..storage.run_folder import (
    STARTUP_FILES,
    RunFolder,
    as_it_was,
    check_local_path,
    lock_run,
    not_there,
    open_run,
    remove_empty,
    take_back,
)
from .config import SweepEntry
from .state import FAILED, FINISHED, RUNNING, SweepState, unwritable_sweep_error

# Settings that are passed on to a resumed run.
REPEATED_SETTINGS = (*CHANGEABLE_SETTINGS, "trials", "model", "data", "plugin")


def sweep_command(
    entries: Sequence[SweepEntry], root: Path, resume_command: str, *, dry_run: bool, quiet: bool
) -> int:
    """Run or resume a sweep; the implementation of `paretoprune sweep`.

    Args:
        entries: The searches.
        root: The folder of the sweep.
        resume_command: The command line that resumes the sweep, for messages.
        dry_run: Whether to print the searches and run none.
        quiet: Whether to print no progress.

    Returns:
        The exit code: 1 if a run failed.

    Raises:
        UserError: An entry is not valid, or the folder cannot be used.
    """
    check_entries(entries)
    check_local_path(root)
    console = make_console()
    if dry_run:
        state = SweepState(root, entries)
        check_started_runs(state)
        for row, entry in zip(state.rows(), entries, strict=True):
            print_line(describe_entry(row, entry), console)
        return 0
    made = not_there(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_sweep_error(root, error) from None
    with lock_run(RunFolder(root), "sweep"):
        try:
            with as_it_was(root):
                return run_sweep(SweepState(root, entries), console, resume_command, quiet=quiet)
        except UserError:
            if made:
                take_back(root, names=STARTUP_FILES)
                remove_empty(made)
            raise


def check_entries(entries: Sequence[SweepEntry]) -> None:
    """Raise UserError for unknown names and missing files before any run starts."""
    for entry in entries:
        settings = entry.settings
        check_weights_file(settings.weights)
        check_images(settings.images(), settings.data, None)
        names = settings.names_in
        with plugins_loaded([read_plugin(path) for path in settings.plugin]):
            build_policy_space(names("scores"), names("allocations"), names("schedules"), stages=1)
        for what, name, known in (
            ("model", settings.model, (*ZOO_BUILDERS, "torchvision:NAME")),
            ("data", settings.data, ("digits", *(f"{n}:DIR" for n in SOURCES if n != "digits"))),
        ):
            if name not in known and ":" not in name:
                raise UserError(
                    f"{what} must be one of {', '.join(known)} or module:function, got {name!r}; "
                    "check the spelling"
                )


def run_sweep(state: SweepState, console: Console, resume_command: str, *, quiet: bool) -> int:
    """Run the unfinished searches, then print the table; return the exit code."""
    check_started_runs(state)
    signals = SignalHandler()
    try:
        with signals.installed():
            run_unfinished(state, console, signals, quiet=quiet)
    except StopRequested as stop:
        state.interrupt()
        show_sweep(state, console)
        print_line(f"stopped; to go on: {resume_command}", console)
        return stop.exit_code
    except DiskFullError as full:
        raise DiskFullError(f"{full}, or resume the whole sweep: {resume_command}") from full
    show_sweep(state, console)
    failed = len(state.failed())
    if failed:
        print_line(
            f"{failed} of {len(state.entries)} runs failed; to run them again: {resume_command}",
            console,
        )
    return 1 if failed else 0


def run_unfinished(
    state: SweepState, console: Console, signals: SignalHandler, *, quiet: bool
) -> None:
    """Run the unfinished searches in sequence."""
    state.write()
    entries = state.unfinished()
    if not entries:
        return
    with shared_ray(entries, state.root, signals):
        for entry in entries:
            if not quiet:
                number = state.entries.index(entry) + 1
                print_line(f"[{number}/{len(state.entries)}] {entry.name}", console)
            run_entry(entry, state, quiet=quiet)


def run_entry(entry: SweepEntry, state: SweepState, *, quiet: bool) -> None:
    """Start or resume one search; record a failure without stopping the sweep."""
    begin = time.monotonic()
    state.set_state(entry, RUNNING)
    outcome, reason = FINISHED, ""
    try:
        search_entry(entry, state, quiet=quiet)
    except StopRequested:
        state.set_state(entry, RUNNING, seconds=time.monotonic() - begin)
        raise
    except DiskFullError:
        raise  # the other runs and sweep.json need disk space too
    except (UserError, AllTrialsFailedError) as error:
        outcome, reason = FAILED, str(error)
    except Exception as error:
        outcome, reason = FAILED, f"{type(error).__name__}: {error}"
        write_traceback(state.root, entry)
    reason = " ".join(reason.split())
    state.set_state(entry, outcome, reason=reason, seconds=time.monotonic() - begin)


def search_entry(entry: SweepEntry, state: SweepState, *, quiet: bool) -> None:
    """Start or resume the search of an entry."""
    run = state.run_folder(entry)
    if run.config.exists():
        settings = entry.settings
        repeated = {name: getattr(settings, name) for name in REPEATED_SETTINGS}
        resume_search(run.root, RunInputs(SearchProgress(quiet=quiet)), repeated)
        return
    related = [e for e in state.entries if e != entry and e.dense_key == entry.dense_key]
    related_runs = tuple(state.run_folder(one).root for one in related)
    inputs = RunInputs(SearchProgress(quiet=quiet), related_runs=related_runs)
    new_search(replace(entry.settings, out=run.root), inputs)


def check_started_runs(state: SweepState) -> None:
    """Raise UserError if the settings of a started run changed; reopen runs with more trials."""
    for entry in state.entries:
        run = state.run_folder(entry)
        if run.config.exists():
            kept = settings_from_json(open_run(run.root)[1]["settings"])
            check_settings_unchanged(run, kept, entry.settings)
            if entry.settings.trials > kept.trials:
                state.reopen(entry)


def check_settings_unchanged(
    run: RunFolder, kept: SearchSettings, requested: SearchSettings
) -> None:
    """Raise UserError if the settings of a started run differ, except more trials."""
    requested = replace(
        requested,
        ensemble_images=requested.ensemble_images or kept.ensemble_images,
        artifacts=absolute_url(requested.artifacts),
    )
    trials_not_reduced = requested.trials >= kept.trials
    for field in fields(SearchSettings):
        name, before, now = field.name, getattr(kept, field.name), getattr(requested, field.name)
        if (
            name in (*CHANGEABLE_SETTINGS, "out")
            or (name == "trials" and trials_not_reduced)
            or before == now
        ):
            continue
        raise UserError(
            f"{run.root} must keep its settings, got {name} = {now} instead of {before}; "
            "change it back, delete that folder to start again, or name another --out"
        )


@contextmanager
def shared_ray(
    entries: Sequence[SweepEntry], root: Path, signals: SignalHandler
) -> Iterator[None]:
    """Run one Ray for all searches; each uses it and leaves it running."""
    folder = RunFolder(root)
    cpus = max(local_ray_cpus(entry.settings) for entry in entries)
    address = entries[0].settings.address
    runtime = RayRuntime(address=address, cpus=cpus, token=folder.token)
    try:
        with signals.shield(), redirect_output(folder.log):
            runtime.start()
            signals.reinstall()
        yield
    finally:
        with signals.shield(), redirect_output(folder.log):
            runtime.close()


def write_traceback(root: Path, entry: SweepEntry) -> None:
    """Write the traceback of an unexpected error to a file in the sweep's folder."""
    folder = root / "errors"
    folder.mkdir(exist_ok=True)
    write_bytes_atomic(folder / f"{entry.name}.txt", traceback.format_exc().encode())


def show_sweep(state: SweepState, console: Console) -> None:
    """Print the table of all runs, the reasons of failures and the paths of the results."""
    rows = state.rows()
    console.print(sweep_table(rows))
    for row in state.failed():
        print_line(f"{row.name}: {row.reason}", console)
    print_line(f"runs: {state.root}/NAME; joint report: {state.root / 'report.html'}", console)
    finished = [row for row in rows if row.state == FINISHED]
    if finished:
        folder = shlex.quote(str(state.root / finished[0].name))
        print_line(f"to pick: paretoprune pick {folder} --knee --out picked", console)


def sweep_table(rows: Sequence[SweepRow]) -> Table:
    """Build the table with one row for each run."""
    table = Table(title="Sweep (accuracy: validation; FLOPs: MACs)", box=box.SIMPLE)
    for head in SWEEP_COLUMNS:
        number = head in ("dense", "at target", "front", "hypervolume", "min")
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.table_cells()))
    return table


def describe_entry(row: SweepRow, entry: SweepEntry) -> str:
    """Describe a run in one line."""
    summary = f"{row.name}: {row.model} on {row.data}, {row.target}"
    return f"{summary}, {entry.settings.trials} trials: {row.state}"
