"""A sweep: several searches one after another on one Ray, each in a folder of its own.

Run it again and it goes on: finished runs are left alone, an interrupted one is resumed. Runs of
one dense network and data train and measure it once.
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

REPEATED_SETTINGS = (
    *CHANGEABLE_SETTINGS,
    "trials",
    "model",
    "data",
    "plugin",
)  # of a run that goes on


def sweep_command(
    entries: Sequence[SweepEntry], root: Path, resume_command: str, *, dry_run: bool, quiet: bool
) -> int:
    """`paretoprune sweep`: the exit code, 1 if a run failed; `again` is the line that goes on."""
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
    """Refuse what no run could begin with: names and files, before anything is spent."""
    for entry in entries:
        settings = entry.settings
        check_weights_file(settings.weights)
        check_images(settings.images(), settings.data, None)
        words = settings.names_in
        with plugins_loaded([read_plugin(path) for path in settings.plugin]):
            build_policy_space(words("scores"), words("allocations"), words("schedules"), stages=1)
        for what, name, known in (
            ("model", settings.model, (*ZOO_BUILDERS, "torchvision:NAME")),
            ("data", settings.data, ("digits", *(f"{n}:DIR" for n in SOURCES if n != "digits"))),
        ):
            if name not in known and ":" not in name:
                raise UserError(
                    f"{what} must be one of {', '.join(known)} or module:function, got {name!r}"
                )


def run_sweep(state: SweepState, console: Console, resume_command: str, *, quiet: bool) -> int:
    """Run what is not finished, then show the table."""
    check_started_runs(state)
    stopping = SignalHandler()
    try:
        with stopping.installed():
            run_unfinished(state, console, stopping, quiet=quiet)
    except StopRequested as stop:
        state.interrupt()
        show_sweep(state, console)
        print_line(f"stopped; to go on: {resume_command}", console)
        return stop.exit_code
    except DiskFullError as full:
        raise DiskFullError(f"{full}, or with all of the sweep: {resume_command}") from full
    show_sweep(state, console)
    failed = len(state.failed())
    if failed:
        print_line(
            f"{failed} of {len(state.entries)} runs failed; to try them again: {resume_command}",
            console,
        )
    return 1 if failed else 0


def run_unfinished(
    state: SweepState, console: Console, signals: SignalHandler, *, quiet: bool
) -> None:
    """What is not finished, one after another."""
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
    """One search from its start or from where it stopped; its failure is its own."""
    begin = time.monotonic()
    state.set_state(entry, RUNNING)
    ended, reason = FINISHED, ""
    try:
        search_entry(entry, state, quiet=quiet)
    except StopRequested:
        state.set_state(entry, RUNNING, seconds=time.monotonic() - begin)
        raise
    except DiskFullError:
        raise  # neither the others nor sweep.json have room
    except (UserError, AllTrialsFailedError) as error:
        ended, reason = FAILED, str(error)
    except Exception as error:
        ended, reason = FAILED, f"{type(error).__name__}: {error}"
        write_traceback(state.root, entry)
    reason = " ".join(reason.split())
    state.set_state(entry, ended, reason=reason, seconds=time.monotonic() - begin)


def search_entry(entry: SweepEntry, state: SweepState, *, quiet: bool) -> None:
    """The search itself."""
    run = state.run_folder(entry)
    if run.config.exists():
        settings = entry.settings
        repeated = {name: getattr(settings, name) for name in REPEATED_SETTINGS}
        resume_search(run.root, RunInputs(SearchProgress(quiet=quiet)), repeated)
        return
    kin = [e for e in state.entries if e != entry and e.dense_key == entry.dense_key]
    relatives = tuple(state.run_folder(one).root for one in kin)
    given = RunInputs(SearchProgress(quiet=quiet), related_runs=relatives)
    new_search(replace(entry.settings, out=run.root), given)


def check_started_runs(state: SweepState) -> None:
    """Refuse a file that has changed for a run that has begun; more trials reopen it."""
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
    """A run that has begun keeps its settings, but that its trials may grow."""
    requested = replace(
        requested,
        ensemble_images=requested.ensemble_images or kept.ensemble_images,
        artifacts=absolute_url(requested.artifacts),
    )
    as_many_or_more = requested.trials >= kept.trials
    for field in fields(SearchSettings):
        name, before, now = field.name, getattr(kept, field.name), getattr(requested, field.name)
        if (
            name in (*CHANGEABLE_SETTINGS, "out")
            or (name == "trials" and as_many_or_more)
            or before == now
        ):
            continue
        raise UserError(
            f"{run.root} must go on with its own settings, got {name} = {now} "
            f"instead of {before}; change it back, "
            "delete that folder to begin anew, or name another --out"
        )


@contextmanager
def shared_ray(
    entries: Sequence[SweepEntry], root: Path, signals: SignalHandler
) -> Iterator[None]:
    """The Ray that all runs use: each finds it running, and leaves it so."""
    ours = RunFolder(root)
    cpus = max(local_ray_cpus(entry.settings) for entry in entries)
    address = entries[0].settings.address
    start = RayRuntime(address=address, cpus=cpus, token=ours.token)
    try:
        with signals.shield(), redirect_output(ours.log):
            start.wait()
            signals.reinstall()
        yield
    finally:
        with signals.shield(), redirect_output(ours.log), start:
            pass  # leaving it ends the Ray that it started


def write_traceback(root: Path, entry: SweepEntry) -> None:
    """The whole traceback of an error that is not the user's."""
    folder = root / "errors"
    folder.mkdir(exist_ok=True)
    write_bytes_atomic(folder / f"{entry.name}.txt", traceback.format_exc().encode())


def show_sweep(state: SweepState, console: Console) -> None:
    """The joint table, why runs failed, and where the rest is."""
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
    """One row a run."""
    table = Table(title="Sweep (accuracy: validation; FLOPs: MACs)", box=box.SIMPLE)
    for head in SWEEP_COLUMNS:
        number = head in ("dense", "at target", "front", "hypervolume", "min")
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.table_cells()))
    return table


def describe_entry(row: SweepRow, entry: SweepEntry) -> str:
    """One run in one line, before it is run."""
    what = f"{row.name}: {row.model} on {row.data}, {row.target}"
    return f"{what}, {entry.settings.trials} trials: {row.state}"
