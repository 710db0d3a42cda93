"""The Ray Tune scheduler that stops trials by Pareto halving."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from ..optimizer.pareto_halving import ParetoHalving
from ..storage.trial_spec import RungResult


class ParetoHalvingScheduler(FIFOScheduler):
    """Passes each reported rung to `ParetoHalving`. Exempt trials always continue.

    An idle worker gets the trial that Tune added last. Tune's own choice is the oldest trial that
    still waits for a new worker to start, and Tune then kills that starting worker. If trials end
    faster than a worker starts, no new worker would ever become ready.
    """

    def __init__(self, halving: ParetoHalving) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._halving = halving
        self._added: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Remember the trial; no worker starts for it yet."""
        self._added = trial

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the trial that was just added. Tune itself starts workers for the others."""
        added, self._added = self._added, None
        return added

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether the trial continues or stops."""
        text = result.get("rung")
        if not text:
            return str(self.CONTINUE)
        should_continue = self._halving.should_continue(RungResult(**json.loads(text)))
        exempt = bool(trial.config["exempt"])
        return str(self.CONTINUE if should_continue or exempt else self.STOP)
