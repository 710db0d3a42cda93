"""Ray Tune's searcher on top of the trial store: it suggests trials and records their results.

Ray's own OptunaSearch cannot be used: a NaN leaves its trial RUNNING for ever, a stopped trial is
recorded as complete, and it writes no constraints.
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

TrialOutcome = Evaluation | str  # or the reason why there is none
OnTrialEnd = Callable[[TrialSpec, TrialOutcome], None]


@dataclass(slots=True)
class RunningTrial:
    """A trial that runs or waits for a worker, and the rungs that it has reported."""

    spec: TrialSpec
    rungs: list[dict[str, Any]] = field(default_factory=list)


class TrialStoreSearcher(Searcher):
    """Suggests the next trial of the store, records its result, then calls the listener."""

    def __init__(
        self, store: TrialStore, root: Path, listener: OnTrialEnd, *, until: float | None = None
    ) -> None:
        """`until` is the monotonic time at which the planned trials must have ended."""
        super().__init__(metric="evaluation", mode="max")
        self._store, self._root, self._listener, self._until = store, root, listener, until
        self._started: dict[str, RunningTrial] = {}
        self._longest = 0.0  # seconds of the longest trial so far, without its wait for a worker

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next trial; None if there is none now, FINISHED if there will be none."""
        with interrupt_on_full_disk():
            self._drop_late_trials()
            spec = self._store.next_trial()
        if spec is None:
            return str(Searcher.FINISHED) if self._store.is_finished else None
        self._started[trial_id] = RunningTrial(spec)
        plain = spec.control is None and spec.continues is None
        return {
            "job": spec.to_json(),
            "root": str(self._root),
            "judged": plain,
            "exempt": spec.origin.startswith("preset:"),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember a rung that a running trial has reported."""
        if result.get("rung"):
            self._started[trial_id].rungs.append(json.loads(result["rung"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record the result of a trial in the store."""
        started = self._started.pop(trial_id, None)
        if started is not None:
            result = result or {}
            self._longest = max(self._longest, result.get("time_total_s", 0.0))
            with interrupt_on_full_disk():
                outcome = self._settle(started, result, error)
                self._drop_late_trials()  # before the listener shows how many trials are left
            self._listener(started.spec, outcome)

    def fail_running(self, reason: str) -> bool:
        """Record all running trials as failed; return False if none was running."""
        lost, self._started = list(self._started.values()), {}
        for started in lost:
            with interrupt_on_full_disk():
                outcome = self._fail(started.spec, reason)
            self._listener(started.spec, outcome)
        return bool(lost)

    def _drop_late_trials(self) -> None:
        """Drop the trials not yet started if, at the longest duration, none would end in time."""
        if self._until is not None and time.monotonic() + self._longest > self._until:
            self._store.drop_unstarted()

    def _settle(self, started: RunningTrial, result: dict[str, Any], error: bool) -> TrialOutcome:
        """Record the result and return it."""
        if not error and result.get("full"):  # the disk failed, not the trial
            raise DiskFullInterrupt(json.loads(result["full"]))
        spec, values = started.spec, result.get("evaluation")
        if not error and values:
            evaluation = evaluation_from_json(json.loads(values))
            spans = json.loads(result["spans"])
            self._store.finish(spec, evaluation, {**spans, "rungs": started.rungs})
            return evaluation
        if not error and result.get("rung"):
            last = json.loads(result["rung"])  # Tune reports the last rung here only
            rung, spans = RungResult(**last), json.loads(result["spans"])
            self._store.stop(spec, {**spans, "rungs": [*started.rungs, last]})
            return f"stopped at rung {rung.index} with accuracy {rung.accuracy:.4f}"
        return self._fail(spec, self._reason(spec, result, error))

    def _fail(self, spec: TrialSpec, reason: str) -> str:
        retry = "; it is tried again" if self._store.fail(spec, reason) else ""
        return f"failed: {reason}{retry}"

    def _reason(self, spec: TrialSpec, result: dict[str, Any], error: bool) -> str:
        """Return why there is no evaluation."""
        timeout = self._root / "trials" / spec.folder / TIMEOUT_FILE
        if timeout.exists():
            return timeout.read_text()
        failure = None if error else result.get("failure")
        return str(json.loads(failure)) if failure else WORKER_DIED

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its searcher to restore it, and we never restore."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a new driver reads the journal."""
