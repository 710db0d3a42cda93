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

from ...analysis.report.sweep import HEADS, Row
from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes
from ...trainers.data.sources.load import SOURCES
from ...trainers.models.build import ZOO
from ..config.disk_errors import DiskFull
from ..config.settings import SearchSettings, settings_from_json
from ..driver.prepare import check_images, weights_exist
from ..driver.progress import Progress
from ..driver.resume import FREE
from ..driver.search import AllFailed, Given, new_search, resume_search
from ..execution.fd_redirect import output_to
from ..execution.ray_runtime import RayStart, cpus_of
from ..execution.signals import Stopped, Stopping
from ..optimizer.plugins import plugged, read_plugin
from ..optimizer.search_space import space_from
from ..results.formatting import plain_console, say
from ..storage.artifacts import lasting
from ..storage.run_folder import (
    FIRST,
    RunFolder,
    as_it_was,
    check_local,
    locked,
    not_there,
    open_run,
    remove_empty,
    take_back,
)
from .config import Entry
from .state import FAILED, FINISHED, RUNNING, SweepState, not_writable

REPEATED = (*FREE, "trials", "model", "data", "plugin")  # of a run that goes on


def sweep_command(
    entries: Sequence[Entry], root: Path, again: str, *, dry_run: bool, quiet: bool
) -> int:
    """`paretoprune sweep`: the exit code, 1 if a run failed; `again` is the line that goes on."""
    check_sources(entries)
    check_local(root)
    console = plain_console()
    if dry_run:
        state = SweepState(root, entries)
        check_begun(state)
        for row, entry in zip(state.rows(), entries, strict=True):
            say(describe(row, entry), console)
        return 0
    made = not_there(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(root, error) from None
    with locked(RunFolder(root), "sweep"):
        try:
            with as_it_was(root):
                return carry_out(SweepState(root, entries), console, again, quiet=quiet)
        except UserError:
            if made:
                take_back(root, names=FIRST)
                remove_empty(made)
            raise


def check_sources(entries: Sequence[Entry]) -> None:
    """Refuse what no run could begin with: names and files, before anything is spent."""
    for entry in entries:
        settings = entry.settings
        weights_exist(settings.weights)
        check_images(settings.images(), settings.data, None)
        words = settings.words
        with plugged([read_plugin(path) for path in settings.plugin]):
            space_from(words("scores"), words("allocations"), words("schedules"), stages=1)
        for what, name, known in (
            ("model", settings.model, (*ZOO, "torchvision:NAME")),
            ("data", settings.data, ("digits", *(f"{n}:DIR" for n in SOURCES if n != "digits"))),
        ):
            if name not in known and ":" not in name:
                raise UserError(
                    f"{what} must be one of {', '.join(known)} or module:function, got {name!r}"
                )


def carry_out(state: SweepState, console: Console, again: str, *, quiet: bool) -> int:
    """Run what is not finished, then show the table."""
    check_begun(state)
    stopping = Stopping()
    try:
        with stopping.listening():
            run_all(state, console, stopping, quiet=quiet)
    except Stopped as stop:
        state.interrupt()
        show_sweep(state, console)
        say(f"stopped; to go on: {again}", console)
        return stop.exit_code
    except DiskFull as full:
        raise DiskFull(f"{full}, or with all of the sweep: {again}") from full
    show_sweep(state, console)
    failed = len(state.failed())
    if failed:
        say(f"{failed} of {len(state.entries)} runs failed; to try them again: {again}", console)
    return 1 if failed else 0


def run_all(state: SweepState, console: Console, stopping: Stopping, *, quiet: bool) -> None:
    """What is not finished, one after another."""
    state.write()
    entries = state.unfinished()
    if not entries:
        return
    with one_ray(entries, state.root, stopping):
        for entry in entries:
            if not quiet:
                number = state.entries.index(entry) + 1
                say(f"[{number}/{len(state.entries)}] {entry.name}", console)
            run_entry(entry, state, quiet=quiet)


def run_entry(entry: Entry, state: SweepState, *, quiet: bool) -> None:
    """One search from its start or from where it stopped; its failure is its own."""
    begin = time.monotonic()
    state.change(entry, RUNNING)
    ended, reason = FINISHED, ""
    try:
        search(entry, state, quiet=quiet)
    except Stopped:
        state.change(entry, RUNNING, seconds=time.monotonic() - begin)
        raise
    except DiskFull:
        raise  # neither the others nor sweep.json have room
    except (UserError, AllFailed) as error:
        ended, reason = FAILED, str(error)
    except Exception as error:
        ended, reason = FAILED, f"{type(error).__name__}: {error}"
        keep_traceback(state.root, entry)
    reason = " ".join(reason.split())
    state.change(entry, ended, reason=reason, seconds=time.monotonic() - begin)


def search(entry: Entry, state: SweepState, *, quiet: bool) -> None:
    """The search itself."""
    run = state.run(entry)
    if run.config.exists():
        settings = entry.settings
        repeated = {name: getattr(settings, name) for name in REPEATED}
        resume_search(run.root, Given(Progress(quiet=quiet)), repeated)
        return
    kin = [e for e in state.entries if e != entry and e.dense_key == entry.dense_key]
    relatives = tuple(state.run(one).root for one in kin)
    given = Given(Progress(quiet=quiet), relatives=relatives)
    new_search(replace(entry.settings, out=run.root), given)


def check_begun(state: SweepState) -> None:
    """Refuse a file that has changed for a run that has begun; more trials reopen it."""
    for entry in state.entries:
        run = state.run(entry)
        if run.config.exists():
            kept = settings_from_json(open_run(run.root)[1]["settings"])
            check_same(run, kept, entry.settings)
            if entry.settings.trials > kept.trials:
                state.reopen(entry)


def check_same(run: RunFolder, kept: SearchSettings, asked: SearchSettings) -> None:
    """A run that has begun keeps its settings, but that its trials may grow."""
    asked = replace(
        asked,
        ensemble_images=asked.ensemble_images or kept.ensemble_images,
        artifacts=lasting(asked.artifacts),
    )
    as_many_or_more = asked.trials >= kept.trials
    for field in fields(SearchSettings):
        name, before, now = field.name, getattr(kept, field.name), getattr(asked, field.name)
        if name in (*FREE, "out") or (name == "trials" and as_many_or_more) or before == now:
            continue
        raise UserError(
            f"{run.root} must go on with its own settings, got {name} = {now} "
            f"instead of {before}; change it back, "
            "delete that folder to begin anew, or name another --out"
        )


@contextmanager
def one_ray(entries: Sequence[Entry], root: Path, stopping: Stopping) -> Iterator[None]:
    """The Ray that all runs use: each finds it running, and leaves it so."""
    ours = RunFolder(root)
    cpus = max(cpus_of(entry.settings) for entry in entries)
    address = entries[0].settings.address
    start = RayStart(address=address, cpus=cpus, token=ours.token)
    try:
        with stopping.shield(), output_to(ours.log):
            start.wait()
            stopping.listen_again()
        yield
    finally:
        with stopping.shield(), output_to(ours.log), start:
            pass  # leaving it ends the Ray that it started


def keep_traceback(root: Path, entry: Entry) -> None:
    """The whole traceback of an error that is not the user's."""
    folder = root / "errors"
    folder.mkdir(exist_ok=True)
    write_bytes(folder / f"{entry.name}.txt", traceback.format_exc().encode())


def show_sweep(state: SweepState, console: Console) -> None:
    """The joint table, why runs failed, and where the rest is."""
    rows = state.rows()
    console.print(sweep_table(rows))
    for row in state.failed():
        say(f"{row.name}: {row.reason}", console)
    say(f"runs: {state.root}/NAME; joint report: {state.root / 'report.html'}", console)
    finished = [row for row in rows if row.state == FINISHED]
    if finished:
        folder = shlex.quote(str(state.root / finished[0].name))
        say(f"to pick: paretoprune pick {folder} --knee --out picked", console)


def sweep_table(rows: Sequence[Row]) -> Table:
    """One row a run."""
    table = Table(title="Sweep (accuracy: validation; FLOPs: MACs)", box=box.SIMPLE)
    for head in HEADS:
        number = head in ("dense", "at target", "front", "hypervolume", "min")
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row.cells()))
    return table


def describe(row: Row, entry: Entry) -> str:
    """One run in one line, before it is run."""
    what = f"{row.name}: {row.model} on {row.data}, {row.target}"
    return f"{what}, {entry.settings.trials} trials: {row.state}"
