"""The seam between Ray Tune and the ledger: Tune asks for configs, the ledger is told results.

Ray's own OptunaSearch cannot be used: a NaN leaves its trial RUNNING for ever, a stopped trial is
told as complete, and it writes no constraints.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from ..spaces.evaluation import Evaluation, evaluation_from_json
from .job import Job
from .ledger import Ledger

Listener = Callable[[Job, Evaluation | str], None]


class LedgerSearcher(Searcher):
    """Suggest what the ledger asks for; tell it what came of it, then tell the listener."""

    def __init__(self, ledger: Ledger, root: Path, listener: Listener) -> None:
        super().__init__(metric="evaluation", mode="max")
        self._ledger, self._root, self._listener = ledger, root, listener
        self._jobs: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next job, or FINISHED."""
        job = self._ledger.next_job()
        if job is None:
            return str(Searcher.FINISHED)
        self._jobs[trial_id] = job
        return {"job": job.to_json(), "root": str(self._root)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Settle the trial in the ledger."""
        job = self._jobs.pop(trial_id, None)
        if job is not None:
            self._listener(job, self._settle(job, result or {}, error))

    def _settle(self, job: Job, result: dict[str, Any], error: bool) -> Evaluation | str:
        """Tell the ledger; return what it was told."""
        values = result.get("evaluation")
        if values is None or error:
            reason = str(result.get("failure") or "the worker process died")
            self._ledger.fail(job, reason)
            return reason
        evaluation = evaluation_from_json(json.loads(values))
        self._ledger.finish(job, evaluation)
        return evaluation

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher to restore it; we never restore, so nothing goes along."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a new driver reads the journal."""
