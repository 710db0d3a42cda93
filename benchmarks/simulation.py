"""The scheduler under load: many workers on one machine, whose trials only sleep.

    python -m benchmarks.simulation [--workers N] [--seconds S] [--each T] [--out FILE]

Everything but the trials is real: Ray Tune, the searcher, the halving, the ledger on disk. A trial
imports no torch, is judged once in its middle, and is never stopped. The figures: efficiency (the
workers' time inside trials / workers * wall, as a search reports it of itself), how long the
workers took to start (this machine starts them all at once), and the efficiency after that.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from ray import tune

from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.execution.ray_runtime import RayRuntime
from paretoprune.search.execution.signals import SignalHandler
from paretoprune.search.execution.tune_runner import StopCallback, run_trials_with_tune
from paretoprune.search.execution.tune_searcher import TrialStoreSearcher
from paretoprune.search.optimizer.pareto_halving import ParetoHalving
from paretoprune.search.optimizer.plan import PlannedTrial
from paretoprune.search.optimizer.proposer import Proposer
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.search.optimizer.search_spec import SearchSpec
from paretoprune.search.optimizer.trial_store import TrialStore
from paretoprune.search.results.utilization import utilization_from_spans
from paretoprune.search.trial.context import TrialContext
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.io.atomic_write import write_json_atomic
from paretoprune.spaces.records.pareto_front import DenseMetrics
from paretoprune.trainers.runtime.device import DeviceConfig


def accuracy_of(policy: dict[str, Any], target: dict[str, Any]) -> float:
    """A figure of the policy and its size, spread over all there are: no two trials tie."""
    return zlib.crc32(json.dumps([policy, target], sort_keys=True).encode()) / 2**32


def sleeping(seconds: float) -> Any:
    """A trial that takes so long and reports what a real one does; shipped by value."""

    def carry_out(config: dict[str, Any], shared: Any) -> None:
        job, begin = config["job"], time.time()
        names = ("evaluation", "spans", "rung", "failure", "full")

        def report(**values: Any) -> None:
            tune.report({k: json.dumps(values[k]) if k in values else None for k in names})

        flops = job["target"]["flops"]
        accuracy = accuracy_of(job["policy"], job["target"])
        time.sleep(seconds / 2)
        if config["judged"]:
            report(
                rung={"index": 0, "accuracy": accuracy, "flops": flops, "params": 0.5},
                spans={"begin": begin, "seconds": {"until_rung": seconds / 2}},
            )
        time.sleep(seconds / 2)
        folder = f"control-{job['control']}" if job["control"] else str(job["number"])
        evaluation = {
            "trial": job["number"], "accuracy": accuracy, "loss": 1.0, "macs": int(1e6 * flops),
            "params": 500, "flops_fraction": flops, "params_fraction": 0.5, "epochs": 1.0,
            "seconds": seconds, "policy": job["policy"], "target": job["target"],
            "path": f"trials/{folder}",
        }  # fmt: skip
        report(evaluation=evaluation, spans={"begin": begin, "seconds": {"training": seconds}})

    return carry_out


class NeverStops(ParetoHalving):
    """Judges every rung as ever, and lets all go on: the wall is that of whole trials."""

    def should_continue(self, rung: Any) -> bool:
        """Yes."""
        super().should_continue(rung)
        return True


def ledger_of(root: Path, slots: int) -> TrialStore:
    """A real ledger with so many slots; no two policies have the same network."""
    target = Target(flops=0.4)
    rng = np.random.default_rng(0)
    plan = [
        PlannedTrial(i, Target(flops=round(float(rng.uniform(0.2, 0.8)), 6))) for i in range(slots)
    ]
    space = PolicySpace(("l2", "mean-abs-weight", "taylor"), stages=2)
    proposer = Proposer(space, {}, lambda policy, target: None, "tpe", 0)
    ledger = TrialStore(root / "journal.log", SearchSpec(plan, target, 0), proposer)
    ledger.set_summary(DenseMetrics(0.9, 1_000_000, 1000))
    return ledger


def simulate(workers: int, each: int, carry_out: Any) -> dict[str, Any]:
    """Run workers * each trials, the two controls among them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ledger = ledger_of(root, workers * each - 2)
        settings = SearchSettings(target_flops="0.4", workers=workers)
        machine = DeviceConfig(device="cpu")
        context = cast(
            TrialContext, SimpleNamespace(root=root, machine=machine)
        )  # all that is read
        begin = time.monotonic()
        with RayRuntime(address=None, cpus=workers, token=root / ".ray-token") as runtime:
            scratch = runtime.start()
            searcher = TrialStoreSearcher(ledger, root, lambda job, outcome: None)
            run_trials_with_tune(
                searcher, context, settings, StopCallback(SignalHandler()), scratch,
                NeverStops(), carry_out,
            )  # fmt: skip
        return figures_of(ledger, workers, each, time.monotonic() - begin)


def figures_of(ledger: TrialStore, workers: int, each: int, wall: float) -> dict[str, Any]:
    """What the spans in the ledger say."""
    trials = [t for study in ("search", "controls") for t in ledger.records.trials(study)]
    spans = [t.user_attrs["spans"] for t in trials if "spans" in t.user_attrs]
    begins = sorted(one["begin"] for one in spans)
    started = begins[workers - 1]  # every worker has begun its first trial
    whole = utilization_from_spans(spans, workers)
    after = utilization_from_spans([one for one in spans if one["begin"] >= started], workers)
    assert whole is not None
    assert after is not None
    return {
        "trials": len(spans),
        "workers": workers,
        "each": each,
        "cores": len(os.sched_getaffinity(0)),
        "efficiency": round(whole.share, 4),
        "efficiency_once_started": round(after.share, 4),
        "first_to_last_worker_seconds": round(started - begins[0], 1),
        "wall_seconds": round(wall, 1),
    }


def main() -> None:
    """Print the figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--each", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/simulation.json"))
    given = parser.parse_args()
    carry_out = sleeping(given.seconds)
    found = {"seconds": given.seconds, **simulate(given.workers, given.each, carry_out)}
    print(json.dumps(found, indent=2))
    write_json_atomic(given.out, found)


if __name__ == "__main__":
    main()
