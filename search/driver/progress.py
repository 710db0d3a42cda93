"""Progress of a search: a live table on a terminal, plain lines in a pipe, or nothing."""

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

WARNING = "warning:"  # prefix of a line


class SearchProgress:
    """The progress display. It keeps its own handle on stdout, which is redirected meanwhile."""

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
        self._end: float | None = None  # predicted
        self._is_finished = False

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
        """End the live table, leaving its last state on the terminal."""
        if self._live:
            self._live.stop()
            self._live = None
        self._stream.flush()

    def log(self, line: str) -> None:
        """Print a line. With --quiet, print warnings only, on stderr."""
        if self._quiet and line.startswith(WARNING):
            print(line, file=self._errors, flush=True)
        if not self._quiet:
            self._console.print(Text(as_called(line)), soft_wrap=True)
            self._stream.flush()

    def begin(
        self, store: TrialStore, target: Target, dense: DenseMetrics, until: float | None = None
    ) -> None:
        """Start to count trials; `until` is the monotonic time of the deadline."""
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
        """Print a line about a trial that has ended; in a pipe, add the status of the search."""
        self._update_status()
        status = "" if self._live else f" | {self.status_line()}"
        self.log(f"{describe_outcome(spec, outcome)}{status}")

    def status_line(self) -> Text:
        """Return the status of the search as one line."""
        status = self._status
        parts = [f"{status['trials']} trials"]
        best = status["best at target"]
        parts.append(f"best at target {best}" if best != "-" else "none at the target yet")
        if status["failed"] != "0":
            parts.append(f"{status['failed']} failed")
        late = (
            self._deadline is not None
            and time.monotonic() > self._deadline
            and not self._is_finished
        )
        parts.append(f"ETA {self.time_remaining()}{' (over the time limit)' if late else ''}")
        return Text(" | ".join(parts))

    def status_table(self) -> Table:
        """Return the status as a table; a terminal redraws it several times a second."""
        assert self._state is not None
        running = str(self._state[0].running)
        table = Table(*self._status, "running", "ETA")
        table.add_row(*self._status.values(), running, self.time_remaining())
        return table

    def _update_status(self) -> None:
        """Read the status from the store: trials, best at the target, front, failures, ETA."""
        assert self._state is not None
        store, target, dense = self._state
        records = store.records
        evaluations = records.evaluations()
        best = best_at_target(evaluations, target, (dense.macs, dense.params))
        self._status = {
            "trials": self._count(store),
            "best at target": f"{best.accuracy:.4f}" if best else "-",
            "front": str(len(non_dominated(evaluations))),
            "hypervolume": f"{front_hypervolume(evaluations):.4f}",
            "stopped": str(records.count_stopped()),
            "known": str(records.count_duplicates()),
            "failed": str(len(records.failures())),
        }
        self._is_finished, self._end = store.is_finished, self._predict_end(store)

    def _count(self, store: TrialStore) -> str:
        """Return the settled trials and the expected total, which a time limit may reduce."""
        settled, total = store.settled, store.total
        if self._deadline is None or not store.may_end_early:
            return f"{settled}/{total}"
        now, done = time.monotonic(), settled - self._settled_before
        if done:
            pace = (now - self._start) / done
            fitting = settled + int(max(0.0, self._deadline - now) / max(pace, 1e-9))
            expected = max(fitting, settled + store.running, len(CONTROL_POLICIES) + 1)
            if expected < total:
                return f"{settled} of about {expected}"
        return f"{settled} of up to {total}"

    def _predict_end(self, store: TrialStore) -> float | None:
        """Return the end at the present pace, or the deadline if that is sooner."""
        now, done = time.monotonic(), store.settled - self._settled_before
        ends = []
        if done:
            ends.append(now + (now - self._start) / done * (store.total - store.settled))
        if self._deadline is not None:
            ends.append(self._deadline)
        return min(ends, default=None)

    def time_remaining(self) -> str:
        """Return the remaining time, at most that until the deadline."""
        if self._end is None:
            return "--:--"
        seconds = int(max(0.0, self._end - time.monotonic()))
        return f"{seconds // 60}:{seconds % 60:02d}"


def describe_outcome(spec: TrialSpec, outcome: Evaluation | str) -> str:
    """Return the result of a trial as one line."""
    name = trial_title(spec.folder)
    if isinstance(outcome, str):
        return f"{name} {outcome}"
    return (
        f"{name}: accuracy {outcome.accuracy:.4f}, FLOPs {outcome.flops_fraction:.1%}, "
        f"params {outcome.params_fraction:.1%}, {spec.policy.score}"
    )


def open_own(stream: IO[str]) -> IO[str]:
    """Duplicate a stream, so that redirecting its file descriptor does not affect it."""
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return stream  # a notebook or a test: no file descriptor behind it
    return os.fdopen(number, "w", encoding="utf-8", errors="replace", closefd=True)
