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
from ...spaces.policy.policy import CONTROL_POLICIES
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import (
    DenseMetrics,
    best_at_target,
    front_hypervolume,
    non_dominated,
)
from ..optimizer.trial_store import TrialStore
from ..storage.trial_spec import TrialSpec, trial_title

WARNING = "warning:"  # what such a line begins with


class SearchProgress:
    """The display. It keeps its own handle on stdout, since Ray's processes write there."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stream: IO[str] = open_own(sys.stdout)
        self._errors: IO[str] = open_own(sys.stderr)
        self._console = Console(file=self._stream, highlight=False)
        self._live: Live | None = None
        self._start = time.monotonic()
        self._state: tuple[TrialStore, Target, DenseMetrics] | None = None
        self._settled_before = 0
        self._deadline: float | None = None
        self._status: dict[str, str] = {}
        self._end: float | None = None  # foretold
        self._over = False

    def __enter__(self) -> SearchProgress:
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

    def log(self, line: str) -> None:
        """One line that stays; a warning is told on stderr where nothing else is."""
        if self._quiet and line.startswith(WARNING):
            print(line, file=self._errors, flush=True)
        if not self._quiet:
            self._console.print(Text(as_called(line)), soft_wrap=True)
            self._stream.flush()

    def begin(
        self, store: TrialStore, target: Target, dense: DenseMetrics, until: float | None = None
    ) -> None:
        """From here on trials are counted; none is to end after `until` (monotonic)."""
        self._state, self._deadline = (store, target, dense), until
        self._start, self._settled_before = time.monotonic(), store.settled
        self._update_status()
        if self._settled_before:
            self.log(f"resumed: {self._settled_before} of {store.total} trials were finished")
        if self._console.is_terminal and not self._quiet:
            self._live = Live(
                get_renderable=self.status_table, console=self._console, refresh_per_second=4
            )
            self._live.start()

    def on_trial(self, spec: TrialSpec, outcome: Evaluation | str) -> None:
        """A trial is settled: it gets a line, in a pipe with where the search stands."""
        self._update_status()
        where = "" if self._live else f" | {self.status_line()}"
        self.log(f"{describe_outcome(spec, outcome)}{where}")

    def status_line(self) -> Text:
        """Where the search stands, in one line."""
        standing = self._status
        words = [f"{standing['trials']} trials"]
        best = standing["best at target"]
        words.append(f"best at target {best}" if best != "-" else "none at the target yet")
        if standing["failed"] != "0":
            words.append(f"{standing['failed']} failed")
        words.append(f"ETA {self.time_remaining()}")
        return Text(" | ".join(words))

    def status_table(self) -> Table:
        """Where the search stands, drawn anew several times a second on a terminal."""
        assert self._state is not None
        running = str(self._state[0].running)
        table = Table(*self._status, "running", "ETA")
        table.add_row(*self._status.values(), running, self.time_remaining())
        return table

    def _update_status(self) -> None:
        """Read in the ledger where the search stands: done/total, best at the target, the front,
        what came to nothing, and the end that this foretells.
        """
        assert self._state is not None
        ledger, target, dense = self._state
        record = ledger.records
        evaluations = record.evaluations()
        best = best_at_target(evaluations, target, (dense.macs, dense.params))
        self._status = {
            "trials": self._count(ledger),
            "best at target": f"{best.accuracy:.4f}" if best else "-",
            "front": str(len(non_dominated(evaluations))),
            "hypervolume": f"{front_hypervolume(evaluations):.4f}",
            "stopped": str(record.count_stopped()),
            "known": str(record.count_duplicates()),
            "failed": str(len(record.failures())),
        }
        self._over, self._end = ledger.is_finished, self._predict_end(ledger)

    def _count(self, ledger: TrialStore) -> str:
        """Trials that are over, and those that there will be: a time limit may allow fewer than
        are planned.
        """
        settled, total = ledger.settled, ledger.total
        if self._deadline is None or not ledger.may_end_early:
            return f"{settled}/{total}"
        now, done = time.monotonic(), settled - self._settled_before
        if done:
            pace = (now - self._start) / done
            fit = settled + int(max(0.0, self._deadline - now) / max(pace, 1e-9))
            expected = max(fit, settled + ledger.running, len(CONTROL_POLICIES) + 1)
            if expected < total:
                return f"{settled} of about {expected}"
        return f"{settled} of up to {total}"

    def _predict_end(self, store: TrialStore) -> float | None:
        """When all is over at the pace of this launch, or at the time limit, if that is sooner."""
        now, done = time.monotonic(), store.settled - self._settled_before
        ends = []
        if done:
            ends.append(now + (now - self._start) / done * (store.total - store.settled))
        if self._deadline is not None:
            ends.append(self._deadline)
        return min(ends, default=None)

    def time_remaining(self) -> str:
        """Time to go; never more than is left of the time limit."""
        if self._end is None:
            return "--:--"
        if self._deadline is not None and time.monotonic() > self._deadline and not self._over:
            return "0:00 (over the time limit)"
        seconds = int(max(0.0, self._end - time.monotonic()))
        return f"{seconds // 60}:{seconds % 60:02d}"


def describe_outcome(spec: TrialSpec, outcome: Evaluation | str) -> str:
    """One line of what came of a trial."""
    name = trial_title(spec.folder)
    if isinstance(outcome, str):
        return f"{name} {outcome}"
    return (
        f"{name}: accuracy {outcome.accuracy:.4f}, FLOPs {outcome.flops_fraction:.1%}, "
        f"params {outcome.params_fraction:.1%}, {spec.policy.score}"
    )


def open_own(stream: IO[str]) -> IO[str]:
    """A stream of our own onto the present one, unaffected when its file descriptor moves."""
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return stream  # a notebook's, a test's: no file descriptor behind it
    return os.fdopen(number, "w", encoding="utf-8", errors="replace", closefd=True)
