"""What a running search shows: one live line on a terminal, plain lines in a pipe, or nothing."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...spaces.cost.target import Target
from ...spaces.errors import as_called
from ...spaces.policy.policy import CONTROLS
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Dense, best_at_target, front_volume, non_dominated
from ..optimizer.trial_store import Ledger
from ..storage.trial_spec import Job, named

WARNING = "warning:"  # what such a line begins with


class Progress:
    """The display. It keeps its own handle on stdout, since Ray's processes write there."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stream: IO[str] = open_own(sys.stdout)
        self._errors: IO[str] = open_own(sys.stderr)
        self._console = Console(file=self._stream, highlight=False)
        self._live: Live | None = None
        self._start = time.monotonic()
        self._state: tuple[Ledger, Target, Dense] | None = None
        self._settled_before = 0
        self._until: float | None = None
        self._standing: dict[str, str] = {}
        self._end: float | None = None  # foretold
        self._over = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """The live line stays as it is, and the terminal is as before."""
        if self._live:
            self._live.stop()
            self._live = None
        self._stream.flush()

    def say(self, line: str) -> None:
        """One line that stays; a warning is told on stderr where nothing else is."""
        if self._quiet and line.startswith(WARNING):
            print(line, file=self._errors, flush=True)
        if not self._quiet:
            self._console.print(Text(as_called(line)), soft_wrap=True)
            self._stream.flush()

    def begin(
        self, ledger: Ledger, target: Target, dense: Dense, until: float | None = None
    ) -> None:
        """From here on trials are counted; none is to end after `until` (monotonic)."""
        self._state, self._until = (ledger, target, dense), until
        self._start, self._settled_before = time.monotonic(), ledger.settled
        self._look()
        if self._settled_before:
            self.say(f"resumed: {self._settled_before} of {ledger.total} trials were finished")
        if self._console.is_terminal and not self._quiet:
            self._live = Live(
                get_renderable=self.table, console=self._console, refresh_per_second=4
            )
            self._live.start()

    def on_trial(self, job: Job, outcome: Evaluation | str) -> None:
        """A trial is settled: it gets a line, in a pipe with where the search stands."""
        self._look()
        where = "" if self._live else f" | {self.line()}"
        self.say(f"{describe(job, outcome)}{where}")

    def line(self) -> Text:
        """Where the search stands, in one line."""
        standing = self._standing
        words = [f"{standing['trials']} trials"]
        best = standing["best at target"]
        words.append(f"best at target {best}" if best != "-" else "none at the target yet")
        if standing["failed"] != "0":
            words.append(f"{standing['failed']} failed")
        words.append(f"ETA {self.remaining()}")
        return Text(" | ".join(words))

    def table(self) -> Table:
        """Where the search stands, drawn anew several times a second on a terminal."""
        assert self._state is not None
        running = str(self._state[0].running)
        table = Table(*self._standing, "running", "ETA")
        table.add_row(*self._standing.values(), running, self.remaining())
        return table

    def _look(self) -> None:
        """Read in the ledger where the search stands: done/total, best at the target, the front,
        what came to nothing, and the end that this foretells.
        """
        assert self._state is not None
        ledger, target, dense = self._state
        record = ledger.record
        evaluations = record.evaluations()
        best = best_at_target(evaluations, target, (dense.macs, dense.params))
        self._standing = {
            "trials": self._count(ledger),
            "best at target": f"{best.accuracy:.4f}" if best else "-",
            "front": str(len(non_dominated(evaluations))),
            "hypervolume": f"{front_volume(evaluations):.4f}",
            "stopped": str(record.stopped()),
            "known": str(record.repeats()),
            "failed": str(len(record.failures())),
        }
        self._over, self._end = ledger.over, self._foretold_end(ledger)

    def _count(self, ledger: Ledger) -> str:
        """Trials that are over, and those that there will be: a time limit may allow fewer than
        are planned.
        """
        settled, total = ledger.settled, ledger.total
        if self._until is None or not ledger.may_end_early:
            return f"{settled}/{total}"
        now, done = time.monotonic(), settled - self._settled_before
        if done:
            pace = (now - self._start) / done
            fit = settled + int(max(0.0, self._until - now) / max(pace, 1e-9))
            expected = max(fit, settled + ledger.running, len(CONTROLS) + 1)
            if expected < total:
                return f"{settled} of about {expected}"
        return f"{settled} of up to {total}"

    def _foretold_end(self, ledger: Ledger) -> float | None:
        """When all is over at the pace of this launch, or at the time limit, if that is sooner."""
        now, done = time.monotonic(), ledger.settled - self._settled_before
        ends = []
        if done:
            ends.append(now + (now - self._start) / done * (ledger.total - ledger.settled))
        if self._until is not None:
            ends.append(self._until)
        return min(ends, default=None)

    def remaining(self) -> str:
        """Time to go; never more than is left of the time limit."""
        if self._end is None:
            return "--:--"
        if self._until is not None and time.monotonic() > self._until and not self._over:
            return "0:00 (over the time limit)"
        seconds = int(max(0.0, self._end - time.monotonic()))
        return f"{seconds // 60}:{seconds % 60:02d}"


def describe(job: Job, outcome: Evaluation | str) -> str:
    """One line of what came of a trial."""
    name = named(job.folder)
    if isinstance(outcome, str):
        return f"{name} {outcome}"
    return (
        f"{name}: accuracy {outcome.accuracy:.4f}, FLOPs {outcome.flops_fraction:.1%}, "
        f"params {outcome.params_fraction:.1%}, {job.policy.score}"
    )


def open_own(stream: IO[str]) -> IO[str]:
    """A stream of our own onto the present one, unaffected when its file descriptor moves."""
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return stream  # a notebook's, a test's: no file descriptor behind it
    return os.fdopen(number, "w", encoding="utf-8", errors="replace", closefd=True)
