"""The seam between Ray Tune and the ledger: Tune asks for configs, the ledger is told results.

Ray's own OptunaSearch cannot be used: a NaN leaves its trial RUNNING for ever, a stopped trial is
told as complete, and it writes no constraints.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from ...spaces.records.evaluation import Evaluation, evaluation_from_json
from ..config.errors import DiskFullInterrupt, interrupt_on_full_disk
from ..optimizer.trial_store import TrialStore
from ..storage.trial_records import WORKER_DIED
from ..storage.trial_spec import RungResult, TrialSpec
from .trainable import TIMEOUT_FILE

TrialOutcome = Evaluation | str  # what came of a trial, or why nothing did
OnTrialEnd = Callable[[TrialSpec, TrialOutcome], None]


@dataclass(slots=True)
class RunningTrial:
    """A job that runs, or waits for a worker, and the rungs that it has been seen at."""

    spec: TrialSpec
    rungs: list[dict[str, Any]] = field(default_factory=list)


class TrialStoreSearcher(Searcher):
    """Suggest what the ledger asks for; tell it what came of it, then tell the listener."""

    def __init__(
        self, store: TrialStore, root: Path, listener: OnTrialEnd, *, until: float | None = None
    ) -> None:
        """`until`: the time (monotonic) by which the trials of the plan are to end."""
        super().__init__(metric="evaluation", mode="max")
        self._ledger, self._root, self._listener, self._until = store, root, listener, until
        self._started: dict[str, RunningTrial] = {}
        self._longest = 0.0  # seconds that a trial took so far, once it had a worker

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next job; None if there is none now, FINISHED if there will be none."""
        with interrupt_on_full_disk():
            self._look_at_the_clock()
            job = self._ledger.next_trial()
        if job is None:
            return str(Searcher.FINISHED) if self._ledger.is_finished else None
        self._started[trial_id] = RunningTrial(job)
        plain = job.control is None and job.continues is None
        return {
            "job": job.to_json(),
            "root": str(self._root),
            "judged": plain,
            "exempt": job.origin.startswith("preset:"),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember the rungs of a running trial."""
        if result.get("rung"):
            self._started[trial_id].rungs.append(json.loads(result["rung"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Settle the trial in the ledger."""
        started = self._started.pop(trial_id, None)
        if started is not None:
            result = result or {}
            self._longest = max(self._longest, result.get("time_total_s", 0.0))
            with interrupt_on_full_disk():
                outcome = self._settle(started, result, error)
                self._look_at_the_clock()  # before it is shown how many trials are left
            self._listener(started.spec, outcome)

    def fail_running(self, reason: str) -> bool:
        """Give up all that runs, its workers being gone; False if nothing did."""
        lost, self._started = list(self._started.values()), {}
        for started in lost:
            with interrupt_on_full_disk():
                outcome = self._fail(started.spec, reason)
            self._listener(started.spec, outcome)
        return bool(lost)

    def _look_at_the_clock(self) -> None:
        """End the plan if no other trial would end in time."""
        if self._until is not None and time.monotonic() + self._longest > self._until:
            self._ledger.drop_unstarted()

    def _settle(self, started: RunningTrial, result: dict[str, Any], error: bool) -> TrialOutcome:
        """Tell the ledger; return what it was told."""
        if not error and result.get("full"):  # it is not the trial that failed
            raise DiskFullInterrupt(json.loads(result["full"]))
        job, values = started.spec, result.get("evaluation")
        if not error and values:
            evaluation = evaluation_from_json(json.loads(values))
            spans = json.loads(result["spans"])
            self._ledger.finish(job, evaluation, {**spans, "rungs": started.rungs})
            return evaluation
        if not error and result.get("rung"):
            last = json.loads(result["rung"])  # Tune tells of it here alone
            rung, spans = RungResult(**last), json.loads(result["spans"])
            self._ledger.stop(job, {**spans, "rungs": [*started.rungs, last]})
            return f"stopped at rung {rung.index} with accuracy {rung.accuracy:.4f}"
        return self._fail(job, self._reason(job, result, error))

    def _fail(self, spec: TrialSpec, reason: str) -> str:
        again = "; it is tried again" if self._ledger.fail(spec, reason) else ""
        return f"failed: {reason}{again}"

    def _reason(self, spec: TrialSpec, result: dict[str, Any], error: bool) -> str:
        """Why there is no evaluation."""
        told = self._root / "trials" / spec.folder / TIMEOUT_FILE
        if told.exists():
            return told.read_text()
        failure = None if error else result.get("failure")
        return str(json.loads(failure)) if failure else WORKER_DIED

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher to restore it; we never restore, so nothing goes along."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a new driver reads the journal."""
